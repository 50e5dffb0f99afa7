//! The sequences that peers get wrong. `e@t` is an event with `created = t`.

use payments_ledger::{Mark, Mirrored, Object, Observation, Source};
use serde_json::{Map, Value, json};

use crate::observed::{
    answered, event, fetched, in_every_order, join, listed, map, through_the_table, update,
};

/// An object of that type and status, created at 1.
fn with_status(object_type: &str, status: &str) -> Value {
    json!({"object": object_type, "id": "x_1", "created": 1, "status": status})
}

fn product(name: &str) -> Value {
    json!({"object": "product", "id": "prod_1", "created": 1, "name": name})
}

/// Some object that was renamed within second 10.
fn renamed(id: &str, from: &str, to: &str) -> Observation {
    update(
        id,
        10,
        "product.updated",
        product(to),
        json!({"name": from}),
    )
}

/// The mark of an answer whose request was sent when this alone was mirrored.
fn knowing(seen: &Observation) -> Option<Mark> {
    Some(Mirrored::of(seen.clone()).mark())
}

fn named(object: &Object, name: &str) {
    assert_eq!(object.body["name"], name);
    assert!(!object.undecided);
}

fn undecided(object: &Object, name: &str) {
    assert_eq!(object.body["name"], name);
    assert!(object.undecided);
}

fn has_status(object: &Object, status: &str) {
    assert_eq!(object.body["status"], status);
    assert!(!object.undecided);
}

#[test]
fn a_creation_never_outdoes_what_came_of_it() {
    for second in [9, 10] {
        has_status(
            &in_every_order(&[
                event(
                    10,
                    "customer.subscription.created",
                    with_status("subscription", "incomplete"),
                ),
                event(
                    second,
                    "customer.subscription.updated",
                    with_status("subscription", "active"),
                ),
            ]),
            "active",
        );
    }
}

#[test]
fn a_canceled_subscription_stays_canceled() {
    for second in [15, 20] {
        let object = in_every_order(&[
            event(
                20,
                "customer.subscription.deleted",
                with_status("subscription", "canceled"),
            ),
            update(
                "evt_1",
                second,
                "customer.subscription.updated",
                with_status("subscription", "active"),
                json!({"status": "past_due"}),
            ),
        ]);
        has_status(&object, "canceled");
        assert!(!object.deleted, "a canceled subscription can still be read");
    }
}

#[test]
fn a_payment_that_succeeded_did_not_fail() {
    for second in [11, 12] {
        has_status(
            &in_every_order(&[
                event(
                    12,
                    "payment_intent.succeeded",
                    with_status("payment_intent", "succeeded"),
                ),
                event(
                    second,
                    "payment_intent.payment_failed",
                    with_status("payment_intent", "requires_payment_method"),
                ),
                event(
                    second,
                    "payment_intent.created",
                    with_status("payment_intent", "processing"),
                ),
            ]),
            "succeeded",
        );
    }
}

#[test]
fn the_greater_refund_is_the_later_one() {
    let refunded = |amount: i64| {
        json!({"object": "charge", "id": "ch_1", "created": 1, "status": "succeeded",
               "captured": true, "amount_refunded": amount})
    };
    for second in [25, 30] {
        let object = in_every_order(&[
            event(30, "charge.refunded", refunded(100)),
            event(second, "charge.refunded", refunded(50)),
        ]);
        assert_eq!(object.body["amount_refunded"], 100);
        assert!(!object.undecided);
    }
}

#[test]
fn a_refund_can_fail_after_it_succeeded() {
    has_status(
        &in_every_order(&[
            event(10, "refund.created", with_status("refund", "pending")),
            event(10, "refund.updated", with_status("refund", "succeeded")),
            event(10, "refund.failed", with_status("refund", "failed")),
        ]),
        "failed",
    );
}

#[test]
fn a_lost_dispute_stays_lost_while_its_money_moves() {
    has_status(
        &in_every_order(&[
            event(
                40,
                "charge.dispute.created",
                with_status("dispute", "needs_response"),
            ),
            event(
                41,
                "charge.dispute.funds_withdrawn",
                with_status("dispute", "under_review"),
            ),
            event(50, "charge.dispute.closed", with_status("dispute", "lost")),
        ]),
        "lost",
    );
}

