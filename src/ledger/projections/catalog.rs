//! Products and prices.

use super::{body, created};
use crate::mirror::Object;
use crate::rows::{Price, Product};

pub(crate) fn product(environment: &str, object: &Object) -> Product {
    let body = body(object);
    let created_at = created(object);
    Product {
        environment: environment.to_owned(),
        stripe_product_id: object.key.id.clone(),
        name: body.text("name"),
        description: body.text("description"),
        active: body.boolean("active"),
        default_price_id: body.id("default_price"),
        metadata: body.json("metadata"),
        deleted: object.deleted,
        created_at,
        updated_at: body.time("updated").max(created_at),
    }
}

pub(crate) fn price(environment: &str, object: &Object) -> Price {
    let body = body(object);
    let created_at = created(object);
    Price {
        environment: environment.to_owned(),
        stripe_price_id: object.key.id.clone(),
        stripe_product_id: body.id("product"),
        active: body.boolean("active"),
        currency: body.text("currency"),
        unit_amount: body.int("unit_amount"),
        unit_amount_decimal: body.text("unit_amount_decimal"),
        kind: body.text("type"),
        lookup_key: body.text("lookup_key"),
        billing_scheme: body.text("billing_scheme"),
        tax_behavior: body.text("tax_behavior"),
        recurring_interval: body.text("recurring.interval"),
        recurring_interval_count: body
            .int("recurring.interval_count")
            .and_then(|count| count.try_into().ok()),
        recurring_usage_type: body.text("recurring.usage_type"),
        metadata: body.json("metadata"),
        deleted: object.deleted,
        created_at,
        updated_at: created_at,
    }
}
