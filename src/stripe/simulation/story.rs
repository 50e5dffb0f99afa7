//! The objects of a life-cycle as it goes on, and what is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::overrides::Overrides;
use super::{Host, Telling};
use crate::API_VERSION;
use crate::input::Invalid;

pub(super) struct Story<'h, H: Host> {
    pub host: &'h mut H,
    pub wish: Overrides,
    /// Seconds since the epoch. A life-cycle takes no time: all of it happens in this second.
    pub now: i64,
    /// The event that was asked for, until it is told. Its prologue tells others like it.
    wanted: Option<&'static str>,
    /// The types of the objects that the overrides name and that play a part.
    met: BTreeSet<&'static str>,
    stamp: u64,
    made: u8,
    /// Every object as it is, and as it was when it was last told of.
    objects: BTreeMap<String, Value>,
    told: BTreeMap<String, Value>,
    tellings: Vec<Telling>,
}

impl<'h, H: Host> Story<'h, H> {
    pub fn new(kind: &'static str, wish: Overrides, now: Duration, host: &'h mut H) -> Self {
        Self {
            host,
            wish,
            now: now.as_secs() as i64,
            wanted: Some(kind),
            met: BTreeSet::new(),
            stamp: now.as_micros() as u64,
            made: 0,
            objects: BTreeMap::new(),
            told: BTreeMap::new(),
            tellings: Vec::new(),
        }
    }

    /// What was told.
    ///
    /// # Errors
    /// When the overrides kept the event from happening, or name what has no part in it.
    pub fn end(self) -> Result<Vec<Telling>, Invalid> {
        let refused = |message: String| Err(Invalid::new("overrides", message));
        if let Some(kind) = self.wanted {
            return refused(format!("with these overrides there is no {kind}"));
        }
        let mut named = self.wish.named.iter();
        if let Some((object_type, id)) = named.find(|(named, _)| !self.met.contains(*named)) {
            return refused(format!("the {object_type} {id} has no part in this event"));
        }
        Ok(self.tellings)
    }

    /// An id that nobody has.
    pub fn id(&mut self, prefix: &str) -> String {
        self.made = self.made.wrapping_add(1);
        let (stamp, made, chance) = (self.stamp, self.made, fastrand::u32(..));
        format!("{prefix}_simulated_{stamp:014x}{made:02x}{chance:08x}")
    }

    /// A new object.
    pub fn make(&mut self, prefix: &str, object_type: &str, fields: Value) -> String {
        let id = self.id(prefix);
        self.put(&id, object_type, fields);
        id
    }

    /// A new object whose id is used in it.
    pub fn put(&mut self, id: &str, object_type: &str, fields: Value) {
        let mut object = json!({
            "id": id, "object": object_type, "created": self.now, "livemode": false,
        });
        patch(&mut object, fields);
        self.objects.insert(id.to_owned(), object);
    }

    /// An object as it is now; null for one that is not part of the story.
    pub fn see(&self, id: &str) -> &Value {
        self.objects.get(id).unwrap_or(&Value::Null)
    }

    /// A text of an object, empty if there is none.
    pub fn text(&self, id: &str, field: &str) -> String {
        self.see(id)[field].as_str().unwrap_or_default().to_owned()
    }

    pub fn number(&self, id: &str, field: &str) -> i64 {
        self.see(id)[field].as_i64().unwrap_or_default()
    }

    /// Sets fields of an object.
    pub fn change(&mut self, id: &str, fields: Value) {
        if let Some(object) = self.objects.get_mut(id) {
            patch(object, fields);
        }
    }