#[test]
fn a_lost_dispute_can_be_appealed() {
    let lost = event(50, "charge.dispute.closed", with_status("dispute", "lost"));
    let appeal = |was: Value| {
        let body = with_status("dispute", "appeal_needs_response");
        update("evt_appeal", 50, "charge.dispute.updated", body, was)
    };
    let chained = in_every_order(&[lost.clone(), appeal(json!({"status": "lost"}))]);
    has_status(&chained, "appeal_needs_response");

    let unchained = in_every_order(&[lost, appeal(json!({"status": "under_review"}))]);
    assert_eq!(unchained.body["status"], "lost");
    assert!(
        unchained.undecided,
        "no rank is certain where the terminal state can be left"
    );
}

#[test]
fn what_is_deleted_stays_deleted() {
    for object_type in [
        "product", "price", "customer", "coupon", "invoice", "tax_id",
    ] {
        for second in [19, 20, 21] {
            let body =
                |name| json!({"object": object_type, "id": "x_1", "created": 1, "name": name});
            let updated = format!("{object_type}.updated");
            let object = in_every_order(&[
                event(20, &format!("{object_type}.deleted"), body("old")),
                update(
                    "evt_1",
                    second,
                    &updated,
                    body("new"),
                    json!({"name": "old"}),
                ),
                listed(second, body("listed")),
            ]);
            assert!(object.deleted, "{object_type}@{second}");
            assert_eq!(object.as_of, 20);
            named(&object, "old");
        }
    }
}

#[test]
fn the_answer_to_a_deletion_keeps_what_the_object_was() {
    let gone = json!({"object": "product", "id": "prod_1", "deleted": true});
    let object = in_every_order(&[
        event(10, "product.updated", product("pen")),
        answered(15, gone, None),
        event(16, "product.updated", product("late")),
    ]);
    assert!(object.deleted);
    assert_eq!(object.created, Some(1));
    named(&object, "late");
}

#[test]
fn a_completed_session_did_not_expire() {
    for second in [10, 11] {
        has_status(
            &in_every_order(&[
                event(
                    11,
                    "checkout.session.completed",
                    with_status("checkout.session", "complete"),
                ),
                event(
                    second,
                    "checkout.session.expired",
                    with_status("checkout.session", "expired"),
                ),
                answered(9, with_status("checkout.session", "open"), None),
            ]),
            "complete",
        );
    }
}

#[test]
fn a_delayed_payment_is_settled_after_the_session_completed() {
    let session = |payment_status: &str| {
        json!({"object": "checkout.session", "id": "cs_1", "created": 1,
               "status": "complete", "payment_status": payment_status})
    };
    let object = in_every_order(&[
        event(10, "checkout.session.completed", session("unpaid")),
        event(
            10,
            "checkout.session.async_payment_succeeded",
            session("paid"),
        ),
    ]);
    assert_eq!(object.body["payment_status"], "paid");
    assert!(!object.undecided);
}

#[test]
fn a_page_is_as_old_as_its_request() {
    let change = || renamed("evt_1", "old", "new");
    named(
        &in_every_order(&[listed(9, product("old")), change()]),
        "new",
    );
    named(
        &in_every_order(&[listed(10, product("old")), change()]),
        "new",
    );
    named(
        &in_every_order(&[listed(10, product("else")), change()]),
        "new",
    );
    named(
        &in_every_order(&[listed(11, product("newer")), change()]),
        "newer",
    );
}

#[test]
fn a_page_stamped_before_the_creation_is_still_newer_than_it() {
    named(
        &in_every_order(&[
            event(10, "product.created", product("first")),
            listed(9, product("second")),
        ]),
        "second",
    );
}

#[test]
fn what_was_seen_paid_is_not_open_again() {
    for early in [0, 1, 2] {
        for (object_type, event_type, before, after) in [
            ("invoice", "invoice.finalized", "open", "paid"),
            (
                "payment_intent",
                "payment_intent.processing",
                "processing",
                "succeeded",
            ),
            ("charge", "charge.pending", "pending", "failed"),
            ("invoice_payment", "invoice_payment.created", "open", "paid"),
        ] {
            let page = listed(10 - early, with_status(object_type, after));
            let late = event(10, event_type, with_status(object_type, before));
            has_status(&in_every_order(&[page, late]), after);
        }
    }
}

