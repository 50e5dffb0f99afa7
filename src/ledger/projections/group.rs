//! The objects of one or more payments, found by how they name each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{body, created};
use crate::body::Body;
use crate::links::{Link, Links, bills_subscription};
use crate::mirror::Object;
use crate::observation::Key;
use crate::table::Time;

/// An object and what it names.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    pub object: &'a Object,
}

impl<'a> Member<'a> {
    pub fn links(&self) -> &'a Links {
        &self.object.links
    }

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

/// Everything that hangs together with some payments. It may be more than one payment's, a page
/// of a rebuild even: each row looks up only what names it.
#[derive(Default)]
pub(crate) struct Group<'a> {
    /// Oldest first.
    members: Vec<Member<'a>>,
    /// Where a member is, by its type and id.
    places: BTreeMap<(&'a str, &'a str), usize>,
    /// Where those are that name an object, by their type and what they name.
    naming: BTreeMap<(&'a str, Link, &'a str), Vec<usize>>,
}

impl<'a> Group<'a> {
    pub fn new(objects: impl Iterator<Item = &'a Object>) -> Self {
        let mut members: Vec<_> = objects.map(|object| Member { object }).collect();
        members.sort_by_key(|member| (member.object.created, &member.object.key));
        let mut group = Self::default();
        for (place, member) in members.iter().enumerate() {
            let Key { object_type, id } = &member.object.key;
            group.places.insert((object_type, id), place);
            for (link, id) in member.links().columns() {
                let Some(id) = id else { continue };
                let key = (object_type.as_str(), link, id);
                group.naming.entry(key).or_default().push(place);
            }
        }
        group.members = members;
        group
    }

    /// All objects, oldest first.
    pub fn members(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter()
    }

    /// All objects of a type, oldest first.
    pub fn all(&self, object_type: &str) -> impl Iterator<Item = &Member<'a>> {
        self.members
            .iter()
            .filter(move |m| m.object.key.object_type == object_type)
    }

    pub fn get(&self, object_type: &str, id: &str) -> Option<&Member<'a>> {
        let places: &BTreeMap<(&str, &str), _> = &self.places;
        self.members.get(*places.get(&(object_type, id))?)
    }

    /// The objects of a type that name another, oldest first.
    pub fn naming(&self, object_type: &str, link: Link, id: &str) -> Vec<&Member<'a>> {
        let naming: &BTreeMap<(&str, Link, &str), _> = &self.naming;
        let places: Option<&Vec<usize>> = naming.get(&(object_type, link, id));
        let places = places.into_iter().flatten();
        places
            .filter_map(|place| self.members.get(*place))
            .collect()
    }

    /// The objects of a type that name an intent or one of its charges, oldest first.
    pub fn naming_any(
        &self,
        object_type: &str,
        intent: Option<&str>,
        charges: &[&Member],
    ) -> Vec<&Member<'a>> {
        let by_intent = intent.map(|id| self.naming(object_type, Link::PaymentIntent, id));
        let by_charge = charges
            .iter()
            .map(|c| self.naming(object_type, Link::Charge, c.id()));
        let mut all: Vec<_> = by_intent.into_iter().chain(by_charge).flatten().collect();
        all.sort_by_key(|member| (member.object.created, &member.object.key));
        all.dedup_by_key(|member| &member.object.key);
        all
    }

    /// Every payment intent that is here or that something here names.
    pub fn intents(&self) -> BTreeSet<String> {
        let here = self
            .all("payment_intent")
            .map(|intent| intent.id().to_owned());
        let named = self
            .members
            .iter()
            .filter_map(|m| m.links().payment_intent.clone());
        here.chain(named).collect()
    }

    /// The charges of an intent, oldest first.
    pub fn charges(&self, intent: &str) -> Vec<&Member<'a>> {
        let mut charges = self.naming("charge", Link::PaymentIntent, intent);
        let latest = self
            .get("payment_intent", intent)
            .and_then(|i| i.links().charge.as_deref());
        let latest = latest.and_then(|id| self.get("charge", id));
        charges.extend(latest.filter(|charge| charge.links().payment_intent.is_none()));
        charges
    }

    /// The charges that belong to no intent.
    pub fn lone_charges(&self) -> impl Iterator<Item = &Member<'a>> {
        self.all("charge").filter(|charge| {
            charge.links().payment_intent.is_none()
                && self
                    .naming("payment_intent", Link::Charge, charge.id())
                    .is_empty()
        })
    }

    /// The sessions that name an intent.
    pub fn sessions(&self, intent: &str) -> Vec<&Member<'a>> {
        self.naming("checkout.session", Link::PaymentIntent, intent)
    }

    /// The invoices that an intent or a charge pays, as any of them says.
    pub fn invoices_paid_by(&self, intent: Option<&str>, charges: &[&Member]) -> BTreeSet<String> {
        let itself = intent.and_then(|id| self.get("payment_intent", id));
        let sessions = intent
            .map(|intent| self.sessions(intent))
            .unwrap_or_default();
        let payments = self.naming_any("invoice_payment", intent, charges);
        let saying = itself.into_iter().chain(payments).chain(sessions);
        let said = saying.filter_map(|member| member.links().invoice.clone());
        let of_charges = charges
            .iter()
            .filter_map(|charge| charge.links().invoice.clone());
        let naming = self.naming_any("invoice", intent, charges);
        let naming = naming.into_iter().map(|invoice| invoice.id().to_owned());
        said.chain(of_charges).chain(naming).collect()
    }

    /// Whether an invoice is a subscription's bill. `None` while it is not mirrored.
    pub fn bills_subscription(&self, invoice: &str) -> Option<bool> {
        Some(bills_subscription(self.get("invoice", invoice)?.body()))
    }

    /// What Stripe answered when asked which invoices an intent pays, or what paid an invoice.
    pub fn asked(&self, id: &str) -> Option<&Member<'a>> {
        self.get("invoice_payment_list", id)
    }
}
