//! Secrets that open Stripe: API keys and webhook signing secrets.

use std::fmt;

use zeroize::Zeroizing;

use crate::Environment;

/// Longer than any key Stripe has issued, shorter than anything pasted by accident.
const MAX_LENGTH: usize = 255;

/// How many characters a secret must have after its prefix before its last four are shown.
/// A shorter one would be given away by them.
const MASKABLE: usize = 12;

/// A secret (`sk_…`) or restricted (`rk_…`) API key. Wiped from memory when dropped; never
/// printed whole. <https://docs.stripe.com/keys>
pub struct SecretKey(Zeroizing<String>);

/// A webhook endpoint's signing secret (`whsec_…`), different for every endpoint. Wiped from
/// memory when dropped; never printed. <https://docs.stripe.com/webhooks/signatures>
pub struct SigningSecret(Zeroizing<String>);

/// Why a text is not the secret that was asked for. Never carries the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the secret is empty")]
    Empty,
    #[error("this is a publishable key (pk_…), which cannot call Stripe from a server")]
    Publishable,
    #[error("this is an organization key (sk_org_…), which belongs to no single account")]
    Organization,
    #[error("this is a webhook signing secret (whsec_…), not an API key")]
    NotAnApiKey,
    #[error("this is an API key, not a webhook signing secret (whsec_…)")]
    NotASigningSecret,
    #[error("this is a {found} key, but the environment is {expected}")]
    OtherEnvironment {
        expected: Environment,
        found: Environment,
    },
    #[error("this is the masked form of a secret, not the secret")]
    Masked,
    #[error("a Stripe API key starts with sk_{0}_ or rk_{0}_ and has only letters, digits and _")]
    NotAKey(Environment),
    #[error("a webhook signing secret starts with whsec_ and has no spaces in it")]
    NotASecret,
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::OtherEnvironment { found, .. } => {
                format!("Set it for the environment \"{found}\", or copy the other key.")
            }
            Self::NotASigningSecret | Self::NotASecret => {
                "Copy the signing secret of the webhook endpoint from the Stripe Dashboard, \
                 or the one that `stripe listen` prints."
                    .into()
            }
            _ => "Copy a secret key (sk_…) or a restricted key (rk_…) of the account from \
                  https://dashboard.stripe.com/apikeys."
                .into(),
        }
    }
}

