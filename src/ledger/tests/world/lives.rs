//! Life-cycles as Stripe tells them.

use serde_json::{Map, Value, json};

use super::{World, our_metadata};

fn refunds(list: &[Value]) -> Value {
    json!({"object": "list", "has_more": false, "data": list})
}

fn customer(w: &mut World, at: i64) {
    w.tell(
        at,
        "customer.created",
        "cus_1",
        json!({
            "email": "buyer@example.com", "name": "Buyer", "phone": null, "metadata": {},
            "livemode": false,
        }),
    );
}

fn session(w: &mut World, at: i64, mode: &str) {
    w.change(
        at,
        "cs_1",
        json!({
            "mode": mode, "status": "open", "payment_status": "unpaid", "customer": null,
            "payment_intent": null, "subscription": null, "invoice": null, "currency": "eur",
            "amount_total": 1000, "url": "https://checkout.stripe.com/c/pay/cs_1",
            "expires_at": at + 86400, "customer_email": null, "customer_details": null,
            "success_url": "https://app.example/ok", "cancel_url": "https://app.example/no",
            "metadata": our_metadata(),
        }),
    );
}

fn intent(w: &mut World, at: i64, id: &str, amount: i64, metadata: Value, invoice: Option<&str>) {
    w.tell(
        at,
        "payment_intent.created",
        id,
        json!({
            "amount": amount, "amount_received": 0, "currency": "eur", "customer": "cus_1",
            "description": null, "invoice": invoice, "latest_charge": null,
            "last_payment_error": null, "canceled_at": null, "receipt_email": null,
            "status": "requires_payment_method", "metadata": metadata,
            "charges": {"object": "list", "data": []},
        }),
    );
}

fn charge(w: &mut World, at: i64, id: &str, pi: &str, status: &str, captured: bool) {
    let intent = w.body(pi).clone();
    let amount = &intent["amount"];
    let paid = status == "succeeded" && captured;
    w.tell(
        at,
        &format!("charge.{status}"),
        id,
        json!({
            "amount": amount, "amount_captured": if paid { amount.clone() } else { json!(0) },
            "amount_refunded": 0, "captured": captured && status != "failed",
            "paid": status == "succeeded", "refunded": false, "currency": "eur",
            "customer": "cus_1", "description": null, "payment_intent": pi, "status": status,
            "invoice": intent["invoice"], "metadata": intent["metadata"], "receipt_email": null,
            "billing_details": {"email": "card@example.com"}, "refunds": refunds(&[]),
        }),
    );
}

fn settle_intent(w: &mut World, at: i64, pi: &str, ch: &str, event: &str, patch: Value) {
    let charge = w.body(ch).clone();
    let mut patch = patch;
    patch["latest_charge"] = json!(ch);
    patch["charges"] = json!({"object": "list", "data": [charge]});
    w.tell(at, event, pi, patch);
}

fn succeed(w: &mut World, at: i64, pi: &str, ch: &str) {
    charge(w, at, ch, pi, "succeeded", true);
    let amount = w.body(pi)["amount"].clone();
    settle_intent(
        w,
        at,
        pi,
        ch,
        "payment_intent.succeeded",
        json!({
            "status": "succeeded", "amount_received": amount, "last_payment_error": null,
        }),
    );
}

fn decline(w: &mut World, at: i64, pi: &str, ch: &str) {
    charge(w, at, ch, pi, "failed", true);
    settle_intent(
        w,
        at,
        pi,
        ch,
        "payment_intent.payment_failed",
        json!({
            "status": "requires_payment_method", "last_payment_error": {"code": "card_declined"},
        }),
    );
}

fn complete(w: &mut World, at: i64, patch: Value) {
    let mut patch = patch;
    patch["status"] = json!("complete");
    patch["url"] = Value::Null;
    patch["customer"] = json!("cus_1");
    patch["customer_details"] = json!({"email": "typed@example.com"});
    w.tell(at, "checkout.session.completed", "cs_1", patch);
}

