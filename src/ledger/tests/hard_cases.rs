//! The sequences that other systems get wrong, by what must come of them, in every order.

mod world;

use ledger::memory::Memory;
use ledger::rows::{
    CheckoutSession, Customer, CustomerMapping, Dispute, Invoice, Payment, Price, Product,
    Subscription, SubscriptionItem,
};
use ledger::{Observation, Source};
use payments_ledger as ledger;
use serde_json::{Value, json};
use world::{deliver, empty, our_metadata, with_our_row};

/// An event of this type at this second.
fn event(at: i64, event_type: &str, body: Value) -> Observation {
    changed(at, event_type, body, None)
}

/// An event that says what it changed.
fn changed(at: i64, event_type: &str, body: Value, previous: Option<Value>) -> Observation {
    let body = body.as_object().cloned().expect("an object");
    let id = format!("evt {at} {event_type} {previous:?}");
    let previous_attributes = previous.map(|p| p.as_object().cloned().expect("an object"));
    let source = Source::Event {
        id,
        event_type: event_type.into(),
        previous_attributes,
    };
    Observation::new(body, at, source).expect("a key")
}

fn listed(at: i64, body: Value) -> Observation {
    let body = body.as_object().cloned().expect("an object");
    Observation::new(body, at, Source::Listing).expect("a key")
}

/// The body with some of it replaced.
fn with(mut body: Value, patch: Value) -> Value {
    for (key, value) in patch.as_object().expect("a patch") {
        body[key] = value.clone();
    }
    body
}

/// Tells the observations in every order (or, of many, in all rotations of both directions) and
/// checks each outcome.
#[track_caller]
fn in_any_order(start: &Memory, told: &[Observation], check: impl Fn(&Memory)) {
    let mut orders = Vec::new();
    if told.len() <= 5 {
        permutations(&mut (0..told.len()).collect(), 0, &mut orders);
    } else {
        for turn in 0..told.len() {
            let mut order: Vec<_> = (0..told.len()).collect();
            order.rotate_left(turn);
            orders.push(order.clone());
            order.reverse();
            orders.push(order);
        }
    }
    for order in orders {
        for store in [start.clone(), start.clone().jealous()] {
            let mut store = store;
            order
                .iter()
                .for_each(|n| deliver(&mut store, vec![told[*n].clone()]));
            check(&store);
        }
    }
}

fn permutations(order: &mut Vec<usize>, from: usize, all: &mut Vec<Vec<usize>>) {
    if from == order.len() {
        all.push(order.clone());
    }
    for i in from..order.len() {
        order.swap(from, i);
        permutations(order, from + 1, all);
        order.swap(from, i);
    }
}

#[track_caller]
fn one<T: Clone + std::fmt::Debug>(rows: Vec<T>) -> T {
    assert_eq!(rows.len(), 1, "one row: {rows:#?}");
    rows[0].clone()
}

fn payment(store: &Memory) -> Payment {
    let mut rows = store.all::<Payment>();
    rows.retain(|row| row.kind != "refund");
    one(rows)
}

fn no_payment(store: &Memory) {
    assert_eq!(store.all::<Payment>(), []);
}

fn refund_row(store: &Memory) -> Payment {
    let mut rows = store.all::<Payment>();
    rows.retain(|row| row.kind == "refund");
    one(rows)
}

fn subscription(status: &str) -> Value {
    json!({
        "id": "sub_1", "object": "subscription", "created": 5, "customer": "cus_1",
        "status": status, "metadata": {}, "cancel_at_period_end": false, "cancel_at": null,
        "canceled_at": null, "ended_at": null,
        "items": {"object": "list", "has_more": false, "data": [item("si_1", 10, 20)]},
    })
}

fn item(id: &str, start: i64, end: i64) -> Value {
    json!({
        "id": id, "object": "subscription_item", "created": 5, "subscription": "sub_1",
        "quantity": 1, "metadata": {}, "current_period_start": start, "current_period_end": end,
        "price": {"id": "price_1", "object": "price", "product": "prod_1", "lookup_key": "pro"},
    })
}

/// A payment intent that is known to pay for something of its own.
fn intent(status: &str, received: i64) -> Value {
    json!({
        "id": "pi_1", "object": "payment_intent", "created": 5, "customer": "cus_1",
        "status": status, "amount": 100, "amount_received": received, "currency": "eur",
        "metadata": {}, "invoice": null, "latest_charge": null, "last_payment_error": null,
    })
}

fn charge(status: &str) -> Value {
    json!({
        "id": "ch_1", "object": "charge", "created": 6, "customer": "cus_1", "status": status,
        "amount": 100, "amount_captured": if status == "succeeded" { 100 } else { 0 },
        "captured": status == "succeeded", "amount_refunded": 0, "currency": "eur",
        "payment_intent": "pi_1", "metadata": {}, "billing_details": {"email": "a@example.com"},
    })
}

