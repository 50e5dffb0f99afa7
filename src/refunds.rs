//! Refunds: a payment given back, or a part of it.
//! <https://docs.stripe.com/api/refunds/create>
//!
//! A request that is repeated because its answer never came must not pay twice, and one that is
//! repeated on purpose must pay again. What tells them apart is a *mark* that travels in the
//! refund's metadata: the caller's own key, or else what we know of the payment's refunds, which is
//! the same after a rollback and another once a refund is known.

use crate::catalog::row;
use crate::checkout::required;
use crate::connection::{as_owner, parse_environment, with_client};
use crate::door;
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::sealed;
use crate::postgres::spi::{Composite, Row, Statement};
use crate::stripe_errors::failure;
use ledger::{Observation, Source};
use pgrx::{Uuid, pg_extern};
use serde_json::{Map, Value, json};
use stripe::{Client, Environment, Error};

/// Where in a refund's metadata its mark is.
const MARK: &str = "payments_refund_key";

/// An answer that Stripe keeps to a key, such as an error of its own, is not its answer for ever:
/// the next key gets another.
const ATTEMPTS_PER_CALL: u32 = 3;

/// `payments.refund_payment(environment, payment_id, amount, reason, idempotency_key)`.
#[pg_extern(sql = false)]
fn refund_payment(
    environment: Option<&str>,
    payment_id: Option<Uuid>,
    amount: Option<i64>,
    reason: Option<&str>,
    idempotency_key: Option<&str>,
) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let environment = parse_environment(environment)?;
        let payment_id = required("payment_id", payment_id)?;
        if amount.is_some_and(|amount| amount < 1) {
            return Err(Failure::argument(
                "invalid_argument",
                "amount must be at least 1, in the currency's minor unit",
            )
            .with("argument", "amount"));
        }
        if idempotency_key.is_some_and(|key| !(1..=200).contains(&key.chars().count())) {
            return Err(Failure::argument(
                "invalid_argument",
                "idempotency_key must have 1 to 200 characters",
            )
            .with("argument", "idempotency_key"));
        }
        let id = with_client(environment, |client| {
            let payment = payment(environment, payment_id)?;
            let refund = Refund {
                source: payment.source(client, environment)?,
                environment,
                payment_id,
                amount,
                reason,
                key: idempotency_key,
            };
            refund.make(client)
        })?;
        refund_row(environment, &id)
    })
}

/// A row of the payment history, as far as a refund depends on it.
struct Payment {
    is_refund: bool,
    payment_intent: Option<String>,
    charge: Option<String>,
    invoice: Option<String>,
}

/// What is refunded: a payment intent, or a charge that has none.
struct MoneyFrom {
    parameter: &'static str,
    id: String,
}

struct Refund<'a> {
    environment: Environment,
    payment_id: Uuid,
    source: MoneyFrom,
    /// Null: all that is left.
    amount: Option<i64>,
    reason: Option<&'a str>,
    key: Option<&'a str>,
}

fn payment(environment: Environment, id: Uuid) -> Result<Payment, Failure> {
    static PAYMENT: Statement = Statement::new(
        "select type = 'refund', stripe_payment_intent_id, stripe_charge_id, stripe_invoice_id
           from payments.payment_history
          where environment = $1
            and id = $2",
    );
    let read = |row: &Row| {
        Ok(Payment {
            is_refund: row.required(1)?,
            payment_intent: row.get(2)?,
            charge: row.get(3)?,
            invoice: row.get(4)?,
        })
    };
    as_owner(|| PAYMENT.first(&[environment.as_str().into(), id.into()], read))?.ok_or_else(|| {
        Failure::new(
            SqlState::NOT_FOUND,
            "no_such_payment",
            "no payment has this id in this environment",
        )
        .with("payment_id", id.to_string())
        .hint("It is the id of a row of payments.payment_history.")
    })
}

