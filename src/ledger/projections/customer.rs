//! Customers, and which subjects they pay for.

use std::collections::BTreeMap;

use super::subject::Subject;
use super::{body, created};
use crate::mirror::Object;
use crate::rows::{CheckoutSession, Customer, CustomerMapping, Subscription};
use crate::table::Time;

pub(crate) fn customer(environment: &str, object: &Object) -> Customer {
    let body = body(object);
    let created_at = created(object);
    Customer {
        environment: environment.to_owned(),
        stripe_customer_id: object.key.id.clone(),
        email: body.text("email"),
        name: body.text("name"),
        phone: body.text("phone"),
        deleted: object.deleted,
        metadata: body.json("metadata"),
        stripe_created_at: created_at,
        created_at,
        updated_at: created_at,
    }
}

/// The subject for whom a subscription was made, as its metadata says.
pub(crate) fn subject_of_subscription(row: &Subscription) -> Option<Subject> {
    Subject::in_metadata(row.metadata.as_ref()?.as_object()?)
}

/// The mappings of one customer: for whom they completed a checkout of ours, whose subscription
/// they pay, and to whom they were linked by hand.
pub(crate) fn mappings(
    environment: &str,
    customer: &str,
    sessions: &[CheckoutSession],
    subscriptions: &[Subscription],
    existing: &[CustomerMapping],
) -> Vec<CustomerMapping> {
    let checkouts = sessions
        .iter()
        .filter(|row| row.status.as_deref() == Some("completed"))
        .filter_map(|row| {
            Some((
                Subject::of(&row.subject_type, &row.subject_id)?,
                row.created_at,
            ))
        });
    let bills = subscriptions
        .iter()
        .filter_map(|row| Some((subject_of_subscription(row)?, row.created_at)));
    let links = existing
        .iter()
        .filter(|row| row.linked_at.is_some())
        .map(|row| {
            (
                Subject {
                    kind: row.subject_type.clone(),
                    id: row.subject_id.clone(),
                },
                row.linked_at,
            )
        });

    let mut spans: BTreeMap<Subject, (Option<Time>, Option<Time>)> = BTreeMap::new();
    for (subject, time) in checkouts.chain(bills).chain(links) {
        let (first, last) = spans.entry(subject).or_insert((time, time));
        *first = (*first).min(time);
        *last = (*last).max(time);
    }
    let linked = |subject: &Subject| {
        existing
            .iter()
            .find(|row| row.subject_type == subject.kind && row.subject_id == subject.id)?
            .linked_at
    };
    spans
        .into_iter()
        .map(|(subject, (created_at, updated_at))| CustomerMapping {
            environment: environment.to_owned(),
            linked_at: linked(&subject),
            subject_type: subject.kind,
            subject_id: subject.id,
            stripe_customer_id: customer.to_owned(),
            created_at,
            updated_at,
        })
        .collect()
}

/// Whether a mapping row already says all that this evidence could add to it.
pub(crate) fn covered(mappings: &[CustomerMapping], subject: &Subject, time: Option<Time>) -> bool {
    mappings.iter().any(|row| {
        row.subject_type == subject.kind
            && row.subject_id == subject.id
            && row.created_at <= time
            && time <= row.updated_at
    })
}