#[test]
fn what_one_version_dropped_is_kept_from_another() {
    let old = json!({"object": "payment_intent", "id": "pi_1", "created": 1,
                     "status": "processing", "invoice": "in_1", "charges": {"data": []}});
    let new = json!({"object": "payment_intent", "id": "pi_1", "created": 1,
                     "status": "succeeded", "latest_charge": "ch_1"});
    let object = in_every_order(&[
        event(10, "payment_intent.processing", old),
        event(12, "payment_intent.succeeded", new.clone()),
        event(14, "payment_intent.succeeded", new),
    ]);
    has_status(&object, "succeeded");
    assert_eq!(object.body["invoice"], "in_1");
    assert_eq!(object.body["latest_charge"], "ch_1");
}

#[test]
fn a_dropped_field_is_taken_from_the_newest_that_has_it() {
    let with_link = |name: &str, link: &str| {
        let mut body = product(name);
        body["link"] = link.into();
        body
    };
    for [first, second, third] in [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]] {
        let object = in_every_order(&[
            event(10, "product.updated", with_link("x", first)),
            update(
                "e1",
                11,
                "product.updated",
                with_link("y", second),
                json!({"link": first}),
            ),
            update(
                "e2",
                11,
                "product.updated",
                with_link("y", third),
                json!({"link": second}),
            ),
            event(12, "product.updated", product("z")),
        ]);
        assert_eq!(object.body["link"], third);
        named(&object, "z");
    }
}

#[test]
fn a_null_erases_and_stays_null() {
    let with_price = |price: Value| json!({"object": "product", "id": "prod_1", "created": 1, "default_price": price});
    let object = in_every_order(&[
        event(10, "product.updated", with_price(json!("price_1"))),
        event(11, "product.updated", with_price(Value::Null)),
        event(12, "product.updated", product("without")),
    ]);
    assert_eq!(object.body["default_price"], Value::Null);
}

#[test]
fn a_key_below_the_top_level_can_go_away() {
    let with_metadata = |metadata: Value| json!({"object": "product", "id": "prod_1", "created": 1, "metadata": metadata});
    let object = in_every_order(&[
        event(10, "product.updated", with_metadata(json!({"order": "1"}))),
        event(11, "product.updated", with_metadata(json!({}))),
    ]);
    assert_eq!(object.body["metadata"], json!({}));
}

#[test]
fn of_two_updates_in_one_second_the_chain_decides() {
    let status = |status: &str, was: &str| {
        update(
            &format!("evt_{status}"),
            10,
            "customer.subscription.updated",
            with_status("subscription", status),
            json!({"status": was}),
        )
    };
    has_status(
        &in_every_order(&[status("active", "trialing"), status("past_due", "active")]),
        "past_due",
    );
}

#[test]
fn three_updates_in_one_second_end_where_the_chain_ends() {
    named(
        &in_every_order(&[
            event(5, "product.created", product("a")),
            renamed("e1", "a", "b"),
            renamed("e2", "b", "c"),
            renamed("e3", "c", "d"),
        ]),
        "d",
    );
}

#[test]
fn a_circle_ends_where_it_began() {
    let circle = [
        renamed("e1", "a", "b"),
        renamed("e2", "b", "c"),
        renamed("e3", "c", "a"),
    ];
    let from = |first| [&circle[..], &[first]].concat();
    named(
        &in_every_order(&from(event(5, "product.created", product("a")))),
        "a",
    );
    named(
        &in_every_order(&from(event(9, "product.updated", product("b")))),
        "b",
    );
    assert!(
        in_every_order(&circle).undecided,
        "nobody knows where it began"
    );
}

#[test]
fn a_circle_across_a_page_ends_where_it_began() {
    named(
        &in_every_order(&[
            event(5, "product.created", product("a")),
            renamed("e1", "a", "b"),
            renamed("e2", "b", "a"),
            listed(10, product("b")),
        ]),
        "a",
    );
}

#[test]
fn a_change_told_by_two_events_is_one_change() {
    named(
        &in_every_order(&[
            renamed("e1", "a", "b"),
            renamed("e2", "a", "b"),
            renamed("e3", "b", "c"),
        ]),
        "c",
    );
}

#[test]
fn a_change_made_again_cannot_be_told_from_a_change_told_twice() {
    undecided(
        &in_every_order(&[
            event(5, "product.created", product("a")),
            renamed("e1", "a", "b"),
            renamed("e2", "b", "a"),
            renamed("e3", "a", "b"),
        ]),
        "b",
    );
}