impl Payment {
    fn source(self, client: &Client, environment: Environment) -> Result<MoneyFrom, Failure> {
        if self.is_refund {
            return Err(Failure::argument(
                "not_refundable",
                "a refund cannot be refunded: name the payment that it gave back",
            )
            .with("argument", "payment_id"));
        }
        match self {
            Payment {
                payment_intent: Some(id),
                ..
            } => Ok(MoneyFrom::intent(id)),
            Payment {
                charge: Some(id), ..
            } => Ok(MoneyFrom::charge(id)),
            Payment {
                invoice: Some(id), ..
            } => paid(client, environment, &id)?.ok_or_else(nothing_paid),
            _ => Err(nothing_paid()),
        }
    }
}

impl MoneyFrom {
    fn intent(id: String) -> MoneyFrom {
        MoneyFrom {
            parameter: "payment_intent",
            id,
        }
    }

    fn charge(id: String) -> MoneyFrom {
        MoneyFrom {
            parameter: "charge",
            id,
        }
    }
}

fn nothing_paid() -> Failure {
    Failure::new(
        SqlState::BAD_REQUEST,
        "nothing_paid",
        "this payment took no money that could be given back",
    )
}

/// What paid an invoice, of which we were not told.
/// <https://docs.stripe.com/api/invoice-payment/list>
fn paid(
    client: &Client,
    environment: Environment,
    invoice: &str,
) -> Result<Option<MoneyFrom>, Failure> {
    let parameters = json!({"invoice": invoice, "status": "paid", "limit": 100});
    let payments = observe_all(client, environment, "/v1/invoice_payments", &parameters)?;
    let source = payments.iter().find_map(|payment| {
        let payment = payment.get("payment")?;
        let id = |name: &str| Some(payment.get(name)?.as_str()?.to_owned());
        id("payment_intent")
            .map(MoneyFrom::intent)
            .or_else(|| id("charge").map(MoneyFrom::charge))
    });
    Ok(source)
}

/// The objects of a page, taken into the ledger.
fn observe_all(
    client: &Client,
    environment: Environment,
    path: &str,
    parameters: &Value,
) -> Result<Vec<Map<String, Value>>, Failure> {
    let answer = client.get(path, parameters).map_err(failure)?;
    let page = match answer.body().map_err(failure)?["data"].take() {
        Value::Array(page) => page,
        _ => Vec::new(),
    };
    let bodies: Vec<_> = page
        .into_iter()
        .filter_map(|body| match body {
            Value::Object(body) => Some(body),
            _ => None,
        })
        .collect();
    let observations: Vec<_> = bodies
        .iter()
        .filter_map(|body| Observation::new(body.clone(), answer.as_of, Source::Listing))
        .collect();
    door::enter(environment, "api", &observations)?;
    Ok(bodies)
}

