//! Products and prices: changed at Stripe first, then taken through the one door, so that whoever
//! changes them reads what they wrote.

use crate::checkout::{refused_argument, required};
use crate::connection::{self, as_owner, parse_environment, with_client};
use crate::door;
use crate::postgres::error::{Failure, surface};
use crate::postgres::sealed;
use crate::postgres::spi::{Composite, Statement};
use crate::stripe_errors::{failure, failure_of, is_gone};
use ledger::{Fields, Source};
use pgrx::iter::SetOfIterator;
use pgrx::{JsonB, pg_extern};
use serde_json::{Map, Value, json};
use stripe::catalog::{NewPrice, NewProduct, price_changes, product_changes};
use stripe::ids::Kind;
use stripe::{Client, Environment};

/// `payments.catalog(environment)`.
///
/// Reads as the owner of the tables, past row-level security: what it shows is for every visitor.
#[pg_extern(sql = false)]
fn catalog(environment: Option<&str>) -> SetOfIterator<'static, Composite> {
    static CATALOG: Statement = Statement::new(
        "select row(
             product.environment, product.stripe_product_id, product.name, product.description,
             product.default_price_id,
             coalesce(
                 jsonb_agg(
                     jsonb_build_object(
                         'stripe_price_id', price.stripe_price_id,
                         'lookup_key', price.lookup_key,
                         'currency', price.currency,
                         'unit_amount', price.unit_amount,
                         'unit_amount_decimal', price.unit_amount_decimal,
                         'type', price.type,
                         'billing_scheme', price.billing_scheme,
                         'tax_behavior', price.tax_behavior,
                         'recurring_interval', price.recurring_interval,
                         'recurring_interval_count', price.recurring_interval_count,
                         'recurring_usage_type', price.recurring_usage_type
                     )
                     order by price.currency, price.unit_amount, price.stripe_price_id
                 ) filter (where price.stripe_price_id is not null),
                 '[]'
             )
         )::payments.catalog_product
           from payments.products as product
           left join payments.prices as price
             on price.environment = product.environment
            and price.stripe_product_id = product.stripe_product_id
            and price.active
            and price.deleted is not true
          where product.environment = $1
            and product.active
            and product.deleted is not true
          group by product.environment, product.stripe_product_id
          order by product.name, product.stripe_product_id",
    );
    let products = surface(|| {
        let environment = connection::environment_for_caller(environment)?;
        let arguments = [environment.as_str().into()];
        let products = as_owner(|| CATALOG.read(&arguments, |row| row.composite(1)))?;
        Ok(products.into_iter().flatten().collect::<Vec<_>>())
    });
    SetOfIterator::new(products)
}

/// `payments.create_product(environment, name, …)`.
#[pg_extern(sql = false)]
fn create_product(
    environment: Option<&str>,
    name: Option<&str>,
    description: Option<&str>,
    active: Option<bool>,
    metadata: Option<JsonB>,
    idempotency_key: Option<&str>,
    params: Option<JsonB>,
) -> Option<Composite> {
    surface(|| {
        let environment = begin(environment)?;
        let parameters = NewProduct {
            name: required("name", name)?,
            description,
            active,
            metadata: metadata.as_ref().map(|json| &json.0),
            params: params.as_ref().map(|json| &json.0),
        }
        .parameters()
        .map_err(refused_argument)?;
        let key = request_key(environment, "product", idempotency_key)?;
        let product = create(environment, &PRODUCT, &parameters, &key)?;
        product_row(environment, &door::id_of(&product)?)
    })
}

/// `payments.update_product(environment, stripe_product_id, changes)`.
#[pg_extern(sql = false)]
fn update_product(
    environment: Option<&str>,
    stripe_product_id: Option<&str>,
    changes: Option<JsonB>,
) -> Option<Composite> {
    surface(|| {
        let environment = begin(environment)?;
        let id = product_id(stripe_product_id)?;
        let parameters =
            product_changes(&required("changes", changes)?.0).map_err(refused_argument)?;
        with_client(environment, |client| {
            PRODUCT.change(client, environment, id, &parameters)
        })?;
        product_row(environment, id)
    })
}

/// `payments.delete_product(environment, stripe_product_id)`.
#[pg_extern(sql = false)]
fn delete_product(environment: Option<&str>, stripe_product_id: Option<&str>) -> Option<Composite> {
    surface(|| {
        let environment = begin(environment)?;
        let id = product_id(stripe_product_id)?;
        with_client(environment, |client| delete(client, environment, id))?;
        product_row(environment, id)
    })
}