#[test]
fn a_chain_with_a_gap_is_undecided_until_the_gap_is_filled() {
    let ends = [renamed("e1", "a", "b"), renamed("e3", "c", "d")];
    assert!(in_every_order(&ends).undecided);
    named(
        &in_every_order(&[&ends[..], &[renamed("e2", "b", "c")]].concat()),
        "d",
    );
}

#[test]
fn what_a_piece_of_a_chain_passes_is_not_its_end() {
    for passed in ["b", "f", "g", "h", "i", "j"] {
        let object = in_every_order(&[
            renamed("e1", "a", passed),
            renamed("e2", passed, "c"),
            renamed("e3", "d", "e"),
        ]);
        assert_ne!(object.body["name"], passed);
        assert!(object.undecided);
    }
}

#[test]
fn a_circle_apart_from_the_rest_decides_nothing() {
    let apart = [
        renamed("e1", "a", "b"),
        renamed("e2", "b", "a"),
        renamed("e3", "c", "d"),
    ];
    assert!(in_every_order(&apart).undecided);
}

#[test]
fn nulls_and_absence_are_one_in_previous_attributes() {
    let with_price = |price: Value| json!({"object": "product", "id": "prod_1", "created": 1, "default_price": price});
    let object = in_every_order(&[
        update(
            "e1",
            10,
            "product.updated",
            with_price(json!("p_1")),
            json!({"default_price": null}),
        ),
        update(
            "e2",
            10,
            "product.updated",
            with_price(json!(null)),
            json!({"default_price": "p_1"}),
        ),
        event(
            9,
            "product.updated",
            json!({"object": "product", "id": "prod_1", "created": 1}),
        ),
    ]);
    assert_eq!(object.body["default_price"], Value::Null);
    assert!(!object.undecided);
}

#[test]
fn a_product_made_again_is_not_deleted_by_the_tombstone_of_the_first() {
    let second = json!({"object": "product", "id": "prod_1", "created": 20, "name": "again"});
    let object = in_every_order(&[
        event(10, "product.updated", product("first")),
        event(20, "product.deleted", product("first")),
        event(20, "product.created", second),
    ]);
    assert!(!object.deleted);
    assert_eq!(object.created, Some(20));
    named(&object, "again");
}

#[test]
fn a_bare_tombstone_belongs_to_what_was_mirrored_when_the_deletion_was_sent() {
    let gone = || json!({"object": "product", "id": "prod_1", "deleted": true});
    let first = event(10, "product.updated", product("first"));
    let again = json!({"object": "product", "id": "prod_1", "created": 20, "name": "again"});
    let again = event(20, "product.created", again);

    let of_the_first = answered(20, gone(), knowing(&first));
    assert!(!in_every_order(&[first.clone(), of_the_first, again.clone()]).deleted);

    let of_the_second = answered(20, gone(), knowing(&again));
    assert!(in_every_order(&[first.clone(), of_the_second, again.clone()]).deleted);

    let later = fetched(21, gone(), None);
    assert!(in_every_order(&[first.clone(), later, again.clone()]).deleted);

    let who_knows = fetched(20, gone(), None);
    assert!(!in_every_order(&[first, who_knows, again]).deleted);
}

#[test]
fn our_answer_outranks_what_was_mirrored_before_it_was_sent() {
    let seen = [renamed("e1", "a", "b"), renamed("e2", "b", "c")];
    let mark = || Some(join(&seen).mark());
    for stamped in [9, 10, 11] {
        let answer = answered(stamped, product("ours"), mark());
        named(&in_every_order(&[&seen[..], &[answer]].concat()), "ours");
    }
    let fetch = fetched(9, product("asked"), mark());
    named(&in_every_order(&[&seen[..], &[fetch]].concat()), "asked");
}

#[test]
fn our_answer_can_say_what_the_object_had_been_before() {
    let seen = [renamed("e1", "a", "ours"), renamed("e2", "ours", "b")];
    let answer = answered(10, product("ours"), Some(join(&seen).mark()));
    let own = renamed("e3", "b", "ours");
    named(
        &in_every_order(&[&seen[..], std::slice::from_ref(&answer)].concat()),
        "ours",
    );
    named(
        &in_every_order(&[&seen[..], &[answer, own]].concat()),
        "ours",
    );
}