fn refund(id: &str, amount: i64, status: &str) -> Value {
    json!({
        "id": id, "object": "refund", "created": 30, "amount": amount, "currency": "eur",
        "charge": "ch_1", "payment_intent": "pi_1", "status": status, "metadata": {},
        "balance_transaction": "txn_1",
    })
}

fn invoice(status: &str, paid: i64) -> Value {
    json!({
        "id": "in_1", "object": "invoice", "created": 5, "customer": "cus_1", "status": status,
        "billing_reason": "subscription_cycle", "currency": "eur", "subtotal": 100, "total": 100,
        "amount_due": 100, "amount_paid": paid, "amount_remaining": 100 - paid,
        "attempted": paid > 0, "metadata": {}, "customer_email": "a@example.com",
        "parent": {"subscription_details": {"subscription": "sub_1", "metadata": {}}},
        "status_transitions": {"finalized_at": 5, "paid_at": if paid > 0 { json!(7) } else { Value::Null }},
    })
}

fn one_off(status: &str, paid: i64) -> Value {
    with(
        invoice(status, paid),
        json!({"parent": null, "billing_reason": "manual"}),
    )
}

fn invoice_payment(id: &str, intent: &str, created: i64) -> Value {
    json!({
        "id": id, "object": "invoice_payment", "created": created, "invoice": "in_1",
        "status": "paid", "amount_paid": 100,
        "payment": {"type": "payment_intent", "payment_intent": intent},
    })
}

fn session(status: &str, patch: Value) -> Value {
    with(
        json!({
            "id": "cs_1", "object": "checkout.session", "created": 2, "mode": "payment",
            "status": status, "payment_status": "unpaid", "customer": null,
            "payment_intent": null, "subscription": null, "invoice": null, "currency": "eur",
            "amount_total": 100, "url": "https://checkout.stripe.com/x", "expires_at": 9000,
            "metadata": our_metadata(), "success_url": "https://app.example/ok",
            "cancel_url": "https://app.example/no",
        }),
        patch,
    )
}

fn status_of(store: &Memory) -> String {
    one(store.all::<Subscription>()).status.expect("a status")
}

#[test]
fn case_1_created_and_updated_in_one_second() {
    let told = [
        event(
            10,
            "customer.subscription.created",
            subscription("incomplete"),
        ),
        changed(
            10,
            "customer.subscription.updated",
            subscription("active"),
            Some(json!({"status": "incomplete"})),
        ),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(status_of(store), "active")
    });
}

#[test]
fn case_2_a_late_update_does_not_resurrect() {
    for late in [15, 20] {
        let told = [
            event(
                20,
                "customer.subscription.deleted",
                subscription("canceled"),
            ),
            changed(
                late,
                "customer.subscription.updated",
                subscription("active"),
                Some(json!({"status": "past_due"})),
            ),
        ];
        in_any_order(&empty(), &told, |store| {
            assert_eq!(status_of(store), "canceled")
        });
    }
}

#[test]
fn case_3_a_canceled_subscription_can_still_be_paid() {
    for paid in [18, 25] {
        let told = [
            event(
                20,
                "customer.subscription.deleted",
                subscription("canceled"),
            ),
            event(paid, "invoice.paid", invoice("paid", 100)),
        ];
        in_any_order(&empty(), &told, |store| {
            assert_eq!(status_of(store), "canceled");
            assert_eq!(one(store.all::<Invoice>()).status.as_deref(), Some("paid"));
            assert_eq!(payment(store).status, "succeeded");
        });
    }
}

#[test]
fn case_4_success_outlives_an_earlier_failure() {
    let failed = with(
        intent("requires_payment_method", 0),
        json!({"last_payment_error": {}}),
    );
    for at in [11, 12] {
        let told = [
            event(at, "payment_intent.succeeded", intent("succeeded", 100)),
            event(11, "payment_intent.payment_failed", failed.clone()),
        ];
        in_any_order(&empty(), &told, |store| {
            assert_eq!(payment(store).status, "succeeded")
        });
    }
}

#[test]
fn case_5_the_greater_refund_is_the_later() {
    let told = [
        event(8, "payment_intent.succeeded", intent("succeeded", 100)),
        event(
            25,
            "charge.refunded",
            with(charge("succeeded"), json!({"amount_refunded": 50})),
        ),
        event(
            30,
            "charge.refunded",
            with(charge("succeeded"), json!({"amount_refunded": 100})),
        ),
    ];
    in_any_order(&empty(), &told, |store| {
        let row = payment(store);
        assert_eq!(
            (row.amount_refunded, row.status.as_str()),
            (Some(100), "refunded")
        );
    });
}

