//! Who pays, in the app's own words.

use serde::Serialize;
use serde_json::Value;

use crate::input::{Invalid, Object};

/// Whom a checkout, a customer or a subscription belongs to: a user, a team, whatever the app
/// bills.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Subject {
    /// `subject.type`, 1 to 100 characters.
    #[serde(rename = "type")]
    pub kind: String,
    /// `subject.id`, 1 to 255 characters.
    pub id: String,
}

impl Subject {
    /// Reads `{"type": …, "id": …}` from an argument of this name.
    ///
    /// # Errors
    /// When either is missing, no string or too long, or anything else is there.
    pub fn parse(argument: &'static str, value: &Value) -> Result<Self, Invalid> {
        let object = Object::read(argument, argument, value, &["type", "id"])?;
        let kind = object.text_up_to("type", 100)?;
        let id = object.text_up_to("id", 255)?;
        Ok(Self {
            kind: object.required("type", kind)?.to_owned(),
            id: object.required("id", id)?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_subject_is_a_type_and_an_id() {
        let subject = Subject::parse("subject", &json!({"type": " team ", "id": "42"}));
        assert_eq!(
            subject,
            Ok(Subject {
                kind: "team".into(),
                id: "42".into()
            })
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for (value, message) in [
            (json!("team:42"), "subject must be a JSON object"),
            (json!({"type": "team"}), "subject.id is missing"),
            (json!({"type": "team", "id": null}), "subject.id is missing"),
            (json!({"id": "42"}), "subject.type is missing"),
            (
                json!({"type": "team", "id": 42}),
                "subject.id must be a string",
            ),
            (
                json!({"type": "", "id": "42"}),
                "subject.type must have 1 to 100 characters",
            ),
            (
                json!({"type": "team", "id": "x".repeat(256)}),
                "subject.id must have 1 to 255 characters",
            ),
            (
                json!({"type": "team", "id": "42", "name": "x"}),
                "subject has an unknown key \"name\"",
            ),
        ] {
            let refused = Subject::parse("subject", &value).map_err(|invalid| invalid.message);
            assert_eq!(refused, Err(message.into()));
        }
    }
}
