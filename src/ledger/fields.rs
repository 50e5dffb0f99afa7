//! An object's fields as one text, of which only what somebody asks for is parsed.
//!
//! Of most bodies most fields are never looked at: they come out of the mirror and go back into it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Index, Range};
use std::sync::{Arc, LazyLock, OnceLock};

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{self, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::canonical;
use crate::spelling::{Member, spell};

/// The fields of a JSON object, as compact text with sorted names: equal fields are equal text.
/// To clone them costs nothing.
#[derive(Clone)]
pub struct Fields(Arc<Text>);

struct Text {
    json: String,
    /// In the order of their names.
    places: Vec<Place>,
    /// What each name begins with: most differ in that already, and all of these are in one place.
    heads: Vec<u64>,
}

/// Where a field is in the text.
struct Place {
    name: Range<usize>,
    /// The name, where the text spells it with an escape.
    unescaped: Option<Box<str>>,
    value: Range<usize>,
    parsed: OnceLock<Value>,
}

impl Fields {
    /// Reads an object that somebody else wrote. Of two fields of one name the last counts.
    ///
    /// # Errors
    /// If the text is no JSON object, or holds a number that Rust does not have.
    pub fn parse(json: &str) -> serde_json::Result<Fields> {
        let (json, members) = spell(json)?;
        let places = members.into_iter().map(Place::from).collect();
        Ok(Fields::in_places(json, places))
    }

    /// Reads what [`Fields::text`] wrote, and parses none of it. If that was edited since, it is
    /// read as any other text is; but values between which nothing was changed are believed.
    pub(crate) fn from_stored(json: String) -> serde_json::Result<Fields> {
        match Fields::as_they_stand(&json) {
            Some(places) => Ok(Fields::in_places(json, places)),
            None => Fields::parse(&json),
        }
    }

    /// `None` where the names are not in order, or anything stands between names and values.
    fn as_they_stand(json: &str) -> Option<Vec<Place>> {
        let Members(members) = serde_json::from_str(json).ok()?;
        if !members.is_sorted_by(|(one, _), (other, _)| one < other) {
            return None;
        }
        let mut places = Vec::with_capacity(members.len());
        let mut end = 0;
        for (name, value) in members {
            let start = end + r#"{""#.len();
            let value_start = start + name.len() + r#"":"#.len();
            end = value_start + value.len();
            places.push(Place {
                name: start..start + name.len(),
                unescaped: None,
                value: value_start..end,
                parsed: OnceLock::new(),
            });
        }
        (json.len() == end.max(1) + 1).then_some(places)
    }

    /// Places in the order of their names.
    fn in_places(json: String, places: Vec<Place>) -> Fields {
        let heads = places.iter().map(|place| head(place.name(&json))).collect();
        Fields(Arc::new(Text {
            json,
            places,
            heads,
        }))
    }

    /// The text: compact JSON with sorted names.
    pub fn text(&self) -> &str {
        &self.0.json
    }

    /// The value of a field; `None` if there is no such field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.place(name).map(|place| place.parsed(&self.0))
    }

    /// The text of a field's value.
    pub(crate) fn raw(&self, name: &str) -> Option<&str> {
        self.place(name).map(|place| place.value(&self.0))
    }

    /// Whether there is such a field, be it null.
    pub fn contains(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    /// The names, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.places.iter().map(|place| place.name(self.text()))
    }

    /// Names and texts of values, in the order of the names.
    pub(crate) fn raws(&self) -> impl Iterator<Item = (&str, &str)> {
        let places = self.0.places.iter();
        places.map(|place| (place.name(self.text()), place.value(&self.0)))
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        let places = self.0.places.iter();
        places.map(|place| (place.name(self.text()), place.parsed(&self.0)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.places.is_empty()
    }

    /// The fields that the other has not.
    pub(crate) fn without(&self, other: &Fields) -> Fields {
        // Nearly always it has all of them.
        let mut others = other.names();
        if Arc::ptr_eq(&self.0, &other.0)
            || self.names().all(|name| others.any(|other| other == name))
        {
            return Fields::default();
        }
        Fields::of(self.raws().filter(|(name, _)| !other.contains(name)))
    }

    /// These fields and one more, or with another value for one of them.
    pub fn with(&self, name: &str, value: &Value) -> Fields {
        self.and([(name, canonical::text(value).as_str())])
    }

    /// These fields and others, given as [`Fields::raws`] gives them. Where both have a field, the
    /// other's counts.
    pub(crate) fn and<'a>(
        &'a self,
        others: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Fields {
        let mut others = others.into_iter().peekable();
        if others.peek().is_none() {
            return self.clone();
        }
        let members: BTreeMap<_, _> = self.raws().chain(others).collect();
        Fields::of(members.into_iter())
    }

    /// Of names and texts of values, in the order of the names.
    pub(crate) fn of<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> Fields {
        let mut draft = Draft::new(0, 0);
        members.for_each(|(name, value)| draft.copy(name, value));
        draft.fields()
    }

    /// The fields, parsed.
    pub fn to_map(&self) -> Map<String, Value> {
        let owned = |(name, value): (&str, &Value)| (name.to_owned(), value.clone());
        self.iter().map(owned).collect()
    }

    fn place(&self, name: &str) -> Option<&Place> {
        let (head, text) = (head(name), &self.0);
        let first = text.heads.partition_point(|other| *other < head);
        text.heads.get(first).filter(|other| **other == head)?;
        // Mostly no other name begins like it.
        let alike = text.places.get(first..)?;
        let only = alike.first().filter(|place| place.name(&text.json) == name);
        only.or_else(|| {
            let found = alike.binary_search_by(|place| place.name(&text.json).cmp(name));
            alike.get(found.ok()?)
        })
    }
}

impl Place {
    fn name<'a>(&'a self, json: &'a str) -> &'a str {
        match &self.unescaped {
            Some(name) => name,
            None => &json[self.name.clone()],
        }
    }

    fn value<'a>(&self, text: &'a Text) -> &'a str {
        &text.json[self.value.clone()]
    }

    /// What cannot be parsed, a number beyond Rust's that somebody wrote into a row, says nothing.
    fn parsed(&self, text: &Text) -> &Value {
        let parse = || serde_json::from_str(self.value(text)).unwrap_or_default();
        self.parsed.get_or_init(parse)
    }
}