#[test]
fn case_6_a_failed_refund_is_given_back() {
    let told = [
        event(8, "payment_intent.succeeded", intent("succeeded", 100)),
        event(
            30,
            "charge.refunded",
            with(charge("succeeded"), json!({"amount_refunded": 40})),
        ),
        event(30, "refund.created", refund("re_1", 40, "succeeded")),
        event(50, "refund.failed", refund("re_1", 40, "failed")),
    ];
    in_any_order(&empty(), &told, |store| {
        let row = payment(store);
        assert_eq!(
            (row.amount_refunded, row.status.as_str()),
            (Some(0), "succeeded")
        );
        assert_eq!(row.refunded_at, None);
        assert_eq!(refund_row(store).status, "failed");
    });
}

#[test]
fn case_7_a_refund_before_its_charge() {
    let told = [
        event(30, "refund.created", refund("re_1", 40, "succeeded")),
        event(7, "charge.succeeded", charge("succeeded")),
        event(8, "payment_intent.succeeded", intent("succeeded", 100)),
    ];
    let mut store = empty();
    deliver(&mut store, vec![told[0].clone()]);
    assert_eq!(refund_row(&store).status, "refunded");
    in_any_order(&empty(), &told, |store| {
        let row = payment(store);
        assert_eq!(
            (row.amount_refunded, row.status.as_str()),
            (Some(40), "partially_refunded")
        );
        let refund = refund_row(store);
        assert_eq!(refund.stripe_customer_id.as_deref(), Some("cus_1"));
        assert_eq!(
            refund.customer_email_snapshot.as_deref(),
            Some("a@example.com")
        );
    });
}

#[test]
fn case_8_a_dispute_lost_and_its_funds_reinstated() {
    let dispute = |status: &str| {
        json!({
            "id": "dp_1", "object": "dispute", "created": 40, "amount": 100, "currency": "eur",
            "charge": "ch_1", "payment_intent": "pi_1", "reason": "fraudulent", "status": status,
            "metadata": {}, "evidence_details": {"due_by": 99},
        })
    };
    let mut told = vec![
        event(8, "payment_intent.succeeded", intent("succeeded", 100)),
        event(50, "charge.dispute.closed", dispute("lost")),
        event(40, "charge.dispute.created", dispute("needs_response")),
        event(
            41,
            "charge.dispute.funds_withdrawn",
            dispute("needs_response"),
        ),
    ];
    let dispute_status = |store: &Memory| {
        let row = one(store.all::<Dispute>()).status;
        assert_eq!(payment(store).dispute_status, row);
        assert_eq!(payment(store).status, "succeeded");
        row
    };
    in_any_order(&empty(), &told, |s| {
        assert_eq!(dispute_status(s).as_deref(), Some("lost"))
    });
    told.push(event(60, "charge.dispute.funds_reinstated", dispute("won")));
    in_any_order(&empty(), &told, |s| {
        assert_eq!(dispute_status(s).as_deref(), Some("won"))
    });
}

#[test]
fn case_9_the_deleted_stay_deleted() {
    for late in [19, 20] {
        let body =
            |id: &str, object: &str| json!({"id": id, "object": object, "created": 1, "name": "x"});
        let told = [
            event(20, "product.deleted", body("prod_1", "product")),
            changed(
                late,
                "product.updated",
                body("prod_1", "product"),
                Some(json!({"name": "y"})),
            ),
            event(20, "price.deleted", body("price_1", "price")),
            changed(
                late,
                "price.updated",
                body("price_1", "price"),
                Some(json!({"name": "y"})),
            ),
        ];
        in_any_order(&empty(), &told, |store| {
            assert!(one(store.all::<Product>()).deleted);
            assert!(one(store.all::<Price>()).deleted);
        });
        let told = [
            event(20, "customer.deleted", body("cus_1", "customer")),
            changed(
                late,
                "customer.updated",
                body("cus_1", "customer"),
                Some(json!({"name": "y"})),
            ),
        ];
        in_any_order(&empty(), &told, |store| {
            assert!(one(store.all::<Customer>()).deleted)
        });
    }
}

#[test]
fn case_10_a_delayed_payment_ends_as_it_ends() {
    let completed = session(
        "complete",
        json!({"payment_intent": "pi_1", "customer": "cus_1"}),
    );
    let paid = with(completed.clone(), json!({"payment_status": "paid"}));
    let good = [
        event(10, "checkout.session.completed", completed.clone()),
        event(90, "checkout.session.async_payment_succeeded", paid),
    ];
    in_any_order(&with_our_row("payment"), &good, |store| {
        assert_eq!(payment(store).status, "succeeded");
        let row = one(store.all::<CheckoutSession>());
        assert_eq!(row.payment_status.as_deref(), Some("paid"));
    });
    let failed = with(
        intent("requires_payment_method", 0),
        json!({"last_payment_error": {}}),
    );
    let bad = [
        event(10, "checkout.session.completed", completed.clone()),
        event(90, "checkout.session.async_payment_failed", completed),
        event(90, "payment_intent.payment_failed", failed),
    ];
    in_any_order(&with_our_row("payment"), &bad, |store| {
        assert_eq!(payment(store).status, "failed");
        let row = one(store.all::<CheckoutSession>());
        assert_eq!(row.status.as_deref(), Some("completed"));
        assert_eq!(row.payment_status.as_deref(), Some("unpaid"));
    });
}

