//! Subscriptions and their items.

use std::collections::BTreeMap;

use super::subject::{Owners, Subject};
use super::{body, created};
use crate::body::Body;
use crate::mirror::Object;
use crate::rows::{Subscription, SubscriptionItem};

/// The subject that the subscription itself names. Only a secret key can write there.
pub(crate) fn own_subject(subscription: &Object) -> Option<Subject> {
    if subscription.key.object_type != "subscription" {
        return None;
    }
    Subject::in_metadata(body(subscription).map("metadata")?)
}

/// Whether Stripe has more items than the payload lists.
pub(crate) fn has_more_items(subscription: &Object) -> bool {
    body(subscription).boolean("items.has_more") == Some(true)
}

pub(crate) fn subscription(
    environment: &str,
    object: &Object,
    by_checkout: Option<Subject>,
    owners: &Owners,
) -> Subscription {
    let body = body(object);
    let customer = object.links.customer.clone();
    let subject = own_subject(object)
        .or(by_checkout)
        .or_else(|| owners.of_customer(customer.as_deref()));
    let (subject_type, subject_id) = Subject::columns(subject);
    let created_at = created(object);
    let canceled_at = body.time("canceled_at");
    let ended_at = body.time("ended_at");
    // Since 2025-03-31.basil each item has a period of its own, before that the subscription
    // had one. Both are read from the same payload: the newest that an endpoint of an older
    // version sent must not be answered with the period that an item once had.
    let start = body
        .list("items")
        .filter_map(|item| item.time("current_period_start"))
        .min();
    let end = body
        .list("items")
        .filter_map(|item| item.time("current_period_end"))
        .max();
    Subscription {
        environment: environment.to_owned(),
        stripe_subscription_id: object.key.id.clone(),
        stripe_customer_id: customer,
        subject_type,
        subject_id,
        status: body.text("status"),
        current_period_start: start.or_else(|| body.time("current_period_start")),
        current_period_end: end.or_else(|| body.time("current_period_end")),
        cancel_at_period_end: body.boolean("cancel_at_period_end"),
        cancel_at: body.time("cancel_at"),
        canceled_at,
        ended_at,
        trial_start: body.time("trial_start"),
        trial_end: body.time("trial_end"),
        latest_invoice_id: body.id("latest_invoice"),
        metadata: body.json("metadata"),
        created_at,
        updated_at: created_at.max(canceled_at).max(ended_at),
    }
}

/// The items that the subscription lists. An item seen alone since (the answer to a call that
/// changed it) is newer than its copy in the list.
pub(crate) fn items(
    environment: &str,
    subscription: &Object,
    alone: &BTreeMap<String, Object>,
) -> Vec<SubscriptionItem> {
    body(subscription)
        .list("items")
        .filter_map(|listed| {
            let id = listed.id("id")?;
            let newer = alone
                .get(&id)
                .filter(|item| item.as_of > subscription.as_of);
            Some(item(
                environment,
                subscription,
                id,
                newer.map_or(listed, body),
            ))
        })
        .collect()
}

fn item(environment: &str, subscription: &Object, id: String, item: Body) -> SubscriptionItem {
    let whole = body(subscription);
    let created_at = item.time("created");
    SubscriptionItem {
        environment: environment.to_owned(),
        stripe_subscription_item_id: id,
        stripe_subscription_id: Some(subscription.key.id.clone()),
        stripe_product_id: item.id("price.product").or_else(|| item.id("plan.product")),
        stripe_price_id: item.id("price").or_else(|| item.id("plan")),
        lookup_key: item.text("price.lookup_key"),
        quantity: item.int("quantity"),
        current_period_start: item
            .time("current_period_start")
            .or_else(|| whole.time("current_period_start")),
        current_period_end: item
            .time("current_period_end")
            .or_else(|| whole.time("current_period_end")),
        metadata: item.json("metadata"),
        created_at,
        updated_at: created_at,
    }
}

/// The ids of the items that the subscription lists.
pub(crate) fn listed(subscription: &Object) -> Vec<String> {
    body(subscription)
        .list("items")
        .filter_map(|item| item.id("id"))
        .collect()
}
