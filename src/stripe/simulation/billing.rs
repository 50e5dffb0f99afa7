//! Subscriptions and their bills.

use serde_json::{Value, json};

use super::Host;
use super::objects::{self, Attempt, MONTH, Sale};
use super::sales::payment_status;
use super::story::Story;
use crate::checkout::Mode;

/// Days until Stripe tries once more.
const RETRY: i64 = 3 * 86_400;

impl<H: Host> Story<'_, H> {
    /// What follows when a session in subscription mode is completed.
    pub fn subscribe(&mut self, session: &str, attempt: Attempt) -> Result<(), H::Error> {
        let email = self.email(session);
        let line = self.see(session)["line_items"]["data"][0].clone();
        let quantity = line["quantity"].as_i64().unwrap_or(1);
        let sale = Sale {
            mode: "subscription",
            price: &line["price"],
            quantity,
            total: self.number(session, "amount_total"),
            currency: &self.text(session, "currency"),
            customer: &self.text(session, "customer"),
            email: &email,
            metadata: &self.see(session)["metadata"],
        };
        let fields = objects::subscription(&sale, self.now);
        let subscription = self.make("sub", "subscription", fields);
        let item = self.id("si");
        let item = objects::item(&item, &subscription, &line["price"], quantity, self.now);
        let items = objects::items(&subscription, vec![item]);
        self.change(&subscription, json!({ "items": items }));
        self.tell("customer.subscription.created", &subscription);

        let invoice = self.bill(&subscription, "subscription_create", &email);
        let paid = if self.number(&invoice, "amount_due") == 0 {
            self.paid(&invoice)?;
            "no_payment_required"
        } else {
            let intent = self.intent_of_invoice(&invoice)?;
            self.charge(&intent, attempt, &email);
            if attempt == Attempt::Succeeds {
                self.paid(&invoice)?;
            }
            payment_status(attempt)
        };
        self.change(&subscription, json!({ "status": "active" }));
        self.tell("customer.subscription.updated", &subscription);
        self.complete(
            session,
            paid,
            json!({"subscription": subscription, "invoice": invoice}),
        );
        Ok(())
    }

    pub fn subscribe_anew(&mut self) -> Result<(), H::Error> {
        let session = self.open_session(Mode::Subscription)?;
        self.finish(&session, Attempt::Succeeds)
    }

    fn existing_subscription(&mut self) -> Result<Option<String>, H::Error> {
        let of_subject = self.wish.of_subject();
        self.existing("subscription", &of_subject, is_alive)
    }

    fn any_subscription(&mut self) -> Result<String, H::Error> {
        if let Some(subscription) = self.existing_subscription()? {
            return Ok(subscription);
        }
        self.prologue(|story| {
            let session = story.open_session(Mode::Subscription)?;
            story.finish(&session, Attempt::Succeeds)?;
            Ok(story.text(&session, "subscription"))
        })
    }

    /// A bill for the period that the items are in, as far as its being due.
    fn bill(&mut self, subscription: &str, reason: &str, email: &str) -> String {
        let id = self.id("in");
        let items = self.see(subscription)["items"]["data"].clone();
        let items = items.as_array().cloned().unwrap_or_default();
        let lines = items.iter().map(|item| {
            let line = self.id("il");
            objects::line(&line, &id, item)
        });
        let lines: Vec<_> = lines.collect();
        let fields = objects::invoice(&id, lines, reason, self.see(subscription), email, self.now);
        self.put(&id, "invoice", fields);
        let finalized = json!({
            "finalized_at": self.now, "marked_uncollectible_at": null, "paid_at": null,
            "voided_at": null,
        });
        let page = format!("https://invoice.stripe.com/i/{id}");
        self.change(
            &id,
            json!({
                "effective_at": self.now, "ending_balance": 0, "hosted_invoice_url": page,
                "invoice_pdf": format!("{page}/pdf"),
                "number": format!("SIMULATED-{}", id.get(id.len() - 8..).unwrap_or_default()),
                "status": "open", "status_transitions": finalized,
                "webhooks_delivered_at": self.now,
            }),
        );
        self.change(subscription, json!({ "latest_invoice": id }));
        self.tell("invoice.finalized", &id);
        id
    }

    /// The intent that is to pay an invoice. No event tells of the link between the two before it
    /// is paid; whoever keeps in step with Stripe asks for it, and here knows at once.
    pub fn intent_of_invoice(&mut self, invoice: &str) -> Result<String, H::Error> {
        let payment = self.find("invoice_payment", &[("invoice", invoice)])?;
        if let Some(payment) = payment.first() {
            let intent = self.see(payment)["payment"]["payment_intent"].as_str();
            let intent = intent.unwrap_or_default().to_owned();
            return self.need("payment_intent", &intent);
        }
        let fields = objects::intent(
            self.number(invoice, "amount_due"),
            &self.text(invoice, "currency"),
            &self.text(invoice, "customer"),
            invoice,
            &json!({}),
        );
        let intent = self.make("pi", "payment_intent", fields);
        let fields = objects::invoice_payment(self.see(invoice), &intent);
        let payment = self.make("inpay", "invoice_payment", fields);
        self.answer(&payment);
        self.tell("payment_intent.created", &intent);
        Ok(intent)
    }

    fn paid(&mut self, invoice: &str) -> Result<(), H::Error> {
        let payments = self.find("invoice_payment", &[("invoice", invoice)])?;
        let due = self.number(invoice, "amount_due");
        for payment in &payments {
            self.change(
                payment,
                json!({
                    "amount_paid": due, "status": "paid",
                    "status_transitions": {"canceled_at": null, "paid_at": self.now},
                }),
            );
        }
        let attempts = self.number(invoice, "attempt_count");
        self.change(
            invoice,
            json!({
                "amount_paid": due, "amount_remaining": 0, "attempted": true,
                "attempt_count": attempts + i64::from(due > 0), "auto_advance": false,
                "next_payment_attempt": null, "status": "paid",
            }),
        );
        self.pass(invoice, "paid_at");
        self.tell("invoice.paid", invoice);
        self.tell("invoice.payment_succeeded", invoice);
        for payment in &payments {
            self.tell("invoice_payment.paid", payment);
        }
        Ok(())
    }

    fn failed(&mut self, invoice: &str) {
        let attempts = self.number(invoice, "attempt_count");
        self.change(
            invoice,
            json!({
                "attempted": true, "attempt_count": attempts + 1,
                "next_payment_attempt": self.now + RETRY,
            }),
        );
        self.tell("invoice.payment_failed", invoice);
    }

    /// Notes when an invoice came to a status.
    fn pass(&mut self, invoice: &str, step: &str) {
        let mut steps = self.see(invoice)["status_transitions"].clone();
        if let Value::Object(steps) = &mut steps {
            steps.insert(step.to_owned(), self.now.into());
        }
        self.change(invoice, json!({ "status_transitions": steps }));
    }

    /// What the outcome of a payment means to the bill and to its subscription.
    pub fn settle_invoice(
        &mut self,
        invoice: &str,
        subscription: &str,
        good: bool,
    ) -> Result<(), H::Error> {
        match good {
            true => self.paid(invoice)?,
            false => self.failed(invoice),
        }
        let status = if good { "active" } else { "past_due" };
        if self.text(subscription, "status") != status {
            self.change(subscription, json!({ "status": status }));
            self.tell("customer.subscription.updated", subscription);
        }
        Ok(())
    }

    fn attempt(&mut self, invoice: &str, subscription: &str, good: bool) -> Result<(), H::Error> {
        if self.number(invoice, "amount_due") > 0 {
            let intent = self.intent_of_invoice(invoice)?;
            let email = self.text(invoice, "customer_email");
            let attempt = if good {
                Attempt::Succeeds
            } else {
                Attempt::Fails
            };
            self.charge(&intent, attempt, &email);
        }
        self.settle_invoice(invoice, subscription, good)
    }

    /// The next period begins, and is billed.
    fn renew(&mut self, subscription: &str) -> Result<String, H::Error> {
        let mut items = self.see(subscription)["items"].clone();
        for item in items["data"].as_array_mut().into_iter().flatten() {
            let start = item["current_period_end"].as_i64().unwrap_or(self.now);
            if let Value::Object(item) = item {
                item.insert("current_period_start".into(), start.into());
                item.insert("current_period_end".into(), (start + MONTH).into());
            }
        }
        self.change(subscription, json!({ "items": items }));
        let customer = self.text(subscription, "customer");
        let customer = self.need("customer", &customer)?;
        let email = self.text(&customer, "email");
        let invoice = self.bill(subscription, "subscription_cycle", &email);
        self.tell("customer.subscription.updated", subscription);
        Ok(invoice)
    }

    /// An open bill and its subscription.
    fn open_bill(&mut self) -> Result<Option<(String, String)>, H::Error> {
        let is_open = |invoice: &Value| invoice["status"] == "open";
        if self.wish.named.contains_key("invoice") {
            let Some(invoice) = self.existing("invoice", &[], is_open)? else {
                return Ok(None);
            };
            let details = &self.see(&invoice)["parent"]["subscription_details"];
            let subscription = details["subscription"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let subscription = self.need("subscription", &subscription)?;
            return Ok(Some((invoice, subscription)));
        }
        let Some(subscription) = self.existing_subscription()? else {
            return Ok(None);
        };
        let latest = self.text(&subscription, "latest_invoice");
        let latest = self.find("invoice", &[("id", &latest)])?.into_iter().next();
        let open = latest.filter(|invoice| is_open(self.see(invoice)));
        Ok(open.map(|invoice| (invoice, subscription)))
    }

    pub fn pay_invoice(&mut self) -> Result<(), H::Error> {
        if let Some((invoice, subscription)) = self.open_bill()? {
            return self.attempt(&invoice, &subscription, true);
        }
        match self.existing_subscription()? {
            Some(subscription) => {
                let invoice = self.renew(&subscription)?;
                self.attempt(&invoice, &subscription, true)
            }
            None => self.subscribe_anew(),
        }
    }

    pub fn fail_invoice(&mut self) -> Result<(), H::Error> {
        let (invoice, subscription) = self.any_open_bill()?;
        self.attempt(&invoice, &subscription, false)
    }

    fn any_open_bill(&mut self) -> Result<(String, String), H::Error> {
        if let Some(open) = self.open_bill()? {
            return Ok(open);
        }
        let subscription = self.any_subscription()?;
        let invoice = self.prologue(|story| story.renew(&subscription))?;
        Ok((invoice, subscription))
    }

    pub fn finalize_invoice(&mut self) -> Result<(), H::Error> {
        let subscription = self.any_subscription()?;
        self.renew(&subscription)?;
        Ok(())
    }

    pub fn close_invoice(&mut self, status: &str, step: &str) -> Result<(), H::Error> {
        let (invoice, _) = self.any_open_bill()?;
        self.change(&invoice, json!({"status": status, "auto_advance": false}));
        self.pass(&invoice, step);
        let event = step.trim_end_matches("_at");
        self.tell(&format!("invoice.{event}"), &invoice);
        Ok(())
    }

    /// What the overrides say becomes of the subscription: another price or quantity, an end that
    /// is set or taken back, or any other field.
    pub fn update_subscription(&mut self) -> Result<(), H::Error> {
        // The subscription that all this happens to, if it is made for it, is the usual one.
        let amount = self.wish.amount.take();
        let quantity = self.wish.quantity.take();
        let lookup_key = self.wish.lookup_key.take();
        let price = self.wish.named.remove("price");
        let subscription = self.any_subscription()?;
        let changes_price = amount.is_some() || lookup_key.is_some() || price.is_some();
        self.wish.amount = amount;
        self.wish.lookup_key = lookup_key;
        self.wish.named.extend(price.map(|price| ("price", price)));

        let mut items = self.see(&subscription)["items"].clone();
        if changes_price {
            let price = self.price_to_sell_at(true)?;
            let price = self.see(&price).clone();
            set_in_first(&mut items, "price", price);
        }
        if let Some(quantity) = quantity {
            set_in_first(&mut items, "quantity", quantity.into());
        }
        let end = items["data"][0]["current_period_end"].clone();
        self.change(&subscription, json!({ "items": items }));
        let at_end = self.wish.fields.get("cancel_at_period_end");
        if let Some(at_end) = at_end.and_then(Value::as_bool) {
            self.change(
                &subscription,
                match at_end {
                    true => json!({"cancel_at": end, "canceled_at": self.now}),
                    false => json!({"cancel_at": null, "canceled_at": null}),
                },
            );
        }
        self.tell("customer.subscription.updated", &subscription);
        Ok(())
    }

    pub fn end_subscription(&mut self) -> Result<(), H::Error> {
        let subscription = self.any_subscription()?;
        self.cancel(&subscription);
        Ok(())
    }

    pub fn cancel(&mut self, subscription: &str) {
        self.change(
            subscription,
            json!({
                "cancel_at": null, "cancel_at_period_end": false, "canceled_at": self.now,
                "cancellation_details": {
                    "comment": null, "feedback": null, "reason": "cancellation_requested",
                },
                "ended_at": self.now, "status": "canceled",
            }),
        );
        self.tell("customer.subscription.deleted", subscription);
    }

    pub fn set_subscription(&mut self, status: &str) -> Result<(), H::Error> {
        let subscription = self.any_subscription()?;
        let event = match status {
            "paused" => "customer.subscription.paused",
            _ => "customer.subscription.resumed",
        };
        self.change(&subscription, json!({ "status": status }));
        self.tell(event, &subscription);
        Ok(())
    }
}

/// Whether a subscription can still change.
pub(super) fn is_alive(subscription: &Value) -> bool {
    !matches!(
        subscription["status"].as_str(),
        Some("canceled" | "incomplete_expired")
    )
}

fn set_in_first(items: &mut Value, field: &str, value: Value) {
    let first = items.get_mut("data").and_then(|data| data.get_mut(0));
    if let Some(Value::Object(item)) = first {
        item.insert(field.to_owned(), value);
    }
}
