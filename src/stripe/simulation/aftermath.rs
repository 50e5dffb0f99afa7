//! Money that goes back: refunds and disputes.

use serde_json::{Value, json};

use super::Host;
use super::catalog::ONCE;
use super::objects::{self, Attempt};
use super::story::Story;
use crate::checkout::Mode;

impl<H: Host> Story<'_, H> {
    /// A charge that money can go back from.
    fn any_charge(&mut self, fits: impl Fn(&Value) -> bool) -> Result<String, H::Error> {
        let mut fields = self.wish.of_subject();
        if let Some(intent) = self.named("payment_intent")? {
            fields.push(("payment_intent", intent));
        }
        if let Some(charge) = self.existing("charge", &fields, fits)? {
            return Ok(charge);
        }
        if let Some(intent) = self.wish.named.get("payment_intent") {
            return Err(Self::refused(format!("{intent} has no such charge")));
        }
        self.prologue(|story| {
            let session = story.open_session(Mode::Payment)?;
            story.finish(&session, Attempt::Succeeds)?;
            let intent = story.text(&session, "payment_intent");
            Ok(story.text(&intent, "latest_charge"))
        })
    }

    /// The charge that the wanted amount, or all that is left of it, goes back from.
    fn money_to_take(&mut self, fits: fn(&Value) -> bool) -> Result<(String, i64), H::Error> {
        let amount = self.wish.amount.take();
        if amount == Some(0) {
            return Err(Self::refused("overrides.amount must be at least 1"));
        }
        // A sale made for it is the usual one, unless that is too small.
        self.wish.amount = amount.filter(|amount| *amount > ONCE);
        let charge =
            self.any_charge(|charge| fits(charge) && left(charge) >= amount.unwrap_or(1))?;
        let amount = amount.unwrap_or_else(|| left(self.see(&charge)));
        Ok((charge, amount))
    }

    pub fn refund(&mut self, status: &str) -> Result<String, H::Error> {
        let (charge, amount) = self.money_to_take(|_| true)?;
        let metadata = Value::Object(self.wish.metadata.clone());
        let fields = objects::refund(self.see(&charge), amount, status, &metadata);
        let refund = self.make("re", "refund", fields);
        let refunded = self.number(&charge, "amount_refunded") + amount;
        let all = refunded >= self.number(&charge, "amount_captured");
        self.change(
            &charge,
            json!({"amount_refunded": refunded, "refunded": all}),
        );
        self.tell("charge.refunded", &charge);
        self.tell("refund.created", &refund);
        Ok(refund)
    }

    fn any_refund(&mut self, fits: fn(&Value) -> bool, status: &str) -> Result<String, H::Error> {
        let found = match self.about_charges()? {
            None => self.existing("refund", &[], fits)?,
            Some(charges) => self.first_about("refund", &charges, fits)?,
        };
        match found {
            Some(refund) => Ok(refund),
            None => self.prologue(|story| story.refund(status)),
        }
    }

    /// A refund that was on its way arrives.
    pub fn settle_refund(&mut self) -> Result<(), H::Error> {
        let refund = self.any_refund(|refund| refund["status"] == "pending", "pending")?;
        self.change(&refund, json!({"status": "succeeded"}));
        self.tell("refund.updated", &refund);
        Ok(())
    }

    /// A refund comes back days later: its amount counts as paid again.
    pub fn fail_refund(&mut self) -> Result<(), H::Error> {
        let standing =
            |refund: &Value| matches!(refund["status"].as_str(), Some("pending" | "succeeded"));
        let refund = self.any_refund(standing, "succeeded")?;
        let charge = self.text(&refund, "charge");
        let charge = self.need("charge", &charge)?;
        let amount = self.number(&refund, "amount");
        let refunded = self.number(&charge, "amount_refunded") - amount;
        self.change(
            &refund,
            json!({"status": "failed", "failure_reason": "lost_or_stolen_card"}),
        );
        self.tell("refund.failed", &refund);
        self.change(
            &charge,
            json!({"amount_refunded": refunded, "refunded": false}),
        );
        self.tell("charge.updated", &charge);
        Ok(())
    }

    /// The charges that the overrides speak of, if they speak of any: refunds and disputes do not
    /// say whose they are.
    fn about_charges(&mut self) -> Result<Option<Vec<String>>, H::Error> {
        if let Some(charge) = self.named("charge")? {
            return Ok(Some(vec![charge]));
        }
        let mut fields = self.wish.of_subject();
        if let Some(intent) = self.named("payment_intent")? {
            fields.push(("payment_intent", intent));
        }
        if fields.is_empty() {
            return Ok(None);
        }
        let fields: Vec<_> = fields
            .iter()
            .map(|(field, text)| (*field, text.as_str()))
            .collect();
        self.find("charge", &fields).map(Some)
    }

    fn first_about(
        &mut self,
        object_type: &'static str,
        charges: &[String],
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Option<String>, H::Error> {
        for charge in charges {
            let fields = [("charge", charge.clone())];
            if let Some(found) = self.existing(object_type, &fields, &fits)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub fn open_dispute(&mut self) -> Result<String, H::Error> {
        let (charge, amount) = self.money_to_take(|charge| charge["disputed"] == false)?;
        let fields = objects::dispute(self.see(&charge), amount, self.now);
        let dispute = self.make("du", "dispute", fields);
        self.change(&charge, json!({ "disputed": true }));
        self.tell("charge.updated", &charge);
        self.tell("charge.dispute.created", &dispute);
        self.tell("charge.dispute.funds_withdrawn", &dispute);
        Ok(dispute)
    }

    fn any_dispute(&mut self) -> Result<String, H::Error> {
        let found = match self.about_charges()? {
            None => self.existing("dispute", &[], is_undecided)?,
            Some(charges) => self.first_about("dispute", &charges, is_undecided)?,
        };
        match found {
            Some(dispute) => Ok(dispute),
            None => self.prologue(Self::open_dispute),
        }
    }

    pub fn update_dispute(&mut self) -> Result<(), H::Error> {
        let dispute = self.any_dispute()?;
        self.change(&dispute, json!({"status": "under_review"}));
        self.tell("charge.dispute.updated", &dispute);
        Ok(())
    }

    /// The bank decides. The seller who wins gets the money back.
    pub fn close_dispute(&mut self, usually: &str) -> Result<(), H::Error> {
        let status = self.wish.field("status").unwrap_or(usually).to_owned();
        let dispute = self.any_dispute()?;
        self.change(&dispute, json!({ "status": status }));
        self.tell("charge.dispute.closed", &dispute);
        if status == "won" {
            self.tell("charge.dispute.funds_reinstated", &dispute);
        }
        Ok(())
    }
}

/// What can still go back of a charge.
fn left(charge: &Value) -> i64 {
    let amount = |field: &str| charge[field].as_i64().unwrap_or_default();
    match charge["status"].as_str() {
        Some("succeeded") => amount("amount_captured") - amount("amount_refunded"),
        _ => 0,
    }
}

fn is_undecided(dispute: &Value) -> bool {
    !matches!(
        dispute["status"].as_str(),
        Some("won" | "lost" | "warning_closed")
    )
}
