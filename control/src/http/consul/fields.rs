//! Bodies as Consul reads them: JSON whose field names may be written in any case, and whose unknown fields are passed
//! over.

use std::time::Duration;

use postern_api::consul::duration;
use serde_json::{Map, Value};

use super::error::ConsulError;

/// A JSON object whose fields are found in any case.
#[derive(Debug, Default, Clone)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body; an empty one has no fields.
    ///
    /// # Errors
    /// 400 where it is no JSON object.
    pub fn read(body: &[u8]) -> Result<Self, ConsulError> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let value = serde_json::from_slice(body);
        Self::of(value.map_err(|error| ConsulError::bad_request(format!("Request decode failed: {error}")))?)
    }

    /// The fields of an object; null has none.
    ///
    /// # Errors
    /// 400 where it is something else.
    pub fn of(value: Value) -> Result<Self, ConsulError> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            Value::Null => Ok(Self::default()),
            other => Err(ConsulError::bad_request(format!("Request decode failed: expected an object, got {}", kind(&other)))),
        }
    }

    /// A field, unless it is null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let exact = self.0.get(name);
        let found = exact.or_else(|| self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value));
        found.filter(|value| !value.is_null())
    }

    /// A text; empty where there is none.
    ///
    /// # Errors
    /// 400 where it is something else.
    pub fn text(&self, name: &str) -> Result<String, ConsulError> {
        match self.get(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(wrong(name, "a string", other)),
        }
    }

    /// A number that is not negative; 0 where there is none.
    ///
    /// # Errors
    /// 400 where it is something else.
    pub fn number(&self, name: &str) -> Result<u64, ConsulError> {
        match self.get(name) {
            None => Ok(0),
            Some(value) => value.as_u64().ok_or_else(|| wrong(name, "a number", value)),
        }
    }

    /// Yes or no; no where there is none.
    ///
    /// # Errors
    /// 400 where it is something else.
    pub fn flag(&self, name: &str) -> Result<bool, ConsulError> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(name, "a boolean", other)),
        }
    }

    /// A duration: as Go writes it, or a number of nanoseconds.
    ///
    /// # Errors
    /// 400 where it is something else.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ConsulError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(value @ Value::String(text)) => {
                duration::parse(text).map(Some).ok_or_else(|| wrong(name, "a duration such as 10s", value))
            }
            Some(value) => {
                let nanos = value.as_u64().ok_or_else(|| wrong(name, "a duration such as 10s", value))?;
                Ok(Some(Duration::from_nanos(nanos)))
            }
        }
    }

    /// A list; empty where there is none.
    ///
    /// # Errors
    /// 400 where it is something else.
    pub fn list(&self, name: &str) -> Result<&[Value], ConsulError> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(wrong(name, "a list", other)),
        }
    }

    /// A list of texts; empty where there is none.
    ///
    /// # Errors
    /// 400 where it is something else.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, ConsulError> {
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned).ok_or_else(|| wrong(name, "a list of strings", value));
        self.list(name)?.iter().map(text).collect()
    }

    /// An object; without fields where there is none.
    ///
    /// # Errors
    /// 400 where it is something else.
    pub fn object(&self, name: &str) -> Result<Self, ConsulError> {
        match self.get(name) {
            None => Ok(Self::default()),
            Some(Value::Object(fields)) => Ok(Self(fields.clone())),
            Some(other) => Err(wrong(name, "an object", other)),
        }
    }

    /// The object as it was written.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// All fields as they were written, such as the labels of a map.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }
}

fn wrong(name: &str, wanted: &str, value: &Value) -> ConsulError {
    ConsulError::bad_request(format!("Request decode failed: {name} must be {wanted}, got {}", kind(value)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "another string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn names_are_found_in_any_case() {
        let fields =
            Fields::read(br#"{"lockdelay":"15s","TTL":"10s","Name":null,"Checks":["a"],"Flags":18446744073709551615}"#).unwrap();
        assert_eq!(fields.duration("LockDelay").unwrap(), Some(Duration::from_secs(15)));
        assert_eq!(fields.text("ttl").unwrap(), "10s");
        assert_eq!(fields.text("Name").unwrap(), "");
        assert_eq!(fields.texts("checks").unwrap(), ["a"]);
        assert_eq!(fields.number("Flags").unwrap(), u64::MAX);
        assert!(!fields.flag("None").unwrap());
    }

    #[test]
    fn what_is_of_another_kind_is_refused_by_name() {
        let fields = Fields::read(br#"{"Name":7,"Flags":"x","Checks":"a"}"#).unwrap();
        let error = fields.text("Name").unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        assert!(error.text().contains("Name must be a string"), "{}", error.text());
        assert!(fields.number("Flags").is_err() && fields.texts("Checks").is_err() && fields.object("Name").is_err());
        for body in ["[]", "{", "7", "\"a\""] {
            assert!(Fields::read(body.as_bytes()).is_err(), "{body}");
        }
        assert!(Fields::read(b" ").unwrap().get("a").is_none());
    }
}