#[test]
fn case_11_a_completed_session_does_not_expire() {
    for late in [9, 10] {
        let told = [
            event(
                10,
                "checkout.session.completed",
                session("complete", json!({})),
            ),
            event(
                late,
                "checkout.session.expired",
                session("expired", json!({})),
            ),
        ];
        in_any_order(&with_our_row("payment"), &told, |store| {
            assert_eq!(
                one(store.all::<CheckoutSession>()).status.as_deref(),
                Some("completed")
            );
        });
    }
}

#[test]
fn case_13_two_events_for_one_change() {
    let once = event(30, "refund.created", refund("re_1", 40, "succeeded"));
    let mut again = once.clone();
    again.source = Source::Event {
        id: "evt_other".into(),
        event_type: "refund.created".into(),
        previous_attributes: None,
    };
    let told = [
        once,
        again,
        event(7, "charge.succeeded", charge("succeeded")),
        event(8, "payment_intent.succeeded", intent("succeeded", 100)),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(payment(store).amount_refunded, Some(40));
        refund_row(store);
    });
}

#[test]
fn case_14_a_page_asked_for_before_a_change_does_not_undo_it() {
    let told = [
        changed(
            11,
            "customer.subscription.updated",
            subscription("past_due"),
            Some(json!({"status": "active"})),
        ),
        listed(10, subscription("active")),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(status_of(store), "past_due")
    });
}

#[test]
fn case_16_two_versions_leave_no_field_null() {
    let old = with(
        subscription("active"),
        json!({
            "current_period_start": 10, "current_period_end": 20,
            "items": {"object": "list", "has_more": false, "data": [
                with(item("si_1", 0, 0), json!({
                    "current_period_start": null, "current_period_end": null,
                })),
            ]},
        }),
    );
    let old_invoice = with(
        invoice("paid", 100),
        json!({
            "parent": null, "subscription": "sub_1", "payment_intent": "pi_1", "charge": "ch_1",
        }),
    );
    let told = [
        event(10, "customer.subscription.updated", subscription("active")),
        event(10, "customer.subscription.updated", old),
        event(10, "invoice.paid", invoice("paid", 100)),
        event(10, "invoice.paid", old_invoice),
    ];
    in_any_order(&empty(), &told, |store| {
        let row = one(store.all::<Subscription>());
        assert!(row.current_period_start.is_some() && row.current_period_end.is_some());
        let item = one(store.all::<SubscriptionItem>());
        assert!(item.current_period_end.is_some());
        let row = payment(store);
        assert_eq!(row.stripe_subscription_id.as_deref(), Some("sub_1"));
        assert_eq!(row.stripe_payment_intent_id.as_deref(), Some("pi_1"));
    });
}

#[test]
fn case_17_the_item_set_is_stripes() {
    let items = |more: bool, list: Value| {
        with(
            subscription("active"),
            json!({"items": {"object": "list", "has_more": more, "data": list}}),
        )
    };
    let told = [
        event(
            10,
            "customer.subscription.created",
            items(false, json!([item("si_1", 10, 20), item("si_2", 10, 400)])),
        ),
        event(
            11,
            "customer.subscription.updated",
            items(false, json!([item("si_2", 10, 400), item("si_3", 12, 22)])),
        ),
    ];
    in_any_order(&empty(), &told, |store| {
        let ids: Vec<_> = store
            .all::<SubscriptionItem>()
            .into_iter()
            .map(|row| row.stripe_subscription_item_id)
            .collect();
        assert_eq!(ids, ["si_2", "si_3"]);
        let row = one(store.all::<Subscription>());
        assert_eq!(row.current_period_start.map(|t| t.0), Some(10_000_000));
        assert_eq!(row.current_period_end.map(|t| t.0), Some(400_000_000));
    });

    let mut store = empty();
    told.iter()
        .for_each(|told| deliver(&mut store, vec![told.clone()]));
    let first_page = event(
        12,
        "customer.subscription.updated",
        items(true, json!([item("si_4", 12, 22)])),
    );
    deliver(&mut store, vec![first_page]);
    assert_eq!(
        store.all::<SubscriptionItem>().len(),
        3,
        "a page removes nothing"
    );
    assert_eq!(
        store.due(),
        [(&world::key("subscription", "sub_1"), "items")]
    );
    deliver(
        &mut store,
        vec![listed(
            13,
            items(false, json!([item("si_3", 12, 22), item("si_4", 12, 22)])),
        )],
    );
    assert_eq!(store.all::<SubscriptionItem>().len(), 2);
    assert_eq!(store.due(), []);
}

