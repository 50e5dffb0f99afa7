//! What the mirror cannot decide by itself, and Stripe must be asked about.

use super::look::look;
use super::{Stop, lists};
use crate::connection::as_owner;
use crate::door;
use crate::postgres::error::Failure;
use crate::postgres::spi::Statement;
use crate::stripe_errors::failure;
use ledger::{Due, Key, Observation, Source};
use serde_json::{Map, Value, json};
use stripe::{Answer, Client, Environment, Error, Page, resources};

/// An object that Stripe must be asked about.
#[derive(Debug)]
struct Question {
    key: Key,
    why: String,
    payment_intent_id: Option<String>,
    /// Nothing but the first reading of a list told of it, and it is older than that.
    is_history: bool,
}

/// What came of asking.
#[derive(Default)]
pub struct Answers {
    /// What Stripe said.
    pub observations: Vec<Observation>,
    /// Whether it is all history, or none of it.
    pub are_history: bool,
    /// How many objects were asked about.
    pub asked: i64,
    /// Up to where the queue is worked through; None at its end.
    pub reached: Option<(String, String)>,
}

/// Which of what is due comes first.
pub enum Order {
    /// By type and id, after this one: to come to each once.
    After((String, String)),
    /// None: so that those of which Stripe never tells anything are in nobody's way.
    Any,
}

/// Asks about some of what is due.
///
/// # Errors
/// Those of Stripe's that concern every request. What it refuses about one object is a warning.
pub fn ask(
    client: &Client,
    environment: Environment,
    order: Order,
    most: usize,
) -> Result<Answers, Stop> {
    let questions = as_owner(|| questions(environment, order, most))?;
    let is_all = questions.len() < most;
    let mut answers = Answers {
        are_history: questions.first().is_some_and(|first| first.is_history),
        ..Answers::default()
    };
    let half = client.remaining() / 2;
    for question in &questions {
        if question.is_history != answers.are_history
            || (answers.asked > 0 && client.remaining() < half)
        {
            return Ok(answers);
        }
        match question.ask(client, environment) {
            Ok(observations) => answers.observations.extend(observations),
            Err(Stop::Stripe(error @ (Error::Refused(_) | Error::Permission { .. }))) => {
                warn(&question.key, failure(error));
            }
            // What was learned counts; the next step meets the error again.
            Err(Stop::Stripe(_)) if answers.asked > 0 => return Ok(answers),
            Err(stop) => return Err(stop),
        }
        answers.asked += 1;
        answers.reached = Some((question.key.object_type.clone(), question.key.id.clone()));
    }
    if is_all {
        answers.reached = None;
    }
    Ok(answers)
}

fn warn(key: &Key, failure: Failure) {
    pgrx::warning!(
        "{} {} is due, and Stripe does not tell about it: {}",
        key.object_type,
        key.id,
        failure.message
    );
}

fn questions(
    environment: Environment,
    order: Order,
    most: usize,
) -> Result<Vec<Question>, Failure> {
    // An event is news, of its object and of the payment that the object belongs to.
    static DUE: Statement = Statement::new(
        "select object.object_type, object.object_id, object.due, object.payment_intent_id,
                case
                    when (object.body ->> 'created')::bigint
                            < extract(epoch from run.history_until)
                    then not exists (
                        select
                          from payments.webhook_events as event
                         where event.environment = $1
                           and event.object_id = object.object_id
                    ) and not exists (
                        select
                          from payments.stripe_objects as part
                          join payments.webhook_events as event
                            on event.environment = $1
                           and event.object_id = part.object_id
                         where part.environment = $1
                           and part.payment_intent_id = object.object_id
                    )
                    else false
                end
           from payments.stripe_objects as object
           left join unnest($2::text[], $3::text[]) as list (object_type, name)
             on list.object_type = object.object_type
           left join payments.sync_runs as run
             on run.environment = $1
            and run.object = list.name
          where object.environment = $1
            and object.due is not null
            and not object.deleted
            and object.object_type = any ($4::text[])
            and ($5 is null or (object.object_type, object.object_id) > ($5, $6))
          order by case when $5 is null then random() end, object.object_type, object.object_id
          limit $7",
    );
    let (types, names): (Vec<&str>, Vec<&str>) =
        lists().map(|list| (list.object_type, list.name)).unzip();
    let (after_type, after_id) = match &order {
        Order::After((object_type, id)) => (Some(object_type.as_str()), Some(id.as_str())),
        Order::Any => (None, None),
    };
    let mut askable = resources::TYPES.to_vec();
    askable.push("invoice_payment_list");
    let arguments = [
        environment.as_str().into(),
        types.into(),
        names.into(),
        askable.into(),
        after_type.into(),
        after_id.into(),
        (most as i64).into(),
    ];
    DUE.rows(&arguments, |row| {
        Ok(Question {
            key: Key {
                object_type: row.required(1)?,
                id: row.required(2)?,
            },
            why: row.required(3)?,
            payment_intent_id: row.get(4)?,
            is_history: row.required(5)?,
        })
    })
}