/// A purchase by card.
pub fn one_time() -> World {
    let mut w = World::default();
    session(&mut w, 100, "payment");
    customer(&mut w, 130);
    intent(&mut w, 130, "pi_1", 1000, our_metadata(), None);
    succeed(&mut w, 131, "pi_1", "ch_1");
    complete(
        &mut w,
        131,
        json!({"payment_status": "paid", "payment_intent": "pi_1"}),
    );
    w
}

/// A card that is declined first.
pub fn second_card() -> World {
    let mut w = World::default();
    session(&mut w, 100, "payment");
    customer(&mut w, 129);
    intent(&mut w, 130, "pi_1", 1000, our_metadata(), None);
    decline(&mut w, 131, "pi_1", "ch_0");
    succeed(&mut w, 140, "pi_1", "ch_1");
    complete(
        &mut w,
        141,
        json!({"payment_status": "paid", "payment_intent": "pi_1"}),
    );
    w
}

/// A bank debit: the session completes days before the money comes, or does not.
pub fn delayed(good: bool) -> World {
    let mut w = World::default();
    session(&mut w, 100, "payment");
    customer(&mut w, 130);
    intent(&mut w, 130, "pi_1", 1000, our_metadata(), None);
    charge(&mut w, 131, "ch_1", "pi_1", "pending", true);
    settle_intent(
        &mut w,
        131,
        "pi_1",
        "ch_1",
        "payment_intent.processing",
        json!({"status": "processing"}),
    );
    complete(
        &mut w,
        131,
        json!({"payment_status": "unpaid", "payment_intent": "pi_1"}),
    );
    if good {
        w.change(900, "ch_1", json!({"amount_captured": 1000, "paid": true}));
        w.tell(
            900,
            "charge.succeeded",
            "ch_1",
            json!({"status": "succeeded"}),
        );
        settle_intent(
            &mut w,
            900,
            "pi_1",
            "ch_1",
            "payment_intent.succeeded",
            json!({"status": "succeeded", "amount_received": 1000}),
        );
        w.tell(
            900,
            "checkout.session.async_payment_succeeded",
            "cs_1",
            json!({"payment_status": "paid"}),
        );
    } else {
        w.tell(
            900,
            "charge.failed",
            "ch_1",
            json!({"status": "failed", "paid": false}),
        );
        settle_intent(
            &mut w,
            900,
            "pi_1",
            "ch_1",
            "payment_intent.payment_failed",
            json!({
                "status": "requires_payment_method",
                "last_payment_error": {"code": "debit_not_authorized"},
            }),
        );
        w.retell(900, "checkout.session.async_payment_failed", "cs_1");
    }
    w
}

/// Nobody came.
pub fn expired() -> World {
    let mut w = World::default();
    session(&mut w, 100, "payment");
    w.tell(
        86500,
        "checkout.session.expired",
        "cs_1",
        json!({"status": "expired", "url": null}),
    );
    w
}

/// A coupon paid for everything.
pub fn free() -> World {
    let mut w = World::default();
    session(&mut w, 100, "payment");
    customer(&mut w, 130);
    complete(
        &mut w,
        130,
        json!({"payment_status": "no_payment_required", "amount_total": 0}),
    );
    w
}

fn refund(w: &mut World, at: i64, id: &str, amount: i64, status: &str) {
    w.change(
        at,
        id,
        json!({
            "amount": amount, "currency": "eur", "charge": "ch_1", "payment_intent": "pi_1",
            "status": status, "reason": null, "metadata": {}, "balance_transaction": "txn_1",
            "customer": "cus_1", "description": null,
        }),
    );
    tell_refunds(w, at, "charge.refunded");
    w.retell(at, "refund.created", id);
}

fn tell_refunds(w: &mut World, at: i64, event: &str) {
    let ids: Vec<_> = ["re_1", "re_2"]
        .into_iter()
        .filter(|id| w.now.contains_key(*id))
        .collect();
    let list: Vec<_> = ids
        .iter()
        .map(|id| Value::Object(w.body(id).clone()))
        .collect();
    let alive = |refund: &&Value| refund["status"] != "failed";
    let sum: i64 = list
        .iter()
        .filter(alive)
        .filter_map(|r| r["amount"].as_i64())
        .sum();
    w.tell(
        at,
        event,
        "ch_1",
        json!({
            "amount_refunded": sum, "refunded": sum == 1000, "refunds": refunds(&list),
        }),
    );
}

