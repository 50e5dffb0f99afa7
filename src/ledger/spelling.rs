//! JSON as canonical text, written while it is read.
//!
//! The text is the one that [`crate::canonical`] writes of a parsed value; but most of an object
//! nobody asks for, and to parse that only to write it costs more than all the rest.

use std::borrow::Cow;
use std::fmt;
use std::mem::swap;
use std::ops::Range;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::canonical::{into_text, write_scalar};

/// A member of an object that was written.
pub(crate) struct Member<'a> {
    pub name: Cow<'a, str>,
    /// Where the text has the name, without its quotes.
    pub spelled: Range<usize>,
    /// Where the text has the value; nowhere, if the member was left out. It may still be the last
    /// of its name.
    pub value: Range<usize>,
}

/// The text of an object, and where its members are in it, sorted by name. Of two members of one
/// name the last counts.
///
/// # Errors
/// If the text is no JSON object, or holds a number that Rust does not have.
pub(crate) fn spell(json: &str) -> serde_json::Result<(String, Vec<Member<'_>>)> {
    let mut speller = Speller::new(json.len(), true);
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(&mut speller)?;
    deserializer.end()?;
    Ok((into_text(speller.text), speller.members))
}

/// The text of any value, without the members of objects that are null.
///
/// # Errors
/// If the text is no JSON, or holds a number that Rust does not have.
pub(crate) fn spell_without_nulls(json: &str) -> serde_json::Result<Vec<u8>> {
    let mut speller = Speller::new(json.len(), false);
    let mut deserializer = serde_json::Deserializer::from_str(json);
    speller.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(speller.text)
}

struct Speller<'a> {
    text: Vec<u8>,
    /// Those of the objects that are not at their end yet, and of the one that came to it last.
    members: Vec<Member<'a>>,
    /// Whether the members that are null are written too.
    nulls: bool,
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Speller<'_> {
    fn new(bytes: usize, nulls: bool) -> Self {
        Speller {
            text: Vec::with_capacity(bytes),
            // Most objects have some forty fields.
            members: Vec::with_capacity(64),
            nulls,
        }
    }

    fn scalar(&mut self, value: &(impl serde::Serialize + ?Sized)) {
        write_scalar(value, &mut self.text);
    }

    /// A string that was read without an escape needs none.
    fn plain(&mut self, text: &str) {
        self.text.push(b'"');
        self.text.extend_from_slice(text.as_bytes());
        self.text.push(b'"');
    }

    /// Puts in order what was written from there on, an object with these members.
    fn put_in_order(&mut self, start: usize, first: usize) {
        let mut members = self.members.split_off(first);
        members.sort_by(|one, other| one.name.cmp(&other.name));
        // The later of two is dropped, which is then the earlier.
        members.dedup_by(|later, earlier| {
            later.name == earlier.name && {
                swap(later, earlier);
                true
            }
        });
        members.retain(|member| !member.value.is_empty());
        let unsorted = self.text.split_off(start);
        self.text.push(b'{');
        for member in members {
            let from = member.spelled.start - 1;
            let to = self.text.len();
            let moved = |range: Range<usize>| range.start - from + to..range.end - from + to;
            self.text
                .extend_from_slice(&unsorted[from - start..member.value.end - start]);
            self.text.push(b',');
            self.members.push(Member {
                name: member.name,
                spelled: moved(member.spelled),
                value: moved(member.value),
            });
        }
        self.close(b'}');
    }

    /// Each element was written with a comma behind it.
    fn close(&mut self, bracket: u8) {
        match self.text.last_mut() {
            Some(last) if *last == b',' => *last = bracket,
            _ => self.text.push(bracket),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Speller<'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Speller<'de> {
    type Value = ();

    /// Within an object there is nothing that is not expected.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar(&());
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(&value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(&value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(&value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.scalar(&value);
        Ok(())
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<(), E> {
        self.plain(value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.scalar(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.text.push(b'[');
        while elements.next_element_seed(&mut *self)?.is_some() {
            self.text.push(b',');
        }
        self.close(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let (start, first) = (self.text.len(), self.members.len());
        self.text.push(b'{');
        while let Some(Name(name)) = members.next_key()? {
            let count = self.members.len();
            let spelled = self.text.len() + 1;
            match &name {
                Cow::Borrowed(name) => self.plain(name),
                Cow::Owned(name) => self.scalar(name),
            }
            let spelled = spelled..self.text.len() - 1;
            self.text.push(b':');
            let value = self.text.len();
            members.next_value_seed(&mut *self)?;
            self.members.truncate(count);
            let mut value = value..self.text.len();
            if self.nulls || self.text[value.clone()] != *b"null" {
                self.text.push(b',');
            } else {
                self.text.truncate(spelled.start - 1);
                value.end = value.start;
            }
            self.members.push(Member {
                name,
                spelled,
                value,
            });
        }
        self.close(b'}');
        let written = &self.members[first..];
        if !written.is_sorted_by(|one, other| one.name < other.name) {
            self.put_in_order(start, first);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::{Map, Value};

    use super::*;
    use crate::canonical::{text, write_value};

    /// Any value, with names that come twice and in no order.
    fn any_json() -> impl Strategy<Value = String> {
        const NAMES: &[&str] = &[
            r#""a""#,
            r#""b""#,
            r#""\u0061""#,
            r#""é""#,
            r#""\"""#,
            r#""""#,
        ];
        const SCALARS: &[&str] = &["null", "true", "-0", "1.50", "1e3", r#""null""#, r#"",""#];
        select(SCALARS)
            .prop_map(str::to_owned)
            .prop_recursive(4, 32, 5, |inner| {
                let member = (select(NAMES), inner.clone());
                let member = member.prop_map(|(name, value)| format!("{name} : {value}"));
                prop_oneof![
                    vec(inner, 0..4).prop_map(|elements| format!("[{}]", elements.join(", "))),
                    vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
                ]
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn it_is_spelled_as_if_it_were_parsed(json in any_json()) {
            let value: Value = serde_json::from_str(&json).expect("JSON");
            let mut without_nulls = Vec::new();
            write_value(&value, false, &mut without_nulls);
            prop_assert_eq!(spell_without_nulls(&json).expect("JSON"), without_nulls);

            let object = format!(r#"{{"z": {json}, "y": {json}}}"#);
            let (spelled, members) = spell(&object).expect("an object");
            let map: Map<String, Value> = serde_json::from_str(&object).expect("an object");
            prop_assert_eq!(&spelled, &text(&Value::Object(map)));
            let names: Vec<_> = members.iter().map(|member| &spelled[member.spelled.clone()]).collect();
            prop_assert_eq!(names, ["y", "z"]);
            let value = text(&value);
            prop_assert!(members.iter().all(|member| spelled[member.value.clone()] == value));
        }
    }
}
