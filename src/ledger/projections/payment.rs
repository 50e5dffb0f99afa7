//! One row a payment, one row a refund.
//!
//! A row is anchored at what will still identify the payment when everything about it is known:
//! a subscription's bill at its invoice, any other payment intent at itself, a charge without
//! intent at itself, a free session at the session, a refund at the refund. A payment intent
//! whose purpose nothing tells yet has no row, because a row once made is never taken back: apps
//! act on it. Each kind of evidence below can only be added to, never withdrawn, so that rows
//! are the same in whatever order it arrives.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::bill::Bill;
use super::group::{Group, Member};
use super::money::{Fate, fate};
use super::payer::{Payer, Purpose};
use super::subject::{Owners, Subject};
use super::{invoice, own_metadata, row_id};
use crate::body::Body;
use crate::observation::Key;
use crate::rows::{CheckoutSession, Invoice, Payment};
use crate::store::Due;
use crate::table::Time;

/// What a group of objects amounts to.
#[derive(Debug, Default)]
pub(crate) struct Projection {
    pub invoices: Vec<Invoice>,
    pub payments: Vec<Payment>,
    /// What Stripe must be asked about.
    pub due: BTreeMap<Key, Due>,
}

pub(crate) fn project(environment: &str, group: &Group, owners: &Owners) -> Projection {
    let context = Context {
        environment,
        group,
        owners,
    };
    let mut out = Projection::default();
    for invoice in group.all("invoice") {
        out.invoices
            .push(invoice::invoice(environment, invoice.object, owners));
    }

    let mut payers = context.payers();
    for payer in &mut payers {
        payer.purpose = payer.find_purpose(&context);
    }
    // Where the refunds of an intent or a charge find what they refund.
    let mut parents: BTreeMap<String, usize> = BTreeMap::new();
    for payer in &payers {
        match payer.purpose {
            Purpose::Itself => {
                parents.extend(payer.ids().map(|id| (id, out.payments.len())));
                out.payments.push(payer.row(&context));
            }
            Purpose::Invoice => {}
            Purpose::Unknown => out
                .due
                .extend(payer.asked_about().map(|k| (k, Due::Unclassified))),
        }
    }
    let mut paying: BTreeMap<&str, Vec<&Payer>> = BTreeMap::new();
    for payer in &payers {
        for invoice in &payer.invoices {
            paying.entry(invoice).or_default().push(payer);
        }
    }
    for member in group.all("invoice") {
        let paying = paying.remove(member.id()).unwrap_or_default();
        let bill = Bill::new(member, paying, &context);
        if bill.has_row(&context) {
            let paid_by = bill.payers.iter().flat_map(|payer| payer.ids());
            parents.extend(paid_by.map(|id| (id, out.payments.len())));
            out.payments.push(bill.row(&context));
        } else if bill.is_puzzling(&context) {
            out.due.insert(member.object.key.clone(), Due::Payments);
        }
    }
    for session in group.all("checkout.session") {
        out.payments.extend(context.free(session));
    }
    for refund in group.all("refund") {
        let charge = refund.links().charge.as_deref();
        let parent = refund
            .links()
            .payment_intent
            .as_deref()
            .and_then(|intent| parents.get(intent))
            .or_else(|| parents.get(charge?))
            .and_then(|place| out.payments.get(*place))
            .cloned();
        let charge = charge.and_then(|id| group.get("charge", id));
        out.payments.push(context.refund(refund, charge, parent));
    }
    out
}

pub(super) struct Context<'a> {
    pub environment: &'a str,
    pub group: &'a Group<'a>,
    pub owners: &'a Owners,
}