/// Two refunds, the second of the rest.
pub fn refunded() -> World {
    let mut w = one_time();
    refund(&mut w, 200, "re_1", 400, "succeeded");
    refund(&mut w, 300, "re_2", 600, "succeeded");
    w
}

/// A refund that comes back days later.
pub fn refund_failed() -> World {
    let mut w = one_time();
    refund(&mut w, 200, "re_1", 400, "succeeded");
    refund(&mut w, 200, "re_2", 100, "pending");
    w.tell(500, "refund.failed", "re_1", json!({"status": "failed"}));
    w.retell(500, "charge.refund.updated", "re_1");
    tell_refunds(&mut w, 500, "charge.updated");
    w
}

/// A dispute after a partial refund.
pub fn disputed() -> World {
    let mut w = one_time();
    refund(&mut w, 200, "re_1", 400, "succeeded");
    w.tell(
        400,
        "charge.dispute.created",
        "dp_1",
        json!({
            "amount": 600, "currency": "eur", "charge": "ch_1", "payment_intent": "pi_1",
            "reason": "fraudulent", "status": "needs_response", "metadata": {},
            "evidence_details": {"due_by": 5000},
        }),
    );
    w.retell(400, "charge.dispute.funds_withdrawn", "dp_1");
    w.tell(
        450,
        "charge.dispute.updated",
        "dp_1",
        json!({"status": "under_review"}),
    );
    w.tell(
        500,
        "charge.dispute.closed",
        "dp_1",
        json!({"status": "lost"}),
    );
    w
}

/// Money held, then captured in part.
pub fn captured_in_part() -> World {
    let mut w = World::default();
    session(&mut w, 100, "payment");
    customer(&mut w, 130);
    intent(&mut w, 130, "pi_1", 1000, our_metadata(), None);
    charge(&mut w, 131, "ch_1", "pi_1", "succeeded", false);
    settle_intent(
        &mut w,
        131,
        "pi_1",
        "ch_1",
        "payment_intent.amount_capturable_updated",
        json!({"status": "requires_capture"}),
    );
    complete(
        &mut w,
        131,
        json!({"payment_status": "unpaid", "payment_intent": "pi_1"}),
    );
    w.tell(
        300,
        "charge.captured",
        "ch_1",
        json!({"captured": true, "amount_captured": 600}),
    );
    settle_intent(
        &mut w,
        300,
        "pi_1",
        "ch_1",
        "payment_intent.succeeded",
        json!({"status": "succeeded", "amount_received": 600}),
    );
    w
}

/// A purchase with an invoice after the fact.
pub fn invoiced_afterwards() -> World {
    let mut w = World::default();
    session(&mut w, 100, "payment");
    customer(&mut w, 130);
    intent(&mut w, 130, "pi_1", 1000, our_metadata(), None);
    succeed(&mut w, 131, "pi_1", "ch_1");
    invoice(&mut w, 131, "in_1", "manual", None, 1000);
    pay_invoice(&mut w, 132, "in_1", "pi_1", "ch_1", "inpay_1");
    complete(
        &mut w,
        133,
        json!({
            "payment_status": "paid", "payment_intent": "pi_1", "invoice": "in_1",
        }),
    );
    w
}

