//! What is paid: an invoice.

use serde_json::Value;

use super::group::Member;
use super::invoice;
use super::money::{Refunds, sum};
use super::payer::{Fortune, Payer, Purpose};
use super::payment::{Context, email_of_session, metadata, sold, status_of_newest};
use super::subject::Subject;
use crate::links::{Link, subscription_metadata};
use crate::rows::Payment;

/// An invoice and what pays it.
pub(super) struct Bill<'a, 'p> {
    pub invoice: &'a Member<'a>,
    /// Those that have no row of their own.
    pub payers: Vec<&'p Payer<'a>>,
    /// What those with a row of their own paid of it.
    pub paid_elsewhere: i64,
    /// Whether anything at all is known to pay it.
    pub has_payers: bool,
}

impl<'a, 'p> Bill<'a, 'p> {
    pub(super) fn new(
        invoice: &'a Member<'a>,
        all: Vec<&'p Payer<'a>>,
        context: &Context<'a>,
    ) -> Self {
        let paid_elsewhere = all
            .iter()
            .filter(|payer| payer.purpose == Purpose::Itself)
            .filter(|payer| payer.fortune() == Fortune::Succeeded)
            .filter_map(|payer| {
                let intent = payer.intent_id.as_deref();
                let payments = context
                    .group
                    .naming_any("invoice_payment", intent, &payer.charges);
                let of_this = |p: &&&Member| p.links().invoice.as_deref() == Some(invoice.id());
                let said = payments
                    .iter()
                    .find(of_this)
                    .and_then(|p| p.body().int("amount_paid"));
                said.or_else(|| payer.amount())
            });
        let paid_elsewhere = sum(paid_elsewhere);
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

    pub(super) fn bills_subscription(&self, context: &Context) -> bool {
        context.group.bills_subscription(self.invoice.id()) == Some(true)
    }

    /// The checkout session that the invoice is of.
    pub(super) fn sessions(&self, context: &Context<'a>) -> Vec<&'a Member<'a>> {
        context
            .group
            .naming("checkout.session", Link::Invoice, self.invoice.id())
    }

    /// A subscription's bill has a row as soon as it is more than a draft. A one-off invoice has
    /// one only when it is certain that no intent will ever pay it: the intent has the row.
    pub(super) fn has_row(&self, context: &Context) -> bool {
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
    pub(super) fn paid_by_nobody(&self, context: &Context) -> bool {
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
    pub(super) fn is_puzzling(&self, context: &Context) -> bool {
        self.invoice.status() == Some("paid")
            && !self.invoice.object.deleted
            && !self.has_payers
            && context.group.asked(self.invoice.id()).is_none()
    }

    pub(super) fn fortune(&self) -> Fortune {
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

    pub(super) fn row(&self, context: &Context<'a>) -> Payment {
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
                .map(|paid| paid.saturating_sub(self.paid_elsewhere)),
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
            stripe_customer_id: invoice.links().customer.clone(),
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
                .or_else(|| payer?.intent?.links().charge.clone()),
            stripe_subscription_id: invoice.links().subscription.clone(),
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
    pub(super) fn renewed(&self, row: &mut Payment, sessions: &[&Member], context: &Context) {
        let body = self.invoice.body();
        let first = body.text("billing_reason").as_deref() == Some("subscription_create");
        let ours = context
            .owners
            .session(self.invoice.links().session_row)
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
                .chain(body.map("metadata")),
        )));
    }
}