impl Question {
    fn ask(&self, client: &Client, environment: Environment) -> Result<Vec<Observation>, Stop> {
        let is = |due: Due| self.why == due.as_str();
        let id = self.key.id.as_str();
        if self.key.object_type == "invoice_payment_list" {
            return match id.starts_with("in_") {
                true => payments_of_invoice(client, id),
                false => payments_by_intent(client, id),
            };
        }
        if is(Due::Payments) {
            return payments_of_invoice(client, id);
        }
        if is(Due::Unclassified) {
            let intent = match self.key.object_type.as_str() {
                "payment_intent" => Some(id),
                _ => self.payment_intent_id.as_deref(),
            };
            return match intent {
                Some(intent) => payments_by_intent(client, intent),
                None => Ok(Vec::new()),
            };
        }
        let Some(mut found) = look(client, environment, &self.key)? else {
            return Ok(Vec::new());
        };
        if is(Due::Items) && !found.deleted {
            let items = all_items(client, id)?;
            found.body = found.body.with("items", &items);
        }
        Ok(vec![found])
    }
}

/// Which invoices a payment intent pays. An empty answer is news too: then it pays none.
fn payments_by_intent(client: &Client, intent: &str) -> Result<Vec<Observation>, Stop> {
    let answer = client.get(
        "/v1/invoice_payments",
        &json!({
            "payment": {"type": "payment_intent", "payment_intent": intent},
            "expand": ["data.invoice"],
            "limit": 100,
        }),
    )?;
    let as_of = answer.as_of;
    let payments = page(answer)?.data;
    if payments.is_empty() {
        return Ok(answered(intent, payments, as_of));
    }
    let payments = payments.into_iter();
    Ok(payments
        .filter_map(|payment| Observation::new(payment, as_of, fetched()))
        .collect())
}

/// How an invoice was paid.
fn payments_of_invoice(client: &Client, invoice: &str) -> Result<Vec<Observation>, Stop> {
    let answer = client.get(
        "/v1/invoice_payments",
        &json!({"invoice": invoice, "limit": 100}),
    )?;
    let as_of = answer.as_of;
    Ok(answered(invoice, page(answer)?.data, as_of))
}

/// An answer about invoice payments as an object of its own, under the id of what was asked about.
fn answered(id: &str, payments: Vec<Map<String, Value>>, as_of: i64) -> Vec<Observation> {
    let body = Map::from_iter([
        ("id".to_owned(), id.into()),
        ("object".to_owned(), "invoice_payment_list".into()),
        ("data".to_owned(), json!(payments)),
    ]);
    let observation = Observation::new(body, as_of, fetched());
    observation.into_iter().collect()
}

/// All items of a subscription, as a list that has no more.
fn all_items(client: &Client, subscription: &str) -> Result<Value, Stop> {
    let mut items: Vec<Map<String, Value>> = Vec::new();
    loop {
        let mut parameters = json!({"subscription": subscription, "limit": 100});
        if let Some(last) = items.last().and_then(|item| item.get("id")) {
            parameters["starting_after"] = last.clone();
        }
        let page = page(client.get("/v1/subscription_items", &parameters)?)?;
        let has_more = page.has_more && !page.data.is_empty();
        items.extend(page.data);
        if !has_more {
            return Ok(json!({"object": "list", "data": items, "has_more": false}));
        }
    }
}

fn page(answer: Answer) -> Result<Page, Stop> {
    Ok(Page::of(answer.body()?).ok_or_else(door::malformed)?)
}

fn fetched() -> Source {
    Source::Fetch { after: None }
}