fn invoice(w: &mut World, at: i64, id: &str, reason: &str, sub: Option<&str>, amount: i64) {
    let details = |id| json!({"subscription": id, "metadata": our_metadata()});
    let parent =
        sub.map(|id| json!({"type": "subscription_details", "subscription_details": details(id)}));
    w.tell(
        at,
        "invoice.finalized",
        id,
        json!({
            "customer": "cus_1", "subscription": sub, "parent": parent, "status": "open",
            "subscription_details": sub.map(details), "number": format!("N-{id}"),
            "billing_reason": reason, "currency": "eur", "subtotal": amount, "total": amount,
            "amount_due": amount, "amount_paid": 0, "amount_remaining": amount, "attempt_count": 0,
            "attempted": false, "next_payment_attempt": null, "period_start": at, "period_end": at,
            "due_date": null, "hosted_invoice_url": null, "invoice_pdf": null, "metadata": {},
            "customer_email": "buyer@example.com", "description": null, "payment_intent": null,
            "charge": null, "paid": false,
            "status_transitions": {"finalized_at": at, "paid_at": null, "voided_at": null},
            "lines": {"object": "list", "has_more": false, "data": [{
                "id": "il_1", "object": "line_item",
                "price": {"id": "price_1", "object": "price", "product": "prod_1"},
                "pricing": {"price_details": {"price": "price_1", "product": "prod_1"}},
            }]},
        }),
    );
}

fn pay_invoice(w: &mut World, at: i64, id: &str, pi: &str, ch: &str, inpay: &str) {
    let due = w.body(id)["amount_due"].clone();
    let finalized = w.body(id)["status_transitions"]["finalized_at"].clone();
    w.tell(
        at,
        "invoice.paid",
        id,
        json!({
            "status": "paid", "amount_paid": due, "amount_remaining": 0, "paid": true,
            "attempted": true, "attempt_count": 1, "payment_intent": pi, "charge": ch,
            "status_transitions": {"finalized_at": finalized, "paid_at": at, "voided_at": null},
        }),
    );
    w.change(
        finalized.as_i64().expect("a time"),
        inpay,
        json!({"object": "invoice_payment"}),
    );
    w.tell(
        at,
        "invoice_payment.paid",
        inpay,
        json!({
            "invoice": id, "status": "paid", "amount_paid": due, "amount_requested": due,
            "currency": "eur", "is_default": true,
            "payment": {"type": "payment_intent", "payment_intent": pi},
        }),
    );
    w.change(at, pi, json!({"invoice": id}));
    w.change(at, ch, json!({"invoice": id}));
}

fn item(id: &str, start: i64, quantity: i64) -> Value {
    json!({
        "id": id, "object": "subscription_item", "created": 130, "quantity": quantity,
        "subscription": "sub_1", "metadata": {},
        "price": {"id": "price_1", "object": "price", "product": "prod_1", "lookup_key": "pro"},
        "plan": {"id": "price_1", "object": "plan", "product": "prod_1"},
        "current_period_start": start, "current_period_end": start + 2_592_000,
    })
}

fn items(list: Value) -> Value {
    json!({"object": "list", "has_more": false, "data": list})
}

fn renew(start: i64) -> Value {
    json!({
        "current_period_start": start, "current_period_end": start + 2_592_000,
        "items": items(json!([item("si_1", start, 1)])),
    })
}

/// A subscription from checkout to first payment.
pub fn subscribed() -> World {
    let mut w = World::default();
    session(&mut w, 100, "subscription");
    customer(&mut w, 130);
    let mut sub = renew(130);
    for (key, value) in json!({
        "customer": "cus_1", "status": "incomplete", "metadata": our_metadata(),
        "cancel_at_period_end": false, "cancel_at": null, "canceled_at": null, "ended_at": null,
        "trial_start": null, "trial_end": null, "latest_invoice": "in_1",
    })
    .as_object()
    .expect("an object")
    {
        sub[key] = value.clone();
    }
    w.tell(130, "customer.subscription.created", "sub_1", sub);
    invoice(
        &mut w,
        130,
        "in_1",
        "subscription_create",
        Some("sub_1"),
        1000,
    );
    intent(&mut w, 130, "pi_1", 1000, json!({}), Some("in_1"));
    succeed(&mut w, 131, "pi_1", "ch_1");
    pay_invoice(&mut w, 131, "in_1", "pi_1", "ch_1", "inpay_1");
    w.tell(
        131,
        "customer.subscription.updated",
        "sub_1",
        json!({"status": "active"}),
    );
    complete(
        &mut w,
        132,
        json!({
            "payment_status": "paid", "subscription": "sub_1", "invoice": "in_1",
        }),
    );
    w
}

