//! What the mirrored objects mean: pure functions from them, and from our own rows, to the rows
//! that apps see. Same facts in, same rows out, ids and times included.

mod bill;
pub(crate) mod catalog;
pub(crate) mod checkout;
pub(crate) mod customer;
pub(crate) mod dispute;
pub(crate) mod group;
pub(crate) mod invoice;
pub(crate) mod money;
mod payer;
pub(crate) mod payment;
pub(crate) mod subject;
pub(crate) mod subscription;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::body::Body;
use crate::mirror::Object;
use crate::table::Time;

/// The namespace of the ids that we derive, itself the UUIDv5 of `payments` under the DNS
/// namespace of RFC 9562.
const NAMESPACE: Uuid = Uuid::from_u128(0x0f9c_4d43_60ae_568f_b9df_11b5_fc9a_c96a);

/// The id of the row that stands for a Stripe object: the same wherever and whenever it is made.
pub(crate) fn row_id(environment: &str, anchor: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{environment}:{anchor}").as_bytes())
}

pub(crate) fn body(object: &Object) -> Body<'_> {
    Body::Whole(&object.body)
}

/// When Stripe created the object. A bare tombstone does not say; the moment it was seen is then
/// all there is, and no later news can change it.
pub(crate) fn created(object: &Object) -> Option<Time> {
    Time::from_seconds(object.created.unwrap_or(object.as_of))
}

/// Metadata as its owner wrote it: without the keys that we reserve.
pub(crate) fn own_metadata(metadata: &Map<String, Value>) -> Map<String, Value> {
    metadata
        .iter()
        .filter(|(key, _)| !key.starts_with("payments_"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_what_it_says() {
        assert_eq!(NAMESPACE, Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"payments"));
    }
}