#[test]
fn case_22_an_invoice_before_the_checkout_that_maps_its_customer() {
    let told = [
        event(10, "invoice.paid", invoice("paid", 100)),
        event(10, "customer.subscription.created", subscription("active")),
        event(
            11,
            "checkout.session.completed",
            session(
                "complete",
                json!({
                    "mode": "subscription", "customer": "cus_1", "subscription": "sub_1", "invoice": "in_0",
                }),
            ),
        ),
    ];
    in_any_order(&with_our_row("subscription"), &told, |store| {
        assert_eq!(payment(store).subject_id.as_deref(), Some("t1"));
        assert_eq!(
            one(store.all::<Invoice>()).subject_id.as_deref(),
            Some("t1")
        );
        assert_eq!(
            one(store.all::<Subscription>()).subject_id.as_deref(),
            Some("t1")
        );
        assert_eq!(one(store.all::<CustomerMapping>()).subject_id, "t1");
    });
}

#[test]
fn case_27_what_was_not_captured_was_not_refunded() {
    let part = json!({"amount_captured": 60, "captured": true});
    let succeeded = event(12, "payment_intent.succeeded", intent("succeeded", 60));
    let basil = [
        succeeded.clone(),
        event(
            12,
            "charge.captured",
            with(charge("succeeded"), part.clone()),
        ),
    ];
    let released = with(
        refund("re_1", 40, "succeeded"),
        json!({"balance_transaction": null}),
    );
    let old = with(
        charge("succeeded"),
        with(
            part,
            json!({
                "amount_refunded": 40, "invoice": null,
                "refunds": {"object": "list", "has_more": false, "data": [released]},
            }),
        ),
    );
    let old = [succeeded, event(12, "charge.captured", old)];
    for told in [basil, old] {
        in_any_order(&empty(), &told, |store| {
            let row = payment(store);
            assert_eq!((row.amount, row.amount_refunded), (Some(60), Some(0)));
            assert_eq!(row.status, "succeeded");
            assert!(
                store
                    .all::<Payment>()
                    .iter()
                    .all(|row| row.status != "refunded")
            );
        });
    }
}

#[test]
fn case_27_a_cancelled_authorisation_was_not_refunded() {
    let cancelled = with(
        charge("succeeded"),
        json!({
            "captured": false, "amount_captured": 0, "amount_refunded": 100, "refunded": true,
        }),
    );
    let told = [
        event(
            12,
            "payment_intent.canceled",
            with(intent("canceled", 0), json!({"canceled_at": 12})),
        ),
        event(12, "charge.refunded", cancelled),
    ];
    in_any_order(&empty(), &told, |store| {
        let row = payment(store);
        assert_eq!(
            (row.status.as_str(), row.amount_refunded),
            ("failed", Some(0))
        );
    });
}

#[test]
fn case_28_amounts_are_exact() {
    for (currency, amount) in [
        ("jpy", 1),
        ("kwd", 12_345),
        ("eur", 3_000_000_000),
        ("idr", i64::MAX),
    ] {
        let patch = json!({"currency": currency, "amount": amount, "amount_received": amount});
        let told = [event(
            12,
            "payment_intent.succeeded",
            with(intent("succeeded", 0), patch),
        )];
        in_any_order(&empty(), &told, |store| {
            let row = payment(store);
            assert_eq!(row.amount, Some(amount));
            assert_eq!(row.currency.as_deref(), Some(currency));
        });
    }
    let tiered = json!({
        "id": "price_1", "object": "price", "created": 1, "unit_amount": null,
        "unit_amount_decimal": "0.000000000001", "currency": "usd", "billing_scheme": "tiered",
    });
    in_any_order(&empty(), &[event(1, "price.created", tiered)], |store| {
        let row = one(store.all::<Price>());
        assert_eq!(row.unit_amount, None);
        assert_eq!(row.unit_amount_decimal.as_deref(), Some("0.000000000001"));
    });
}

#[test]
fn case_29_the_good_charge_is_the_payments() {
    let declined = with(charge("failed"), json!({"id": "ch_0", "created": 5}));
    let told = [
        event(6, "charge.failed", declined),
        event(7, "charge.succeeded", charge("succeeded")),
        event(
            8,
            "payment_intent.succeeded",
            with(intent("succeeded", 100), json!({"latest_charge": "ch_1"})),
        ),
    ];
    in_any_order(&empty(), &told, |store| {
        let row = payment(store);
        assert_eq!(row.stripe_charge_id.as_deref(), Some("ch_1"));
        assert_eq!((row.status.as_str(), row.failed_at), ("succeeded", None));
        assert!(store.keys().contains(&world::key("charge", "ch_0")));
    });
}