/// A renewal that fails first, then the end.
pub fn renewed_and_canceled() -> World {
    let mut w = subscribed();
    let at = 2_592_130;
    let mut patch = renew(at);
    patch["latest_invoice"] = json!("in_2");
    w.tell(at, "customer.subscription.updated", "sub_1", patch);
    invoice(
        &mut w,
        at,
        "in_2",
        "subscription_cycle",
        Some("sub_1"),
        1000,
    );
    intent(&mut w, at + 3600, "pi_2", 1000, json!({}), Some("in_2"));
    decline(&mut w, at + 3600, "pi_2", "ch_2");
    w.tell(
        at + 3600,
        "invoice.payment_failed",
        "in_2",
        json!({
            "attempted": true, "attempt_count": 1, "next_payment_attempt": at + 9000,
            "payment_intent": "pi_2", "charge": "ch_2",
        }),
    );
    w.tell(
        at + 3600,
        "customer.subscription.updated",
        "sub_1",
        json!({"status": "past_due"}),
    );
    succeed(&mut w, at + 9000, "pi_2", "ch_3");
    pay_invoice(&mut w, at + 9000, "in_2", "pi_2", "ch_3", "inpay_2");
    w.tell(
        at + 9000,
        "customer.subscription.updated",
        "sub_1",
        json!({"status": "active"}),
    );
    w.tell(
        at + 9100,
        "customer.subscription.deleted",
        "sub_1",
        json!({
            "status": "canceled", "canceled_at": at + 9100, "ended_at": at + 9100,
        }),
    );
    w
}

/// The same, with a subscription that says nothing of its subject: our session row alone knows.
pub fn silent() -> World {
    fn hush(body: &mut Map<String, Value>) {
        if body["object"] != "checkout.session" {
            body.insert("metadata".into(), json!({}));
        }
        for details in ["parent", "subscription_details"] {
            let details = body.get_mut(details).filter(|details| details.is_object());
            let Some(mut details) = details else { continue };
            if details.get("subscription_details").is_some() {
                details = &mut details["subscription_details"];
            }
            details["metadata"] = json!({});
        }
    }
    let mut w = renewed_and_canceled();
    for happening in &mut w.told {
        hush(&mut happening.body);
        happening.before.iter_mut().for_each(hush);
    }
    w
}

/// An item is added, another removed.
pub fn items_changed() -> World {
    let mut w = subscribed();
    w.tell(
        500,
        "customer.subscription.updated",
        "sub_1",
        json!({
            "items": items(json!([item("si_1", 130, 1), item("si_2", 130, 5)])),
        }),
    );
    w.tell(
        600,
        "customer.subscription.updated",
        "sub_1",
        json!({
            "items": items(json!([item("si_2", 130, 7)])),
        }),
    );
    w
}

/// A trial: the first invoice is of nothing.
pub fn trial() -> World {
    let mut w = World::default();
    session(&mut w, 100, "subscription");
    customer(&mut w, 130);
    let mut sub = renew(130);
    for (key, value) in json!({
        "customer": "cus_1", "status": "trialing", "metadata": our_metadata(),
        "cancel_at_period_end": false, "cancel_at": null, "canceled_at": null, "ended_at": null,
        "trial_start": 130, "trial_end": 605_000, "latest_invoice": "in_1",
    })
    .as_object()
    .expect("an object")
    {
        sub[key] = value.clone();
    }
    w.tell(130, "customer.subscription.created", "sub_1", sub);
    invoice(&mut w, 130, "in_1", "subscription_create", Some("sub_1"), 0);
    w.tell(
        130,
        "invoice.paid",
        "in_1",
        json!({
            "status": "paid", "paid": true, "attempted": true,
            "status_transitions": {"finalized_at": 130, "paid_at": 130, "voided_at": null},
        }),
    );
    complete(
        &mut w,
        131,
        json!({
            "payment_status": "no_payment_required", "amount_total": 0, "subscription": "sub_1",
            "invoice": "in_1",
        }),
    );
    w
}

