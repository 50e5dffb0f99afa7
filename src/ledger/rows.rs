//! The projected tables, one struct each. Field for field the columns of the tables in schema
//! `payments`; the comments on those columns say what each means.

use serde_json::Value;
use uuid::Uuid;

use crate::table::{Column, Field, Row, Table, Time};

/// A struct whose fields are the columns of one table.
pub trait Projected: Sized {
    /// The table's description.
    const TABLE: &'static Table;

    /// The row as cells, in the table's order.
    fn into_row(self) -> Row;

    /// The struct of a row read back. `None` when the row belongs to another table or a cell
    /// does not hold its column's type.
    fn from_row(row: &Row) -> Option<Self>;
}

macro_rules! projected {
    ($(
        $(#[$doc:meta])*
        $name:ident in $table:literal, key $key:tt, kept $kept:tt {
            $($field:ident $(as $column:literal)?: $ty:ty,)+
        }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $(pub $field: $ty,)+ }

        impl Projected for $name {
            const TABLE: &'static Table = &Table {
                name: $table,
                key: &$key,
                kept: &$kept,
                columns: &[$(Column {
                    name: projected!(@column $field $($column)?),
                    ty: <$ty as Field>::TYPE,
                },)+],
            };

            fn into_row(self) -> Row {
                Row { table: Self::TABLE, cells: vec![$(self.$field.into_cell(),)+] }
            }

            fn from_row(row: &Row) -> Option<Self> {
                if row.table != Self::TABLE {
                    return None;
                }
                let mut cells = row.cells.iter();
                let read = Self { $($field: Field::from_cell(cells.next()?)?,)+ };
                cells.next().is_none().then_some(read)
            }
        }
    )+

    /// Every projected table, in the order in which a transaction writes them: what an app's
    /// trigger looks up (sessions, customers, items) before what its trigger sits on.
    pub const TABLES: &[&Table] = &[$($name::TABLE,)+];
    };
    (@column $field:ident) => { stringify!($field) };
    (@column $field:ident $column:literal) => { $column };
}

