//! The parameters of a checkout session that are an administrator's to set.
//! <https://docs.stripe.com/api/checkout/sessions/create>

use super::shape::Shape::{self, Boolean, Fields, List, Text, Whole, Word};
use super::shape::{optional, required};

/// A parameter, under Stripe's name.
pub(super) struct Parameter {
    pub name: &'static str,
    /// Which sessions Stripe takes it for.
    pub scope: Scope,
    pub shape: Shape,
}

/// Which sessions a parameter goes with: with others Stripe refuses it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Every,
    Payment,
    Subscription,
    /// Payments of somebody who has no customer yet.
    Guest,
    /// Those of a customer who is there already.
    Customer,
}

const fn parameter(name: &'static str, scope: Scope, shape: Shape) -> Parameter {
    Parameter { name, scope, shape }
}

const ENABLED: Shape = Fields(&[required("enabled", Boolean)]);
const MESSAGE: Shape = Fields(&[required("message", Text(1200))]);
const PAYMENT_METHODS: Shape = List(50, &Text(50));
const UPDATE: Shape = Word(&["auto", "never"]);
const LENGTHS: Shape = Fields(&[
    optional("default_value", Text(255)),
    optional("maximum_length", Whole(255)),
    optional("minimum_length", Whole(255)),
]);

pub(super) const PARAMETERS: &[Parameter] = &[
    parameter("adaptive_pricing", Scope::Every, ENABLED),
    parameter("allow_promotion_codes", Scope::Every, Boolean),
    parameter(
        "allowed_payment_method_types",
        Scope::Every,
        PAYMENT_METHODS,
    ),
    parameter("automatic_tax", Scope::Every, ENABLED),
    parameter(
        "billing_address_collection",
        Scope::Every,
        Word(&["auto", "required"]),
    ),
    parameter(
        "branding_settings",
        Scope::Every,
        Fields(&[
            optional("background_color", Text(7)),
            optional("border_style", Word(&["pill", "rectangular", "rounded"])),
            optional("button_color", Text(7)),
            optional("display_name", Text(100)),
            optional("font_family", Text(50)),
        ]),
    ),
    parameter(
        "consent_collection",
        Scope::Every,
        Fields(&[
            optional(
                "payment_method_reuse_agreement",
                Fields(&[required("position", Word(&["auto", "hidden"]))]),
            ),
            optional("promotions", Word(&["auto", "none"])),
            optional("terms_of_service", Word(&["none", "required"])),
        ]),
    ),
    parameter("custom_fields", Scope::Every, List(3, &CUSTOM_FIELD)),
    parameter(
        "custom_text",
        Scope::Every,
        Fields(&[
            optional("after_submit", MESSAGE),
            optional("shipping_address", MESSAGE),
            optional("submit", MESSAGE),
            optional("terms_of_service_acceptance", MESSAGE),
        ]),
    ),
    parameter(
        "customer_creation",
        Scope::Guest,
        Word(&["always", "if_required"]),
    ),
    parameter(
        "customer_update",
        Scope::Customer,
        Fields(&[
            optional("address", UPDATE),
            optional("name", UPDATE),
            optional("shipping", UPDATE),
        ]),
    ),
    parameter(
        "discounts",
        Scope::Every,
        List(
            1,
            &Fields(&[
                optional("coupon", Text(255)),
                optional("promotion_code", Text(255)),
            ]),
        ),
    ),
    parameter(
        "excluded_payment_method_types",
        Scope::Every,
        PAYMENT_METHODS,
    ),
    parameter(
        "invoice_creation",
        Scope::Payment,
        Fields(&[
            required("enabled", Boolean),
            optional(
                "invoice_data",
                Fields(&[
                    optional("account_tax_ids", List(10, &Text(255))),
                    optional(
                        "custom_fields",
                        List(
                            4,
                            &Fields(&[required("name", Text(40)), required("value", Text(140))]),
                        ),
                    ),
                    optional("description", Text(1500)),
                    optional("footer", Text(5000)),
                    optional(
                        "rendering_options",
                        Fields(&[
                            optional(
                                "amount_tax_display",
                                Word(&["exclude_tax", "include_inclusive_tax"]),
                            ),
                            optional("template", Text(255)),
                        ]),
                    ),
                ]),
            ),
        ]),
    ),
    parameter(
        "locale",
        Scope::Every,
        Word(&[
            "auto", "bg", "cs", "da", "de", "el", "en", "en-GB", "es", "es-419", "et", "fi", "fil",
            "fr", "fr-CA", "hi-IN", "hr", "hu", "id", "it", "ja", "ko", "lt", "lv", "ms", "mt",
            "nb", "nl", "pl", "pt", "pt-BR", "ro", "ru", "sk", "sl", "sv", "th", "tr", "vi", "zh",
            "zh-HK", "zh-TW",
        ]),
    ),
    parameter(
        "payment_intent_data",
        Scope::Payment,
        Fields(&[
            optional(
                "capture_method",
                Word(&["automatic", "automatic_async", "manual"]),
            ),
            optional("description", Text(1000)),
            optional("setup_future_usage", Word(&["off_session", "on_session"])),
            optional("statement_descriptor", Text(22)),
            optional("statement_descriptor_suffix", Text(22)),
        ]),
    ),
    parameter(
        "payment_method_collection",
        Scope::Subscription,
        Word(&["always", "if_required"]),
    ),
    parameter("payment_method_configuration", Scope::Every, Text(100)),
    parameter("phone_number_collection", Scope::Every, ENABLED),
    parameter(
        "shipping_address_collection",
        Scope::Every,
        Fields(&[required("allowed_countries", List(250, &Text(2)))]),
    ),
    parameter(
        "shipping_options",
        Scope::Payment,
        List(5, &Fields(&[required("shipping_rate", Text(255))])),
    ),
    parameter(
        "submit_type",
        Scope::Payment,
        Word(&["auto", "book", "donate", "pay"]),
    ),
    parameter(
        "subscription_data",
        Scope::Subscription,
        Fields(&[
            optional("default_tax_rates", List(5, &Text(255))),
            optional("description", Text(500)),
            optional(
                "trial_settings",
                Fields(&[required(
                    "end_behavior",
                    Fields(&[required(
                        "missing_payment_method",
                        Word(&["cancel", "create_invoice", "pause"]),
                    )]),
                )]),
            ),
        ]),
    ),
    parameter(
        "tax_id_collection",
        Scope::Every,
        Fields(&[
            required("enabled", Boolean),
            optional("required", Word(&["if_supported", "never"])),
        ]),
    ),
];

const CUSTOM_FIELD: Shape = Fields(&[
    optional(
        "dropdown",
        Fields(&[
            optional("default_value", Text(100)),
            required(
                "options",
                List(
                    200,
                    &Fields(&[required("label", Text(100)), required("value", Text(100))]),
                ),
            ),
        ]),
    ),
    required("key", Text(200)),
    required(
        "label",
        Fields(&[
            required("custom", Text(50)),
            required("type", Word(&["custom"])),
        ]),
    ),
    optional("numeric", LENGTHS),
    optional("optional", Boolean),
    optional("text", LENGTHS),
    required("type", Word(&["dropdown", "numeric", "text"])),
]);
