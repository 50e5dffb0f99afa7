//! Checkouts and the payments that they lead to.

use serde_json::{Value, json};

use super::Host;
use super::objects::{self, Attempt, Sale};
use super::story::Story;
use crate::Subject;
use crate::checkout::Mode;

/// Names our row in the metadata of a session and of its payment intent. No event tells of a session
/// whose intent comes to be, so this is what finds the one by the other.
const ROW: &str = "payments_checkout_session_id";
const METADATA_ROW: &str = "metadata.payments_checkout_session_id";

impl<H: Host> Story<'_, H> {
    /// A session that the buyer has not paid yet.
    pub fn open_session(&mut self, mode: Mode) -> Result<String, H::Error> {
        let recurring = mode == Mode::Subscription;
        // A checkout of ours asks whom a subscription is for.
        if recurring && self.wish.subject.is_none() {
            self.wish.subject = Some(Subject {
                kind: "user".into(),
                id: "simulated".into(),
            });
        }
        let price = self.price_to_sell_at(recurring)?;
        let customer = self.buyer()?;
        let email = match &self.wish.email {
            Some(email) => email.clone(),
            None => self.text(&customer, "email"),
        };
        let mut metadata = self.wish.metadata.clone();
        metadata.extend(self.host.marks(mode, self.wish.subject.as_ref())?);
        let quantity = self.wish.quantity.unwrap_or(1);
        let id = self.id("cs_test");
        let item = self.id("item");
        let sale = Sale {
            mode: mode.as_str(),
            price: self.see(&price),
            quantity,
            total: self.number(&price, "unit_amount").saturating_mul(quantity),
            currency: &self.text(&price, "currency"),
            customer: &customer,
            email: &email,
            metadata: &Value::Object(metadata),
        };
        let fields = objects::session(&id, &item, &sale, self.now);
        self.put(&id, "checkout.session", fields);
        self.answer(&id);
        Ok(id)
    }

    /// What is sold, if the overrides do not say: what the price is for.
    pub fn mode(&mut self) -> Result<Mode, H::Error> {
        if let Some(mode) = self.wish.mode {
            return Ok(mode);
        }
        let price = match (self.named("price")?, self.wish.lookup_key.clone()) {
            (Some(price), _) => Some(price),
            (None, Some(key)) => self
                .find("price", &[("lookup_key", &key)])?
                .into_iter()
                .next(),
            (None, None) => None,
        };
        let recurring = price.is_some_and(|price| self.text(&price, "type") == "recurring");
        Ok(match recurring {
            true => Mode::Subscription,
            false => Mode::Payment,
        })
    }

    pub fn check_out(&mut self) -> Result<(), H::Error> {
        let attempt = match self.wish.field("payment_status") {
            Some("unpaid") => Attempt::Pends,
            Some("no_payment_required") => {
                self.wish.amount = Some(0);
                Attempt::Succeeds
            }
            _ => Attempt::Succeeds,
        };
        let session = match self.named("checkout.session")? {
            Some(session) if is_open(self.see(&session)) => session,
            Some(session) => {
                return Err(Self::refused(format!(
                    "the checkout session {session} is not open"
                )));
            }
            None => {
                let mode = self.mode()?;
                self.open_session(mode)?
            }
        };
        self.finish(&session, attempt)
    }

    /// The buyer goes through with it.
    pub fn finish(&mut self, session: &str, attempt: Attempt) -> Result<(), H::Error> {
        if self.text(session, "mode") == "subscription" {
            return self.subscribe(session, attempt);
        }
        if self.number(session, "amount_total") == 0 {
            self.complete(session, "no_payment_required", json!({}));
            return Ok(());
        }
        let intent = self.intent_of(session)?;
        self.charge(&intent, attempt, &self.email(session));
        self.complete(session, payment_status(attempt), json!({}));
        Ok(())
    }

    pub fn complete(&mut self, session: &str, payment_status: &str, ids: Value) {
        self.change(session, ids);
        self.change(
            session,
            json!({
                "collected_information": {
                    "business_name": null, "individual_name": null, "shipping_details": null,
                },
                "payment_status": payment_status, "status": "complete", "url": null,
            }),
        );
        self.tell("checkout.session.completed", session);
    }

    pub fn expire(&mut self) -> Result<(), H::Error> {
        let of_subject = self.wish.of_subject();
        let session = match self.existing("checkout.session", &of_subject, is_open)? {
            Some(session) => session,
            None => {
                let mode = self.mode()?;
                self.open_session(mode)?
            }
        };
        self.change(&session, json!({"status": "expired", "url": null}));
        self.tell("checkout.session.expired", &session);
        Ok(())
    }

    /// The session's payment intent, which comes to be when the buyer first tries to pay.
    fn intent_of(&mut self, session: &str) -> Result<String, H::Error> {
        let row = self.see(session)["metadata"][ROW].as_str();
        let row = row.unwrap_or_default().to_owned();
        let known = self.find("payment_intent", &[(METADATA_ROW, &row)])?;
        if let Some(intent) = known.into_iter().next() {
            self.change(session, json!({ "payment_intent": intent }));
            return Ok(intent);
        }
        let fields = objects::intent(
            self.number(session, "amount_total"),
            &self.text(session, "currency"),
            &self.text(session, "customer"),
            session,
            &self.see(session)["metadata"],
        );
        let intent = self.make("pi", "payment_intent", fields);
        self.change(session, json!({ "payment_intent": intent }));
        self.tell("payment_intent.created", &intent);
        Ok(intent)
    }

    pub fn charge(&mut self, intent: &str, attempt: Attempt, email: &str) -> String {
        let fields = objects::charge(self.see(intent), attempt, email);
        let charge = self.make("ch", "charge", fields);
        match attempt {
            Attempt::Succeeds => self.succeed(intent, &charge),
            Attempt::Fails => self.decline(intent, &charge),
            Attempt::Pends => {
                self.tell("charge.pending", &charge);
                self.change(
                    intent,
                    json!({"status": "processing", "latest_charge": charge}),
                );
                self.tell("payment_intent.processing", intent);
            }
        }
        charge
    }

    fn succeed(&mut self, intent: &str, charge: &str) {
        self.tell("charge.succeeded", charge);
        let amount = self.number(intent, "amount");
        self.change(
            intent,
            json!({
                "status": "succeeded", "amount_received": amount, "latest_charge": charge,
                "last_payment_error": null,
            }),
        );
        self.tell("payment_intent.succeeded", intent);
    }

    fn decline(&mut self, intent: &str, charge: &str) {
        self.tell("charge.failed", charge);
        self.change(
            intent,
            json!({
                "status": "requires_payment_method", "latest_charge": charge,
                "last_payment_error": objects::decline(charge),
            }),
        );
        self.tell("payment_intent.payment_failed", intent);
    }

    /// The session that somebody is trying to pay: a card that was declined may be followed by a
    /// better one.
    fn session_to_pay(&mut self) -> Result<String, H::Error> {
        let mut fields = self.wish.of_subject();
        fields.push(("mode", "payment".into()));
        if let Some(intent) = self.named("payment_intent")? {
            let row = self.see(&intent)["metadata"][ROW].as_str();
            fields.push((METADATA_ROW, row.unwrap_or_default().to_owned()));
        }
        match self.existing("checkout.session", &fields, is_open)? {
            Some(session) => Ok(session),
            None => match self.wish.named.get("payment_intent") {
                Some(intent) => Err(Self::refused(format!("{intent} waits for no payment"))),
                None => self.open_session(Mode::Payment),
            },
        }
    }

    pub fn try_to_pay(&mut self, attempt: Attempt) -> Result<(), H::Error> {
        let session = self.session_to_pay()?;
        if attempt != Attempt::Fails {
            return self.finish(&session, attempt);
        }
        let intent = self.intent_of(&session)?;
        self.charge(&intent, attempt, &self.email(&session));
        Ok(())
    }

    pub fn create_intent(&mut self) -> Result<(), H::Error> {
        let session = self.open_session(Mode::Payment)?;
        self.intent_of(&session)?;
        Ok(())
    }

    /// The intent ends with the session that it is of.
    pub fn cancel_intent(&mut self) -> Result<(), H::Error> {
        let session = self.session_to_pay()?;
        let intent = self.intent_of(&session)?;
        self.change(
            &intent,
            json!({
                "status": "canceled", "canceled_at": self.now, "cancellation_reason": "automatic",
            }),
        );
        self.tell("payment_intent.canceled", &intent);
        self.change(&session, json!({"status": "expired", "url": null}));
        self.tell("checkout.session.expired", &session);
        Ok(())
    }

    /// The bank's answer to a debit.
    pub fn settle(&mut self, good: bool) -> Result<(), H::Error> {
        let of_subject = self.wish.of_subject();
        let waits = |session: &Value| {
            session["status"] == "complete" && session["payment_status"] == "unpaid"
        };
        let session = match self.existing("checkout.session", &of_subject, waits)? {
            Some(session) => session,
            None => self.prologue(|story| {
                let mode = story.mode()?;
                let session = story.open_session(mode)?;
                story.finish(&session, Attempt::Pends)?;
                Ok(session)
            })?,
        };
        let invoice = self.text(&session, "invoice");
        let intent = match invoice.is_empty() {
            true => self.intent_of(&session)?,
            false => {
                let invoice = self.need("invoice", &invoice)?;
                self.intent_of_invoice(&invoice)?
            }
        };
        let charge = self.text(&intent, "latest_charge");
        let charge = self.need("charge", &charge)?;
        if good {
            let amount = self.number(&charge, "amount");
            let paid = json!({
                "status": "succeeded", "paid": true, "captured": true, "amount_captured": amount,
            });
            self.change(&charge, paid);
            self.succeed(&intent, &charge);
        } else {
            self.change(
                &charge,
                json!({"status": "failed", "failure_code": "insufficient_funds"}),
            );
            self.decline(&intent, &charge);
        }
        if !invoice.is_empty() {
            let subscription = self.text(&session, "subscription");
            let subscription = self.need("subscription", &subscription)?;
            self.settle_invoice(&invoice, &subscription, good)?;
        }
        if good {
            self.change(&session, json!({"payment_status": "paid"}));
        }
        let outcome = if good { "succeeded" } else { "failed" };
        self.tell(
            &format!("checkout.session.async_payment_{outcome}"),
            &session,
        );
        Ok(())
    }

    /// The address that the buyer typed.
    pub fn email(&self, session: &str) -> String {
        let email = self.see(session)["customer_details"]["email"].as_str();
        email.unwrap_or(objects::EMAIL).to_owned()
    }
}

pub(super) fn payment_status(attempt: Attempt) -> &'static str {
    match attempt {
        Attempt::Succeeds => "paid",
        Attempt::Fails | Attempt::Pends => "unpaid",
    }
}

fn is_open(session: &Value) -> bool {
    session["status"] == "open"
}