#[test]
fn a_change_that_came_late_may_be_older_than_the_answer() {
    let known = renamed("e2", "b", "a");
    let asked = fetched(10, product("a"), knowing(&known));
    let late = renamed("e1", "a", "b");
    assert!(in_every_order(&[known, asked, late]).undecided);
}

#[test]
fn asking_again_settles_an_event_that_came_while_asking() {
    let seen = event(10, "product.updated", product("seen"));
    let asked = fetched(10, product("asked"), knowing(&seen));
    let other = event(10, "product.updated", product("other"));
    let told = [seen, asked, other];
    assert!(in_every_order(&told).undecided);
    let again = fetched(10, product("again"), Some(join(&told).mark()));
    named(&in_every_order(&[&told[..], &[again]].concat()), "again");
}

#[test]
fn our_answer_goes_under_when_a_change_follows_it() {
    let seen = renamed("e1", "a", "b");
    let answer = answered(9, product("ours"), knowing(&seen));
    let told = [
        seen,
        answer,
        renamed("e2", "b", "ours"),
        renamed("e3", "ours", "next"),
    ];
    named(&in_every_order(&told), "next");
}

#[test]
fn our_answer_does_not_hide_that_the_payment_succeeded() {
    has_status(
        &in_every_order(&[
            answered(10, with_status("payment_intent", "processing"), None),
            event(
                10,
                "payment_intent.succeeded",
                with_status("payment_intent", "succeeded"),
            ),
        ]),
        "succeeded",
    );
}

#[test]
fn our_answer_against_an_event_it_did_not_know_is_undecided() {
    let told = [
        answered(10, product("ours"), None),
        event(10, "product.updated", product("other")),
    ];
    undecided(&in_every_order(&told), "ours");
}

#[test]
fn two_answers_in_one_second_follow_on_one_another() {
    let first = answered(10, product("first"), None);
    let second = answered(9, product("second"), knowing(&first));
    let known = join(&[first.clone(), second.clone()]).mark();
    let third = answered(10, product("first"), Some(known));
    named(&in_every_order(&[first.clone(), second.clone()]), "second");
    named(&in_every_order(&[first, second, third]), "first");
}

#[test]
fn asking_settles_what_was_undecided() {
    let tied = [
        event(10, "product.updated", product("a")),
        event(10, "product.updated", product("b")),
    ];
    assert!(in_every_order(&tied).undecided);
    for name in ["a", "b", "c"] {
        let asked = fetched(10, product(name), Some(join(&tied).mark()));
        named(&in_every_order(&[&tied[..], &[asked]].concat()), name);
    }
}

#[test]
fn items_of_two_updates_in_one_second_are_chained_like_their_subscription() {
    let item = |quantity: i64| json!({"object": "subscription_item", "id": "si_1", "created": 1, "quantity": quantity});
    let subscription = |quantity: i64| {
        json!({"object": "subscription", "id": "sub_1", "created": 1,
               "items": {"object": "list", "data": [item(quantity)]}})
    };
    let items: Vec<_> = [(3, 1), (2, 3)]
        .into_iter()
        .map(|(is, was)| {
            let whole = update(
                &format!("evt_{is}"),
                10,
                "customer.subscription.updated",
                subscription(is),
                json!({"items": {"data": [item(was)]}}),
            );
            let before = whole.before("items");
            let before = before.expect("the event says what it changed");
            let before = map(before["data"][0].clone());
            whole
                .embedded(map(item(is)), Some(&before))
                .expect("an item has an id")
        })
        .collect();
    let object = in_every_order(&items);
    assert_eq!(object.body["quantity"], 2);
    assert!(!object.undecided);
}

#[test]
fn what_comes_with_a_creation_is_not_itself_created_by_it() {
    let whole = event(
        10,
        "customer.subscription.created",
        with_status("subscription", "active"),
    );
    let item = json!({"object": "subscription_item", "id": "si_1", "created": 1, "quantity": 1});
    let item = whole.embedded(map(item), None).expect("an item has an id");
    let listed = json!({"object": "subscription_item", "id": "si_1", "created": 1, "quantity": 2});
    let object = in_every_order(&[item, self::listed(10, listed)]);
    assert_eq!(
        object.body["quantity"], 1,
        "an event beats a page of the same second"
    );
}

