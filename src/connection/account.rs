//! Whose key it is and what it may do, as Stripe says.

use crate::postgres::error::{Failure, SqlState};
use crate::stripe_errors::failure;
use serde_json::Value;
use stripe::client::Client;
use stripe::error::Error;
use stripe::ids::Kind;
use stripe::{SecretKey, permission};
use uuid::Uuid;

/// The account that a key belongs to.
pub struct Account {
    /// `acct_…`; None when a restricted key may not see its account and Stripe does not name it.
    pub id: Option<String>,
    /// The account's e-mail address, where the key may see it.
    pub email: Option<String>,
    /// What a restricted key would need and lacks (`rak_…`).
    pub missing_permissions: Vec<String>,
}

/// Asks Stripe about a key.
///
/// # Errors
/// Those of a call to Stripe; 55000 `key_revoked` when there is no such key (any more).
pub fn of(client: &Client, key: &SecretKey) -> Result<Account, Failure> {
    let mut account = match client.get("/v1/account", &Value::Null) {
        Ok(answer) => described(&answer.body().map_err(failure)?)?,
        // The refusal tells whose key it is all the same.
        Err(Error::Permission { account, .. }) => Account {
            id: account,
            email: None,
            missing_permissions: vec!["rak_accounts_kyc_basic_read".into()],
        },
        Err(error) => return Err(failure(error)),
    };
    if key.is_restricted() {
        for (permission, method, path) in PROBES {
            if lacks(client, method, path)? {
                account.missing_permissions.push(permission.into());
            }
        }
    }
    Ok(account)
}

fn described(body: &Value) -> Result<Account, Failure> {
    let field = |name: &str| body.get(name).and_then(Value::as_str);
    let id = field("id").and_then(|id| Kind::Account.check(id).ok());
    let Some(id) = id else {
        return Err(Failure::new(
            SqlState::BAD_GATEWAY,
            "stripe_malformed",
            "Stripe's answer does not describe an account",
        ));
    };
    Ok(Account {
        id: Some(id.into()),
        email: field("email").map(Into::into),
        missing_permissions: Vec::new(),
    })
}

/// For each permission something to ask that can change nothing, since what it names does not
/// exist: Stripe looks at the permission before it looks for the object.
const PROBES: [(&str, Method, &str); permission::REQUIRED.len() - 1] = [
    (
        "rak_charge_write",
        Method::Post,
        "/v1/charges/ch_payments_probe",
    ),
    (
        "rak_checkout_session_write",
        Method::Post,
        "/v1/checkout/sessions/cs_payments_probe/expire",
    ),
    (
        "rak_customer_portal_write",
        Method::Post,
        "/v1/billing_portal/configurations/bpc_payments_probe",
    ),
    (
        "rak_customer_write",
        Method::Post,
        "/v1/customers/cus_payments_probe",
    ),
    (
        "rak_dispute_read",
        Method::Get,
        "/v1/disputes/dp_payments_probe",
    ),
    (
        "rak_event_read",
        Method::Get,
        "/v1/events/evt_payments_probe",
    ),
    (
        "rak_invoice_read",
        Method::Get,
        "/v1/invoices/in_payments_probe",
    ),
    (
        "rak_payment_intent_read",
        Method::Get,
        "/v1/payment_intents/pi_payments_probe",
    ),
    (
        "rak_plan_write",
        Method::Post,
        "/v1/prices/price_payments_probe",
    ),
    (
        "rak_product_write",
        Method::Post,
        "/v1/products/prod_payments_probe",
    ),
    (
        "rak_subscription_write",
        Method::Post,
        "/v1/subscriptions/sub_payments_probe",
    ),
    (
        "rak_webhook_write",
        Method::Post,
        "/v1/webhook_endpoints/we_payments_probe",
    ),
];

#[derive(Clone, Copy)]
enum Method {
    Get,
    Post,
}

/// Does Stripe say that the key may not do this? An answer that says something else, or none in
/// time, is no reason to call a permission missing.
fn lacks(client: &Client, method: Method, path: &str) -> Result<bool, Failure> {
    let answer = match method {
        Method::Get => client.get(path, &Value::Null),
        Method::Post => client.post(path, &Value::Null, &Uuid::new_v4().to_string()),
    };
    match answer {
        Err(Error::Permission { .. }) => Ok(true),
        Err(error @ Error::Interrupted(_)) => Err(failure(error)),
        _ => Ok(false),
    }
}
