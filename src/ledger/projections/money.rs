//! How much came in and how much went back.

use super::group::{Group, Member};
use crate::links::Link;
use crate::table::Time;

/// What a charge captured. `None` for a mere authorisation, which Stripe also calls paid and
/// succeeded, and for what failed or is still on its way.
/// <https://docs.stripe.com/api/charges/object#charge_object-captured>
pub(crate) fn captured(charge: &Member) -> Option<i64> {
    let body = charge.body();
    if charge.status() != Some("succeeded") || body.boolean("captured") == Some(false) {
        return None;
    }
    body.int("amount_captured").or_else(|| body.int("amount"))
}

/// Amounts added up. Stripe sends none near the limit, and nothing it sends may stop an event.
pub(crate) fn sum(amounts: impl Iterator<Item = i64>) -> i64 {
    amounts.fold(0, i64::saturating_add)
}

/// What went back to the buyer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refunds {
    pub total: i64,
    /// When the newest refund that counts was made.
    pub last: Option<Time>,
}

impl Refunds {
    pub fn add(&mut self, other: Self) {
        self.total = self.total.saturating_add(other.total);
        self.last = self.last.max(other.last);
    }
}

/// What became of a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Refunded,
    Pending,
    /// Failed, canceled, or never a refund of money at all.
    Nothing,
}

/// What a refund did, given its charge if that is known.
///
/// Before 2025-03-31.basil Stripe wrote a refund for what a capture left uncaptured, and for a
/// cancelled authorisation. No money moved, so there is no balance transaction.
/// <https://docs.stripe.com/changelog/basil/2025-03-31/remove-refund-object-creation-for-partial-captures-and-cancellations>
pub(crate) fn fate(refund: &Member, charge: Option<&Member>) -> Fate {
    match refund.status() {
        Some("failed" | "canceled") => Fate::Nothing,
        Some("pending" | "requires_action") => Fate::Pending,
        _ if charge.is_some_and(|charge| releases(refund, charge)) => Fate::Nothing,
        _ => Fate::Refunded,
    }
}

fn releases(refund: &Member, charge: &Member) -> bool {
    if charge.body().boolean("captured") == Some(false) {
        return true;
    }
    uncaptured(charge) > 0 && refund.body().says_none("balance_transaction")
}

fn uncaptured(charge: &Member) -> i64 {
    let amount = charge.body().int("amount").unwrap_or_default();
    captured(charge).map_or(0, |captured| amount.saturating_sub(captured))
}

/// What went back of one charge.
///
/// Neither source is enough. The charge's own total is of its last event, which may precede a
/// refund that failed days later; the known refunds may not be all, because those from before the
/// mirror began never told of themselves. So: what the known refunds add up to, or what the charge
/// says less what is known to have failed since, whichever is more.
fn refunded(group: &Group, charge: &Member) -> Refunds {
    let Some(captured) = captured(charge) else {
        return Refunds::default();
    };
    let refunds = group.naming("refund", Link::Charge, charge.id());
    let amount = |refund: &Member| refund.body().int("amount").unwrap_or_default();
    let counts = |refund: &&&Member| fate(refund, Some(charge)) != Fate::Nothing;
    let known = sum(refunds.iter().filter(counts).map(|refund| amount(refund)));
    let failed_since = refunds
        .iter()
        .filter(|refund| matches!(refund.status(), Some("failed" | "canceled")))
        .filter(|refund| refund.object.as_of >= charge.object.as_of);
    let failed_since = sum(failed_since.map(|refund| amount(refund)));
    let mut said = charge.body().int("amount_refunded").unwrap_or_default();
    // The remainder that a capture left counts as refunded in versions before basil only. Those
    // are known by the field that basil took away, by the refund itself, or by the total.
    let left = uncaptured(charge);
    let counted = charge.body().says("invoice")
        || said > captured
        || refunds.iter().any(|refund| releases(refund, charge));
    if left > 0 && counted {
        said = said.saturating_sub(left).max(0);
    }
    let total = known.max(said.saturating_sub(failed_since)).max(0);
    let last = refunds
        .iter()
        .filter(counts)
        .filter_map(|refund| refund.created())
        .max();
    Refunds {
        total,
        last: last.filter(|_| total > 0),
    }
}

/// What went back of an intent's or a charge's money: over its charges, and over refunds whose
/// charge is not known yet.
pub(crate) fn refunds(group: &Group, intent: Option<&str>, charges: &[&Member]) -> Refunds {
    let mut sum = Refunds::default();
    charges
        .iter()
        .for_each(|charge| sum.add(refunded(group, charge)));
    for refund in group.naming_any("refund", intent, &[]) {
        let of_known = charges
            .iter()
            .any(|c| Some(c.id()) == refund.links().charge.as_deref());
        if !of_known && fate(refund, None) != Fate::Nothing {
            let total = refund.body().int("amount").unwrap_or_default();
            sum.add(Refunds {
                total,
                last: refund.created(),
            });
        }
    }
    sum
}
