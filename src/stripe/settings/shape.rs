//! What a parameter of Stripe's may look like.

use serde_json::{Map, Value};

use crate::input::{Invalid, Object, has_length};

/// The form of a value.
pub(super) enum Shape {
    Boolean,
    /// Of 1 to so many characters.
    Text(usize),
    /// Up to so much.
    Whole(u64),
    /// One of these.
    Word(&'static [&'static str]),
    /// 1 to so many of a form.
    List(usize, &'static Shape),
    /// These fields and no others.
    Fields(&'static [Field]),
}

/// A field of an object.
pub(super) struct Field {
    name: &'static str,
    is_required: bool,
    shape: Shape,
}

/// A field that must be there.
pub(super) const fn required(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        is_required: true,
        shape,
    }
}

/// A field that may be left out.
pub(super) const fn optional(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        is_required: false,
        shape,
    }
}

impl Shape {
    /// The value as Stripe is to be told it.
    ///
    /// # Errors
    /// When it has another form, by its path.
    pub fn read(&self, path: &str, value: &Value) -> Result<Value, Invalid> {
        let must_be = |what: &str| Invalid::new("settings", format!("{path} must be {what}"));
        match self {
            Self::Boolean => match value.is_boolean() {
                true => Ok(value.clone()),
                false => Err(must_be("true or false")),
            },
            Self::Text(most) => match value.as_str().map(str::trim) {
                Some(text) if has_length(text, *most) => Ok(text.into()),
                _ => Err(must_be(&format!("a string of 1 to {most} characters"))),
            },
            Self::Whole(most) => match value.as_u64() {
                Some(number) if number <= *most => Ok(number.into()),
                _ => Err(must_be(&format!("a whole number up to {most}"))),
            },
            Self::Word(words) => match value.as_str() {
                Some(word) if words.contains(&word) => Ok(word.into()),
                _ => Err(must_be(&format!("one of {}", words.join(", ")))),
            },
            Self::List(most, shape) => {
                let items = value.as_array();
                let items = items.filter(|items| (1..=*most).contains(&items.len()));
                let items = items.ok_or_else(|| must_be(&format!("a list of 1 to {most}")))?;
                let items = items.iter().enumerate();
                items
                    .map(|(index, item)| shape.read(&format!("{path}[{index}]"), item))
                    .collect()
            }
            Self::Fields(fields) => {
                let names: Vec<_> = fields.iter().map(|field| field.name).collect();
                let object = Object::read("settings", path, value, &names)?;
                let mut read = Map::new();
                for field in *fields {
                    match object.get(field.name) {
                        Some(value) => {
                            let value = field.shape.read(&object.path_to(field.name), value)?;
                            read.insert(field.name.to_owned(), value);
                        }
                        None if field.is_required => {
                            return Err(object.invalid(field.name, "is missing"));
                        }
                        None => {}
                    }
                }
                Ok(read.into())
            }
        }
    }
}