impl<'a> Context<'a> {
    pub(super) fn payers(&self) -> Vec<Payer<'a>> {
        let group = self.group;
        let intents = group.intents().into_iter().map(|id| {
            let charges = group.charges(&id);
            Payer {
                intent: group.get("payment_intent", &id),
                sessions: group.sessions(&id),
                invoices: group.invoices_paid_by(Some(&id), &charges),
                charges,
                intent_id: Some(id),
                purpose: Purpose::Unknown,
            }
        });
        let lone = group.lone_charges().map(|charge| Payer {
            intent_id: None,
            intent: None,
            charges: vec![charge],
            sessions: Vec::new(),
            invoices: group.invoices_paid_by(None, &[charge]),
            purpose: Purpose::Unknown,
        });
        intents.chain(lone).collect()
    }

    /// Our row of a session, if the session is the one that the row stands for.
    pub(super) fn row_of_session(&self, session: &Member) -> Option<&'a CheckoutSession> {
        self.owners
            .session(session.links().session_row)
            .filter(|row| row.stripe_checkout_session_id.as_deref() == Some(session.id()))
    }

    /// A completed session that cost nothing, and so has no intent. If an invoice was made of it
    /// all the same, that is what both will be known by.
    pub(super) fn free(&self, session: &Member) -> Option<Payment> {
        let body = session.body();
        let free = match body.text("payment_status").as_deref() {
            Some("no_payment_required") => true,
            Some("paid") => body.int("amount_total") == Some(0),
            _ => false,
        };
        let complete = session.status() == Some("complete");
        if !free || !complete || !session.sells_once() || session.links().payment_intent.is_some() {
            return None;
        }
        let invoice = session.links().invoice.as_deref();
        if invoice.is_some_and(|id| self.group.get("invoice", id).is_some()) {
            return None;
        }
        let anchor = invoice.unwrap_or(session.id());
        let mut row = Payment {
            status: "succeeded".to_owned(),
            stripe_invoice_id: session.links().invoice.clone(),
            stripe_customer_id: session.links().customer.clone(),
            customer_email_snapshot: email_of_session(session),
            amount: body.int("amount_total").or(Some(0)),
            amount_refunded: Some(0),
            currency: body.text("currency"),
            ..self.blank(anchor, "one_time_payment", session.created())
        };
        self.sold_by(&mut row, &[session], self.row_of_session(session), &[]);
        Some(row)
    }

    pub(super) fn blank(&self, anchor: &str, kind: &str, created: Option<Time>) -> Payment {
        Payment {
            id: row_id(self.environment, anchor),
            environment: self.environment.to_owned(),
            kind: kind.to_owned(),
            status: String::new(),
            subject_type: None,
            subject_id: None,
            stripe_customer_id: None,
            customer_email_snapshot: None,
            stripe_checkout_session_id: None,
            stripe_payment_intent_id: None,
            stripe_invoice_id: None,
            stripe_charge_id: None,
            stripe_refund_id: None,
            stripe_subscription_id: None,
            stripe_product_id: None,
            stripe_price_id: None,
            amount: None,
            amount_refunded: None,
            currency: None,
            description: None,
            billing_reason: None,
            dispute_status: None,
            metadata: Some(Value::Object(Map::new())),
            paid_at: None,
            failed_at: None,
            refunded_at: None,
            stripe_created_at: created,
            created_at: created,
            updated_at: created,
        }
    }

    /// What the sale says: whose it is, what was sold, and the app's own metadata. From our own
    /// row at first sight, whichever object comes first: an app's trigger finds its order there.
    pub(super) fn sold_by(
        &self,
        row: &mut Payment,
        sessions: &[&Member],
        ours: Option<&CheckoutSession>,
        sources: &[&Member],
    ) {
        row.stripe_checkout_session_id = ours
            .and_then(|ours| ours.stripe_checkout_session_id.clone())
            .or_else(|| sessions.first().map(|session| session.id().to_owned()));
        let subject = ours
            .and_then(|ours| Subject::of(&ours.subject_type, &ours.subject_id))
            .or_else(|| self.owners.of_customer(row.stripe_customer_id.as_deref()));
        (row.subject_type, row.subject_id) = Subject::columns(subject);
        let price = ours.and_then(|ours| {
            Some(
                ours.line_items
                    .as_ref()?
                    .get(0)?
                    .get("stripe_price_id")?
                    .as_str()?
                    .to_owned(),
            )
        });
        if row.stripe_price_id.is_none() {
            row.stripe_price_id = price;
        }
        row.metadata = match ours {
            Some(ours) => ours.metadata.clone(),
            None => Some(Value::Object(metadata(
                sessions
                    .iter()
                    .chain(sources)
                    .filter_map(|member| member.body().map("metadata")),
            ))),
        };
    }

    pub(super) fn refund(
        &self,
        refund: &Member,
        charge: Option<&Member>,
        parent: Option<Payment>,
    ) -> Payment {
        let body = refund.body();
        let fate = fate(refund, charge);
        let created = refund.created();
        let status = match fate {
            Fate::Refunded => "refunded",
            Fate::Pending => "pending",
            Fate::Nothing => "failed",
        };
        let intent = charge.and_then(|charge| charge.links().payment_intent.clone());
        let mut row = Payment {
            status: status.to_owned(),
            stripe_refund_id: Some(refund.id().to_owned()),
            stripe_charge_id: refund.links().charge.clone(),
            stripe_payment_intent_id: refund.links().payment_intent.clone().or(intent),
            amount: body.int("amount"),
            currency: body.text("currency"),
            description: body.text("description"),
            refunded_at: created.filter(|_| fate == Fate::Refunded),
            ..self.blank(refund.id(), "refund", created)
        };
        let own = body.map("metadata").map(own_metadata);
        let mut metadata = Map::new();
        if let Some(parent) = parent {
            row.subject_type = parent.subject_type;
            row.subject_id = parent.subject_id;
            row.stripe_customer_id = parent.stripe_customer_id;
            row.customer_email_snapshot = parent.customer_email_snapshot;
            row.stripe_checkout_session_id = parent.stripe_checkout_session_id;
            row.stripe_invoice_id = parent.stripe_invoice_id;
            row.stripe_subscription_id = parent.stripe_subscription_id;
            row.stripe_product_id = parent.stripe_product_id;
            row.stripe_price_id = parent.stripe_price_id;
            row.billing_reason = parent.billing_reason;
            if let Some(Value::Object(parents)) = parent.metadata {
                metadata = parents;
            }
        } else {
            let customer = charge.and_then(|charge| charge.links().customer.clone());
            row.stripe_customer_id = refund.links().customer.clone().or(customer);
            let subject = self.owners.of_customer(row.stripe_customer_id.as_deref());
            (row.subject_type, row.subject_id) = Subject::columns(subject);
        }
        metadata.extend(own.unwrap_or_default());
        row.metadata = Some(Value::Object(metadata));
        row
    }
}

/// Several pieces of metadata as one, later ones first; our own keys left out.
pub(super) fn metadata<'b>(
    pieces: impl Iterator<Item = &'b Map<String, Value>>,
) -> Map<String, Value> {
    pieces.flat_map(own_metadata).collect()
}

pub(super) fn email_of_session(session: &Member) -> Option<String> {
    let body = session.body();
    body.text("customer_details.email")
        .or_else(|| body.text("customer_email"))
}

pub(super) fn status_of_newest(disputes: &[&Member]) -> Option<String> {
    disputes
        .last()
        .and_then(|dispute| dispute.body().text("status"))
}

/// The product and the price of an invoice's first line.
pub(super) fn sold(invoice: Body) -> Option<(Option<String>, Option<String>)> {
    let line = invoice.list("lines").next()?;
    let product = line
        .id("pricing.price_details.product")
        .or_else(|| line.id("price.product"))
        .or_else(|| line.id("plan.product"));
    let price = line
        .id("pricing.price_details.price")
        .or_else(|| line.id("price"))
        .or_else(|| line.id("plan"));
    Some((product, price))
}
