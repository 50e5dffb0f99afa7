//! Stripe Checkout, the customer portal, webhooks and synced payment state, inside Postgres.

pgrx::pg_module_magic!(name, version);