impl From<Member<'_>> for Place {
    fn from(member: Member<'_>) -> Place {
        let is_escaped = member.spelled.len() != member.name.len();
        Place {
            unescaped: is_escaped.then(|| member.name.into()),
            name: member.spelled,
            value: member.value,
            parsed: OnceLock::new(),
        }
    }
}

impl From<Map<String, Value>> for Fields {
    fn from(map: Map<String, Value>) -> Fields {
        let mut draft = Draft::new(0, map.len());
        let mut members: Vec<_> = map.into_iter().collect();
        members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (name, value) in members {
            draft.write(&name, value);
        }
        draft.fields()
    }
}

impl Default for Fields {
    fn default() -> Fields {
        static NONE: LazyLock<Fields> = LazyLock::new(|| Draft::new(0, 0).fields());
        NONE.clone()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.text() == other.text()
    }
}

impl Index<&str> for Fields {
    type Output = Value;

    /// The value of a field; null if there is no such field.
    fn index(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.text()).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Of what was stored.
impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Fields::from_stored(raw.get().to_owned()).map_err(de::Error::custom)
    }
}

/// Fields that are being written, in the order of their names.
struct Draft {
    json: Vec<u8>,
    places: Vec<Place>,
}

impl Draft {
    /// For about so many bytes and so many fields.
    fn new(bytes: usize, fields: usize) -> Draft {
        let mut json = Vec::with_capacity(bytes + 2);
        json.push(b'{');
        Draft {
            json,
            places: Vec::with_capacity(fields),
        }
    }

    /// Adds a field whose value is canonical text.
    fn copy(&mut self, name: &str, value: &str) {
        self.add(name, |json| {
            json.extend_from_slice(value.as_bytes());
            OnceLock::new()
        });
    }

    /// Adds a field whose value was parsed.
    fn write(&mut self, name: &str, value: Value) {
        self.add(name, |json| {
            canonical::write_value(&value, true, json);
            OnceLock::from(value)
        });
    }

    fn add(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>) -> OnceLock<Value>) {
        if !self.places.is_empty() {
            self.json.push(b',');
        }
        let start = self.json.len() + 1;
        canonical::write_scalar(name, &mut self.json);
        let written = start..self.json.len() - 1;
        self.json.push(b':');
        let start = self.json.len();
        let parsed = write(&mut self.json);
        self.places.push(Place {
            unescaped: (written.len() != name.len()).then(|| name.into()),
            name: written,
            value: start..self.json.len(),
            parsed,
        });
    }

    fn fields(mut self) -> Fields {
        self.json.push(b'}');
        Fields::in_places(canonical::into_text(self.json), self.places)
    }
}

/// The members of an object as they stand in its text. Only names that are spelled without escape.
struct Members<'a>(Vec<(&'a str, &'a str)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                // Most objects have some forty fields.
                let mut members = Vec::with_capacity(64);
                while let Some((name, value)) = map.next_entry::<&str, &RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Read)
    }
}

/// The first eight bytes of a name, in the order of names.
fn head(name: &str) -> u64 {
    let mut short = [0; 8];
    let head = name.as_bytes().first_chunk().unwrap_or_else(|| {
        short[..name.len()].copy_from_slice(name.as_bytes());
        &short
    });
    u64::from_be_bytes(*head)
}
