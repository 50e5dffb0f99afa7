//! One row a payment, one row a refund.
//!
//! A row is anchored at what will still identify the payment when everything about it is known:
//! a subscription's bill at its invoice, any other payment intent at itself, a charge without
//! intent at itself, a free session at the session, a refund at the refund. A payment intent
//! whose purpose nothing tells yet has no row, because a row once made is never taken back: apps
//! act on it. Each kind of evidence below can only be added to, never withdrawn, so that rows
//! are the same in whatever order it arrives.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::group::{Group, Member};
use super::money::{Fate, Refunds, captured, fate, refunds};
use super::subject::{Owners, Subject};
use super::{invoice, own_metadata, row_id};
use crate::body::Body;
use crate::links::subscription_metadata;
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
    for member in group.all("invoice") {
        let bill = Bill::new(member, &payers, &context);
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
        let charge = refund.links.charge.as_deref();
        let parent = refund
            .links
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

struct Context<'a> {
    environment: &'a str,
    group: &'a Group<'a>,
    owners: &'a Owners,
}

/// What a payer pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Something of its own: it has a row.
    Itself,
    /// A subscription's bill: the bill has the row.
    Invoice,
    /// Nobody has said yet.
    Unknown,
}

/// What became of a payment, refunds aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fortune {
    Succeeded,
    Pending,
    Failed,
}

impl Fortune {
    /// The row's word.
    fn status(self, amount: Option<i64>, refunds: Refunds) -> &'static str {
        match self {
            Self::Succeeded if refunds.total > 0 && Some(refunds.total) >= amount => "refunded",
            Self::Succeeded if refunds.total > 0 => "partially_refunded",
            Self::Succeeded => "succeeded",
            Self::Pending => "pending",
            Self::Failed => "failed",
        }
    }
}

/// A payment intent with its charges, or a charge without intent.
struct Payer<'a> {
    intent_id: Option<String>,
    /// Absent while only others have named it.
    intent: Option<&'a Member<'a>>,
    charges: Vec<&'a Member<'a>>,
    sessions: Vec<&'a Member<'a>>,
    invoices: BTreeSet<String>,
    purpose: Purpose,
}

impl<'a> Context<'a> {
    fn payers(&self) -> Vec<Payer<'a>> {
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
        let lone = group.lone_charges().into_iter().map(|charge| Payer {
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
    fn row_of_session(&self, session: &Member) -> Option<&'a CheckoutSession> {
        self.owners
            .session(session.links.session_row)
            .filter(|row| row.stripe_checkout_session_id.as_deref() == Some(session.id()))
    }

    /// A completed session that cost nothing, and so has no intent. If an invoice was made of it
    /// all the same, that is what both will be known by.
    fn free(&self, session: &Member) -> Option<Payment> {
        let body = session.body();
        let free = match body.text("payment_status").as_deref() {
            Some("no_payment_required") => true,
            Some("paid") => body.int("amount_total") == Some(0),
            _ => false,
        };
        let complete = session.status() == Some("complete");
        if !free || !complete || !session.sells_once() || session.links.payment_intent.is_some() {
            return None;
        }
        let invoice = session.links.invoice.as_deref();
        if invoice.is_some_and(|id| self.group.get("invoice", id).is_some()) {
            return None;
        }
        let anchor = invoice.unwrap_or(session.id());
        let mut row = Payment {
            status: "succeeded".to_owned(),
            stripe_invoice_id: session.links.invoice.clone(),
            stripe_customer_id: session.links.customer.clone(),
            customer_email_snapshot: email_of_session(session),
            amount: body.int("amount_total").or(Some(0)),
            amount_refunded: Some(0),
            currency: body.text("currency"),
            ..self.blank(anchor, "one_time_payment", session.created())
        };
        self.sold_by(&mut row, &[session], self.row_of_session(session), &[]);
        Some(row)
    }

    fn blank(&self, anchor: &str, kind: &str, created: Option<Time>) -> Payment {
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
    fn sold_by(
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
                    .filter_map(|member| member.body().part("metadata")),
            ))),
        };
    }

    fn refund(&self, refund: &Member, charge: Option<&Member>, parent: Option<Payment>) -> Payment {
        let body = refund.body();
        let fate = fate(refund, charge);
        let created = refund.created();
        let status = match fate {
            Fate::Refunded => "refunded",
            Fate::Pending => "pending",
            Fate::Nothing => "failed",
        };
        let intent = charge.and_then(|charge| charge.links.payment_intent.clone());
        let mut row = Payment {
            status: status.to_owned(),
            stripe_refund_id: Some(refund.id().to_owned()),
            stripe_charge_id: refund.links.charge.clone(),
            stripe_payment_intent_id: refund.links.payment_intent.clone().or(intent),
            amount: body.int("amount"),
            currency: body.text("currency"),
            description: body.text("description"),
            refunded_at: created.filter(|_| fate == Fate::Refunded),
            ..self.blank(refund.id(), "refund", created)
        };
        let own = body
            .part("metadata")
            .map(|metadata| own_metadata(metadata.map()));
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
            let customer = charge.and_then(|charge| charge.links.customer.clone());
            row.stripe_customer_id = refund.links.customer.clone().or(customer);
            let subject = self.owners.of_customer(row.stripe_customer_id.as_deref());
            (row.subject_type, row.subject_id) = Subject::columns(subject);
        }
        metadata.extend(own.unwrap_or_default());
        row.metadata = Some(Value::Object(metadata));
        row
    }
}

