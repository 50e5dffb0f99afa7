use proptest::prelude::*;

use super::*;
use crate::form;

/// The arguments of a good request, to be spoilt one at a time.
struct Given {
    mode: &'static str,
    line_items: Value,
    success_url: &'static str,
    cancel_url: &'static str,
    subject: Option<Value>,
    customer_email: Option<&'static str>,
    metadata: Option<Value>,
    idempotency_key: Option<&'static str>,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            mode: "payment",
            line_items: json!([{"stripe_price_id": "price_1", "quantity": 2}]),
            success_url: "https://shop.example/thanks?s={CHECKOUT_SESSION_ID}",
            cancel_url: "https://shop.example/cart",
            subject: None,
            customer_email: None,
            metadata: None,
            idempotency_key: None,
        }
    }
}

impl Given {
    fn parse(&self) -> Result<Request, Invalid> {
        Request::parse(Arguments {
            mode: self.mode,
            line_items: &self.line_items,
            success_url: self.success_url,
            cancel_url: self.cancel_url,
            subject: self.subject.as_ref(),
            customer_email: self.customer_email,
            metadata: self.metadata.as_ref(),
            idempotency_key: self.idempotency_key,
        })
    }

    fn refused(&self) -> (&'static str, String) {
        let invalid = self.parse().expect_err("refused");
        (invalid.argument, invalid.message)
    }
}

fn team() -> Option<Value> {
    Some(json!({"type": "team", "id": "7"}))
}

fn prices(of: &[(&str, bool, bool)]) -> BTreeMap<PriceRef, Price> {
    let price = |&(id, recurring, metered): &(&str, bool, bool)| {
        (
            PriceRef::StripePriceId(id.into()),
            Price {
                id: id.into(),
                recurring,
                metered,
            },
        )
    };
    of.iter().map(price).collect()
}

fn ours() -> BTreeMap<String, String> {
    BTreeMap::from([("payments_checkout_session_id".into(), "row-1".into())])
}

#[test]
fn an_anonymous_payment_is_the_least_that_can_be_asked_for() {
    let request = Given::default().parse().expect("a request");
    assert_eq!(request.mode, Mode::Payment);
    assert_eq!(
        request.line_items,
        [LineItem {
            price: PriceRef::StripePriceId("price_1".into()),
            quantity: 2
        }]
    );
    assert_eq!(
        request.success_url,
        "https://shop.example/thanks?s={CHECKOUT_SESSION_ID}"
    );
    assert_eq!((request.subject, request.customer_email), (None, None));
    assert_eq!(
        (request.metadata, request.idempotency_key),
        (BTreeMap::new(), None)
    );
}

#[test]
fn everything_that_can_be_asked_for() {
    let request = Given {
        mode: "subscription",
        line_items: json!([{"lookupKey": " pro_monthly "}, {"stripePriceId": "price_2"}]),
        subject: team(),
        customer_email: Some(" ann@shop.example "),
        metadata: Some(json!({"order_id": "9"})),
        idempotency_key: Some(" team:7:pro "),
        ..Given::default()
    };
    let request = request.parse().expect("a request");
    assert_eq!(
        request.line_items_json(),
        json!([
            {"lookup_key": "pro_monthly", "quantity": 1},
            {"stripe_price_id": "price_2", "quantity": 1},
        ])
    );
    assert_eq!(
        request.subject,
        Some(Subject {
            kind: "team".into(),
            id: "7".into()
        })
    );
    assert_eq!(request.customer_email.as_deref(), Some("ann@shop.example"));
    assert_eq!(
        request.metadata,
        BTreeMap::from([("order_id".into(), "9".into())])
    );
    assert_eq!(request.idempotency_key.as_deref(), Some("team:7:pro"));
}

#[test]
fn a_subscription_needs_a_subject() {
    let given = Given {
        mode: "subscription",
        ..Given::default()
    };
    assert_eq!(
        given.refused(),
        ("subject", "a subscription needs a subject".into())
    );
}