    /// Tells of an object as it is. The event that was asked for has the fields that were asked
    /// for with it.
    pub fn tell(&mut self, kind: &str, id: &str) {
        let wanted = self.wanted == Some(kind);
        if wanted {
            self.wanted = None;
            let fields = Value::Object(self.wish.fields.clone());
            let metadata = json!({ "metadata": self.wish.metadata });
            if let Some(object) = self.objects.get_mut(id) {
                merge(object, &fields);
                if object.get("metadata").is_some_and(Value::is_object) {
                    merge(object, &metadata);
                }
            }
        }
        let object = self.see(id).clone();
        let mut data = json!({ "object": object });
        // Stripe says with most updates what they changed. Here every change says it, because all
        // of them happen in one second, and nothing else would tell which came last.
        // <https://docs.stripe.com/api/events/object#event_object-data-previous_attributes>
        if let Some(before) = self.told.get(id) {
            data["previous_attributes"] = difference(before, &object);
        }
        let event = json!({
            "id": self.id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now,
            "data": data,
            "livemode": false,
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null},
            "type": kind,
        });
        self.told.insert(id.to_owned(), object);
        self.tellings.push(Telling::Event {
            payload: event.to_string(),
            wanted,
        });
    }

    /// Answers a call of ours with an object.
    pub fn answer(&mut self, id: &str) {
        let object = self.see(id).clone();
        self.told.insert(id.to_owned(), object.clone());
        if let Value::Object(object) = object {
            let as_of = self.now;
            self.tellings.push(Telling::Answer { object, as_of });
        }
    }

    /// Tells what must have gone before. An event of the type that was asked for is not yet it.
    pub fn prologue<T>(
        &mut self,
        tell: impl FnOnce(&mut Self) -> Result<T, H::Error>,
    ) -> Result<T, H::Error> {
        let wanted = self.wanted.take();
        let told = tell(self);
        self.wanted = wanted;
        told
    }

    /// The simulated objects of a type with these fields, newest first: those of earlier stories
    /// and those of this one.
    pub fn find(
        &mut self,
        object_type: &str,
        fields: &[(&str, &str)],
    ) -> Result<Vec<String>, H::Error> {
        for object in self.host.find(object_type, fields)? {
            let Some(id) = object["id"].as_str().map(str::to_owned) else {
                continue;
            };
            if !self.objects.contains_key(&id) {
                self.told.insert(id.clone(), object.clone());
                self.objects.insert(id, object);
            }
        }
        let newest_first = self.objects.iter().rev();
        let found = newest_first.filter(|(_, object)| {
            object["object"] == object_type
                && fields.iter().all(|(path, text)| has(object, path, text))
        });
        Ok(found.map(|(id, _)| id.clone()).collect())
    }

    /// An object that another one names.
    pub fn need(&mut self, object_type: &str, id: &str) -> Result<String, H::Error> {
        let found = self.find(object_type, &[("id", id)])?;
        let missing = || Self::refused(format!("there is no {object_type} {id}"));
        found.into_iter().next().ok_or_else(missing)
    }

    /// The object of a type that the overrides name.
    pub fn named(&mut self, object_type: &'static str) -> Result<Option<String>, H::Error> {
        let Some(id) = self.wish.named.get(object_type).cloned() else {
            return Ok(None);
        };
        self.met.insert(object_type);
        self.need(object_type, &id).map(Some)
    }

    /// The object to continue on: the one that the overrides name, which must fit, or the newest
    /// with these fields that does.
    pub fn existing(
        &mut self,
        object_type: &'static str,
        fields: &[(&str, String)],
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Option<String>, H::Error> {
        if let Some(id) = self.named(object_type)? {
            return match fits(self.see(&id)) {
                true => Ok(Some(id)),
                false => {
                    let state = self.text(&id, "status");
                    let message = format!("this cannot happen to the {object_type} {id} {state}");
                    Err(Self::refused(message.trim_end()))
                }
            };
        }
        let fields: Vec<_> = fields
            .iter()
            .map(|(field, text)| (*field, text.as_str()))
            .collect();
        let found = self.find(object_type, &fields)?;
        Ok(found.into_iter().find(|id| fits(self.see(id))))
    }

    pub fn refused(message: impl Into<String>) -> H::Error {
        Invalid::new("overrides", message).into()
    }
}

/// Whether the field at a path has this text.
fn has(object: &Value, path: &str, text: &str) -> bool {
    let field = path
        .split('.')
        .try_fold(object, |object, name| object.get(name));
    field.and_then(Value::as_str) == Some(text)
}

fn patch(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}

/// Sets fields, and fields of fields.
fn merge(object: &mut Value, fields: &Value) {
    match (object, fields) {
        (Value::Object(object), Value::Object(fields)) => {
            for (name, value) in fields {
                merge(object.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (place, value) => *place = value.clone(),
    }
}

/// What the fields that differ were before: those of hashes by field, lists whole.
fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return before.clone();
    };
    let names = before
        .keys()
        .chain(after.keys().filter(|name| !before.contains_key(*name)));
    let differing: Map<String, Value> = names
        .filter_map(|name| {
            let (old, new) = (before.get(name), after.get(name));
            let changed = old != new;
            changed.then(|| {
                let was = match (old, new) {
                    (Some(old @ Value::Object(_)), Some(new @ Value::Object(_))) => {
                        difference(old, new)
                    }
                    _ => old.cloned().unwrap_or(Value::Null),
                };
                (name.clone(), was)
            })
        })
        .collect();
    Value::Object(differing)
}