/// `payments.create_price(environment, stripe_product_id, currency, unit_amount, …)`.
#[pg_extern(sql = false)]
#[allow(
    clippy::too_many_arguments,
    reason = "the arguments are the SQL signature"
)]
fn create_price(
    environment: Option<&str>,
    stripe_product_id: Option<&str>,
    currency: Option<&str>,
    unit_amount: Option<i64>,
    recurring_interval: Option<&str>,
    recurring_interval_count: Option<i32>,
    lookup_key: Option<&str>,
    active: Option<bool>,
    tax_behavior: Option<&str>,
    metadata: Option<JsonB>,
    idempotency_key: Option<&str>,
    params: Option<JsonB>,
) -> Option<Composite> {
    surface(|| {
        let environment = begin(environment)?;
        let parameters = NewPrice {
            product: required("stripe_product_id", stripe_product_id)?,
            currency: required("currency", currency)?,
            unit_amount,
            recurring_interval,
            recurring_interval_count,
            lookup_key,
            active,
            tax_behavior,
            metadata: metadata.as_ref().map(|json| &json.0),
            params: params.as_ref().map(|json| &json.0),
        }
        .parameters()
        .map_err(refused_argument)?;
        let key = request_key(environment, "price", idempotency_key)?;
        let price = create(environment, &PRICE, &parameters, &key)?;
        let id = door::id_of(&price)?;
        follow_lookup_key(environment, &price)?;
        price_row(environment, &id)
    })
}

/// `payments.update_price(environment, stripe_price_id, changes)`.
#[pg_extern(sql = false)]
fn update_price(
    environment: Option<&str>,
    stripe_price_id: Option<&str>,
    changes: Option<JsonB>,
) -> Option<Composite> {
    surface(|| {
        let changes = required("changes", changes)?;
        let parameters = price_changes(&changes.0).map_err(refused_argument)?;
        change_price(environment, stripe_price_id, &parameters)
    })
}

/// `payments.archive_price(environment, stripe_price_id)`.
#[pg_extern(sql = false)]
fn archive_price(environment: Option<&str>, stripe_price_id: Option<&str>) -> Option<Composite> {
    surface(|| change_price(environment, stripe_price_id, &json!({"active": false})))
}

fn change_price(
    environment: Option<&str>,
    id: Option<&str>,
    parameters: &Value,
) -> Result<Option<Composite>, Failure> {
    let environment = begin(environment)?;
    let id = checked(Kind::Price, "stripe_price_id", id)?;
    let price = with_client(environment, |client| {
        PRICE.change(client, environment, id, parameters)
    })?;
    follow_lookup_key(environment, &price)?;
    price_row(environment, id)
}

/// What objects of a kind are called where.
struct Objects {
    object_type: &'static str,
    path: &'static str,
}

const PRODUCT: Objects = Objects {
    object_type: "product",
    path: "/v1/products",
};

const PRICE: Objects = Objects {
    object_type: "price",
    path: "/v1/prices",
};

impl Objects {
    fn change(
        &self,
        client: &Client,
        environment: Environment,
        id: &str,
        parameters: &Value,
    ) -> Result<Fields, Failure> {
        let after = door::mark(environment, self.object_type, id)?;
        let answer = client
            .post(&format!("{}/{id}", self.path), parameters, &new_key())
            .map_err(|error| failure_of(self.object_type, error))?;
        door::take_change(client, environment, (self.object_type, id), answer, after)
    }
}

fn create(
    environment: Environment,
    objects: &Objects,
    parameters: &Value,
    key: &str,
) -> Result<Fields, Failure> {
    with_client(environment, |client| {
        let answer = client
            .post(objects.path, parameters, key)
            .map_err(failure)?;
        door::take_answer(client, environment, objects.object_type, answer)
    })
}

/// Deletes a product, or archives it where Stripe keeps it for its prices' sake.
fn delete(client: &Client, environment: Environment, id: &str) -> Result<(), Failure> {
    let after = door::mark(environment, PRODUCT.object_type, id)?;
    match client.delete(&format!("{}/{id}", PRODUCT.path), &Value::Null) {
        Ok(answer) => door::take_change(
            client,
            environment,
            (PRODUCT.object_type, id),
            answer,
            after,
        )
        .map(drop),
        // The answer of an earlier attempt can have been lost.
        Err(error) if is_gone(&error) => bury(environment, id, error),
        Err(stripe::Error::Refused(refusal)) => {
            PRODUCT.change(client, environment, id, &json!({"active": false}))?;
            pgrx::notice!(
                "Stripe does not delete product {id}, so it was archived: {}",
                refusal.message
            );
            Ok(())
        }
        Err(error) => Err(failure(error)),
    }
}