/// An invoice sent by hand, paid by card.
pub fn invoiced_by_hand() -> World {
    let mut w = World::default();
    customer(&mut w, 90);
    invoice(&mut w, 100, "in_1", "manual", None, 1000);
    intent(&mut w, 100, "pi_1", 1000, json!({}), Some("in_1"));
    succeed(&mut w, 200, "pi_1", "ch_1");
    pay_invoice(&mut w, 200, "in_1", "pi_1", "ch_1", "inpay_1");
    w
}

/// A checkout of ours, and an invoice by hand to the same customer: only the checkout tells whose.
pub fn known_customer() -> World {
    let mut w = one_time();
    invoice(&mut w, 131, "in_9", "manual", None, 500);
    intent(&mut w, 131, "pi_9", 500, json!({}), Some("in_9"));
    succeed(&mut w, 132, "pi_9", "ch_9");
    pay_invoice(&mut w, 132, "in_9", "pi_9", "ch_9", "inpay_9");
    w
}

/// A catalog that changes within seconds.
pub fn catalog() -> World {
    let mut w = World::default();
    w.tell(
        10,
        "product.created",
        "prod_1",
        json!({
            "name": "Pro", "description": null, "active": true, "default_price": null,
            "metadata": {}, "updated": 10,
        }),
    );
    w.tell(
        11,
        "price.created",
        "price_1",
        json!({
            "product": "prod_1", "active": true, "currency": "eur", "unit_amount": 1000,
            "unit_amount_decimal": "1000", "type": "recurring", "lookup_key": "pro",
            "billing_scheme": "per_unit", "tax_behavior": "unspecified", "metadata": {},
            "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
        }),
    );
    w.tell(
        11,
        "product.updated",
        "prod_1",
        json!({"default_price": "price_1", "updated": 11}),
    );
    w.tell(11, "product.updated", "prod_1", json!({"name": "Pro plus"}));
    w.tell(20, "price.updated", "price_1", json!({"active": false}));
    w.tell(20, "price.deleted", "price_1", json!({}));
    w.tell(
        20,
        "product.updated",
        "prod_1",
        json!({"default_price": null, "updated": 20}),
    );
    w.tell(20, "product.deleted", "prod_1", json!({}));
    w
}

/// A customer who changes the address and goes.
pub fn customer_leaves() -> World {
    let mut w = World::default();
    customer(&mut w, 10);
    w.tell(
        20,
        "customer.updated",
        "cus_1",
        json!({"email": "new@example.com"}),
    );
    w.tell(20, "customer.updated", "cus_1", json!({"phone": "+1"}));
    w.tell(20, "customer.deleted", "cus_1", json!({}));
    w
}

/// A life-cycle by name, with the mode of the row of ours that began it.
pub fn all() -> Vec<(&'static str, Option<&'static str>, World)> {
    vec![
        ("one_time", Some("payment"), one_time()),
        ("second_card", Some("payment"), second_card()),
        ("delayed, good", Some("payment"), delayed(true)),
        ("delayed, bad", Some("payment"), delayed(false)),
        ("expired", Some("payment"), expired()),
        ("free", Some("payment"), free()),
        ("refunded", Some("payment"), refunded()),
        ("refund_failed", Some("payment"), refund_failed()),
        ("disputed", Some("payment"), disputed()),
        ("captured_in_part", Some("payment"), captured_in_part()),
        (
            "invoiced_afterwards",
            Some("payment"),
            invoiced_afterwards(),
        ),
        ("subscribed", Some("subscription"), subscribed()),
        (
            "renewed_and_canceled",
            Some("subscription"),
            renewed_and_canceled(),
        ),
        ("silent", Some("subscription"), silent()),
        ("items_changed", Some("subscription"), items_changed()),
        ("trial", Some("subscription"), trial()),
        ("invoiced_by_hand", None, invoiced_by_hand()),
        ("known_customer", Some("payment"), known_customer()),
        ("catalog", None, catalog()),
        ("customer_leaves", None, customer_leaves()),
    ]
}