#[test]
fn a_type_is_not_created_by_the_event_of_a_type_that_ends_alike() {
    let card =
        |last4: &str| json!({"object": "card", "id": "card_1", "created": 1, "last4": last4});
    let object = in_every_order(&[
        event(10, "issuing_card.created", card("0001")),
        listed(10, card("0002")),
    ]);
    assert_eq!(object.body["last4"], "0001");
}

#[test]
fn our_deletion_and_its_event_leave_nothing_to_ask() {
    let seen = event(10, "product.updated", product("pen"));
    let gone = json!({"object": "product", "id": "prod_1", "deleted": true});
    let object = in_every_order(&[
        answered(20, gone, knowing(&seen)),
        seen,
        event(20, "product.deleted", product("pen")),
    ]);
    assert!(object.deleted);
    named(&object, "pen");
}

#[test]
fn an_invoice_that_is_paid_at_once_tells_it_all_in_one_second() {
    let invoice = |status: &str, attempts: i64| {
        json!({"object": "invoice", "id": "in_1", "created": 10,
               "status": status, "attempt_count": attempts})
    };
    let mut told = vec![
        event(10, "invoice.created", invoice("draft", 0)),
        event(10, "invoice.finalized", invoice("open", 0)),
        event(10, "invoice.payment_failed", invoice("open", 1)),
    ];
    let object = in_every_order(&told);
    assert_eq!(object.body["attempt_count"], 1);
    assert!(!object.undecided);

    told.push(update(
        "evt_1",
        10,
        "invoice.updated",
        invoice("paid", 2),
        json!({"status": "open", "attempt_count": 1}),
    ));
    told.push(event(10, "invoice.paid", invoice("paid", 2)));
    has_status(&in_every_order(&told), "paid");
}

#[test]
fn an_update_that_fits_nothing_is_the_likelier_last() {
    let charge = |receipt: Option<&str>, balance: Option<&str>| {
        json!({"object": "charge", "id": "ch_1", "created": 10, "status": "succeeded",
               "captured": true, "receipt_url": receipt, "balance_transaction": balance})
    };
    for balance in ["txn_1", "txn_2", "txn_3", "txn_4"] {
        let object = in_every_order(&[
            event(10, "charge.succeeded", charge(None, None)),
            update(
                "evt_1",
                10,
                "charge.updated",
                charge(Some("https://pay.stripe.com/receipts/1"), Some(balance)),
                json!({"balance_transaction": null}),
            ),
        ]);
        assert_eq!(object.body["balance_transaction"], balance);
        assert!(object.undecided);
    }
}

#[test]
fn an_object_without_id_is_not_observed() {
    let upcoming = map(json!({"object": "invoice", "id": null, "amount_due": 100}));
    assert_eq!(Observation::new(upcoming, 10, Source::Listing), None);
}

#[test]
fn a_single_event_needs_no_evidence() {
    let paid = event(
        10,
        "payment_intent.succeeded",
        with_status("payment_intent", "succeeded"),
    );
    let stored = Mirrored::of(paid.clone()).to_stored();
    assert_eq!(
        stored.body,
        r#"{"created":1,"id":"x_1","object":"payment_intent","status":"succeeded"}"#,
    );
    assert_eq!(
        (stored.as_of, stored.deleted, stored.evidence),
        (10, false, None)
    );

    let deleted = Mirrored::of(event(10, "product.deleted", product("pen"))).to_stored();
    assert_eq!((deleted.deleted, deleted.evidence), (true, None));

    let created = event(
        9,
        "payment_intent.created",
        with_status("payment_intent", "processing"),
    );
    assert_eq!(join(&[created, paid]).to_stored().evidence, None);
}