/// Takes it that a product that we knew is gone, which Stripe tells by knowing it no more.
fn bury(environment: Environment, id: &str, error: stripe::Error) -> Result<(), Failure> {
    static AS_OF: Statement = Statement::new(
        "select extract(epoch from as_of)::bigint
           from payments.stripe_objects
          where environment = $1
            and object_type = 'product'
            and object_id = $2",
    );
    let after = door::mark(environment, PRODUCT.object_type, id)?;
    let as_of = as_owner(|| {
        AS_OF.first(&[environment.as_str().into(), id.into()], |row| {
            row.required(1)
        })
    })?
    .ok_or_else(|| failure_of(PRODUCT.object_type, error))?;
    let tombstone = Map::from_iter([
        ("id".to_owned(), id.into()),
        ("object".to_owned(), PRODUCT.object_type.into()),
        ("deleted".to_owned(), true.into()),
    ]);
    door::take(environment, tombstone, as_of, Source::Answer { after })?;
    Ok(())
}

/// A lookup key that moved to a price has left another one, which the answer does not say.
fn follow_lookup_key(environment: Environment, price: &Fields) -> Result<(), Failure> {
    static LEFT: Statement = Statement::new(
        "select stripe_price_id
           from payments.prices
          where environment = $1
            and lookup_key = $2
            and stripe_price_id <> $3
            and not deleted",
    );
    let Some(key) = price.get("lookup_key").and_then(Value::as_str) else {
        return Ok(());
    };
    let id = door::id_of(price)?;
    let left: Vec<String> = as_owner(|| {
        LEFT.rows(
            &[environment.as_str().into(), key.into(), id.as_str().into()],
            |row| row.required(1),
        )
    })?;
    if left.is_empty() {
        return Ok(());
    }
    with_client(environment, |client| {
        for id in left {
            door::fetch(client, environment, PRICE.object_type, &id)?;
        }
        Ok(())
    })
}

/// What every function that changes the catalog begins with.
fn begin(environment: Option<&str>) -> Result<Environment, Failure> {
    door::require_read_committed()?;
    parse_environment(environment)
}

fn product_id(id: Option<&str>) -> Result<&str, Failure> {
    checked(Kind::Product, "stripe_product_id", id)
}

/// An argument that is an id of this kind.
///
/// # Errors
/// 22023 when it is missing or has another shape.
pub fn checked<'a>(
    kind: Kind,
    argument: &'static str,
    id: Option<&'a str>,
) -> Result<&'a str, Failure> {
    kind.check(required(argument, id)?).map_err(|error| {
        Failure::argument("invalid_argument", format!("{argument} is {error}"))
            .with("argument", argument)
    })
}

/// Stripe's key for something to be made: the same for the same key of the caller's, or else new.
fn request_key(
    environment: Environment,
    what: &str,
    callers: Option<&str>,
) -> Result<String, Failure> {
    let Some(callers) = callers else {
        return Ok(new_key());
    };
    let derived = sealed::derive(what, &[environment.as_str(), callers])?;
    Ok(format!("payments-{what}-{}", hex::encode(&derived[..16])))
}

/// Stripe's key for a change, which says how things are to be: asked for again, it does no more,
/// but a key that is known at Stripe would have it do nothing.
pub fn new_key() -> String {
    format!("payments-{}", uuid::Uuid::new_v4())
}

fn product_row(environment: Environment, id: &str) -> Result<Option<Composite>, Failure> {
    static ROW: Statement = Statement::new(
        "select jsonb_populate_record(null::payments.product, to_jsonb(product))
           from payments.products as product
          where product.environment = $1
            and product.stripe_product_id = $2",
    );
    row(&ROW, environment, id)
}

fn price_row(environment: Environment, id: &str) -> Result<Option<Composite>, Failure> {
    static ROW: Statement = Statement::new(
        "select jsonb_populate_record(null::payments.price, to_jsonb(price))
           from payments.prices as price
          where price.environment = $1
            and price.stripe_price_id = $2",
    );
    row(&ROW, environment, id)
}

/// The row with this id, read as the owner of the tables.
pub fn row(
    statement: &'static Statement,
    environment: Environment,
    id: &str,
) -> Result<Option<Composite>, Failure> {
    let row = as_owner(|| {
        statement.first(&[environment.as_str().into(), id.into()], |row| {
            row.composite(1)
        })
    })?;
    row.flatten()
        .map(Some)
        .ok_or_else(|| Failure::internal("an object that Stripe showed has no row"))
}
