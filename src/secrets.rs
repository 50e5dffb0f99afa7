//! The sealed secrets: Stripe keys and webhook signing secrets.
//!
//! Their table is the extension's own, so that no dump takes it along, and nobody but the
//! extension's owner may read it: every statement here runs as that role, and a lookup, which asks
//! for nobody's rights, runs nobody's code. A secret is sealed before it comes near the table,
//! together with its environment, kind and id, so that the sealed form of one does not open in the
//! place of another.

use crate::postgres::error::{Failure, SqlState};
use crate::postgres::lookup::Lookup;
use crate::postgres::spi::{Row, Statement};
use crate::postgres::{identity, sealed, table};
use pgrx::datum::{TimestampWithTimeZone, clock_timestamp};
use pgrx::pg_sys::Oid;
use std::cmp::Reverse;
use std::sync::LazyLock;
use stripe::Environment;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An API key, `sk_…` or `rk_…`; one an environment.
    StripeKey,
    /// A webhook signing secret, `whsec_…`; several an environment.
    SigningSecret,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::StripeKey => "stripe_key",
            Kind::SigningSecret => "signing_secret",
        }
    }
}

/// A secret as the table keeps it.
#[derive(PartialEq)]
pub struct Secret {
    /// Names it, and is part of what it is sealed with.
    pub id: Uuid,
    /// Whose it is.
    pub environment: Environment,
    /// When it stops being accepted; None when it does not.
    pub expires_at: Option<TimestampWithTimeZone>,
    /// The webhook endpoint (`we_…`) that signs with it, where we made that; None for a secret that
    /// somebody handed over.
    pub endpoint: Option<String>,
    kind: Kind,
    sealed: Vec<u8>,
}

impl Secret {
    /// Seals a secret. Nothing is written yet.
    ///
    /// # Errors
    /// 55000 when the key file cannot be made or used.
    pub fn seal(environment: Environment, kind: Kind, plaintext: &str) -> Result<Secret, Failure> {
        let mut secret = Secret {
            id: Uuid::new_v4(),
            environment,
            expires_at: None,
            endpoint: None,
            kind,
            sealed: Vec::new(),
        };
        secret.sealed = sealed::seal(&secret.context(), plaintext.as_bytes())?;
        Ok(secret)
    }

    /// Opens it.
    ///
    /// # Errors
    /// 55000 `secret_unreadable`, with the reason as `reason` in the DETAIL.
    pub fn open(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        sealed::open(&self.context(), &self.sealed).map_err(|reason| {
            let what = match self.kind {
                Kind::StripeKey => "Stripe key",
                Kind::SigningSecret => "webhook signing secret",
            };
            let message = format!(
                "the {what} of the environment \"{}\" cannot be opened: {}",
                self.environment, reason.message
            );
            let mut failure =
                Failure::new(SqlState::PREREQUISITE_STATE, "secret_unreadable", message)
                    .with("environment", self.environment.as_str())
                    .with("reason", reason.code);
            failure.hint = reason.hint;
            failure
        })
    }

    /// Writes it.
    pub fn store(&self) -> Result<(), Failure> {
        static STORE: Statement = Statement::new(
            "insert into payments.secrets (id, environment, kind, sealed, webhook_endpoint_id)
             values ($1, $2, $3, $4, $5)",
        );
        as_owner(|| {
            STORE.execute(&[
                sql_uuid(self.id).into(),
                self.environment.as_str().into(),
                self.kind.as_str().into(),
                self.sealed.as_slice().into(),
                self.endpoint.as_deref().into(),
            ])
        })?;
        Ok(())
    }

    fn context(&self) -> String {
        let (environment, kind) = (self.environment, self.kind.as_str());
        format!("payments.secrets/{environment}/{kind}/{}", self.id)
    }

    fn read(kind: Kind) -> impl Fn(&Row) -> Result<Secret, Failure> {
        move |row| {
            let environment: String = row.required(2)?;
            Ok(Secret {
                id: Uuid::from_bytes(*row.required::<pgrx::Uuid>(1)?.as_bytes()),
                environment: environment
                    .parse()
                    .map_err(|_| Failure::internal("a secret of neither environment"))?,
                expires_at: row.get(4)?,
                endpoint: row.get(5)?,
                kind,
                sealed: row.required(3)?,
            })
        }
    }
}