impl SecretKey {
    /// Takes a key as somebody pasted it, spaces around it trimmed, for `environment`.
    ///
    /// # Errors
    /// When it is another kind of secret, of the other environment, or malformed.
    pub fn parse(environment: Environment, text: &str) -> Result<Self, KeyError> {
        let text = trimmed(text)?;
        if text.starts_with("pk_") {
            return Err(KeyError::Publishable);
        }
        if text.starts_with("sk_org_") || text.starts_with("rk_org_") {
            return Err(KeyError::Organization);
        }
        if text.starts_with("whsec_") {
            return Err(KeyError::NotAnApiKey);
        }
        let (found, secret) = split(text).ok_or(KeyError::NotAKey(environment))?;
        if found != environment {
            return Err(KeyError::OtherEnvironment {
                expected: environment,
                found,
            });
        }
        let well_formed = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if secret.is_empty() || text.len() > MAX_LENGTH || !secret.chars().all(well_formed) {
            return Err(KeyError::NotAKey(environment));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The key itself. What it is copied into must not outlive the call to Stripe.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The environment that the key opens.
    pub fn environment(&self) -> Environment {
        split(&self.0).map_or(Environment::Test, |(environment, _)| environment)
    }

    /// Whether it is a restricted key, which can do only what its permissions say.
    /// <https://docs.stripe.com/keys/restricted-api-keys>
    pub fn is_restricted(&self) -> bool {
        self.0.starts_with("rk_")
    }

    /// The key as it may be shown: `sk_test_****1234`.
    pub fn masked(&self) -> String {
        let secret = split(&self.0).map_or("", |(_, secret)| secret);
        let (prefix, _) = self.0.split_at(self.0.len() - secret.len());
        let tail = secret
            .len()
            .checked_sub(4)
            .filter(|_| secret.len() >= MASKABLE);
        format!("{prefix}****{}", tail.map_or("", |at| &secret[at..]))
    }
}

impl SigningSecret {
    /// Takes a signing secret as somebody pasted it, spaces around it trimmed.
    ///
    /// # Errors
    /// When it is another kind of secret, or malformed.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = trimmed(text)?;
        if ["sk_", "rk_", "pk_"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            return Err(KeyError::NotASigningSecret);
        }
        let secret = text.strip_prefix("whsec_").ok_or(KeyError::NotASecret)?;
        let well_formed = secret.chars().all(|c| c.is_ascii_graphic());
        if secret.is_empty() || text.len() > MAX_LENGTH || !well_formed {
            return Err(KeyError::NotASecret);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The secret itself, prefix included: all of it is the signing key.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_****")
    }
}

/// Hides every API key and signing secret in a text that others wrote, for it may end in an error
/// message: Stripe and proxies like to quote what they were sent.
pub fn scrub(text: &str) -> String {
    const FAMILIES: [&str; 7] = [
        "sk_test_", "sk_live_", "sk_org_", "rk_test_", "rk_live_", "rk_org_", "whsec_",
    ];
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    let first = |text: &str| {
        let ends = FAMILIES
            .iter()
            .filter_map(|family| Some(text.find(family)? + family.len()));
        ends.min()
    };
    while let Some(end) = first(rest) {
        let (shown, secret) = rest.split_at(end);
        clean.push_str(shown);
        clean.push_str("****");
        rest =
            secret.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_*+/=".contains(c));
    }
    clean.push_str(rest);
    clean
}

/// The environment of an API key, and what follows its prefix.
fn split(key: &str) -> Option<(Environment, &str)> {
    let rest = key
        .strip_prefix("sk_")
        .or_else(|| key.strip_prefix("rk_"))?;
    let test = rest
        .strip_prefix("test_")
        .map(|secret| (Environment::Test, secret));
    test.or_else(|| {
        rest.strip_prefix("live_")
            .map(|secret| (Environment::Live, secret))
    })
}

fn trimmed(text: &str) -> Result<&str, KeyError> {
    match text.trim() {
        "" => Err(KeyError::Empty),
        text if text.contains('*') || text.contains('…') => Err(KeyError::Masked),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(environment: Environment, text: &str) -> Result<String, KeyError> {
        SecretKey::parse(environment, text).map(|key| key.expose().to_owned())
    }

    #[test]
    fn secret_and_restricted_keys_of_the_environment_are_taken_and_trimmed() {
        let (test, live) = (Environment::Test, Environment::Live);
        assert_eq!(parse(test, " sk_test_abc\n"), Ok("sk_test_abc".into()));
        assert_eq!(parse(test, "rk_test_abc"), Ok("rk_test_abc".into()));
        assert_eq!(parse(live, "sk_live_abc"), Ok("sk_live_abc".into()));
        assert_eq!(parse(live, "rk_live_a_b"), Ok("rk_live_a_b".into()));
        let restricted = |text| SecretKey::parse(test, text).map(|key| key.is_restricted());
        assert_eq!(restricted("rk_test_abc"), Ok(true));
        assert_eq!(restricted("sk_test_abc"), Ok(false));
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said() {
        let (test, live) = (Environment::Test, Environment::Live);
        let cases = [
            ("  ", KeyError::Empty),
            ("pk_test_abc", KeyError::Publishable),
            ("sk_org_live_abc", KeyError::Organization),
            ("whsec_abc", KeyError::NotAnApiKey),
            (
                "sk_live_abc",
                KeyError::OtherEnvironment {
                    expected: test,
                    found: live,
                },
            ),
            (
                "rk_live_abc",
                KeyError::OtherEnvironment {
                    expected: test,
                    found: live,
                },
            ),
            ("sk_test_****1234", KeyError::Masked),
            ("sk_test_", KeyError::NotAKey(test)),
            ("sk_test_a b", KeyError::NotAKey(test)),
            ("sk_test_a\r\nHost: evil", KeyError::NotAKey(test)),
            ("sk_test_é", KeyError::NotAKey(test)),
            ("hunter2", KeyError::NotAKey(test)),
        ];
        for (text, error) in cases {
            assert_eq!(parse(test, text), Err(error), "{text}");
        }
        assert_eq!(
            parse(test, &"sk_test_a".repeat(99)),
            Err(KeyError::NotAKey(test))
        );
    }

    #[test]
    fn a_key_shows_its_last_four_characters_only_when_there_are_enough() {
        let masked = |text| SecretKey::parse(Environment::Live, text).map(|key| key.masked());
        assert_eq!(
            masked("sk_live_0123456789abWXYZ"),
            Ok("sk_live_****WXYZ".into())
        );
        assert_eq!(
            masked("rk_live_0123456789ab"),
            Ok("rk_live_****89ab".into())
        );
        assert_eq!(masked("sk_live_0123"), Ok("sk_live_****".into()));
    }

    #[test]
    fn a_key_knows_its_environment() {
        for environment in Environment::ALL {
            let key = SecretKey::parse(environment, &format!("sk_{environment}_abc"));
            assert_eq!(key.map(|key| key.environment()), Ok(environment));
        }
    }

    #[test]
    fn signing_secrets_are_checked() {
        let parse = |text| SigningSecret::parse(text).map(|secret| secret.expose().to_owned());
        assert_eq!(parse(" whsec_aB+/= "), Ok("whsec_aB+/=".into()));
        assert_eq!(parse(""), Err(KeyError::Empty));
        assert_eq!(parse("sk_test_abc"), Err(KeyError::NotASigningSecret));
        assert_eq!(parse("whsec_"), Err(KeyError::NotASecret));
        assert_eq!(parse("whsec_a b"), Err(KeyError::NotASecret));
        assert_eq!(parse("secret"), Err(KeyError::NotASecret));
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let key = SecretKey::parse(Environment::Test, "sk_test_0123456789abWXYZ");
        assert_eq!(format!("{key:?}"), "Ok(sk_test_****WXYZ)");
        let secret = SigningSecret::parse("whsec_0123456789abWXYZ");
        assert_eq!(format!("{secret:?}"), "Ok(whsec_****)");
    }

    #[test]
    fn scrubbing_hides_keys_and_leaves_the_rest() {
        assert_eq!(
            scrub("Invalid API Key provided: sk_test_51Habc, (rk_live_xyz) or whsec_q!"),
            "Invalid API Key provided: sk_test_****, (rk_live_****) or whsec_****!"
        );
        assert_eq!(
            scrub("The key 'rk_test_*********************123' lacks 'rak_plan_write' on acct_1"),
            "The key 'rk_test_****' lacks 'rak_plan_write' on acct_1"
        );
        assert_eq!(scrub("url=xsk_live_abc"), "url=xsk_live_****");
        assert_eq!(scrub("sk_org_abc, sk_test_"), "sk_org_****, sk_test_****");
        assert_eq!(
            scrub("risk_level of task_test was elevated"),
            "risk_level of task_test was elevated"
        );
    }

    proptest! {
        #[test]
        fn scrubbing_leaves_no_key_behind(
            before in ".{0,20}",
            kind in "(sk|rk)_(test|live)_",
            secret in "[A-Za-z0-9]{16,40}",
            after in ".{0,20}",
        ) {
            let clean = scrub(&format!("{before}{kind}{secret}{after}"));
            prop_assert!(!clean.contains(&secret));
        }

        #[test]
        fn any_text_is_taken_or_refused_without_panic(text in ".{0,300}") {
            for environment in Environment::ALL {
                if let Ok(key) = SecretKey::parse(environment, &text) {
                    prop_assert!(key.masked().len() <= text.len() + 4);
                }
            }
            let _ = SigningSecret::parse(&text);
            let _ = scrub(&text);
        }
    }
}