impl Refund<'_> {
    /// Makes it, or finds it made, and returns its id.
    fn make(&self, client: &Client) -> Result<String, Failure> {
        let mark = self.mark()?;
        // Stripe forgets an idempotency key after a day, and nobody may have told us since.
        if self.key.is_some() && self.made(&mark)?.is_none() {
            self.look_for_refunds(client)?;
        }
        if let Some(made) = self.made(&mark)? {
            return self.same(made);
        }
        let mut parameters = json!({ "metadata": { MARK: mark } });
        parameters[self.source.parameter] = self.source.id.as_str().into();
        if let Some(amount) = self.amount {
            parameters["amount"] = amount.into();
        }
        if let Some(reason) = self.reason {
            parameters["reason"] = reason.into();
        }
        for attempt in 1..=ATTEMPTS_PER_CALL {
            let key = self.request_key(&mark, attempt)?;
            match client.post("/v1/refunds", &parameters, &key) {
                Ok(answer) => {
                    let refund = door::take_answer(client, self.environment, "refund", answer)?;
                    return door::id_of(&refund);
                }
                Err(error @ Error::IdempotencyMismatch(_)) => return Err(failure(error)),
                // Stripe may have made it before it failed.
                Err(error) if error.is_replayed() => {
                    self.look_for_refunds(client)?;
                    if let Some(made) = self.made(&mark)? {
                        return self.same(made);
                    }
                }
                Err(error) => return Err(failure(error)),
            }
        }
        Err(Failure::new(
            SqlState::BAD_GATEWAY,
            "no_refund",
            "Stripe answered every attempt at this refund with the outcome of an earlier one",
        )
        .hint("Look at the payment in the Stripe Dashboard before trying again."))
    }

    /// What the refund is recognised by when the request is repeated.
    fn mark(&self) -> Result<String, Failure> {
        static KNOWN: Statement = Statement::new(
            "select object_id
               from payments.stripe_objects
              where environment = $1
                and object_type = 'refund'
                and (payment_intent_id = $2 or charge_id = $2)
              order by object_id",
        );
        if let Some(key) = self.key {
            return Ok(key.to_owned());
        }
        let known: Vec<String> = as_owner(|| KNOWN.rows(&self.place(), |row| row.required(1)))?;
        let amount = self.amount.map(|amount| amount.to_string());
        let mut parts = vec![
            self.environment.as_str(),
            &self.source.id,
            amount.as_deref().unwrap_or("all"),
            self.reason.unwrap_or_default(),
        ];
        parts.extend(known.iter().map(String::as_str));
        let derived = sealed::derive("refund mark", &parts)?;
        Ok(hex::encode(&derived[..16]))
    }

    /// The refund of this payment with this mark, and its amount.
    fn made(&self, mark: &str) -> Result<Option<(String, i64)>, Failure> {
        static MADE: Statement = Statement::new(
            "select object_id, (body ->> 'amount')::bigint
               from payments.stripe_objects
              where environment = $1
                and object_type = 'refund'
                and (payment_intent_id = $2 or charge_id = $2)
                and body -> 'metadata' ->> 'payments_refund_key' = $3
              order by object_id
              limit 1",
        );
        let [environment, source] = self.place();
        as_owner(|| {
            MADE.first(&[environment, source, mark.into()], |row| {
                Ok((row.required(1)?, row.required(2)?))
            })
        })
    }

    fn same(&self, (id, amount): (String, i64)) -> Result<String, Failure> {
        match self.amount {
            Some(wanted) if wanted != amount => Err(Failure::new(
                SqlState::UNIQUE_VIOLATION,
                "key_reused",
                "this idempotency key refunded another amount of this payment",
            )
            .hint("Use a new idempotency key for a new request.")),
            _ => Ok(id),
        }
    }

    fn place(&self) -> [pgrx::datum::DatumWithOid<'_>; 2] {
        [
            self.environment.as_str().into(),
            self.source.id.as_str().into(),
        ]
    }

    fn request_key(&self, mark: &str, attempt: u32) -> Result<String, Failure> {
        let parts = [
            self.environment.as_str(),
            &self.payment_id.to_string(),
            mark,
            &attempt.to_string(),
        ];
        let derived = sealed::derive("refund", &parts)?;
        Ok(format!("payments-refund-{}", hex::encode(&derived[..16])))
    }

    fn look_for_refunds(&self, client: &Client) -> Result<(), Failure> {
        let mut parameters = json!({ "limit": 100 });
        parameters[self.source.parameter] = self.source.id.as_str().into();
        observe_all(client, self.environment, "/v1/refunds", &parameters)?;
        Ok(())
    }
}

fn refund_row(environment: Environment, id: &str) -> Result<Option<Composite>, Failure> {
    static ROW: Statement = Statement::new(
        "select jsonb_populate_record(null::payments.payment, to_jsonb(payment))
           from payments.stripe_objects as refund
           join payments.payment_history as payment
             on payment.environment = refund.environment
            and payment.stripe_refund_id = refund.object_id
            and (payment.stripe_payment_intent_id = refund.payment_intent_id
                 or payment.stripe_charge_id = refund.charge_id)
          where refund.environment = $1
            and refund.object_type = 'refund'
            and refund.object_id = $2",
    );
    row(&ROW, environment, id)
}