projected! {
    /// A row of `payments.products`.
    Product in "products", key ["environment", "stripe_product_id"], kept [] {
        environment: String,
        stripe_product_id: String,
        name: Option<String>,
        description: Option<String>,
        active: Option<bool>,
        default_price_id: Option<String>,
        metadata: Option<Value>,
        deleted: bool,
        created_at: Option<Time>,
        updated_at: Option<Time>,
    }

    /// A row of `payments.prices`.
    Price in "prices", key ["environment", "stripe_price_id"], kept [] {
        environment: String,
        stripe_price_id: String,
        stripe_product_id: Option<String>,
        active: Option<bool>,
        currency: Option<String>,
        unit_amount: Option<i64>,
        unit_amount_decimal: Option<String>,
        kind as "type": Option<String>,
        lookup_key: Option<String>,
        billing_scheme: Option<String>,
        tax_behavior: Option<String>,
        recurring_interval: Option<String>,
        recurring_interval_count: Option<i32>,
        recurring_usage_type: Option<String>,
        metadata: Option<Value>,
        deleted: bool,
        created_at: Option<Time>,
        updated_at: Option<Time>,
    }

    /// A row of `payments.customers`.
    Customer in "customers", key ["environment", "stripe_customer_id"], kept [] {
        environment: String,
        stripe_customer_id: String,
        email: Option<String>,
        name: Option<String>,
        phone: Option<String>,
        deleted: bool,
        metadata: Option<Value>,
        stripe_created_at: Option<Time>,
        created_at: Option<Time>,
        updated_at: Option<Time>,
    }

    /// A row of `payments.checkout_sessions`.
    CheckoutSession in "checkout_sessions", key ["environment", "id"], kept [
        "mode", "subject_type", "subject_id", "customer_email", "line_items", "success_url",
        "cancel_url", "idempotency_key", "metadata", "requested_by", "request_hash",
        "generation", "created_at"
    ] {
        id: Uuid,
        environment: String,
        mode: Option<String>,
        status: Option<String>,
        payment_status: Option<String>,
        subject_type: Option<String>,
        subject_id: Option<String>,
        customer_email: Option<String>,
        line_items: Option<Value>,
        success_url: Option<String>,
        cancel_url: Option<String>,
        idempotency_key: Option<String>,
        metadata: Option<Value>,
        stripe_checkout_session_id: Option<String>,
        stripe_customer_id: Option<String>,
        stripe_payment_intent_id: Option<String>,
        stripe_subscription_id: Option<String>,
        url: Option<String>,
        last_error: Option<String>,
        expires_at: Option<Time>,
        requested_by: Option<String>,
        request_hash: Option<String>,
        generation: Option<i32>,
        created_at: Option<Time>,
        updated_at: Option<Time>,
    }

    /// A row of `payments.customer_mappings`.
    CustomerMapping in "customer_mappings",
        key ["environment", "subject_type", "subject_id", "stripe_customer_id"],
        kept ["linked_at"]
    {
        environment: String,
        subject_type: String,
        subject_id: String,
        stripe_customer_id: String,
        linked_at: Option<Time>,
        created_at: Option<Time>,
        updated_at: Option<Time>,
    }

    /// A row of `payments.subscription_items`.
    SubscriptionItem in "subscription_items",
        key ["environment", "stripe_subscription_item_id"],
        kept []
    {
        environment: String,
        stripe_subscription_item_id: String,
        stripe_subscription_id: Option<String>,
        stripe_product_id: Option<String>,
        stripe_price_id: Option<String>,
        lookup_key: Option<String>,
        quantity: Option<i64>,
        current_period_start: Option<Time>,
        current_period_end: Option<Time>,
        metadata: Option<Value>,
        created_at: Option<Time>,
        updated_at: Option<Time>,
    }

    /// A row of `payments.subscriptions`.
    Subscription in "subscriptions", key ["environment", "stripe_subscription_id"], kept [] {
        environment: String,
        stripe_subscription_id: String,
        stripe_customer_id: Option<String>,
        subject_type: Option<String>,
        subject_id: Option<String>,
        status: Option<String>,
        current_period_start: Option<Time>,
        current_period_end: Option<Time>,
        cancel_at_period_end: Option<bool>,
        cancel_at: Option<Time>,
        canceled_at: Option<Time>,
        ended_at: Option<Time>,
        trial_start: Option<Time>,
        trial_end: Option<Time>,
        latest_invoice_id: Option<String>,
        metadata: Option<Value>,
        created_at: Option<Time>,
        updated_at: Option<Time>,
    }

    /// A row of `payments.invoices`.
    Invoice in "invoices", key ["environment", "stripe_invoice_id"], kept [] {
        environment: String,
        stripe_invoice_id: String,
        stripe_customer_id: Option<String>,
        stripe_subscription_id: Option<String>,
        subject_type: Option<String>,
        subject_id: Option<String>,
        number: Option<String>,
        status: Option<String>,
        billing_reason: Option<String>,
        currency: Option<String>,
        subtotal: Option<i64>,
        total: Option<i64>,
        amount_due: Option<i64>,
        amount_paid: Option<i64>,
        amount_remaining: Option<i64>,
        attempt_count: Option<i32>,
        next_payment_attempt: Option<Time>,
        period_start: Option<Time>,
        period_end: Option<Time>,
        due_date: Option<Time>,
        hosted_invoice_url: Option<String>,
        invoice_pdf: Option<String>,
        deleted: bool,
        metadata: Option<Value>,
        finalized_at: Option<Time>,
        paid_at: Option<Time>,
        voided_at: Option<Time>,
        created_at: Option<Time>,
        updated_at: Option<Time>,
    }

    /// A row of `payments.disputes`.
    Dispute in "disputes", key ["environment", "stripe_dispute_id"], kept [] {
        environment: String,
        stripe_dispute_id: String,
        stripe_charge_id: Option<String>,
        stripe_payment_intent_id: Option<String>,
        amount: Option<i64>,
        currency: Option<String>,
        reason: Option<String>,
        status: Option<String>,
        evidence_due_by: Option<Time>,
        metadata: Option<Value>,
        created_at: Option<Time>,
        updated_at: Option<Time>,
    }

    /// A row of `payments.payment_history`.
    Payment in "payment_history", key ["environment", "id"], kept [] {
        id: Uuid,
        environment: String,
        kind as "type": String,
        status: String,
        subject_type: Option<String>,
        subject_id: Option<String>,
        stripe_customer_id: Option<String>,
        customer_email_snapshot: Option<String>,
        stripe_checkout_session_id: Option<String>,
        stripe_payment_intent_id: Option<String>,
        stripe_invoice_id: Option<String>,
        stripe_charge_id: Option<String>,
        stripe_refund_id: Option<String>,
        stripe_subscription_id: Option<String>,
        stripe_product_id: Option<String>,
        stripe_price_id: Option<String>,
        amount: Option<i64>,
        amount_refunded: Option<i64>,
        currency: Option<String>,
        description: Option<String>,
        billing_reason: Option<String>,
        dispute_status: Option<String>,
        metadata: Option<Value>,
        paid_at: Option<Time>,
        failed_at: Option<Time>,
        refunded_at: Option<Time>,
        stripe_created_at: Option<Time>,
        created_at: Option<Time>,
        updated_at: Option<Time>,
    }
}
