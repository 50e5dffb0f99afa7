use super::*;

fn settings(value: Value) -> Settings {
    Settings::parse(&value).unwrap_or_else(|invalid| panic!("{invalid}"))
}

/// The parameters of a session with these settings.
fn session(settings: &Settings, mode: &str, customer: bool, trial: bool) -> Value {
    let data = match mode {
        "payment" => "payment_intent_data",
        _ => "subscription_data",
    };
    let mut session = json!({"mode": mode, data: {"metadata": {"a": "b"}}});
    if customer {
        session["customer"] = "cus_1".into();
    }
    settings.add_to(&mut session, trial);
    session
}

#[test]
fn parameters_go_where_stripe_takes_them() {
    for (setting, value, payment, subscription) in [
        ("allow_promotion_codes", json!(true), true, true),
        ("automatic_tax", json!({"enabled": true}), true, true),
        ("billing_address_collection", json!("required"), true, true),
        (
            "consent_collection",
            json!({"promotions": "auto"}),
            true,
            true,
        ),
        (
            "custom_text",
            json!({"submit": {"message": "Thanks"}}),
            true,
            true,
        ),
        ("discounts", json!([{"coupon": "early"}]), true, true),
        ("invoice_creation", json!({"enabled": true}), true, false),
        ("locale", json!("en-GB"), true, true),
        (
            "payment_method_collection",
            json!("if_required"),
            false,
            true,
        ),
        (
            "phone_number_collection",
            json!({"enabled": true}),
            true,
            true,
        ),
        (
            "shipping_options",
            json!([{"shipping_rate": "shr_1"}]),
            true,
            false,
        ),
        ("submit_type", json!("donate"), true, false),
        ("tax_id_collection", json!({"enabled": true}), true, true),
    ] {
        let settings = settings(json!({setting: value}));
        for customer in [false, true] {
            for (mode, goes) in [("payment", payment), ("subscription", subscription)] {
                let session = session(&settings, mode, customer, false);
                let sent = session.get(setting);
                assert_eq!(sent, goes.then_some(&value), "{setting} {mode} {customer}");
            }
        }
    }
}

#[test]
fn customers_are_made_for_guests_and_updated_for_customers() {
    let settings = settings(json!({
        "customer_creation": "always",
        "customer_update": {"address": "auto"},
    }));
    let sent = |mode, customer| {
        let session = session(&settings, mode, customer, false);
        (
            session.get("customer_creation").is_some(),
            session.get("customer_update").is_some(),
        )
    };
    assert_eq!(sent("payment", false), (true, false));
    assert_eq!(sent("payment", true), (false, true));
    assert_eq!(sent("subscription", false), (false, false));
    assert_eq!(sent("subscription", true), (false, true));
}

#[test]
fn a_returning_customer_can_type_in_what_tax_needs() {
    let settings = settings(json!({
        "automatic_tax": {"enabled": true},
        "tax_id_collection": {"enabled": true},
        "shipping_address_collection": {"allowed_countries": ["DE"]},
    }));
    let update =
        |customer| session(&settings, "payment", customer, false)["customer_update"].clone();
    assert_eq!(
        update(true),
        json!({"address": "auto", "name": "auto", "shipping": "auto"})
    );
    assert_eq!(update(false), Value::Null);
}

#[test]
fn data_joins_our_metadata() {
    let settings = settings(json!({
        "payment_intent_data": {"statement_descriptor": "SHOP"},
        "subscription_data": {"description": "Pro"},
    }));
    assert_eq!(
        session(&settings, "payment", true, true)["payment_intent_data"],
        json!({"metadata": {"a": "b"}, "statement_descriptor": "SHOP"})
    );
    assert_eq!(
        session(&settings, "subscription", true, true)["subscription_data"],
        json!({"metadata": {"a": "b"}, "description": "Pro"})
    );
}

#[test]
fn a_trial_is_for_subscriptions_that_can_have_one() {
    let end = json!({"end_behavior": {"missing_payment_method": "cancel"}});
    let settings = settings(json!({
        "trial_period_days": 14,
        "subscription_data": {"trial_settings": end},
    }));
    let data = |trial| session(&settings, "subscription", true, trial)["subscription_data"].clone();
    assert_eq!(
        data(true),
        json!({"metadata": {"a": "b"}, "trial_period_days": 14, "trial_settings": end})
    );
    assert_eq!(data(false), json!({"metadata": {"a": "b"}}));
    assert_eq!(
        session(&settings, "payment", true, true).get("subscription_data"),
        None
    );
}

#[test]
fn nothing_set_adds_nothing() {
    for settings in [settings(json!({})), Settings::default()] {
        let plain = json!({"mode": "payment", "payment_intent_data": {"metadata": {"a": "b"}}});
        assert_eq!(session(&settings, "payment", false, true), plain);
    }
}

#[test]
fn names_can_be_those_of_javascript() {
    let spelt = settings(json!({"automaticTax": {"enabled": true}, "oneLiveSubscription": true}));
    assert_eq!(
        spelt,
        settings(json!({"automatic_tax": {"enabled": true}, "one_live_subscription": true}))
    );
}

