//! Asking Stripe for one object.

use super::Stop;
use crate::connection::as_owner;
use crate::door;
use crate::postgres::error::Failure;
use crate::postgres::spi::Statement;
use crate::store::Tables;
use ledger::{Key, Observation, Source};
use serde_json::{Map, Value, json};
use stripe::{Client, Environment, resources};

/// What Stripe says of an object now; that it is gone, where Stripe knows it no more. None for an
/// object that cannot be asked for.
pub fn look(
    client: &Client,
    environment: Environment,
    key: &Key,
) -> Result<Option<Observation>, Stop> {
    let Some(path) = resources::path(&key.object_type, &key.id) else {
        return Ok(None);
    };
    let after = as_owner(|| Tables::of(environment).mark(key))?;
    match client.get(&path, &json!({})) {
        Ok(answer) => {
            let body = door::asked_for(&answer, &key.object_type, Some(&key.id))?;
            let source = Source::Fetch { after };
            Ok(Observation::new(body, answer.as_of, source))
        }
        Err(error) if error.resource_missing() => Ok(as_owner(|| gone(environment, key))?),
        Err(error) => Err(error.into()),
    }
}

/// The tombstone of a mirrored object.
///
/// It names the incarnation that is gone: an id that a merchant chose can come back.
fn gone(environment: Environment, key: &Key) -> Result<Option<Observation>, Failure> {
    static MIRRORED: Statement = Statement::new(
        "select (body ->> 'created')::bigint, extract(epoch from as_of)::bigint
           from payments.stripe_objects
          where environment = $1
            and object_type = $2
            and object_id = $3",
    );
    let arguments = [
        environment.as_str().into(),
        key.object_type.as_str().into(),
        key.id.as_str().into(),
    ];
    let mirrored = MIRRORED.first(&arguments, |row| {
        Ok((row.get::<i64>(1)?, row.required::<i64>(2)?))
    })?;
    let Some((created, as_of)) = mirrored else {
        return Ok(None);
    };
    let mut body: Map<String, Value> = Map::new();
    body.insert("id".to_owned(), key.id.as_str().into());
    body.insert("object".to_owned(), key.object_type.as_str().into());
    body.insert("deleted".to_owned(), true.into());
    body.extend(created.map(|created| ("created".to_owned(), created.into())));
    Ok(Observation::new(body, as_of, Source::Fetch { after: None }))
}
