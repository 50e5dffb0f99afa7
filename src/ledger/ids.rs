//! How the objects of a payment find each other.

use std::collections::BTreeSet;

use crate::links::Link;
use crate::mirror::Object;
use crate::observation::Key;
use crate::store::Scope;

/// Ids by which the objects of payments find each other.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ids {
    pub intents: BTreeSet<String>,
    pub charges: BTreeSet<String>,
    pub invoices: BTreeSet<String>,
    /// Objects that nothing names and that may name nothing: a free session.
    pub others: BTreeSet<Key>,
}

impl Ids {
    pub fn add(&mut self, object: &Object) {
        let id = object.key.id.clone();
        match object.key.object_type.as_str() {
            "payment_intent" => self.intents.insert(id),
            "charge" => self.charges.insert(id),
            "invoice" => self.invoices.insert(id),
            _ => self.others.insert(object.key.clone()),
        };
        let links = &object.links;
        self.intents.extend(links.payment_intent.clone());
        self.charges.extend(links.charge.clone());
        self.invoices.extend(links.invoice.clone());
    }

    pub fn without(&self, seen: &Self) -> Self {
        let minus = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect();
        Self {
            intents: minus(&self.intents, &seen.intents),
            charges: minus(&self.charges, &seen.charges),
            invoices: minus(&self.invoices, &seen.invoices),
            others: self.others.difference(&seen.others).cloned().collect(),
        }
    }

    pub fn extend(&mut self, other: Self) {
        self.intents.extend(other.intents);
        self.charges.extend(other.charges);
        self.invoices.extend(other.invoices);
        self.others.extend(other.others);
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        let invoices = self.invoices.iter().cloned().map(Scope::Invoice);
        let intents = self.intents.iter().cloned().map(Scope::PaymentIntent);
        let charges = self.charges.iter().cloned().map(Scope::Charge);
        invoices.chain(intents).chain(charges)
    }

    /// The objects with these ids, and Stripe's answers about them.
    pub fn keys(&self) -> Vec<Key> {
        let keys = |ids: &BTreeSet<String>, object_type: &str| -> Vec<Key> {
            ids.iter().map(|id| key(object_type, id)).collect()
        };
        [
            keys(&self.intents, "payment_intent"),
            keys(&self.charges, "charge"),
            keys(&self.invoices, "invoice"),
            self.others.iter().cloned().collect(),
        ]
        .concat()
    }

    pub fn links(&self) -> Vec<(Link, String)> {
        let links = |ids: &BTreeSet<String>, link: Link| -> Vec<(Link, String)> {
            ids.iter().map(|id| (link, id.clone())).collect()
        };
        [
            links(&self.intents, Link::PaymentIntent),
            links(&self.charges, Link::Charge),
            links(&self.invoices, Link::Invoice),
        ]
        .concat()
    }
}

pub(crate) fn key(object_type: &str, id: &str) -> Key {
    Key {
        object_type: object_type.to_owned(),
        id: id.to_owned(),
    }
}
