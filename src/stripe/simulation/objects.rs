//! New objects, in the shape of [`crate::API_VERSION`]: their fields besides those that all have.
//! <https://docs.stripe.com/api>

use serde_json::{Value, json};

/// Who buys, unless the overrides say.
pub(super) const EMAIL: &str = "jenny.rosen@example.com";
const NAME: &str = "Jenny Rosen";
const DAY: i64 = 86_400;
pub(super) const MONTH: i64 = 30 * DAY;

pub(super) fn product(now: i64) -> Value {
    json!({
        "active": true, "default_price": null, "description": null, "images": [],
        "marketing_features": [], "metadata": {}, "name": "Simulated product",
        "package_dimensions": null, "shippable": null, "statement_descriptor": null,
        "tax_code": null, "type": "service", "unit_label": null, "updated": now, "url": null,
    })
}

pub(super) fn price(
    product: &str,
    amount: i64,
    currency: &str,
    lookup_key: Option<&str>,
    recurring: bool,
) -> Value {
    let rhythm = json!({
        "interval": "month", "interval_count": 1, "meter": null, "trial_period_days": null,
        "usage_type": "licensed",
    });
    json!({
        "active": true, "billing_scheme": "per_unit", "currency": currency,
        "custom_unit_amount": null, "lookup_key": lookup_key, "metadata": {}, "nickname": null,
        "product": product, "recurring": recurring.then_some(rhythm), "tax_behavior": "unspecified",
        "tiers_mode": null, "transform_quantity": null,
        "type": if recurring { "recurring" } else { "one_time" },
        "unit_amount": amount, "unit_amount_decimal": amount.to_string(),
    })
}

pub(super) fn customer(email: &str) -> Value {
    json!({
        "address": null, "balance": 0, "currency": null, "customer_account": null,
        "default_source": null, "delinquent": false, "description": null, "discount": null,
        "email": email, "invoice_prefix": "SIMULATED",
        "invoice_settings": {
            "custom_fields": null, "default_payment_method": null, "footer": null,
            "rendering_options": null,
        },
        "metadata": {}, "name": NAME, "next_invoice_sequence": 1, "phone": null,
        "preferred_locales": [], "shipping": null, "tax_exempt": "none", "test_clock": null,
    })
}

/// What a sale is about.
pub(super) struct Sale<'a> {
    pub mode: &'a str,
    pub price: &'a Value,
    pub quantity: i64,
    pub total: i64,
    pub currency: &'a str,
    pub customer: &'a str,
    pub email: &'a str,
    pub metadata: &'a Value,
}

/// An open session, its line items shown as they are to whoever asks for them.
pub(super) fn session(id: &str, item: &str, sale: &Sale, now: i64) -> Value {
    let Sale {
        total, currency, ..
    } = sale;
    json!({
        "after_expiration": null, "allow_promotion_codes": null,
        "amount_subtotal": total, "amount_total": total,
        "automatic_tax": {"enabled": false, "liability": null, "provider": null, "status": null},
        "billing_address_collection": null, "cancel_url": "https://simulated.example/cancel",
        "client_reference_id": sale.metadata["payments_checkout_session_id"],
        "client_secret": null, "collected_information": null, "consent": null,
        "consent_collection": null, "currency": currency, "currency_conversion": null,
        "custom_fields": [], "customer": sale.customer, "customer_account": null,
        "customer_creation": null, "customer_details": buyer(sale.email), "customer_email": null,
        "discounts": [], "expires_at": now + DAY, "invoice": null, "locale": null,
        "line_items": {
            "object": "list", "has_more": false, "url": format!("/v1/checkout/sessions/{id}/line_items"),
            "data": [{
                "id": item, "object": "item", "amount_discount": 0, "amount_subtotal": total,
                "amount_tax": 0, "amount_total": total, "currency": currency,
                "description": "Simulated product", "metadata": {}, "price": sale.price,
                "quantity": sale.quantity,
            }],
        },
        "metadata": sale.metadata, "mode": sale.mode, "payment_intent": null,
        "payment_link": null,
        "payment_method_collection": if sale.mode == "payment" { "if_required" } else { "always" },
        "payment_method_options": {}, "payment_method_types": ["card"],
        "payment_status": "unpaid", "phone_number_collection": {"enabled": false},
        "recovered_from": null, "setup_intent": null, "shipping_address_collection": null,
        "shipping_cost": null, "shipping_options": [], "status": "open", "submit_type": null,
        "subscription": null, "success_url": "https://simulated.example/success",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": format!("https://checkout.stripe.com/c/pay/{id}"),
    })
}

pub(super) fn buyer(email: &str) -> Value {
    json!({
        "address": null, "business_name": null, "email": email, "individual_name": NAME,
        "name": NAME, "phone": null, "tax_exempt": "none", "tax_ids": [],
    })
}

