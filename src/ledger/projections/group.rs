//! The objects of one or more payments, found by how they name each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{body, created};
use crate::body::Body;
use crate::links::{Links, bills_subscription};
use crate::mirror::Object;
use crate::observation::Key;
use crate::table::Time;

/// An object and what it names.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    pub object: &'a Object,
    pub links: Links,
}

impl<'a> Member<'a> {
    pub fn id(&self) -> &'a str {
        &self.object.key.id
    }

    pub fn body(&self) -> Body<'a> {
        body(self.object)
    }

    pub fn created(&self) -> Option<Time> {
        created(self.object)
    }

    pub fn status(&self) -> Option<&'a str> {
        self.body().at("status")?.as_str()
    }

    /// For a checkout session: whether it sells one-off.
    pub fn sells_once(&self) -> bool {
        self.body().at("mode").and_then(|mode| mode.as_str()) == Some("payment")
    }
}

/// Everything that hangs together with some payments. It may be more than one payment's: each
/// row looks up only what names it.
pub(crate) struct Group<'a> {
    members: BTreeMap<&'a Key, Member<'a>>,
}

impl<'a> Group<'a> {
    pub fn new(objects: impl Iterator<Item = &'a Object>) -> Self {
        let members = objects.map(|object| {
            (
                &object.key,
                Member {
                    object,
                    links: Links::of(object),
                },
            )
        });
        Self {
            members: members.collect(),
        }
    }

    /// All objects of a type, oldest first.
    pub fn all(&self, object_type: &str) -> Vec<&Member<'a>> {
        let mut all: Vec<_> = self
            .members
            .values()
            .filter(|m| m.object.key.object_type == object_type)
            .collect();
        all.sort_by_key(|member| (member.object.created, member.id()));
        all
    }

    pub fn get(&self, object_type: &str, id: &str) -> Option<&Member<'a>> {
        self.members.get(&Key {
            object_type: object_type.to_owned(),
            id: id.to_owned(),
        })
    }

    /// Every payment intent that is here or that something here names.
    pub fn intents(&self) -> BTreeSet<String> {
        let here = self
            .all("payment_intent")
            .into_iter()
            .map(|intent| intent.id().to_owned());
        let named = self
            .members
            .values()
            .filter_map(|m| m.links.payment_intent.clone());
        here.chain(named).collect()
    }

    /// The charges of an intent, oldest first.
    pub fn charges(&self, intent: &str) -> Vec<&Member<'a>> {
        let latest = self
            .get("payment_intent", intent)
            .and_then(|i| i.links.charge.as_deref());
        let mut charges = self.all("charge");
        charges.retain(|charge| match &charge.links.payment_intent {
            Some(named) => named == intent,
            None => latest == Some(charge.id()),
        });
        charges
    }

    /// The charges that belong to no intent.
    pub fn lone_charges(&self) -> Vec<&Member<'a>> {
        let latest: BTreeSet<_> = self
            .all("payment_intent")
            .into_iter()
            .filter_map(|intent| intent.links.charge.clone())
            .collect();
        let mut charges = self.all("charge");
        charges.retain(|charge| {
            charge.links.payment_intent.is_none() && !latest.contains(charge.id())
        });
        charges
    }

    /// The sessions that name an intent.
    pub fn sessions(&self, intent: &str) -> Vec<&Member<'a>> {
        let mut sessions = self.all("checkout.session");
        sessions.retain(|session| session.links.payment_intent.as_deref() == Some(intent));
        sessions
    }

    /// The invoices that an intent or a charge pays, as any of them says.
    pub fn invoices_paid_by(&self, intent: Option<&str>, charges: &[&Member]) -> BTreeSet<String> {
        let pays = |member: &&Member| {
            let by_intent = intent.is_some() && member.links.payment_intent.as_deref() == intent;
            let charge = member.links.charge.as_deref();
            by_intent || charges.iter().any(|known| Some(known.id()) == charge)
        };
        let own = intent.and_then(|id| self.get("payment_intent", id)?.links.invoice.clone());
        let of_charges = charges
            .iter()
            .filter_map(|charge| charge.links.invoice.clone());
        let invoices = self
            .all("invoice")
            .into_iter()
            .filter(pays)
            .map(|i| i.id().to_owned());
        let payments = self.all("invoice_payment");
        let payments = payments
            .into_iter()
            .filter(pays)
            .filter_map(|p| p.links.invoice.clone());
        let sessions = intent
            .map(|intent| self.sessions(intent))
            .unwrap_or_default();
        let sessions = sessions
            .into_iter()
            .filter_map(|session| session.links.invoice.clone());
        own.into_iter()
            .chain(of_charges)
            .chain(invoices)
            .chain(payments)
            .chain(sessions)
            .collect()
    }

    /// Whether an invoice is a subscription's bill. `None` while it is not mirrored.
    pub fn bills_subscription(&self, invoice: &str) -> Option<bool> {
        Some(bills_subscription(self.get("invoice", invoice)?.body()))
    }

    /// The invoice payments by which an intent or a charge pays.
    pub fn invoice_payments(&self, intent: Option<&str>, charges: &[&Member]) -> Vec<&Member<'a>> {
        let mut payments = self.all("invoice_payment");
        payments.retain(|payment| {
            let charge = payment.links.charge.as_deref();
            (intent.is_some() && payment.links.payment_intent.as_deref() == intent)
                || charges.iter().any(|known| Some(known.id()) == charge)
        });
        payments
    }

    /// What Stripe answered when asked which invoices an intent pays, or what paid an invoice.
    pub fn asked(&self, id: &str) -> Option<&Member<'a>> {
        self.get("invoice_payment_list", id)
    }
}