impl<'a> Payer<'a> {
    fn ids(&self) -> impl Iterator<Item = String> + '_ {
        let charges = self.charges.iter().map(|charge| charge.id().to_owned());
        self.intent_id.iter().cloned().chain(charges)
    }

    /// The mirrored objects to ask Stripe about.
    fn asked_about(&self) -> impl Iterator<Item = Key> + '_ {
        let charges = self.charges.iter().filter(|_| self.intent.is_none());
        self.intent
            .iter()
            .chain(charges)
            .map(|member| member.object.key.clone())
    }

    /// Decides what this pays. See the module's comment: each "yes" to its having a row must stay
    /// a "yes" whatever is learned later.
    fn find_purpose(&self, context: &Context) -> Purpose {
        let of_subscription = |bills| {
            self.invoices
                .iter()
                .any(|id| context.group.bills_subscription(id) == Some(bills))
        };
        let itself = match &self.intent_id {
            // A charge without intent says at once whether it pays an invoice, and then which.
            None => self
                .charges
                .iter()
                .all(|charge| charge.links.invoice.is_none()),
            Some(id) => {
                self.sessions.iter().any(|session| session.sells_once())
                    || self.sold_here(context).is_some()
                    || self
                        .intent
                        .is_some_and(|intent| intent.body().says_none("invoice"))
                    || context.group.asked(id).is_some()
                    || self.was_attached(context)
            }
        };
        if itself || of_subscription(false) {
            Purpose::Itself
        } else if of_subscription(true) {
            Purpose::Invoice
        } else {
            Purpose::Unknown
        }
    }

    /// A payment that had succeeded before it was attached to an invoice
    /// (<https://docs.stripe.com/api/invoices/attach_payment>) had its row by then and keeps it.
    fn was_attached(&self, context: &Context) -> bool {
        let paid = self
            .charges
            .iter()
            .filter(|charge| captured(charge).is_some());
        let paid = paid.filter_map(|charge| charge.object.created).min();
        let payments = context
            .group
            .invoice_payments(self.intent_id.as_deref(), &self.charges);
        paid.is_some() && payments.iter().any(|payment| payment.object.created > paid)
    }

    /// The row of ours that this pays, by the metadata that we had copied to the intent.
    fn sold_here<'c>(&self, context: &Context<'c>) -> Option<&'c CheckoutSession> {
        let copies = self.intent.iter().chain(&self.charges);
        copies
            .filter_map(|member| context.owners.session(member.links.session_row))
            .find(|row| row.mode.as_deref() == Some("payment"))
    }

    /// Our row, by whichever way it is found. A row that already has another intent is not this
    /// payment's, though an app may have copied its metadata.
    fn our_row<'c>(&self, context: &Context<'c>) -> Option<&'c CheckoutSession> {
        self.sessions
            .iter()
            .find_map(|session| context.row_of_session(session))
            .or_else(|| self.sold_here(context))
            .filter(|row| {
                let other = row.stripe_payment_intent_id.as_ref();
                other.is_none_or(|other| Some(other) == self.intent_id.as_ref())
            })
    }

    /// The charge that tells most: the one that captured, else the intent's latest, else the
    /// newest.
    fn charge(&self) -> Option<&'a Member<'a>> {
        let latest = self
            .intent
            .and_then(|intent| intent.links.charge.as_deref());
        let by_intent = || {
            self.charges
                .iter()
                .find(|charge| Some(charge.id()) == latest)
        };
        let mut newest_first = self.charges.iter().rev();
        newest_first
            .find(|charge| captured(charge).is_some())
            .or_else(by_intent)
            .or(self.charges.last())
            .copied()
    }

    fn captured(&self) -> i64 {
        self.charges
            .iter()
            .filter_map(|charge| captured(charge))
            .sum()
    }

    /// Whether charges alone prove that all was paid: of several captures, or of a bank transfer
    /// that comes in parts, the first is not the whole.
    fn is_covered(&self) -> bool {
        let asked = self.intent.and_then(|intent| intent.body().int("amount"));
        let asked = asked.or_else(|| self.charge()?.body().int("amount"));
        self.charges.iter().any(|charge| captured(charge).is_some())
            && asked.is_some_and(|asked| self.captured() >= asked)
    }

    fn fortune(&self) -> Fortune {
        let said_paid = self.sessions.iter().any(|session| {
            session.sells_once() && session.body().text("payment_status").as_deref() == Some("paid")
        });
        let latest = self
            .intent
            .and_then(|intent| intent.links.charge.as_deref());
        let failed = |charge: &&&Member| charge.status() == Some("failed");
        let latest_failed = self
            .charges
            .iter()
            .filter(failed)
            .any(|charge| Some(charge.id()) == latest);
        match self.intent.and_then(|intent| intent.status()) {
            Some("succeeded") => Fortune::Succeeded,
            _ if self.is_covered() => Fortune::Succeeded,
            Some("requires_capture") => Fortune::Pending,
            _ if said_paid => Fortune::Succeeded,
            Some("canceled") => Fortune::Failed,
            Some("requires_payment_method")
                if latest_failed
                    || self
                        .intent
                        .is_some_and(|i| i.body().at("last_payment_error").is_some()) =>
            {
                Fortune::Failed
            }
            Some("processing") if latest_failed => Fortune::Failed,
            Some(_) => Fortune::Pending,
            None if self.charges.last().is_some_and(|charge| failed(&charge)) => Fortune::Failed,
            // A lone charge may be captured in part, and is then final.
            None if self.intent_id.is_none() && self.captured() > 0 => Fortune::Succeeded,
            None => Fortune::Pending,
        }
    }

    fn amount(&self) -> Option<i64> {
        let intent = self.intent.map(|intent| intent.body());
        let total = self
            .sessions
            .iter()
            .find_map(|session| session.body().int("amount_total"));
        if self.fortune() == Fortune::Succeeded {
            let received = self
                .intent
                .filter(|intent| intent.status() == Some("succeeded"))
                .and_then(|intent| intent.body().int("amount_received"))
                .filter(|received| *received > 0);
            let captured = Some(self.captured()).filter(|captured| *captured > 0);
            if let Some(amount) = received.or(captured) {
                return Some(amount);
            }
        }
        intent
            .and_then(|intent| intent.int("amount"))
            .or_else(|| self.charge()?.body().int("amount"))
            .or(total)
    }

    fn refunds(&self, context: &Context) -> Refunds {
        refunds(context.group, self.intent_id.as_deref(), &self.charges)
    }

    fn disputes<'g>(&self, group: &'g Group<'g>) -> Vec<&'g Member<'g>> {
        let mut disputes = group.all("dispute");
        disputes.retain(|dispute| {
            let charge = dispute.links.charge.as_deref();
            let intent = dispute.links.payment_intent.as_ref();
            self.charges.iter().any(|known| Some(known.id()) == charge)
                || (intent.is_some() && intent == self.intent_id.as_ref())
        });
        disputes
    }

    fn paid_at(&self) -> Option<Time> {
        self.charge()
            .filter(|charge| captured(charge).is_some())?
            .created()
    }

    fn failed_at(&self) -> Option<Time> {
        let mut newest_first = self.charges.iter().rev();
        let failed = newest_first.find(|charge| charge.status() == Some("failed"));
        failed.and_then(|charge| charge.created()).max(
            self.intent
                .and_then(|intent| intent.body().time("canceled_at")),
        )
    }

    fn created(&self) -> Option<Time> {
        let intent = self.intent.and_then(|intent| intent.created());
        let charge = || self.charges.first().and_then(|charge| charge.created());
        let session = || self.sessions.first().and_then(|session| session.created());
        intent.or_else(charge).or_else(session)
    }

    fn updated(&self, context: &Context) -> Option<Time> {
        let intent = self
            .intent
            .and_then(|intent| intent.body().time("canceled_at"));
        let charges = self.charges.iter().filter_map(|charge| charge.created());
        let sessions = self.sessions.iter().filter_map(|session| session.created());
        let disputes = self.disputes(context.group);
        let disputes = disputes.iter().filter_map(|dispute| dispute.created());
        let refunds = self.refunds(context).last;
        intent
            .into_iter()
            .chain(charges)
            .chain(sessions)
            .chain(disputes)
            .chain(refunds)
            .fold(self.created(), |newest, time| newest.max(Some(time)))
    }

    fn customer(&self) -> Option<String> {
        let members = self
            .intent
            .iter()
            .chain(&self.charges)
            .chain(&self.sessions);
        members
            .filter_map(|member| member.links.customer.clone())
            .next()
    }

    fn email(&self) -> Option<String> {
        let charge = self.charge().map(|charge| charge.body());
        charge
            .and_then(|charge| charge.text("billing_details.email"))
            .or_else(|| charge?.text("receipt_email"))
            .or_else(|| {
                self.sessions
                    .iter()
                    .find_map(|session| email_of_session(session))
            })
            .or_else(|| self.intent?.body().text("receipt_email"))
    }

    fn row(&self, context: &Context) -> Payment {
        let fortune = self.fortune();
        let amount = self.amount();
        let refunds = self.refunds(context);
        let charge = self.charge();
        let anchor = self
            .intent_id
            .as_deref()
            .or(charge.map(|charge| charge.id()));
        let texts = |path: &str| {
            let members = self.intent.iter().chain(&charge);
            members.filter_map(|member| member.body().text(path)).next()
        };
        let currency = self
            .sessions
            .iter()
            .find_map(|session| session.body().text("currency"));
        let invoices: Vec<_> = self
            .invoices
            .iter()
            .filter_map(|id| context.group.get("invoice", id))
            .collect();
        let (product, price) = invoices.iter().find_map(|i| sold(i.body())).unzip();
        let mut row = Payment {
            status: fortune.status(amount, refunds).to_owned(),
            stripe_customer_id: self.customer().or_else(|| {
                invoices
                    .iter()
                    .find_map(|invoice| invoice.links.customer.clone())
            }),
            customer_email_snapshot: self.email().or_else(|| {
                invoices
                    .iter()
                    .find_map(|i| i.body().text("customer_email"))
            }),
            stripe_payment_intent_id: self.intent_id.clone(),
            stripe_charge_id: charge
                .map(|charge| charge.id().to_owned())
                .or_else(|| self.intent?.links.charge.clone()),
            stripe_invoice_id: self.invoices.first().cloned(),
            stripe_product_id: product.flatten(),
            stripe_price_id: price.flatten(),
            amount,
            amount_refunded: Some(refunds.total),
            currency: texts("currency").or(currency),
            description: texts("description"),
            billing_reason: invoices
                .iter()
                .find_map(|i| i.body().text("billing_reason")),
            dispute_status: status_of_newest(&self.disputes(context.group)),
            paid_at: self.paid_at().filter(|_| fortune == Fortune::Succeeded),
            failed_at: self.failed_at().filter(|_| fortune == Fortune::Failed),
            refunded_at: refunds.last,
            updated_at: self.updated(context),
            ..context.blank(
                anchor.unwrap_or_default(),
                "one_time_payment",
                self.created(),
            )
        };
        let sources: Vec<_> = self.charges.iter().copied().chain(self.intent).collect();
        context.sold_by(&mut row, &self.sessions, self.our_row(context), &sources);
        row
    }
}