pub(super) fn intent(
    amount: i64,
    currency: &str,
    customer: &str,
    order: &str,
    metadata: &Value,
) -> Value {
    json!({
        "amount": amount, "amount_capturable": 0, "amount_details": {"tip": {}},
        "amount_received": 0, "application": null, "automatic_payment_methods": null,
        "canceled_at": null, "cancellation_reason": null, "capture_method": "automatic",
        "client_secret": null, "confirmation_method": "automatic", "currency": currency,
        "customer": customer, "customer_account": null, "description": null,
        "last_payment_error": null, "latest_charge": null, "metadata": metadata,
        "next_action": null, "on_behalf_of": null,
        "payment_details": {"customer_reference": null, "order_reference": order},
        "payment_method": null, "payment_method_options": {}, "payment_method_types": ["card"],
        "processing": null, "receipt_email": null, "review": null, "setup_future_usage": null,
        "shipping": null, "source": null, "statement_descriptor": null,
        "status": "requires_payment_method", "transfer_data": null, "transfer_group": null,
    })
}

/// What an attempt to pay with an intent comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Succeeds,
    Fails,
    /// A bank debit, whose answer comes days later.
    Pends,
}

pub(super) fn charge(intent: &Value, attempt: Attempt, email: &str) -> Value {
    let good = attempt == Attempt::Succeeds;
    let amount = &intent["amount"];
    let bank = attempt == Attempt::Pends;
    json!({
        "amount": amount, "amount_captured": if good { amount.clone() } else { json!(0) },
        "amount_refunded": 0, "application": null, "balance_transaction": null,
        "billing_details": {
            "address": {
                "city": null, "country": "US", "line1": null, "line2": null,
                "postal_code": "94107", "state": null,
            },
            "email": email, "name": NAME, "phone": null, "tax_id": null,
        },
        "calculated_statement_descriptor": "SIMULATED", "captured": good,
        "currency": intent["currency"], "customer": intent["customer"],
        "description": intent["description"], "disputed": false,
        "failure_code": (attempt == Attempt::Fails).then_some("card_declined"),
        "failure_message": (attempt == Attempt::Fails).then_some("Your card was declined."),
        "fraud_details": {}, "metadata": intent["metadata"], "on_behalf_of": null,
        "outcome": null, "paid": good, "payment_intent": intent["id"], "payment_method": null,
        "payment_method_details": if bank {
            json!({"type": "sepa_debit", "sepa_debit": {"country": "DE", "last4": "3000"}})
        } else {
            json!({"type": "card", "card": {
                "brand": "visa", "country": "US", "exp_month": 12, "exp_year": 2034,
                "funding": "credit", "last4": if attempt == Attempt::Fails { "0002" } else { "4242" },
            }})
        },
        "radar_options": {}, "receipt_email": null, "receipt_number": null, "receipt_url": null,
        "refunded": false, "review": null, "shipping": null, "source_transfer": null,
        "statement_descriptor": null, "status": match attempt {
            Attempt::Succeeds => "succeeded",
            Attempt::Fails => "failed",
            Attempt::Pends => "pending",
        },
        "transfer_data": null, "transfer_group": null,
    })
}

/// How Stripe words a refused payment.
pub(super) fn decline(charge: &str) -> Value {
    json!({
        "charge": charge, "code": "card_declined", "decline_code": "generic_decline",
        "doc_url": "https://stripe.com/docs/error-codes/card-declined",
        "message": "Your card was declined.", "type": "card_error",
    })
}

pub(super) fn item(
    id: &str,
    subscription: &str,
    price: &Value,
    quantity: i64,
    start: i64,
) -> Value {
    json!({
        "id": id, "object": "subscription_item", "billing_thresholds": null, "created": start,
        "current_period_end": start + MONTH, "current_period_start": start, "discounts": [],
        "metadata": {}, "price": price, "quantity": quantity, "subscription": subscription,
        "tax_rates": [],
    })
}

pub(super) fn items(subscription: &str, items: Vec<Value>) -> Value {
    json!({
        "object": "list", "data": items, "has_more": false,
        "url": format!("/v1/subscription_items?subscription={subscription}"),
    })
}

pub(super) fn subscription(sale: &Sale, now: i64) -> Value {
    json!({
        "application": null, "automatic_tax": {"disabled_reason": null, "enabled": false, "liability": null},
        "billing_cycle_anchor": now,
        "billing_mode": {"flexible": {"proration_discounts": "included"}, "type": "flexible", "updated_at": now},
        "cancel_at": null, "cancel_at_period_end": false, "canceled_at": null,
        "cancellation_details": {"comment": null, "feedback": null, "reason": null},
        "collection_method": "charge_automatically", "currency": sale.currency,
        "customer": sale.customer, "customer_account": null, "days_until_due": null,
        "default_payment_method": null, "description": null, "discounts": [], "ended_at": null,
        "items": null, "latest_invoice": null, "metadata": sale.metadata, "on_behalf_of": null,
        "pause_collection": null, "pending_setup_intent": null, "pending_update": null,
        "schedule": null, "start_date": now, "status": "incomplete", "test_clock": null,
        "trial_end": null, "trial_start": null,
    })
}