#[test]
fn urls_are_allowed_by_origin() {
    let any = settings(json!({}));
    assert!(any.allows_url("https://shop.example/a"));
    let limited =
        settings(json!({"allowed_origins": ["https://shop.example", "http://localhost:3000"]}));
    for (url, allowed) in [
        ("https://shop.example/thanks?s={CHECKOUT_SESSION_ID}", true),
        ("https://SHOP.example:443", true),
        ("http://localhost:3000/", true),
        ("http://localhost:3001/", false),
        ("http://shop.example/", false),
        ("https://shop.example@evil.example/", false),
        ("nonsense", false),
    ] {
        assert_eq!(limited.allows_url(url), allowed, "{url}");
    }
}

#[test]
fn the_first_portal_configuration_is_for_who_names_none() {
    let any = settings(json!({}));
    assert_eq!(any.portal_configuration(None), Some(None));
    assert_eq!(any.portal_configuration(Some("bpc_9")), Some(Some("bpc_9")));
    let limited = settings(json!({"allowed_portal_configurations": ["bpc_1", "bpc_2"]}));
    assert_eq!(limited.portal_configuration(None), Some(Some("bpc_1")));
    assert_eq!(
        limited.portal_configuration(Some("bpc_2")),
        Some(Some("bpc_2"))
    );
    assert_eq!(limited.portal_configuration(Some("bpc_9")), None);
}

#[test]
fn what_cannot_be_is_refused_by_its_path() {
    let field = |more: Value| {
        let mut field =
            json!({"key": "size", "label": {"custom": "Size", "type": "custom"}, "type": "text"});
        if let (Value::Object(field), Value::Object(more)) = (&mut field, more) {
            field.extend(more);
        }
        field
    };
    for (value, message) in [
        (json!([]), "settings must be a JSON object"),
        (
            json!({"mode": "payment"}),
            "settings has an unknown key \"mode\"",
        ),
        (
            json!({"success_url": "https://a.example"}),
            "settings has an unknown key \"success_url\"",
        ),
        (
            json!({"metadata": {}}),
            "settings has an unknown key \"metadata\"",
        ),
        (
            json!({"line_items": []}),
            "settings has an unknown key \"line_items\"",
        ),
        (
            json!({"payment_intent_data": {"metadata": {}}}),
            "settings.payment_intent_data has an unknown key \"metadata\"",
        ),
        (
            json!({"subscription_data": {"trial_period_days": 7}}),
            "settings.subscription_data has an unknown key \"trial_period_days\"",
        ),
        (
            json!({"allow_promotion_codes": "yes"}),
            "settings.allow_promotion_codes must be true or false",
        ),
        (
            json!({"automatic_tax": {}}),
            "settings.automatic_tax.enabled is missing",
        ),
        (
            json!({"automatic_tax": true}),
            "settings.automatic_tax must be a JSON object",
        ),
        (
            json!({"trial_period_days": 731}),
            "settings.trial_period_days must be a whole number up to 730",
        ),
        (
            json!({"trial_period_days": -1}),
            "settings.trial_period_days must be a whole number up to 730",
        ),
        (
            json!({"submit_type": "steal"}),
            "settings.submit_type must be one of auto, book, donate, pay",
        ),
        (
            json!({"custom_fields": []}),
            "settings.custom_fields must be a list of 1 to 3",
        ),
        (
            json!({"custom_fields": [field(json!({})), field(json!({}))]}),
            "custom_fields have the same key",
        ),
        (
            json!({"custom_fields": [field(json!({"numeric": {}}))]}),
            "a custom field has numeric, which is not its type",
        ),
        (
            json!({"custom_fields": [field(json!({"type": "dropdown"}))]}),
            "a custom field of the type dropdown needs dropdown.options",
        ),
        (
            json!({"allow_promotion_codes": true, "discounts": [{"coupon": "a"}]}),
            "allow_promotion_codes and discounts exclude each other",
        ),
        (
            json!({"discounts": [{}]}),
            "discounts[0] needs either coupon or promotion_code",
        ),
        (
            json!({"customer_update": {"shipping": "auto"}}),
            "customer_update.shipping needs shipping_address_collection",
        ),
        (
            json!({"automatic_tax": {"enabled": true}, "customer_update": {"address": "never"}}),
            "automatic_tax needs customer_update.address to be auto",
        ),
        (
            json!({"subscription_data": {"trial_settings": {"end_behavior": {"missing_payment_method": "pause"}}}}),
            "subscription_data.trial_settings needs trial_period_days",
        ),
        (
            json!({"allowed_origins": []}),
            "allowed_origins must be a list of 1 to 1000",
        ),
        (
            json!({"allowed_origins": ["https://shop.example/"]}),
            "allowed_origins has \"https://shop.example/\", which is no origin",
        ),
        (
            json!({"allowed_prices": "all"}),
            "allowed_prices must be \"active\" or a list",
        ),
        (
            json!({"allowed_prices": []}),
            "allowed_prices must be a list of 1 to 1000",
        ),
        (
            json!({"allowed_portal_configurations": ["pmc_1"]}),
            "allowed_portal_configurations has \"pmc_1\", which is not a Stripe portal configuration id (bpc_…)",
        ),
    ] {
        let refused =
            Settings::parse(&value).map_err(|invalid| (invalid.argument, invalid.message));
        assert_eq!(refused, Err(("settings", message.to_owned())), "{value}");
    }
}