#[test]
fn other_modes_are_refused() {
    for mode in ["setup", "Payment", ""] {
        assert_eq!(
            Given {
                mode,
                ..Given::default()
            }
            .refused()
            .0,
            "mode"
        );
    }
}

#[test]
fn line_items_that_cannot_be_sold_are_named() {
    let item = |value: Value| json!([{"lookup_key": "ok"}, value]);
    for (line_items, message) in [
        (
            json!({}),
            "line_items must be a JSON array of 1 to 100 items",
        ),
        (
            json!([]),
            "line_items must be a JSON array of 1 to 100 items",
        ),
        (
            json!(vec![json!({"lookup_key": "a"}); 101]),
            "line_items must be a JSON array of 1 to 100 items",
        ),
        (
            item(json!("price_1")),
            "line_items[1] must be a JSON object",
        ),
        (
            item(json!({})),
            "line_items[1] needs either stripe_price_id or lookup_key",
        ),
        (
            item(json!({"lookup_key": "a", "stripe_price_id": "price_1"})),
            "line_items[1] needs either stripe_price_id or lookup_key",
        ),
        (
            item(json!({"price": "price_1"})),
            "line_items[1] has an unknown key \"price\"",
        ),
        (
            item(json!({"stripe_price_id": "prod_1"})),
            "line_items[1].stripe_price_id is not a Stripe price id (price_…)",
        ),
        (
            item(json!({"lookup_key": ""})),
            "line_items[1].lookup_key must have 1 to 200 characters",
        ),
        (
            item(json!({"lookup_key": 5})),
            "line_items[1].lookup_key must be a string",
        ),
    ] {
        let given = Given {
            line_items,
            ..Given::default()
        };
        assert_eq!(given.refused(), ("line_items", message.into()));
    }
    for quantity in [
        json!(0),
        json!(1000),
        json!(-1),
        json!(1.5),
        json!("2"),
        json!(true),
    ] {
        let line_items = json!([{"lookup_key": "a", "quantity": quantity}]);
        assert_eq!(
            Given {
                line_items,
                ..Given::default()
            }
            .refused()
            .1,
            "line_items[0].quantity must be a whole number from 1 to 999"
        );
    }
    let line_items =
        json!([{"lookup_key": "a", "quantity": 999}, {"lookup_key": "b", "quantity": null}]);
    assert!(
        Given {
            line_items,
            ..Given::default()
        }
        .parse()
        .is_ok()
    );
}

#[test]
fn urls_are_checked_by_name() {
    let given = Given {
        success_url: "/thanks",
        ..Given::default()
    };
    let message = "success_url must be an absolute http or https URL";
    assert_eq!(given.refused(), ("success_url", message.into()));
    assert_eq!(
        Given {
            cancel_url: "",
            ..Given::default()
        }
        .refused()
        .0,
        "cancel_url"
    );
}

#[test]
fn emails_must_be_plausible() {
    for email in [
        "",
        "ann",
        "ann@",
        "@shop.example",
        "ann@localhost",
        "a b@shop.example",
        "a@b..c",
    ] {
        let given = Given {
            customer_email: Some(email),
            ..Given::default()
        };
        assert_eq!(given.refused().0, "customer_email", "{email}");
    }
    for email in [
        "ann@shop.example",
        "a+b.c@x.co",
        "\"a@b\"@shop.example",
        "ü@müller.example",
    ] {
        assert!(
            Given {
                customer_email: Some(email),
                ..Given::default()
            }
            .parse()
            .is_ok(),
            "{email}"
        );
    }
}

