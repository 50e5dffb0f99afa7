//! What an administrator allows in checkouts and portals, and adds to them: `configure_checkout`.

mod subscriptions;

pub use subscriptions::{can_have_trial, make_others_wait, refuse_second};

use crate::checkout::{refused_argument, required};
use crate::connection::{self, as_owner, parse_environment};
use crate::door;
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::spi::{Composite, Statement};
use pgrx::{JsonB, pg_extern};
use serde_json::Value;
use stripe::checkout::Price;
use stripe::settings::{AllowedPrices, Settings};
use stripe::{Client, Environment};

/// `payments.configure_checkout(environment, settings)`.
#[pg_extern(sql = false)]
fn configure_checkout(environment: Option<&str>, settings: Option<JsonB>) -> Composite {
    static CONFIGURE: Statement = Statement::new(
        "update payments.stripe_connections as c
            set checkout_settings = $2,
                updated_at = now()
          where c.environment = $1
            and c.checkout_settings is distinct from $2",
    );
    surface(|| {
        let environment = parse_environment(environment)?;
        let settings = required("settings", settings)?;
        Settings::parse(&settings.0).map_err(refused_argument)?;
        let kept = settings
            .0
            .as_object()
            .is_some_and(|object| !object.is_empty());
        let kept = kept.then_some(settings);
        as_owner(|| CONFIGURE.execute(&[environment.as_str().into(), kept.into()]))?;
        connection::row(environment)
    })
}

/// The settings of an environment.
///
/// # Errors
/// 55000 `settings_unreadable` when what is stored is none.
pub fn of(environment: Environment) -> Result<Settings, Failure> {
    static SETTINGS: Statement = Statement::new(
        "select c.checkout_settings
           from payments.stripe_connections as c
          where c.environment = $1",
    );
    let stored: Option<Option<JsonB>> =
        as_owner(|| SETTINGS.first(&[environment.as_str().into()], |row| row.get(1)))?;
    let Some(stored) = stored.flatten() else {
        return Ok(Settings::default());
    };
    Settings::parse(&stored.0).map_err(|invalid| {
        Failure::new(
            SqlState::PREREQUISITE_STATE,
            "settings_unreadable",
            format!("the checkout settings that are stored cannot be used: {invalid}"),
        )
        .with("environment", environment.as_str())
        .hint("An administrator sets them again with payments.configure_checkout.")
    })
}

/// Refuses a URL to which buyers must not be sent.
///
/// # Errors
/// 42501 `url_not_allowed`.
pub fn admit_url(settings: &Settings, argument: &str, url: &str) -> Result<(), Failure> {
    match settings.allows_url(url) {
        true => Ok(()),
        false => Err(Failure::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            "url_not_allowed",
            format!("{argument} leads to a site that is not allowed"),
        )
        .with("argument", argument)
        .hint("An administrator lists the allowed_origins with payments.configure_checkout.")),
    }
}

/// Refuses prices that must not be sold. As the tables' owner, who has seen them.
///
/// # Errors
/// 42501 `price_not_allowed`.
pub fn admit_prices<'a>(
    client: &Client,
    environment: Environment,
    settings: &Settings,
    prices: impl Iterator<Item = &'a Price>,
) -> Result<(), Failure> {
    let Some(allowed) = &settings.allowed_prices else {
        return Ok(());
    };
    for price in prices {
        let is_allowed = match allowed {
            AllowedPrices::Active => is_active(client, environment, &price.id)?,
            AllowedPrices::Listed(names) => is_listed(environment, &price.id, names)?,
        };
        if !is_allowed {
            return Err(Failure::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                "price_not_allowed",
                format!("the price {} is not for sale", price.id),
            )
            .with("stripe_price_id", price.id.as_str())
            .hint("An administrator sets the allowed_prices with payments.configure_checkout."));
        }
    }
    Ok(())
}

fn is_listed(environment: Environment, price: &str, names: &[String]) -> Result<bool, Failure> {
    static LOOKUP_KEY: Statement = Statement::new(
        "select lookup_key
           from payments.prices
          where environment = $1
            and stripe_price_id = $2",
    );
    let key = LOOKUP_KEY.first(&[environment.as_str().into(), price.into()], |row| {
        row.get::<String>(1)
    })?;
    let key = key.flatten();
    Ok(names
        .iter()
        .any(|name| name == price || Some(name) == key.as_ref()))
}

/// Is the price active, and its product too? A product that never came by is asked for.
fn is_active(client: &Client, environment: Environment, price: &str) -> Result<bool, Failure> {
    static ACTIVE: Statement = Statement::new(
        "select price.active and not price.deleted,
                product.active and not product.deleted,
                price.stripe_product_id
           from payments.prices as price
           left join payments.products as product
             on product.environment = price.environment
            and product.stripe_product_id = price.stripe_product_id
          where price.environment = $1
            and price.stripe_price_id = $2",
    );
    let look = || {
        ACTIVE.first(&[environment.as_str().into(), price.into()], |row| {
            let is_active: (Option<bool>, Option<bool>) = (row.get(1)?, row.get(2)?);
            Ok((is_active, row.get::<String>(3)?))
        })
    };
    let is_active = match look()? {
        Some(((Some(true), None), Some(product))) => {
            door::fetch(client, environment, "product", &product)?;
            look()?.map(|(is_active, _)| is_active)
        }
        known => known.map(|(is_active, _)| is_active),
    };
    Ok(is_active == Some((Some(true), Some(true))))
}

/// A text field of one of Stripe's objects.
fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    object.pointer(path).and_then(Value::as_str)
}
