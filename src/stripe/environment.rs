//! The two worlds of a Stripe account.

use std::fmt;
use std::str::FromStr;

/// Which of a Stripe account's two worlds something belongs to. Test objects and live objects
/// share no ids, keys, webhooks or money. <https://docs.stripe.com/keys>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Environment {
    Test,
    Live,
}

/// The text was neither `test` nor `live`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment must be \"test\" or \"live\"")]
pub struct UnknownEnvironment;

impl Environment {
    /// Both, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::Test, Self::Live];

    /// `test` or `live`, as every table's `environment` column spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Live => "live",
        }
    }

    /// What Stripe calls it: the `livemode` of every object and event.
    pub fn livemode(self) -> bool {
        self == Self::Live
    }

    /// The environment of an object with this `livemode`.
    pub fn from_livemode(livemode: bool) -> Self {
        if livemode { Self::Live } else { Self::Test }
    }
}

impl FromStr for Environment {
    type Err = UnknownEnvironment;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "test" => Ok(Self::Test),
            "live" => Ok(Self::Live),
            _ => Err(UnknownEnvironment),
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_livemode_round_trip() {
        for environment in Environment::ALL {
            assert_eq!(environment.as_str().parse(), Ok(environment));
            assert_eq!(
                Environment::from_livemode(environment.livemode()),
                environment
            );
        }
        for other in ["", "Live", " live", "production"] {
            assert_eq!(other.parse::<Environment>(), Err(UnknownEnvironment));
        }
    }
}
