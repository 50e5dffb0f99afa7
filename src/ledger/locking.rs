//! Which locks an object needs.

use crate::mirror::Object;
use crate::observation::Key;
use crate::projections::subscription;
use crate::store::{Lock, Scope};

/// The locks that whoever writes an object needs: its own and those of what it names.
pub(crate) fn writing(object: &Object) -> Vec<Lock> {
    let links = &object.links;
    let object_type = object.key.object_type.as_str();
    let sells = object_type == "checkout.session";
    // The others only ask whose the subscription, or the customer, is.
    let changes_subscription = sells || object_type == "subscription_item";
    let maps_customer = sells || subscription::own_subject(object).is_some();
    let lock = |scope, exclusive| Lock { scope, exclusive };
    let named = [
        links
            .session_row
            .map(|row| lock(Scope::Session(row), sells)),
        links
            .subscription
            .clone()
            .map(|id| lock(Scope::Subscription(id), changes_subscription)),
        links
            .customer
            .clone()
            .map(|id| lock(Scope::Customer(id), maps_customer)),
        links
            .invoice
            .clone()
            .map(|id| lock(Scope::Invoice(id), true)),
        links
            .payment_intent
            .clone()
            .map(|id| lock(Scope::PaymentIntent(id), true)),
        links.charge.clone().map(|id| lock(Scope::Charge(id), true)),
    ];
    own(&object.key)
        .into_iter()
        .chain(named.into_iter().flatten())
        .collect()
}

/// The locks that whoever projects payments from an object needs. Of subscriptions, customers and
/// sessions it is only asked whose the payment is.
pub(crate) fn reading(object: &Object) -> Vec<Lock> {
    let mut locks = writing(object);
    for lock in &mut locks {
        let of_payment = matches!(
            lock.scope,
            Scope::Invoice(_) | Scope::PaymentIntent(_) | Scope::Charge(_)
        );
        lock.exclusive = of_payment;
    }
    locks
}

/// The lock of an object that others name.
pub(crate) fn own(key: &Key) -> Option<Lock> {
    let id = key.id.clone();
    Some(Lock::exclusive(match key.object_type.as_str() {
        "payment_intent" => Scope::PaymentIntent(id),
        "charge" => Scope::Charge(id),
        "invoice" => Scope::Invoice(id),
        "subscription" => Scope::Subscription(id),
        _ => return None,
    }))
}
