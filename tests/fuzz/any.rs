//! JSON that Stripe would not send.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value, json};

/// Words that mean something somewhere, in fields where they do not.
const WORDS: &[&str] = &[
    "",
    " ",
    "\0",
    "\u{fffd}",
    "é",
    "null",
    "true",
    "-1",
    "1e400",
    "9223372036854775808",
    "pi_1",
    "ch_1",
    "in_1",
    "sub_1",
    "si_1",
    "cus_1",
    "cs_1",
    "re_1",
    "dp_1",
    "prod_1",
    "price_1",
    "charge",
    "checkout.session",
    "customer",
    "dispute",
    "event",
    "invoice",
    "invoice_payment",
    "list",
    "payment_intent",
    "price",
    "product",
    "refund",
    "subscription",
    "subscription_item",
    "active",
    "canceled",
    "complete",
    "draft",
    "expired",
    "failed",
    "incomplete",
    "lost",
    "open",
    "paid",
    "past_due",
    "payment",
    "setup",
    "succeeded",
    "unpaid",
    "usd",
    "void",
    "won",
    "00000000-0000-0000-0000-00005e551017",
];

/// Names that a projection or the join looks for.
const NAMES: &[&str] = &[
    "amount",
    "amount_refunded",
    "attempt_count",
    "captured",
    "charge",
    "charges",
    "created",
    "currency",
    "current_period_end",
    "customer",
    "data",
    "deleted",
    "id",
    "invoice",
    "items",
    "latest_charge",
    "latest_invoice",
    "lines",
    "lookup_key",
    "metadata",
    "mode",
    "object",
    "parent",
    "payment",
    "payment_intent",
    "payment_status",
    "payments",
    "plan",
    "price",
    "pricing",
    "product",
    "quantity",
    "refunds",
    "status",
    "status_transitions",
    "subscription",
    "subscription_details",
    "payments_checkout_session_id",
    "payments_proof",
    "payments_subject_id",
    "payments_subject_type",
];

/// Any JSON, mostly small.
pub fn value(u: &mut Unstructured<'_>) -> Result<Value> {
    nested(u, 4)
}

fn nested(u: &mut Unstructured<'_>, levels: usize) -> Result<Value> {
    let kinds = if levels == 0 { 5 } else { 7 };
    Ok(match u.int_in_range(0..=kinds)? {
        0 => Value::Null,
        1 => u.arbitrary::<bool>()?.into(),
        2 => u.int_in_range(-2..=20)?.into(),
        3 => u
            .choose(&[
                json!(i64::MIN),
                json!(i64::MAX),
                json!(u64::MAX),
                json!(1e308),
                json!(-0.5),
            ])?
            .clone(),
        4 => (*u.choose(WORDS)?).into(),
        5 => u.arbitrary::<String>()?.into(),
        6 => {
            let length = u.int_in_range(0..=3)?;
            (0..length)
                .map(|_| nested(u, levels - 1))
                .collect::<Result<Vec<_>>>()?
                .into()
        }
        _ => members(u, levels - 1)?.into(),
    })
}

fn members(u: &mut Unstructured<'_>, levels: usize) -> Result<Map<String, Value>> {
    let length = u.int_in_range(0..=4)?;
    (0..length)
        .map(|_| Ok((name(u)?, nested(u, levels)?)))
        .collect()
}

/// The name of a field.
pub fn name(u: &mut Unstructured<'_>) -> Result<String> {
    Ok((*u.choose(NAMES)?).to_owned())
}

/// Puts anything in place of a few fields of an object, wherever they are in it, that may be touched.
pub fn disturb(
    u: &mut Unstructured<'_>,
    body: &mut Map<String, Value>,
    may: impl Fn(&str) -> bool,
) -> Result<()> {
    for _ in 0..u.int_in_range(0..=3)? {
        let mut at = &mut *body;
        loop {
            let names: Vec<String> = at.keys().cloned().collect();
            let name = match u.ratio(1, 4)? || names.is_empty() {
                true => name(u)?,
                false => u.choose(&names)?.clone(),
            };
            if !may(&name) {
                break;
            }
            let goes_deeper = matches!(at.get(&name), Some(Value::Object(_))) && u.ratio(1, 2)?;
            if goes_deeper {
                at = at
                    .get_mut(&name)
                    .and_then(Value::as_object_mut)
                    .expect("just seen");
                continue;
            }
            match u.ratio(1, 5)? {
                true => at.remove(&name),
                false => at.insert(name, value(u)?),
            };
            break;
        }
    }
    Ok(())
}
