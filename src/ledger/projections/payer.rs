//! What pays: a payment intent with its charges, or a charge without intent.

use std::collections::BTreeSet;

use super::group::{Group, Member};
use super::money::{Refunds, captured, refunds, sum};
use super::payment::{Context, email_of_session, sold, status_of_newest};
use crate::observation::Key;
use crate::rows::{CheckoutSession, Payment};
use crate::table::Time;

/// What a payer pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Something of its own: it has a row.
    Itself,
    /// A subscription's bill: the bill has the row.
    Invoice,
    /// Nobody has said yet.
    Unknown,
}

/// What became of a payment, refunds aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fortune {
    Succeeded,
    Pending,
    Failed,
}

impl Fortune {
    /// The row's word.
    pub(super) fn status(self, amount: Option<i64>, refunds: Refunds) -> &'static str {
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
pub(super) struct Payer<'a> {
    pub intent_id: Option<String>,
    /// Absent while only others have named it.
    pub intent: Option<&'a Member<'a>>,
    pub charges: Vec<&'a Member<'a>>,
    pub sessions: Vec<&'a Member<'a>>,
    pub invoices: BTreeSet<String>,
    pub purpose: Purpose,
}

impl<'a> Payer<'a> {
    pub(super) fn ids(&self) -> impl Iterator<Item = String> + '_ {
        let charges = self.charges.iter().map(|charge| charge.id().to_owned());
        self.intent_id.iter().cloned().chain(charges)
    }

    /// The mirrored objects to ask Stripe about.
    pub(super) fn asked_about(&self) -> impl Iterator<Item = Key> + '_ {
        let charges = self.charges.iter().filter(|_| self.intent.is_none());
        self.intent
            .iter()
            .chain(charges)
            .map(|member| member.object.key.clone())
    }

    /// Decides what this pays. See the module's comment: each "yes" to its having a row must stay
    /// a "yes" whatever is learned later.
    pub(super) fn find_purpose(&self, context: &Context) -> Purpose {
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
                .all(|charge| charge.links().invoice.is_none()),
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
    pub(super) fn was_attached(&self, context: &Context) -> bool {
        let paid = self
            .charges
            .iter()
            .filter(|charge| captured(charge).is_some());
        let paid = paid.filter_map(|charge| charge.object.created).min();
        let intent = self.intent_id.as_deref();
        let payments = context
            .group
            .naming_any("invoice_payment", intent, &self.charges);
        paid.is_some() && payments.iter().any(|payment| payment.object.created > paid)
    }

    /// The row of ours that this pays, by the metadata that we had copied to the intent.
    pub(super) fn sold_here<'c>(&self, context: &Context<'c>) -> Option<&'c CheckoutSession> {
        let copies = self.intent.iter().chain(&self.charges);
        copies
            .filter_map(|member| context.owners.session(member.links().session_row))
            .find(|row| row.mode.as_deref() == Some("payment"))
    }

    /// Our row, by whichever way it is found. A row that already has another intent is not this
    /// payment's, though an app may have copied its metadata.
    pub(super) fn our_row<'c>(&self, context: &Context<'c>) -> Option<&'c CheckoutSession> {
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
    pub(super) fn charge(&self) -> Option<&'a Member<'a>> {
        let latest = self
            .intent
            .and_then(|intent| intent.links().charge.as_deref());
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

    pub(super) fn captured(&self) -> i64 {
        sum(self.charges.iter().filter_map(|charge| captured(charge)))
    }

    /// Whether charges alone prove that all was paid: of several captures, or of a bank transfer
    /// that comes in parts, the first is not the whole.
    pub(super) fn is_covered(&self) -> bool {
        let asked = self.intent.and_then(|intent| intent.body().int("amount"));
        let asked = asked.or_else(|| self.charge()?.body().int("amount"));
        self.charges.iter().any(|charge| captured(charge).is_some())
            && asked.is_some_and(|asked| self.captured() >= asked)
    }

    pub(super) fn fortune(&self) -> Fortune {
        let said_paid = self.sessions.iter().any(|session| {
            session.sells_once() && session.body().text("payment_status").as_deref() == Some("paid")
        });
        let latest = self
            .intent
            .and_then(|intent| intent.links().charge.as_deref());
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

    pub(super) fn amount(&self) -> Option<i64> {
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

    pub(super) fn refunds(&self, context: &Context) -> Refunds {
        refunds(context.group, self.intent_id.as_deref(), &self.charges)
    }

    pub(super) fn disputes<'g>(&self, group: &'g Group<'g>) -> Vec<&'g Member<'g>> {
        group.naming_any("dispute", self.intent_id.as_deref(), &self.charges)
    }

    pub(super) fn paid_at(&self) -> Option<Time> {
        self.charge()
            .filter(|charge| captured(charge).is_some())?
            .created()
    }

    pub(super) fn failed_at(&self) -> Option<Time> {
        let mut newest_first = self.charges.iter().rev();
        let failed = newest_first.find(|charge| charge.status() == Some("failed"));
        failed.and_then(|charge| charge.created()).max(
            self.intent
                .and_then(|intent| intent.body().time("canceled_at")),
        )
    }

    pub(super) fn created(&self) -> Option<Time> {
        let intent = self.intent.and_then(|intent| intent.created());
        let charge = || self.charges.first().and_then(|charge| charge.created());
        let session = || self.sessions.first().and_then(|session| session.created());
        intent.or_else(charge).or_else(session)
    }

    pub(super) fn updated(&self, context: &Context) -> Option<Time> {
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

    pub(super) fn customer(&self) -> Option<String> {
        let members = self
            .intent
            .iter()
            .chain(&self.charges)
            .chain(&self.sessions);
        members
            .filter_map(|member| member.links().customer.clone())
            .next()
    }

    pub(super) fn email(&self) -> Option<String> {
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

    pub(super) fn row(&self, context: &Context) -> Payment {
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
                    .find_map(|invoice| invoice.links().customer.clone())
            }),
            customer_email_snapshot: self.email().or_else(|| {
                invoices
                    .iter()
                    .find_map(|i| i.body().text("customer_email"))
            }),
            stripe_payment_intent_id: self.intent_id.clone(),
            stripe_charge_id: charge
                .map(|charge| charge.id().to_owned())
                .or_else(|| self.intent?.links().charge.clone()),
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
