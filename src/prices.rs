//! What is known of prices that are named by an id or a lookup key.

use crate::connection::as_owner;
use crate::door;
use crate::postgres::error::Failure;
use crate::postgres::spi::Statement;
use crate::stripe_errors::failure;
use ledger::{Observation, Source};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use stripe::checkout::{Price, PriceRef};
use stripe::{Client, Environment};

/// Finds prices by their names: here, or else at Stripe. One that is nowhere is left out.
pub fn resolve(
    client: &Client,
    environment: Environment,
    wanted: Vec<&PriceRef>,
) -> Result<BTreeMap<PriceRef, Price>, Failure> {
    let mut prices = known(environment, &wanted)?;
    let mut keys = Vec::new();
    for price in wanted
        .into_iter()
        .filter(|price| !prices.contains_key(price))
        .collect::<Vec<_>>()
    {
        match price {
            PriceRef::LookupKey(key) => keys.push(key.as_str()),
            PriceRef::StripePriceId(id) => {
                prices
                    .extend(fetched(client, environment, id)?.map(|found| (price.clone(), found)));
            }
        }
    }
    // Stripe takes ten at a time: https://docs.stripe.com/api/prices/list
    for keys in keys.chunks(10) {
        prices.extend(looked_up(client, environment, keys)?);
    }
    Ok(prices)
}

fn known(
    environment: Environment,
    wanted: &[&PriceRef],
) -> Result<BTreeMap<PriceRef, Price>, Failure> {
    static KNOWN: Statement = Statement::new(
        "select stripe_price_id, lookup_key, type = 'recurring', recurring_usage_type = 'metered'
           from payments.prices
          where environment = $1
            and not deleted
            and (stripe_price_id = any ($2) or (active and lookup_key = any ($3)))
          order by updated_at nulls first",
    );
    let (mut ids, mut keys) = (Vec::new(), Vec::new());
    for price in wanted {
        match price {
            PriceRef::StripePriceId(id) => ids.push(id.as_str()),
            PriceRef::LookupKey(key) => keys.push(key.as_str()),
        }
    }
    let found = as_owner(|| {
        KNOWN.rows(
            &[environment.as_str().into(), ids.into(), keys.into()],
            |row| {
                let price = Price {
                    id: row.required(1)?,
                    recurring: row.get(3)?.unwrap_or_default(),
                    metered: row.get(4)?.unwrap_or_default(),
                };
                Ok((row.get::<String>(2)?, price))
            },
        )
    })?;
    let mut prices = BTreeMap::new();
    for (key, price) in found {
        let names = key.map(PriceRef::LookupKey).into_iter();
        for name in names.chain([PriceRef::StripePriceId(price.id.clone())]) {
            if wanted.contains(&&name) {
                prices.insert(name, price.clone());
            }
        }
    }
    Ok(prices)
}

fn fetched(client: &Client, environment: Environment, id: &str) -> Result<Option<Price>, Failure> {
    match client.get(&format!("/v1/prices/{id}"), &json!({})) {
        Ok(answer) => {
            let body = answer.body().map_err(failure)?;
            let price = Price::from_object(&body);
            observe(environment, vec![body], answer.as_of)?;
            Ok(price)
        }
        Err(error) if error.resource_missing() => Ok(None),
        Err(error) => Err(failure(error)),
    }
}

fn looked_up(
    client: &Client,
    environment: Environment,
    keys: &[&str],
) -> Result<Vec<(PriceRef, Price)>, Failure> {
    let parameters = json!({"lookup_keys": keys, "active": true, "limit": 100});
    let answer = client.get("/v1/prices", &parameters).map_err(failure)?;
    let Value::Array(page) = answer.body().map_err(failure)?["data"].take() else {
        return Ok(Vec::new());
    };
    let prices = page.iter().filter_map(|body| {
        let key = body.get("lookup_key")?.as_str()?.to_owned();
        Some((PriceRef::LookupKey(key), Price::from_object(body)?))
    });
    let prices = prices.collect();
    observe(environment, page, answer.as_of)?;
    Ok(prices)
}

fn observe(environment: Environment, prices: Vec<Value>, as_of: i64) -> Result<(), Failure> {
    let observations: Vec<Observation> = prices
        .into_iter()
        .filter_map(|price| match price {
            Value::Object(body) => Observation::new(body, as_of, Source::Listing),
            _ => None,
        })
        .collect();
    door::enter(environment, "api", &observations)?;
    Ok(())
}