#[test]
fn case_30_an_invoice_is_paid_when_it_is_all_paid() {
    let half = |intent: &str, received: i64, status: &str| {
        json!({
            "id": intent, "object": "payment_intent", "created": 6, "customer": "cus_1",
            "status": status, "amount": 50, "amount_received": received, "currency": "eur",
            "metadata": {},
        })
    };
    let mut told = vec![
        event(6, "invoice.updated", invoice("open", 0)),
        event(7, "payment_intent.succeeded", half("pi_1", 50, "succeeded")),
        event(
            7,
            "invoice_payment.paid",
            invoice_payment("inpay_1", "pi_1", 5),
        ),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(payment(store).status, "pending")
    });
    told.push(event(
        8,
        "payment_intent.succeeded",
        half("pi_2", 50, "succeeded"),
    ));
    told.push(event(
        8,
        "invoice_payment.paid",
        invoice_payment("inpay_2", "pi_2", 5),
    ));
    told.push(event(8, "invoice.paid", invoice("paid", 100)));
    in_any_order(&empty(), &told, |store| {
        let row = payment(store);
        assert_eq!((row.status.as_str(), row.amount), ("succeeded", Some(100)));
        assert_eq!(store.due(), []);
    });

    let outside = with(one_off("paid", 100), json!({"paid_out_of_band": true}));
    in_any_order(&empty(), &[event(8, "invoice.paid", outside)], |store| {
        let row = payment(store);
        assert_eq!(row.kind, "one_time_payment");
        assert_eq!(
            (row.status.as_str(), row.stripe_payment_intent_id),
            ("succeeded", None)
        );
    });
}

#[test]
fn case_31_a_planned_end_can_be_undone() {
    let ending = with(subscription("active"), json!({"cancel_at": 500}));
    let told = [
        changed(
            10,
            "customer.subscription.updated",
            ending.clone(),
            Some(json!({"cancel_at": null})),
        ),
        changed(
            11,
            "customer.subscription.updated",
            subscription("active"),
            Some(json!({"cancel_at": 500})),
        ),
    ];
    in_any_order(&empty(), &told[..1], |store| {
        let row = one(store.all::<Subscription>());
        assert!(row.cancel_at.is_some() && row.cancel_at_period_end == Some(false));
    });
    in_any_order(&empty(), &told, |store| {
        assert_eq!(one(store.all::<Subscription>()).cancel_at, None);
    });
}

#[test]
fn case_33_null_means_null() {
    let product = |price: Value| {
        json!({
            "id": "prod_1", "object": "product", "created": 1, "name": "x", "default_price": price,
        })
    };
    let told = [
        event(10, "product.updated", product(json!("price_1"))),
        event(11, "product.updated", product(Value::Null)),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(one(store.all::<Product>()).default_price_id, None);
    });
}

#[test]
fn case_34_what_a_buyer_writes_maps_nobody() {
    let theirs = json!({"payments_subject_type": "team", "payments_subject_id": "victim"});
    let foreign = session(
        "complete",
        json!({
            "customer": "cus_1", "payment_intent": "pi_1", "payment_status": "paid",
            "client_reference_id": "victim", "metadata": theirs,
        }),
    );
    let forged = session(
        "complete",
        json!({
            "customer": "cus_1", "payment_intent": "pi_1", "payment_status": "paid",
            "metadata": with(our_metadata(), json!({"payments_proof": "forged"})),
        }),
    );
    let told = [
        event(9, "checkout.session.completed", foreign),
        event(10, "checkout.session.completed", forged),
        event(
            9,
            "customer.updated",
            json!({
                "id": "cus_1", "object": "customer", "created": 1, "metadata": theirs,
            }),
        ),
        event(
            9,
            "payment_intent.succeeded",
            with(intent("succeeded", 100), json!({"metadata": theirs})),
        ),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(store.all::<CustomerMapping>(), []);
        assert_eq!(store.all::<CheckoutSession>(), []);
        let row = payment(store);
        assert_eq!(row.subject_id, None);
        // What a merchant writes on a payment stays visible; our own words do not.
        assert_eq!(row.metadata, Some(json!({"order_id": "order 7"})));
    });
}

#[test]
fn case_35_dunning_and_recovery() {
    let step = |at, status: &str, was: &str| {
        changed(
            at,
            "customer.subscription.updated",
            subscription(status),
            Some(json!({"status": was})),
        )
    };
    let told = [
        step(10, "past_due", "active"),
        step(20, "unpaid", "past_due"),
        step(30, "active", "unpaid"),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(status_of(store), "active")
    });
    let told = [
        event(
            10,
            "customer.subscription.created",
            subscription("incomplete"),
        ),
        step(10, "incomplete_expired", "incomplete"),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(status_of(store), "incomplete_expired")
    });
}

#[test]
fn case_37_two_updates_in_one_second() {
    let step = |status: &str, was: &str| {
        changed(
            10,
            "customer.subscription.updated",
            subscription(status),
            Some(json!({"status": was})),
        )
    };
    let told = [step("past_due", "active"), step("active", "trialing")];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(status_of(store), "past_due");
        assert_eq!(store.due(), []);
    });
}

