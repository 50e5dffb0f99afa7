//! Whom money is for.
//!
//! Only what a secret key can write, or what our own row says, names a subject. Metadata that a
//! buyer can influence (a customer's, a foreign session's, `client_reference_id`) never does:
//! card testers have sent other users' ids in it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::body::Body;
use crate::rows::{CheckoutSession, CustomerMapping, Subscription};

/// An app's own thing that pays or is paid for: a user, a team, an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    pub kind: String,
    pub id: String,
}

impl Subject {
    /// The subject that metadata of ours names.
    pub fn in_metadata(metadata: &Map<String, Value>) -> Option<Self> {
        let metadata = Body::Part(metadata);
        Some(Self {
            kind: metadata.text("payments_subject_type")?,
            id: metadata.text("payments_subject_id")?,
        })
    }

    /// A subject as two columns hold it.
    pub fn of(kind: &Option<String>, id: &Option<String>) -> Option<Self> {
        Some(Self {
            kind: kind.clone()?,
            id: id.clone()?,
        })
    }

    /// A subject as two columns.
    pub fn columns(subject: Option<Self>) -> (Option<String>, Option<String>) {
        subject.map(|s| (s.kind, s.id)).unzip()
    }
}

/// What our own rows say of subjects, as far as one projection needs them.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    pub sessions: BTreeMap<Uuid, CheckoutSession>,
    pub subscriptions: BTreeMap<String, Subscription>,
    pub mappings: BTreeMap<String, BTreeSet<Subject>>,
}

impl Owners {
    pub fn add_session(&mut self, session: CheckoutSession) {
        self.sessions.insert(session.id, session);
    }

    pub fn add_subscription(&mut self, subscription: Subscription) {
        self.subscriptions
            .insert(subscription.stripe_subscription_id.clone(), subscription);
    }

    pub fn add_mapping(&mut self, mapping: CustomerMapping) {
        self.mappings
            .entry(mapping.stripe_customer_id)
            .or_default()
            .insert(Subject {
                kind: mapping.subject_type,
                id: mapping.subject_id,
            });
    }

    /// The session row of ours whose id metadata carries.
    pub fn session(&self, row: Option<Uuid>) -> Option<&CheckoutSession> {
        self.sessions.get(&row?)
    }

    pub fn of_subscription(&self, subscription: Option<&str>) -> Option<Subject> {
        let row = self.subscriptions.get(subscription?)?;
        Subject::of(&row.subject_type, &row.subject_id)
    }

    /// The subject of a customer who pays for one only. Where several share a customer, nothing
    /// but the object itself can say whose it is.
    pub fn of_customer(&self, customer: Option<&str>) -> Option<Subject> {
        let subjects = self.mappings.get(customer?)?;
        (subjects.len() == 1).then(|| subjects.first().cloned())?
    }
}
