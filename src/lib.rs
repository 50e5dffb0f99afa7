//! Stripe Checkout, the customer portal, webhooks and synced payment state, inside Postgres.

mod access;
mod catalog;
mod checkout;
mod checkout_settings;
mod connection;
mod customers;
mod door;
mod events;
mod expose;
mod grants;
mod guard;
mod install;
mod link;
mod portal;
mod postgres;
mod prices;
mod proof;
mod rebuild;
mod refunds;
mod replay;
mod secrets;
mod simulate;
mod store;
mod stripe_errors;
mod subscriptions;
mod sync;
mod webhook;

use pgrx::extension_sql_file;

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/bootstrap.sql", bootstrap);
extension_sql_file!("../sql/types.sql");
extension_sql_file!("../sql/secrets.sql");
extension_sql_file!("../sql/install.sql", requires = ["types"]);
extension_sql_file!("../sql/connection.sql", requires = ["types"]);
extension_sql_file!("../sql/endpoint.sql", requires = ["types"]);
extension_sql_file!("../sql/access.sql", requires = ["types"]);
extension_sql_file!("../sql/checkout.sql", requires = ["types"]);
extension_sql_file!("../sql/checkout_settings.sql", requires = ["types"]);
extension_sql_file!("../sql/catalog.sql", requires = ["types"]);
extension_sql_file!("../sql/billing.sql", requires = ["types"]);
extension_sql_file!("../sql/link.sql", requires = ["types"]);
extension_sql_file!("../sql/portal.sql", requires = ["types"]);
extension_sql_file!("../sql/webhook.sql", requires = ["types"]);
extension_sql_file!("../sql/replay.sql", requires = ["types", "webhook"]);
extension_sql_file!("../sql/rebuild.sql", requires = ["types"]);
extension_sql_file!("../sql/sync.sql", requires = ["types"]);
extension_sql_file!("../sql/simulate.sql", requires = ["types"]);
extension_sql_file!("../sql/finalize.sql", finalize);

/// How Stripe's secrets begin, which the server log must not show.
const SECRETS: &[&str] = &["sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"];

/// The functions that are handed one, whose statements must not be shown however it was mistyped.
const SETTERS: &[&str] = &["set_stripe_key", "set_webhook_secret"];

/// Postgres calls it when it loads the library into a process.
#[allow(non_snake_case)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    postgres::error::init();
    postgres::settings::init();
    postgres::table::init();
    postgres::redaction::init(SECRETS, SETTERS);
    postgres::version::init();
}
