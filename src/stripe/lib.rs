//! Speaks Stripe, knows no Postgres.
