//! Reading JSON whose field names are written `LikeThis` or `like_this`: Consul's API writes the first, its files the
//! second, and Go reads either in any case.
//!
//! Only fields of structs are matched so; the keys of maps (labels, headers) stay as they are.

use std::cell::RefCell;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Error, Map, Value};

/// What becomes of a field that the struct does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is passed over, as Consul does.
    Ignored,
    /// It is an error that names it: a file that a person wrote.
    Refused,
}

/// Reads `value` as a `T`.
///
/// # Errors
/// What does not fit, with the path to it.
pub fn from_value<T: DeserializeOwned>(value: Value, unknown: Unknown) -> Result<T, String> {
    let place = RefCell::new(Vec::new());
    T::deserialize(Loose { value, unknown, place: &place }).map_err(|error| {
        let path = place.borrow().join(".");
        if path.is_empty() { error.to_string() } else { format!("{path}: {error}") }
    })
}

struct Loose<'p> {
    value: Value,
    unknown: Unknown,
    /// Where in the value the reader is; left as it is at an error.
    place: &'p RefCell<Vec<String>>,
}

/// A value of a struct, whose name is put on the path while it is read.
struct Field<'p> {
    name: String,
    inner: Loose<'p>,
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

impl<'de, 'p> Deserializer<'de> for Loose<'p> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self { value, unknown, place } = self;
        match value {
            Value::Array(values) => {
                let values = values.into_iter().enumerate();
                let values = values.map(|(at, value)| Field { name: at.to_string(), inner: Loose { value, unknown, place } });
                visitor.visit_seq(SeqDeserializer::new(values))
            }
            Value::Object(map) => {
                let entries =
                    map.into_iter().map(|(name, value)| (name.clone(), Field { name, inner: Loose { value, unknown, place } }));
                visitor.visit_map(MapDeserializer::new(entries))
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Self { value, unknown, place } = self;
        let Value::Object(map) = value else {
            return Loose { value, unknown, place }.deserialize_any(visitor);
        };
        let mut known = Map::new();
        for (name, value) in map {
            let plain_name = plain(&name);
            match fields.iter().find(|field| plain(field) == plain_name) {
                Some(field) if known.contains_key(*field) => {
                    return Err(serde::de::Error::custom(format!("field {name:?} is given twice")));
                }
                // Go leaves a field that is null as it was.
                Some(_) if value.is_null() => {}
                Some(field) => {
                    known.insert((*field).to_owned(), value);
                }
                None if unknown == Unknown::Refused => {
                    return Err(serde::de::Error::custom(format!("unknown field {name:?}; known are {}", fields.join(", "))));
                }
                None => {}
            }
        }
        Loose { value: Value::Object(known), unknown, place }.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl<'de, 'p> IntoDeserializer<'de, Error> for Field<'p> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'p> Field<'p> {
    fn within<R>(self, read: impl FnOnce(Loose<'p>) -> Result<R, Error>) -> Result<R, Error> {
        let place = self.inner.place;
        place.borrow_mut().push(self.name);
        let read = read(self.inner)?;
        place.borrow_mut().pop();
        Ok(read)
    }
}

impl<'de, 'p> Deserializer<'de> for Field<'p> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.within(|inner| inner.deserialize_any(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.within(|inner| inner.deserialize_struct(name, fields, visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.within(|inner| inner.deserialize_option(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.within(|inner| inner.deserialize_newtype_struct(name, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.within(|inner| inner.deserialize_enum(name, variants, visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// For a field that may be a list or `null`, as Go writes an empty one.
///
/// # Errors
/// Those of the list.
pub fn list<'de, D: Deserializer<'de>, T: serde::Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Outer {
        #[serde(rename = "ID")]
        id: String,
        server_name: Option<String>,
        meta: BTreeMap<String, String>,
        inner: Vec<Inner>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner {
        port: u16,
    }

    #[test]
    fn a_field_is_found_however_it_is_written_and_keys_of_maps_stay() {
        let expected = Outer {
            id: "a".into(),
            server_name: Some("x".into()),
            meta: BTreeMap::from([("Some_Key".into(), "v".into())]),
            inner: vec![Inner { port: 1 }],
        };
        for value in [
            json!({"ID": "a", "ServerName": "x", "Meta": {"Some_Key": "v"}, "Inner": [{"Port": 1}]}),
            json!({"id": "a", "server_name": "x", "meta": {"Some_Key": "v"}, "inner": [{"port": 1}]}),
            json!({"Id": "a", "servername": "x", "META": {"Some_Key": "v"}, "INNER": [{"PORT": 1}], "other": null}),
        ] {
            assert_eq!(from_value::<Outer>(value, Unknown::Ignored).unwrap(), expected);
        }
    }

    #[test]
    fn null_is_as_if_it_were_not_there() {
        let value = json!({"ID": null, "ServerName": null, "Meta": null, "Inner": null});
        assert_eq!(from_value::<Outer>(value, Unknown::Refused).unwrap(), Outer::default());
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_path() {
        let error = from_value::<Outer>(json!({"inner": [{"port": 1}, {"port": "x"}]}), Unknown::Ignored).unwrap_err();
        assert!(error.starts_with("Inner.1.Port: "), "{error}");
        let error = from_value::<Outer>(json!({"inner": [{"prot": 1}]}), Unknown::Refused).unwrap_err();
        assert!(error.contains("Inner.0") && error.contains("prot"), "{error}");
        let error = from_value::<Outer>(json!({"id": "a", "ID": "b"}), Unknown::Ignored).unwrap_err();
        assert!(error.contains("twice"), "{error}");
    }
}
