//! Stripe Checkout, the customer portal, webhooks and synced payment state, inside Postgres.

use pgrx::extension_sql_file;

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/bootstrap.sql", bootstrap);
extension_sql_file!("../sql/types.sql");
extension_sql_file!("../sql/secrets.sql");
extension_sql_file!("../sql/finalize.sql", finalize);
