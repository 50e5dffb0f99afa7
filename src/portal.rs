//! `create_customer_portal_session`: the caller's own INSERT, then Stripe.

use crate::checkout::{refused_argument, required};
use crate::checkout_settings;
use crate::connection::{self, as_owner};
use crate::customers;
use crate::door;
use crate::guard;
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::identity;
use crate::postgres::settings::{self, OnError};
use crate::postgres::spi::{Composite, Statement};
use crate::stripe_errors::failure;
use pgrx::{JsonB, Uuid, pg_extern};
use serde_json::Value;
use stripe::portal::{Arguments, Request};
use stripe::{Client, Environment};

#[pg_extern(sql = false)]
fn create_customer_portal_session(
    environment: Option<&str>,
    subject: Option<JsonB>,
    return_url: Option<&str>,
    configuration: Option<&str>,
    flow: Option<JsonB>,
) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let environment = connection::environment_for_caller(environment)?;
        let mut request = Request::parse(Arguments {
            subject: &required("subject", subject.as_ref())?.0,
            return_url,
            configuration,
            flow: flow.as_ref().map(|json| &json.0),
        })
        .map_err(refused_argument)?;
        admit(environment, &mut request)?;
        let id = Uuid::from_bytes(*uuid::Uuid::new_v4().as_bytes());
        insert(environment, id, &request, flow)?;
        match as_owner(|| open(environment, id, &request)) {
            Ok(()) => row(environment, id).map(Some),
            Err(failure) if is_recorded(&failure) => {
                as_owner(|| record_failure(environment, id, &failure))?;
                door::respond_with(&failure)?;
                row(environment, id).map(Some)
            }
            Err(failure) => Err(failure),
        }
    })
}

/// Refuses what an administrator does not allow, and fills in the configuration that they chose.
fn admit(environment: Environment, request: &mut Request) -> Result<(), Failure> {
    let settings = checkout_settings::of(environment)?;
    for (argument, url) in request.urls() {
        checkout_settings::admit_url(&settings, argument, url)?;
    }
    let configuration = settings.portal_configuration(request.configuration.as_deref());
    let configuration = configuration.ok_or_else(|| {
        Failure::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            "configuration_not_allowed",
            "this portal configuration is not allowed",
        )
        .with("argument", "configuration")
        .hint(
            "An administrator lists the allowed_portal_configurations with \
             payments.configure_checkout.",
        )
    })?;
    request.configuration = configuration.map(str::to_owned);
    Ok(())
}

fn is_recorded(failure: &Failure) -> bool {
    settings::on_stripe_error() == OnError::Record && failure.sqlstate.as_str().starts_with("PT")
}

/// The caller's own INSERT: the INSERT policies decide who may open whose billing.
fn insert(
    environment: Environment,
    id: Uuid,
    request: &Request,
    flow: Option<JsonB>,
) -> Result<(), Failure> {
    static INSERT: Statement = Statement::new(
        "insert into payments.customer_portal_sessions (
             id, environment, subject_type, subject_id, return_url, configuration, flow,
             requested_by
         )
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    let _allowed = guard::allow(id);
    INSERT.execute(&[
        id.into(),
        environment.as_str().into(),
        request.subject.kind.as_str().into(),
        request.subject.id.as_str().into(),
        request.return_url.as_deref().into(),
        request.configuration.as_deref().into(),
        flow.into(),
        identity::requester().as_str().into(),
    ])?;
    Ok(())
}

/// Has Stripe make the session, and finishes the row.
fn open(environment: Environment, id: Uuid, request: &Request) -> Result<(), Failure> {
    static CREATED: Statement = Statement::new(
        "update payments.customer_portal_sessions
            set status = 'created',
                stripe_customer_id = $3,
                url = $4,
                updated_at = pg_catalog.now()
          where environment = $1
            and id = $2",
    );
    let (customer, url) = connection::with_client(environment, |client| {
        loop {
            let customer = customers::mapped(environment, &request.subject)?;
            let customer = customer.ok_or_else(no_customer)?;
            match ask(client, environment, id, request, &customer)? {
                Some(url) => return Ok((customer, url)),
                // Deleted, and nobody told us: the subject's next customer, or none, is the answer.
                None => continue,
            }
        }
    })?;
    CREATED.execute(&[
        environment.as_str().into(),
        id.into(),
        customer.as_str().into(),
        url.into(),
    ])?;
    Ok(())
}

/// Asks for the session of a customer: its url, or None where the customer turned out to be deleted.
fn ask(
    client: &Client,
    environment: Environment,
    id: Uuid,
    request: &Request,
    customer: &str,
) -> Result<Option<String>, Failure> {
    let subscription = match request.needs_subscription() {
        true => {
            let live = customers::live_subscription(environment, &request.subject, customer)?;
            Some(live.ok_or_else(no_subscription)?)
        }
        false => None,
    };
    let parameters = request.session_parameters(customer, subscription.as_deref());
    let key = format!("payments-portal-{id}-{customer}");
    let answer = match client.post("/v1/billing_portal/sessions", &parameters, &key) {
        Ok(answer) => answer,
        Err(error) if customers::is_unknown(&error) => {
            return match customers::is_deleted(client, environment, &request.subject, customer)? {
                true => Ok(None),
                false => Err(failure(error)),
            };
        }
        Err(error) => return Err(failure(error)),
    };
    let mut body = answer.body().map_err(failure)?;
    let url = match body["url"].take() {
        Value::String(url) => Some(url),
        _ => None,
    };
    let url = url.ok_or_else(|| {
        Failure::new(
            SqlState::BAD_GATEWAY,
            "malformed_answer",
            "Stripe made a portal session without a url",
        )
    })?;
    Ok(Some(url))
}

fn no_customer() -> Failure {
    Failure::new(
        SqlState::NOT_FOUND,
        "no_customer",
        "this subject has no Stripe customer yet",
    )
    .hint(
        "Show a subscribe button: a customer exists once a checkout of the subject is completed, \
         or payments.link_customer names one.",
    )
}

fn no_subscription() -> Failure {
    Failure::new(
        SqlState::NOT_FOUND,
        "no_subscription",
        "this subject has no subscription that the flow could be about",
    )
    .hint("Show a subscribe button, or name the subscription in the flow.")
}

fn record_failure(environment: Environment, id: Uuid, failure: &Failure) -> Result<(), Failure> {
    static FAILED: Statement = Statement::new(
        "update payments.customer_portal_sessions
            set status = 'failed',
                last_error = $3,
                updated_at = pg_catalog.now()
          where environment = $1
            and id = $2",
    );
    FAILED.execute(&[
        environment.as_str().into(),
        id.into(),
        failure.message.as_str().into(),
    ])?;
    Ok(())
}

fn row(environment: Environment, id: Uuid) -> Result<Composite, Failure> {
    static ROW: Statement = Statement::new(
        "select row(
             id, environment, status, subject_type, subject_id, stripe_customer_id, return_url,
             configuration, flow, url, last_error, requested_by, created_at, updated_at
         )::payments.customer_portal_session
           from payments.customer_portal_sessions
          where environment = $1
            and id = $2",
    );
    as_owner(|| {
        ROW.first(&[environment.as_str().into(), id.into()], |row| {
            row.composite(1)
        })
    })?
    .flatten()
    .ok_or_else(|| Failure::internal("the portal session's row is gone"))
}