/// A draft of a subscription's bill, with a snapshot of the subscription's metadata.
pub(super) fn invoice(
    id: &str,
    lines: Vec<Value>,
    reason: &str,
    subscription: &Value,
    email: &str,
    now: i64,
) -> Value {
    let total: i64 = lines
        .iter()
        .filter_map(|line| line["amount"].as_i64())
        .sum();
    json!({
        "account_country": "US", "account_name": "Simulated", "amount_due": total,
        "amount_overpaid": 0, "amount_paid": 0, "amount_remaining": total, "amount_shipping": 0,
        "application": null, "attempt_count": 0, "attempted": false, "auto_advance": true,
        "automatically_finalizes_at": null, "billing_reason": reason,
        "collection_method": "charge_automatically", "currency": subscription["currency"],
        "customer": subscription["customer"], "customer_account": null, "customer_email": email,
        "customer_name": NAME, "customer_phone": null, "description": null, "discounts": [],
        "due_date": null, "effective_at": null, "ending_balance": null, "footer": null,
        "hosted_invoice_url": null, "invoice_pdf": null, "issuer": {"type": "self"},
        "last_finalization_error": null,
        "lines": {
            "object": "list", "data": lines, "has_more": false, "url": format!("/v1/invoices/{id}/lines"),
        },
        "metadata": {}, "next_payment_attempt": null, "number": null, "on_behalf_of": null,
        "parent": {
            "quote_details": null, "type": "subscription_details",
            "subscription_details": {
                "metadata": subscription["metadata"], "subscription": subscription["id"],
            },
        },
        "period_end": now, "period_start": now, "receipt_number": null, "starting_balance": 0,
        "statement_descriptor": null, "status": "draft",
        "status_transitions": {
            "finalized_at": null, "marked_uncollectible_at": null, "paid_at": null, "voided_at": null,
        },
        "subtotal": total, "subtotal_excluding_tax": total, "test_clock": null, "total": total,
        "total_discount_amounts": [], "total_excluding_tax": total, "total_taxes": [],
        "webhooks_delivered_at": null,
    })
}

pub(super) fn line(id: &str, invoice: &str, item: &Value) -> Value {
    let price = &item["price"];
    let quantity = item["quantity"].as_i64().unwrap_or(1);
    let amount = price["unit_amount"]
        .as_i64()
        .unwrap_or_default()
        .saturating_mul(quantity);
    json!({
        "id": id, "object": "line_item", "amount": amount, "currency": price["currency"],
        "description": format!("{quantity} × Simulated product"), "discount_amounts": [],
        "discountable": true, "discounts": [], "invoice": invoice, "livemode": false,
        "metadata": {},
        "parent": {
            "invoice_item_details": null, "type": "subscription_item_details",
            "subscription_item_details": {
                "invoice_item": null, "proration": false, "proration_details": {"credited_items": null},
                "subscription": item["subscription"], "subscription_item": item["id"],
            },
        },
        "period": {"start": item["current_period_start"], "end": item["current_period_end"]},
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details", "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": quantity, "subtotal": amount, "taxes": [],
    })
}

pub(super) fn invoice_payment(invoice: &Value, intent: &str) -> Value {
    json!({
        "amount_paid": null, "amount_requested": invoice["amount_due"],
        "currency": invoice["currency"], "invoice": invoice["id"], "is_default": true,
        "payment": {"payment_intent": intent, "type": "payment_intent"}, "status": "open",
        "status_transitions": {"canceled_at": null, "paid_at": null},
    })
}

pub(super) fn refund(charge: &Value, amount: i64, status: &str, metadata: &Value) -> Value {
    json!({
        "amount": amount, "balance_transaction": "txn_simulated", "charge": charge["id"],
        "currency": charge["currency"], "customer": charge["customer"], "customer_account": null,
        "destination_details": {"card": {"reference_status": "pending", "type": "refund"}, "type": "card"},
        "metadata": metadata, "payment_intent": charge["payment_intent"], "reason": null,
        "receipt_number": null, "source_transfer_reversal": null, "status": status,
        "transfer_reversal": null,
    })
}

pub(super) fn dispute(charge: &Value, amount: i64, now: i64) -> Value {
    json!({
        "amount": amount, "balance_transactions": [], "charge": charge["id"],
        "currency": charge["currency"], "enhanced_eligibility_types": [], "evidence": {},
        "evidence_details": {
            "due_by": now + 9 * DAY, "enhanced_eligibility": {}, "has_evidence": false,
            "past_due": false, "submission_count": 0,
        },
        "is_charge_refundable": false, "metadata": {}, "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {"brand": "visa", "case_type": "chargeback", "network_reason_code": "10.4"},
            "type": "card",
        },
        "reason": "fraudulent", "status": "needs_response",
    })
}