#[test]
fn metadata_keeps_to_stripes_limits() {
    let many = |count: usize| {
        (0..count)
            .map(|n| (n.to_string(), json!("")))
            .collect::<Map<_, _>>()
    };
    for good in [
        json!({}),
        json!({"k".repeat(40): "v".repeat(500)}),
        json!({"é".repeat(40): "é".repeat(500)}),
        Value::Object(many(40)),
    ] {
        assert!(
            Given {
                metadata: Some(good),
                ..Given::default()
            }
            .parse()
            .is_ok()
        );
    }
    for bad in [
        json!([]),
        json!("a=b"),
        json!({"a": 1}),
        json!({"a": null}),
        json!({"a": {"b": "c"}}),
        json!({"": "x"}),
        json!({"k".repeat(41): "x"}),
        json!({"a": "v".repeat(501)}),
        json!({"a[b]": "x"}),
        json!({"payments_subject_id": "8"}),
        Value::Object(many(41)),
    ] {
        assert_eq!(
            Given {
                metadata: Some(bad),
                ..Given::default()
            }
            .refused()
            .0,
            "metadata"
        );
    }
}

#[test]
fn idempotency_keys_are_measured() {
    for key in ["", "  "] {
        let given = Given {
            idempotency_key: Some(key),
            ..Given::default()
        };
        assert_eq!(given.refused().0, "idempotency_key");
    }
    let key = "k".repeat(201).leak();
    assert_eq!(
        Given {
            idempotency_key: Some(key),
            ..Given::default()
        }
        .refused()
        .0,
        "idempotency_key"
    );
    assert!(
        Given {
            idempotency_key: Some(&key[1..]),
            ..Given::default()
        }
        .parse()
        .is_ok()
    );
}