#[test]
fn what_no_rule_decides_is_asked_for() {
    let told = [
        event(
            10,
            "customer.subscription.updated",
            subscription("past_due"),
        ),
        event(10, "customer.subscription.updated", subscription("active")),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(
            store.due(),
            [(&world::key("subscription", "sub_1"), "undecided")]
        );
        let mut store = store.clone();
        deliver(&mut store, vec![listed(12, subscription("active"))]);
        assert_eq!((status_of(&store), store.due()), ("active".into(), vec![]));
    });
}

#[test]
fn an_intent_has_no_row_until_it_is_known_what_it_pays() {
    let mut unsaid = intent("succeeded", 100);
    unsaid.as_object_mut().expect("an object").remove("invoice");
    let paid = event(8, "payment_intent.succeeded", unsaid);
    in_any_order(
        &empty(),
        &[
            paid.clone(),
            event(8, "charge.succeeded", charge("succeeded")),
        ],
        |store| {
            no_payment(store);
            assert_eq!(
                store.due(),
                [(&world::key("payment_intent", "pi_1"), "unclassified")]
            );
        },
    );
    let answer = |data: Value| {
        listed(
            20,
            json!({"id": "pi_1", "object": "invoice_payment_list", "data": data}),
        )
    };
    in_any_order(&empty(), &[paid.clone(), answer(json!([]))], |store| {
        assert_eq!(payment(store).kind, "one_time_payment");
        assert_eq!(store.due(), []);
    });
    let mut paying = invoice_payment("inpay_1", "pi_1", 5);
    paying["invoice"] = invoice("paid", 100);
    in_any_order(&empty(), &[paid.clone(), listed(20, paying)], |store| {
        let row = payment(store);
        assert_eq!(row.kind, "subscription_invoice");
        assert_eq!(row.stripe_payment_intent_id.as_deref(), Some("pi_1"));
        assert_eq!(store.due(), []);
    });
    let by_hand = [
        paid,
        event(8, "invoice.paid", one_off("paid", 100)),
        event(
            8,
            "invoice_payment.paid",
            invoice_payment("inpay_1", "pi_1", 5),
        ),
    ];
    in_any_order(&empty(), &by_hand, |store| {
        let row = payment(store);
        assert_eq!(row.kind, "one_time_payment");
        assert_eq!(row.stripe_invoice_id.as_deref(), Some("in_1"));
        assert_eq!(store.due(), []);
    });
}

#[test]
fn a_payment_attached_to_an_invoice_keeps_its_row() {
    let mut paid = intent("succeeded", 100);
    paid.as_object_mut().expect("an object").remove("invoice");
    let mut charge = charge("succeeded");
    charge["created"] = json!(6);
    let told = [
        event(6, "charge.succeeded", charge),
        event(6, "payment_intent.succeeded", paid),
        listed(
            10,
            json!({"id": "pi_1", "object": "invoice_payment_list", "data": []}),
        ),
        event(
            50,
            "invoice_payment.paid",
            invoice_payment("inpay_1", "pi_1", 50),
        ),
        event(50, "invoice.paid", invoice("paid", 100)),
    ];
    in_any_order(&empty(), &told, |store| {
        let rows = store.all::<Payment>();
        let mut told: Vec<_> = rows.iter().map(|r| (r.kind.as_str(), r.amount)).collect();
        told.sort();
        assert_eq!(
            told,
            [
                ("one_time_payment", Some(100)),
                ("subscription_invoice", Some(0))
            ]
        );
    });
}

#[test]
fn a_charge_without_intent_stands_for_itself() {
    let lone = with(charge("succeeded"), json!({"payment_intent": null}));
    in_any_order(&empty(), &[event(7, "charge.succeeded", lone)], |store| {
        let row = payment(store);
        assert_eq!(row.stripe_charge_id.as_deref(), Some("ch_1"));
        assert_eq!((row.status.as_str(), row.amount), ("succeeded", Some(100)));
    });
}

#[test]
fn a_free_session_is_a_payment_of_nothing() {
    let free = json!({
        "payment_status": "no_payment_required", "amount_total": 0, "customer": "cus_1",
    });
    let told = [event(
        9,
        "checkout.session.completed",
        session("complete", free.clone()),
    )];
    in_any_order(&with_our_row("payment"), &told, |store| {
        let row = payment(store);
        assert_eq!((row.status.as_str(), row.amount), ("succeeded", Some(0)));
        assert_eq!(row.metadata, Some(json!({"order_id": "order 7"})));
        assert_eq!(row.subject_id.as_deref(), Some("t1"));
    });
    let nothing = with(one_off("paid", 0), json!({"amount_due": 0, "total": 0}));
    let invoiced = session("complete", with(free, json!({"invoice": "in_1"})));
    let told = [
        event(9, "checkout.session.completed", invoiced),
        event(9, "invoice.paid", nothing),
    ];
    in_any_order(&with_our_row("payment"), &told, |store| {
        let row = payment(store);
        assert_eq!(row.stripe_invoice_id.as_deref(), Some("in_1"));
        assert_eq!(row.stripe_checkout_session_id.as_deref(), Some("cs_1"));
    });
}

