//! What a developer wants to be different.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::is_simulated;
use crate::Subject;
use crate::checkout::{self, Mode};
use crate::input::{self, Invalid};

/// More than Stripe takes in any currency, and little enough that sums cannot overflow.
const MAX_AMOUNT: i64 = 999_999_999_999;
const MAX_QUANTITY: i64 = 999;

/// The overrides, read.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub subject: Option<Subject>,
    /// The app's own.
    pub metadata: Map<String, Value>,
    /// Of one piece, of a refund or of a dispute, in minor units.
    pub amount: Option<i64>,
    pub currency: Option<String>,
    pub quantity: Option<i64>,
    pub lookup_key: Option<String>,
    /// The buyer's e-mail address.
    pub email: Option<String>,
    pub mode: Option<Mode>,
    /// Ids of the objects to continue on, by their type.
    pub named: BTreeMap<&'static str, String>,
    /// Anything else: fields of the event's object.
    pub fields: Map<String, Value>,
}

/// How an override names an object, and the object's type.
const NAMES: [(&str, &str); 10] = [
    ("charge", "charge"),
    ("checkout_session", "checkout.session"),
    ("customer", "customer"),
    ("dispute", "dispute"),
    ("invoice", "invoice"),
    ("payment_intent", "payment_intent"),
    ("price", "price"),
    ("product", "product"),
    ("refund", "refund"),
    ("subscription", "subscription"),
];

/// What makes an object that object, and a simulated one simulated.
const FIXED: [&str; 4] = ["created", "deleted", "livemode", "object"];

impl Overrides {
    /// Reads the overrides for an event of this type.
    pub fn parse(kind: &str, value: &Value) -> Result<Self, Invalid> {
        let given = value
            .as_object()
            .ok_or_else(|| invalid("overrides must be a JSON object"))?;
        let mut read = Self::default();
        for (key, value) in given {
            read.take(kind, key, value)?;
        }
        Ok(read)
    }

    fn take(&mut self, kind: &str, key: &str, value: &Value) -> Result<(), Invalid> {
        let object_type = NAMES.iter().find(|(name, _)| *name == key);
        let object_type = object_type.map(|(_, object_type)| *object_type);
        match key {
            "subject" => {
                self.subject = Some(Subject::parse("subject", value).map_err(in_overrides)?)
            }
            "metadata" => {
                let metadata = checkout::metadata(value).map_err(in_overrides)?;
                self.metadata
                    .extend(metadata.into_iter().map(|(key, text)| (key, text.into())));
            }
            "amount" => self.amount = Some(number(key, value, 0, MAX_AMOUNT)?),
            "quantity" => self.quantity = Some(number(key, value, 1, MAX_QUANTITY)?),
            "currency" => self.currency = Some(text(key, value, 3)?.to_lowercase()),
            "lookup_key" => self.lookup_key = Some(text(key, value, 200)?),
            "customer_email" => self.email = Some(text(key, value, 254)?),
            "mode" => {
                let mode = Mode::parse(&text(key, value, 20)?).map_err(in_overrides)?;
                self.mode = Some(mode);
            }
            "id" => {
                let own = object_type_of(kind);
                self.named.insert(own, simulated(key, value)?);
            }
            _ if FIXED.contains(&key) => {
                return Err(invalid(format!("overrides.{key} cannot be set")));
            }
            _ => match object_type {
                Some(object_type) => {
                    self.named.insert(object_type, simulated(key, value)?);
                }
                None => {
                    self.fields.insert(key.to_owned(), value.clone());
                }
            },
        }
        Ok(())
    }

    /// A text among the fields of the event's object.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// The fields by which objects made for the wanted subject are found: those of any, if none
    /// is wanted.
    pub fn of_subject(&self) -> Vec<(&'static str, String)> {
        let subject = self.subject.as_ref();
        let fields = subject.map(|subject| {
            [
                ("metadata.payments_subject_type", subject.kind.clone()),
                ("metadata.payments_subject_id", subject.id.clone()),
            ]
        });
        fields.into_iter().flatten().collect()
    }
}

/// The type of the object that events of this type are about.
fn object_type_of(kind: &str) -> &'static str {
    let (family, _) = kind.rsplit_once('.').unwrap_or_default();
    match family {
        "charge.dispute" => "dispute",
        "customer.subscription" => "subscription",
        "invoice_payment" => "invoice_payment",
        _ => NAMES
            .iter()
            .map(|(_, object_type)| *object_type)
            .find(|object_type| *object_type == family)
            .unwrap_or_default(),
    }
}

fn invalid(message: impl Into<String>) -> Invalid {
    Invalid::new("overrides", message)
}

fn in_overrides(refused: Invalid) -> Invalid {
    Invalid {
        argument: "overrides",
        message: format!("overrides.{}", refused.message),
        ..refused
    }
}

fn number(key: &str, value: &Value, least: i64, most: i64) -> Result<i64, Invalid> {
    let number = value
        .as_i64()
        .filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        invalid(format!(
            "overrides.{key} must be a whole number from {least} to {most}"
        ))
    })
}

fn text(key: &str, value: &Value, most: usize) -> Result<String, Invalid> {
    let text = value.as_str().filter(|text| input::has_length(text, most));
    let text = text.ok_or_else(|| {
        invalid(format!(
            "overrides.{key} must be a string of 1 to {most} characters"
        ))
    })?;
    Ok(text.to_owned())
}

/// Simulated objects belong together and go together: one that named a real one would drag it in.
fn simulated(key: &str, value: &Value) -> Result<String, Invalid> {
    let id = value.as_str().filter(|id| is_simulated(id));
    let id = id.ok_or_else(|| {
        invalid(format!(
            "overrides.{key} must be the id of a simulated object"
        ))
    })?;
    Ok(id.to_owned())
}