/// The Stripe key of an environment; None when none is stored, as after a restore.
pub fn stripe_key(environment: Environment) -> Result<Option<Secret>, Failure> {
    static KEY: Statement = Statement::new(
        "select id, environment, sealed, expires_at, webhook_endpoint_id
           from payments.secrets
          where environment = $1
            and kind = 'stripe_key'",
    );
    as_owner(|| {
        KEY.first(
            &[environment.as_str().into()],
            Secret::read(Kind::StripeKey),
        )
    })
}

/// The signing secrets of both environments that are accepted now, the newest first.
pub fn signing_secrets() -> Result<Vec<Secret>, Failure> {
    static SIGNING: LazyLock<Lookup> = LazyLock::new(|| {
        let read = [
            "id",
            "environment",
            "sealed",
            "expires_at",
            "webhook_endpoint_id",
        ];
        Lookup::new("secrets", read, ["kind"])
    });
    let kind = Kind::SigningSecret;
    let stored = SIGNING.rows(&[kind.as_str().into()], Secret::read(kind))?;
    let now = clock_timestamp();
    let is_live = |secret: &Secret| secret.expires_at.is_none_or(|end| end > now);
    let mut live: Vec<_> = stored.into_iter().filter(is_live).collect();
    live.sort_by_key(|secret| {
        (
            secret.expires_at.is_some(),
            Reverse(secret.expires_at),
            secret.id,
        )
    });
    Ok(live)
}

/// Makes one signing secret the newest that was handed over in its environment: it does not expire,
/// the others do, a day from now at the latest. That is how long Stripe signs with both after a
/// secret is rolled (<https://docs.stripe.com/webhooks#roll-endpoint-secrets>). Those of endpoints
/// that we made live as long as these. Forgets those that expired.
pub fn prefer_signing_secret(environment: Environment, id: Uuid) -> Result<(), Failure> {
    static PREFER: Statement = Statement::new(
        "update payments.secrets
            set expires_at = case
                    when id <> $2
                    then now() + interval '24 hours'
                end
          where environment = $1
            and kind = 'signing_secret'
            and webhook_endpoint_id is null
            and (id = $2) = (expires_at is not null)",
    );
    as_owner(|| PREFER.execute(&[environment.as_str().into(), sql_uuid(id).into()]))?;
    forget_expired(environment)
}

/// Makes one endpoint of ours the one whose secret does not expire; those of its predecessors do,
/// a day from now at the latest: what was sent to those may still be on its way. Forgets those that
/// expired.
pub fn prefer_endpoint(environment: Environment, endpoint: &str) -> Result<(), Failure> {
    static PREFER: Statement = Statement::new(
        "update payments.secrets
            set expires_at = case
                    when webhook_endpoint_id <> $2
                    then now() + interval '24 hours'
                end
          where environment = $1
            and (webhook_endpoint_id = $2) = (expires_at is not null)",
    );
    as_owner(|| PREFER.execute(&[environment.as_str().into(), endpoint.into()]))?;
    forget_expired(environment)
}

fn forget_expired(environment: Environment) -> Result<(), Failure> {
    static FORGET_EXPIRED: Statement = Statement::new(
        "delete from payments.secrets
          where environment = $1
            and expires_at <= now()",
    );
    as_owner(|| FORGET_EXPIRED.execute(&[environment.as_str().into()]))?;
    Ok(())
}

/// Forgets the Stripe key of an environment.
pub fn forget_stripe_key(environment: Environment) -> Result<(), Failure> {
    forget(environment, Kind::StripeKey)
}

/// Forgets the signing secrets of an environment.
pub fn forget_signing_secrets(environment: Environment) -> Result<(), Failure> {
    forget(environment, Kind::SigningSecret)
}

fn forget(environment: Environment, kind: Kind) -> Result<(), Failure> {
    static FORGET: Statement = Statement::new(
        "delete from payments.secrets
          where environment = $1
            and kind = $2",
    );
    as_owner(|| FORGET.execute(&[environment.as_str().into(), kind.as_str().into()]))?;
    Ok(())
}

fn as_owner<R>(stretch: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    identity::as_user(owner()?, stretch)
}

fn owner() -> Result<Oid, Failure> {
    table::owner(c"payments", c"secrets")
        .ok_or_else(|| Failure::internal("the table payments.secrets is gone"))
}

fn sql_uuid(id: Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*id.as_bytes())
}