#[test]
fn an_authorisation_is_not_a_payment() {
    let held = with(
        charge("succeeded"),
        json!({"captured": false, "amount_captured": 0}),
    );
    let told = [
        event(7, "charge.succeeded", held),
        event(
            7,
            "payment_intent.amount_capturable_updated",
            intent("requires_capture", 0),
        ),
    ];
    in_any_order(&empty(), &told, |store| {
        let row = payment(store);
        assert_eq!((row.status.as_str(), row.paid_at), ("pending", None));
    });
}

#[test]
fn the_first_of_several_captures_is_not_the_whole() {
    let part = with(
        charge("succeeded"),
        json!({"amount_captured": 40, "captured": true}),
    );
    let told = [
        event(7, "charge.captured", part),
        event(
            7,
            "payment_intent.amount_capturable_updated",
            intent("requires_capture", 40),
        ),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(payment(store).status, "pending")
    });
}

#[test]
fn a_bank_transfer_in_parts_is_pending_until_whole() {
    let told = [event(
        7,
        "payment_intent.partially_funded",
        intent("requires_action", 0),
    )];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(payment(store).status, "pending")
    });
}

#[test]
fn a_draft_invoice_has_no_payment() {
    in_any_order(
        &empty(),
        &[event(6, "invoice.updated", invoice("draft", 0))],
        |store| {
            no_payment(store);
            assert_eq!(one(store.all::<Invoice>()).status.as_deref(), Some("draft"));
        },
    );
}

#[test]
fn a_paid_one_off_invoice_of_unknown_means_is_asked_about() {
    let paid = event(8, "invoice.paid", one_off("paid", 100));
    let mut store = empty();
    deliver(&mut store, vec![paid.clone()]);
    no_payment(&store);
    assert_eq!(store.due(), [(&world::key("invoice", "in_1"), "payments")]);
    let answer = listed(
        20,
        json!({"id": "in_1", "object": "invoice_payment_list", "data": [{
            "id": "inpay_1", "object": "invoice_payment", "created": 8, "invoice": "in_1",
            "status": "paid", "payment": {"type": "payment_record", "payment_record": "pr_1"},
        }]}),
    );
    in_any_order(&empty(), &[paid, answer], |store| {
        assert_eq!(payment(store).status, "succeeded");
        assert_eq!(store.due(), []);
    });
}

#[test]
fn refunds_unknown_to_us_count_as_the_charge_says() {
    let told = [
        event(8, "payment_intent.succeeded", intent("succeeded", 100)),
        event(
            30,
            "charge.refunded",
            with(charge("succeeded"), json!({"amount_refunded": 70})),
        ),
        event(30, "refund.created", refund("re_2", 30, "succeeded")),
    ];
    in_any_order(&empty(), &told, |store| {
        assert_eq!(payment(store).amount_refunded, Some(70));
    });
}

#[test]
fn absurd_amounts_stop_nothing() {
    let huge =
        json!({"amount": i64::MAX, "amount_captured": i64::MAX, "amount_refunded": i64::MAX});
    let least = json!({"amount": i64::MIN, "amount_received": i64::MIN});
    let told = [
        event(
            8,
            "payment_intent.succeeded",
            with(intent("succeeded", 100), least),
        ),
        event(30, "charge.refunded", with(charge("succeeded"), huge)),
        event(30, "refund.created", refund("re_1", i64::MAX, "succeeded")),
        event(30, "refund.created", refund("re_2", i64::MAX, "succeeded")),
        event(31, "refund.failed", refund("re_3", i64::MIN, "failed")),
    ];
    in_any_order(&empty(), &told, |store| drop(payment(store)));
}

#[test]
fn the_refund_of_a_subscriptions_bill_belongs_to_the_bill() {
    let told = [
        event(7, "charge.succeeded", charge("succeeded")),
        event(
            8,
            "invoice_payment.paid",
            invoice_payment("inpay_1", "pi_1", 5),
        ),
        event(8, "invoice.paid", invoice("paid", 100)),
        event(30, "refund.created", refund("re_1", 100, "succeeded")),
    ];
    in_any_order(&empty(), &told, |store| {
        let row = payment(store);
        assert_eq!(
            (row.kind.as_str(), row.status.as_str()),
            ("subscription_invoice", "refunded")
        );
        let refund = refund_row(store);
        assert_eq!(refund.stripe_invoice_id.as_deref(), Some("in_1"));
        assert_eq!(refund.stripe_subscription_id.as_deref(), Some("sub_1"));
    });
}