#[test]
fn evidence_that_is_not_ours_is_refused() {
    let mirrored = Mirrored::of(renamed("e1", "a", "b"));
    let key = mirrored.object().key;
    let mut stored = mirrored.to_stored();
    stored.evidence = Some(r#"{"winner": 1}"#.into());
    assert!(Mirrored::from_stored(key.clone(), stored.clone()).is_err());
    stored.body = "[]".into();
    stored.evidence = None;
    assert!(Mirrored::from_stored(key, stored).is_err());
}

/// Version 0.1.0 kept none beside whole bodies.
#[test]
fn evidence_without_summaries_is_read() {
    let mirrored = join(&[renamed("e1", "a", "b"), renamed("e2", "b", "c")]);
    let mut stored = mirrored.to_stored();
    let evidence = stored.evidence.expect("two sightings of one second");
    let mut evidence: Value = serde_json::from_str(&evidence).expect("JSON");
    for sighting in ["/winner", "/others/0"] {
        let sighting = evidence
            .pointer_mut(sighting)
            .and_then(Value::as_object_mut);
        let summary = sighting.and_then(|sighting| sighting.remove("summary"));
        assert!(summary.is_some(), "so that nothing is computed twice");
    }
    stored.evidence = Some(evidence.to_string());
    let read = Mirrored::from_stored(mirrored.key().clone(), stored);
    assert_eq!(read.expect("what was stored can be read"), mirrored);
}

/// Version 0.1.0 named all fields that a sighting shares with the body.
#[test]
fn evidence_that_names_what_is_shared_is_read() {
    let mirrored = join(&[renamed("e1", "a", "b"), renamed("e2", "b", "c")]);
    let mut stored = mirrored.to_stored();
    let body: Value = serde_json::from_str(&stored.body).expect("JSON");
    let evidence = stored.evidence.expect("two sightings of one second");
    let mut evidence: Value = serde_json::from_str(&evidence).expect("JSON");
    let other = evidence["others"][0].as_object_mut().expect("an object");
    assert_eq!(other.remove("lacks"), Some(json!([])));
    let own = other["own"].as_object().expect("fields of its own").clone();
    let names = body.as_object().into_iter().flatten().map(|(name, _)| name);
    let shared: Vec<_> = names.filter(|name| !own.contains_key(*name)).collect();
    other.insert("shared".into(), json!(shared));
    stored.evidence = Some(evidence.to_string());
    let read = Mirrored::from_stored(mirrored.key().clone(), stored);
    assert_eq!(read.expect("what was stored can be read"), mirrored);
}

#[test]
fn two_events_of_one_second_leave_little_evidence() {
    let field = |number: u8| (format!("field_{number}"), json!("as ever"));
    let body = |name: &str| {
        let mut body: Map<String, Value> = (0..80).map(field).collect();
        body.extend(map(
            json!({"object": "product", "id": "prod_1", "created": 1, "name": name}),
        ));
        Value::Object(body)
    };
    let told = |id, name, was| update(id, 10, "product.updated", body(name), json!({"name": was}));
    let mirrored = join(&[told("e1", "b", "a"), told("e2", "c", "b")]);
    let evidence = mirrored.to_stored().evidence.expect("two sightings");
    assert!(evidence.len() < 600, "{evidence}");
    assert_eq!(through_the_table(&mirrored), mirrored);
}

#[test]
fn a_long_life_leaves_one_body_and_little_evidence() {
    let long = "x".repeat(3000);
    let body = |second: i64| json!({"object": "product", "id": "prod_1", "created": 1, "name": second, "text": long});
    let mut mirrored = Mirrored::of(event(1, "product.created", body(1)));
    for second in 2..500 {
        let told = match second % 3 {
            0 => listed(second, body(second)),
            _ => update(
                &format!("evt_{second}"),
                second,
                "product.updated",
                body(second),
                json!({"name": second - 1}),
            ),
        };
        mirrored = through_the_table(&mirrored.join(Mirrored::of(told)));
        let stored = mirrored.to_stored();
        let evidence = stored.evidence.unwrap_or_default();
        assert!(stored.body.len() < 3100);
        assert!(evidence.len() < 400, "{evidence}");
    }
}

#[test]
fn many_shapes_are_bounded_by_their_fields() {
    let mut mirrored: Option<Mirrored> = None;
    for second in 2..300_i64 {
        let mut body = json!({"object": "product", "id": "prod_1", "created": 1});
        body[format!("field_{}", second % 10)] = "x".repeat(100).into();
        let one = Mirrored::of(event(second, "product.updated", body));
        mirrored = Some(match mirrored {
            Some(before) => through_the_table(&before.join(one)),
            None => one,
        });
    }
    let stored = mirrored.expect("observed").to_stored();
    assert!(
        stored.body.len() < 1300,
        "ten fields of a hundred bytes, once each"
    );
    assert!(stored.evidence.unwrap_or_default().len() < 2500);
}