/// An invoice and what pays it.
struct Bill<'a, 'p> {
    invoice: &'a Member<'a>,
    /// Those that have no row of their own.
    payers: Vec<&'p Payer<'a>>,
    /// What those with a row of their own paid of it.
    paid_elsewhere: i64,
    /// Whether anything at all is known to pay it.
    has_payers: bool,
}

impl<'a, 'p> Bill<'a, 'p> {
    fn new(invoice: &'a Member<'a>, payers: &'p [Payer<'a>], context: &Context<'a>) -> Self {
        let all: Vec<_> = payers
            .iter()
            .filter(|payer| payer.invoices.contains(invoice.id()))
            .collect();
        let paid_elsewhere = all
            .iter()
            .filter(|payer| payer.purpose == Purpose::Itself)
            .filter(|payer| payer.fortune() == Fortune::Succeeded)
            .filter_map(|payer| {
                let payments = context
                    .group
                    .invoice_payments(payer.intent_id.as_deref(), &payer.charges);
                let of_this = |p: &&&Member| p.links.invoice.as_deref() == Some(invoice.id());
                let said = payments
                    .iter()
                    .find(of_this)
                    .and_then(|p| p.body().int("amount_paid"));
                said.or_else(|| payer.amount())
            })
            .sum();
        let has_payers = !all.is_empty();
        let payers = all
            .into_iter()
            .filter(|payer| payer.purpose != Purpose::Itself)
            .collect();
        Self {
            invoice,
            payers,
            paid_elsewhere,
            has_payers,
        }
    }

    fn bills_subscription(&self, context: &Context) -> bool {
        context.group.bills_subscription(self.invoice.id()) == Some(true)
    }

    /// The checkout session that the invoice is of.
    fn sessions(&self, context: &Context<'a>) -> Vec<&'a Member<'a>> {
        let mut sessions = context.group.all("checkout.session");
        sessions.retain(|s| s.links.invoice.as_deref() == Some(self.invoice.id()));
        sessions
    }

    /// A subscription's bill has a row as soon as it is more than a draft. A one-off invoice has
    /// one only when it is certain that no intent will ever pay it: the intent has the row.
    fn has_row(&self, context: &Context) -> bool {
        let body = self.invoice.body();
        if self.invoice.object.deleted || matches!(self.invoice.status(), None | Some("draft")) {
            return false;
        }
        if self.bills_subscription(context) {
            return true;
        }
        let outside = body.boolean("paid_out_of_band") == Some(true);
        self.invoice.status() == Some("paid")
            && (body.int("amount_due") == Some(0) || outside || self.paid_by_nobody(context))
    }

    /// Stripe was asked what paid the invoice and named neither intent nor charge.
    fn paid_by_nobody(&self, context: &Context) -> bool {
        let answer = context
            .group
            .asked(self.invoice.id())
            .map(|answer| answer.body());
        let nobody = |data: &Value| {
            data.as_array().is_some_and(|payments| {
                payments.iter().all(|payment| {
                    let payment = payment.get("payment");
                    let names = |key| {
                        payment
                            .and_then(|p| p.get(key))
                            .is_some_and(|v| !v.is_null())
                    };
                    !names("payment_intent") && !names("charge")
                })
            })
        };
        answer
            .and_then(|answer| answer.at("data"))
            .is_some_and(nobody)
    }

    /// Paid, and nothing tells how.
    fn is_puzzling(&self, context: &Context) -> bool {
        self.invoice.status() == Some("paid")
            && !self.invoice.object.deleted
            && !self.has_payers
            && context.group.asked(self.invoice.id()).is_none()
    }

    fn fortune(&self) -> Fortune {
        let body = self.invoice.body();
        let newest = self
            .payers
            .iter()
            .max_by_key(|payer| (payer.created(), &payer.intent_id));
        match (self.invoice.status(), newest) {
            (Some("paid"), _) => Fortune::Succeeded,
            (Some("void" | "uncollectible"), _) => Fortune::Failed,
            (_, Some(payer)) if payer.fortune() == Fortune::Failed => Fortune::Failed,
            (_, Some(_)) => Fortune::Pending,
            (_, None) if body.boolean("attempted") == Some(true) => Fortune::Failed,
            (_, None) => Fortune::Pending,
        }
    }

    fn row(&self, context: &Context<'a>) -> Payment {
        let invoice = self.invoice;
        let body = invoice.body();
        let fortune = self.fortune();
        let paid = |payer: &&&Payer| payer.fortune() == Fortune::Succeeded;
        let age = |payer: &&&Payer| (payer.created(), payer.intent_id.clone());
        let payer = self.payers.iter().filter(paid).max_by_key(age);
        let payer = payer
            .or_else(|| self.payers.iter().max_by_key(age))
            .copied();

        let mut refunds = Refunds::default();
        self.payers
            .iter()
            .for_each(|payer| refunds.add(payer.refunds(context)));
        let mut disputes: Vec<_> = self
            .payers
            .iter()
            .flat_map(|payer| payer.disputes(context.group))
            .collect();
        disputes.sort_by_key(|dispute| (dispute.object.created, dispute.id()));

        let amount = match fortune {
            Fortune::Succeeded => body
                .int("amount_paid")
                .map(|paid| paid - self.paid_elsewhere),
            _ => body.int("amount_due"),
        };
        let failed_at = || {
            let payers = self
                .payers
                .iter()
                .filter_map(|payer| payer.failed_at())
                .max();
            payers
                .or_else(|| body.time("status_transitions.voided_at"))
                .or_else(|| body.time("status_transitions.marked_uncollectible_at"))
        };
        let charge = payer.and_then(|payer| payer.charge());
        let sessions = self.sessions(context);
        let recurring = self.bills_subscription(context);
        let kind = if recurring {
            "subscription_invoice"
        } else {
            "one_time_payment"
        };
        let (product, price) = sold(body).unzip();
        let mut row = Payment {
            status: fortune.status(amount, refunds).to_owned(),
            stripe_customer_id: invoice.links.customer.clone(),
            customer_email_snapshot: payer
                .and_then(|payer| payer.email())
                .or_else(|| {
                    sessions
                        .iter()
                        .find_map(|session| email_of_session(session))
                })
                .or_else(|| body.text("customer_email")),
            stripe_payment_intent_id: payer.and_then(|payer| payer.intent_id.clone()),
            stripe_invoice_id: Some(invoice.id().to_owned()),
            stripe_charge_id: charge
                .map(|charge| charge.id().to_owned())
                .or_else(|| payer?.intent?.links.charge.clone()),
            stripe_subscription_id: invoice.links.subscription.clone(),
            stripe_product_id: product.flatten(),
            stripe_price_id: price.flatten(),
            amount,
            amount_refunded: Some(refunds.total),
            currency: body.text("currency"),
            description: body.text("description"),
            billing_reason: body.text("billing_reason"),
            dispute_status: status_of_newest(&disputes),
            paid_at: body
                .time("status_transitions.paid_at")
                .or_else(|| payer?.paid_at())
                .filter(|_| fortune == Fortune::Succeeded),
            failed_at: failed_at().filter(|_| fortune == Fortune::Failed),
            refunded_at: refunds.last,
            updated_at: self
                .payers
                .iter()
                .map(|payer| payer.updated(context))
                .fold(invoice::updated(invoice.object), Option::max),
            ..context.blank(invoice.id(), kind, invoice.created())
        };
        if recurring {
            self.renewed(&mut row, &sessions, context);
        } else {
            let ours = sessions
                .iter()
                .find_map(|session| context.row_of_session(session));
            context.sold_by(&mut row, &sessions, ours, &[invoice]);
        }
        row
    }

    /// What the subscription says of its bill. Every renewal carries the metadata of the checkout
    /// that began it, but only the first bill is that session's.
    fn renewed(&self, row: &mut Payment, sessions: &[&Member], context: &Context) {
        let body = self.invoice.body();
        let first = body.text("billing_reason").as_deref() == Some("subscription_create");
        let ours = context
            .owners
            .session(self.invoice.links.session_row)
            .filter(|_| first);
        row.stripe_checkout_session_id = sessions
            .first()
            .map(|session| session.id().to_owned())
            .or_else(|| ours?.stripe_checkout_session_id.clone());
        let subject = invoice::subject(self.invoice.object, context.owners);
        (row.subject_type, row.subject_id) = Subject::columns(subject);
        row.metadata = Some(Value::Object(metadata(
            subscription_metadata(body)
                .into_iter()
                .chain(body.part("metadata")),
        )));
    }
}

/// Several pieces of metadata as one, later ones first; our own keys left out.
fn metadata<'b>(pieces: impl Iterator<Item = Body<'b>>) -> Map<String, Value> {
    pieces.flat_map(|piece| own_metadata(piece.map())).collect()
}

fn email_of_session(session: &Member) -> Option<String> {
    let body = session.body();
    body.text("customer_details.email")
        .or_else(|| body.text("customer_email"))
}

fn status_of_newest(disputes: &[&Member]) -> Option<String> {
    disputes
        .last()
        .and_then(|dispute| dispute.body().text("status"))
}

/// The product and the price of an invoice's first line.
fn sold(invoice: Body) -> Option<(Option<String>, Option<String>)> {
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