#[test]
fn the_hash_ignores_spelling_and_sees_everything_else() {
    let hash = |given: Given| given.parse().expect("a request").canonical_hash();
    let plain = hash(Given::default());
    let same = Given {
        line_items: json!([{"quantity": 2, "stripePriceId": " price_1"}]),
        metadata: Some(json!({})),
        idempotency_key: Some("any"),
        ..Given::default()
    };
    assert_eq!(hash(same), plain);
    let one = json!([{"lookup_key": "a"}]);
    let explicit = json!([{"lookup_key": "a", "quantity": 1}]);
    assert_eq!(
        hash(Given {
            line_items: one,
            ..Given::default()
        }),
        hash(Given {
            line_items: explicit,
            ..Given::default()
        })
    );
    let ab = serde_json::from_str(r#"{"a": "1", "b": "2"}"#).ok();
    let ba = serde_json::from_str(r#"{"b": "2", "a": "1"}"#).ok();
    assert_eq!(
        hash(Given {
            metadata: ab,
            ..Given::default()
        }),
        hash(Given {
            metadata: ba,
            ..Given::default()
        })
    );
    let others = [
        Given {
            line_items: json!([{"stripe_price_id": "price_1"}]),
            ..Given::default()
        },
        Given {
            line_items: json!([{"lookup_key": "price_1", "quantity": 2}]),
            ..Given::default()
        },
        Given {
            success_url: "https://shop.example/",
            ..Given::default()
        },
        Given {
            cancel_url: "https://shop.example/",
            ..Given::default()
        },
        Given {
            subject: team(),
            ..Given::default()
        },
        Given {
            customer_email: Some("a@b.c"),
            ..Given::default()
        },
        Given {
            metadata: Some(json!({"a": "1"})),
            ..Given::default()
        },
        Given {
            metadata: Some(json!({"a": "2"})),
            ..Given::default()
        },
        Given {
            mode: "subscription",
            subject: team(),
            ..Given::default()
        },
    ];
    let mut hashes: Vec<_> = others.into_iter().map(hash).chain([plain]).collect();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 10);
}

/// Rows keep the hash for ever: a release that computes another one would refuse every retry.
#[test]
fn the_hash_is_the_same_in_every_release() {
    let request = Given {
        mode: "subscription",
        subject: team(),
        customer_email: Some("ann@shop.example"),
        metadata: Some(json!({"b": "2", "a": "1"})),
        ..Given::default()
    };
    let request = request.parse().expect("a request");
    assert_eq!(
        serde_json::to_string(&request).expect("json"),
        "{\"mode\":\"subscription\",\
         \"line_items\":[{\"stripe_price_id\":\"price_1\",\"quantity\":2}],\
         \"success_url\":\"https://shop.example/thanks?s={CHECKOUT_SESSION_ID}\",\
         \"cancel_url\":\"https://shop.example/cart\",\
         \"subject\":{\"type\":\"team\",\"id\":\"7\"},\
         \"customer_email\":\"ann@shop.example\",\
         \"metadata\":{\"a\":\"1\",\"b\":\"2\"}}"
    );
    assert_eq!(
        request.canonical_hash(),
        "21018f0fe3ac537d8811b5170eb3b52d384fb50d4df2b592114b2cda2e851c2d"
    );
}

#[test]
fn prices_are_named_once() {
    let line_items =
        json!([{"lookup_key": "b"}, {"stripe_price_id": "price_1"}, {"lookup_key": "b"}]);
    let request = Given {
        line_items,
        ..Given::default()
    }
    .parse()
    .expect("a request");
    let named: Vec<_> = request.prices().into_iter().map(PriceRef::as_str).collect();
    assert_eq!(named, ["price_1", "b"]);
}

#[test]
fn a_payment_is_asked_of_stripe() {
    let given = Given {
        customer_email: Some("ann@shop.example"),
        metadata: Some(json!({"order_id": "9"})),
        ..Given::default()
    };
    let request = given.parse().expect("a request");
    let prices = prices(&[("price_1", false, false)]);
    let metadata = json!({"order_id": "9", "payments_checkout_session_id": "row-1"});
    assert_eq!(
        request.session_parameters(&prices, None, "row-1", &ours()),
        Ok(json!({
            "mode": "payment",
            "line_items": [{"price": "price_1", "quantity": 2}],
            "success_url": "https://shop.example/thanks?s={CHECKOUT_SESSION_ID}",
            "cancel_url": "https://shop.example/cart",
            "client_reference_id": "row-1",
            "customer_email": "ann@shop.example",
            "payment_intent_data": {"metadata": metadata},
            "metadata": metadata,
        }))
    );
}

#[test]
fn a_subscription_is_asked_of_stripe() {
    let given = Given {
        mode: "subscription",
        line_items: json!([{"lookup_key": "seats", "quantity": 3}, {"lookup_key": "usage"}]),
        subject: team(),
        customer_email: Some("ann@shop.example"),
        ..Given::default()
    };
    let request = given.parse().expect("a request");
    let lookup = |key: &str, id: &str, metered| {
        (
            PriceRef::LookupKey(key.into()),
            Price {
                id: id.into(),
                recurring: true,
                metered,
            },
        )
    };
    let prices = BTreeMap::from([
        lookup("seats", "price_s", false),
        lookup("usage", "price_u", true),
    ]);
    let parameters = request.session_parameters(&prices, Some("cus_1"), "row-1", &ours());
    let parameters = parameters.expect("parameters");
    assert_eq!(
        parameters["line_items"],
        json!([{"price": "price_s", "quantity": 3}, {"price": "price_u"}])
    );
    assert_eq!(parameters["customer"], json!("cus_1"));
    assert_eq!(parameters.get("customer_email"), None);
    assert_eq!(parameters.get("payment_intent_data"), None);
    assert_eq!(parameters["subscription_data"]["metadata"], json!(ours()));
    assert_eq!(parameters["metadata"], json!(ours()));
    let account = request.session_parameters(&prices, Some("acct_1"), "row-1", &ours());
    assert_eq!(
        account.expect("parameters")["customer_account"],
        json!("acct_1")
    );
}

#[test]
fn our_metadata_cannot_be_overridden_nor_the_limit_passed() {
    let most: Map<_, _> = (0..40).map(|n| (n.to_string(), json!("x"))).collect();
    let given = Given {
        metadata: Some(most.into()),
        ..Given::default()
    };
    let ours: BTreeMap<_, _> = (0..10)
        .map(|n| (format!("payments_{n}"), "y".into()))
        .collect();
    let prices = prices(&[("price_1", false, false)]);
    let request = given.parse().expect("a request");
    let parameters = request
        .session_parameters(&prices, None, "row-1", &ours)
        .expect("parameters");
    let metadata = parameters["metadata"].as_object().expect("an object");
    assert_eq!(metadata.len(), 50);
}

#[test]
fn prices_must_exist_and_fit_the_mode() {
    let item = |id: usize| json!({"stripe_price_id": format!("price_{id}")});
    let refused = |mode, count: usize, of: &[(&str, bool, bool)]| {
        let line_items = (0..count).map(item).collect();
        let given = Given {
            mode,
            line_items,
            subject: team(),
            ..Given::default()
        };
        let request = given.parse().expect("a request");
        request
            .session_parameters(&prices(of), None, "row-1", &ours())
            .map_err(|invalid| invalid.message)
    };
    assert_eq!(
        refused("payment", 1, &[]),
        Err("line_items[0] names a price that does not exist: price_0".into())
    );
    assert_eq!(
        refused("payment", 1, &[("price_0", true, false)]),
        Err("line_items[0] is a recurring price, which cannot be paid once".into())
    );
    assert_eq!(
        refused("subscription", 1, &[("price_0", false, false)]),
        Err("line_items of a subscription need a recurring price".into())
    );
    let names: Vec<String> = (0..42).map(|n| format!("price_{n}")).collect();
    let of = |recurring: usize, one_time: usize| -> Vec<(&str, bool, bool)> {
        let all = names.iter().take(recurring + one_time).enumerate();
        all.map(|(n, name)| (name.as_str(), n < recurring, false))
            .collect()
    };
    assert!(refused("subscription", 40, &of(20, 20)).is_ok());
    assert_eq!(
        refused("subscription", 21, &of(21, 0)),
        Err("line_items of a subscription can have at most 20 recurring prices".into())
    );
    assert_eq!(
        refused("subscription", 22, &of(1, 21)),
        Err("line_items of a subscription can have at most 20 one-time prices".into())
    );
    assert!(refused("payment", 42, &of(0, 42)).is_ok());
}

#[test]
fn a_metered_price_has_no_quantity() {
    let line_items = json!([{"stripe_price_id": "price_1", "quantity": 2}]);
    let given = Given {
        mode: "subscription",
        line_items,
        subject: team(),
        ..Given::default()
    };
    let request = given.parse().expect("a request");
    let refused =
        request.session_parameters(&prices(&[("price_1", true, true)]), None, "r", &ours());
    assert_eq!(
        refused.map_err(|invalid| invalid.message),
        Err("line_items[0] is billed by usage and cannot have a quantity".into())
    );
}

#[test]
fn a_price_is_read_from_stripes_object() {
    let read =
        |recurring: Value| Price::from_object(&json!({"id": "price_1", "recurring": recurring}));
    let price = |recurring, metered| {
        Some(Price {
            id: "price_1".into(),
            recurring,
            metered,
        })
    };
    assert_eq!(read(json!(null)), price(false, false));
    assert_eq!(read(json!({"usage_type": "licensed"})), price(true, false));
    assert_eq!(read(json!({"usage_type": "metered"})), price(true, true));
    assert_eq!(Price::from_object(&json!({})), None);
}

#[test]
fn the_session_id_survives_the_form() {
    let request = Given::default().parse().expect("a request");
    let prices = prices(&[("price_1", false, false)]);
    let parameters = request.session_parameters(&prices, None, "row-1", &ours());
    let form = form::encode(&parameters.expect("parameters"));
    assert!(form.contains(
        "success_url=https%3A%2F%2Fshop.example%2Fthanks%3Fs%3D%7BCHECKOUT_SESSION_ID%7D"
    ));
}

fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        Just(json!("price_1")),
    ];
    let key = "stripe_price_id|lookupKey|quantity|type|id|.{0,4}";
    leaf.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4)
                .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_taken_or_refused_without_panic(
        line_items in junk(), subject in junk(), metadata in junk(),
    ) {
        let given = Given { line_items, ..Given::default() };
        let _ = given.parse();
        let given = Given { subject: Some(subject), ..Given::default() };
        let _ = given.parse();
        let given = Given { metadata: Some(metadata), ..Given::default() };
        let _ = given.parse();
    }
}
