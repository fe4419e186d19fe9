//! An object of Consul's, read field by field. A field that nobody asked for, and that says something, is refused in the
//! end: nothing is passed over.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::{NotCarried, duration};

/// An object with its place in the entry, and the fields that were not read yet.
pub(super) struct Reader<'v> {
    place: String,
    left: Vec<(&'v str, &'v Value)>,
}

impl<'v> Reader<'v> {
    pub(super) fn of(place: impl Into<String>, value: &'v Value) -> Result<Self, NotCarried> {
        let place = place.into();
        match value {
            Value::Object(object) => Ok(Self::over(place, object)),
            _ if place.is_empty() => Err(NotCarried("the entry is no object: write {\"Kind\": …, \"Name\": …}".into())),
            _ => Err(NotCarried(format!("{place} is no object: write {{…}}"))),
        }
    }

    fn over(place: String, object: &'v Map<String, Value>) -> Self {
        Self { place, left: object.iter().map(|(name, value)| (name.as_str(), value)).collect() }
    }

    /// The place of a field, for messages.
    pub(super) fn place_of(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    /// A field, unless it is null. Consul takes `PathPrefix`, `path_prefix` and `pathprefix`.
    pub(super) fn take(&mut self, name: &str) -> Option<&'v Value> {
        let at = self.left.iter().position(|(key, _)| is_name(key, name))?;
        let (_, value) = self.left.swap_remove(at);
        Some(value).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &str) -> Result<&'v str, NotCarried> {
        match self.take(name) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(self.wrong(name, "a text")),
        }
    }

    /// A text that is read later.
    pub(super) fn peek_text(&self, name: &str) -> &'v str {
        self.left.iter().find(|(key, _)| is_name(key, name)).and_then(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, NotCarried> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// A number that is not negative; 0 where there is none.
    pub(super) fn number(&mut self, name: &str) -> Result<u64, NotCarried> {
        match self.take(name) {
            None => Ok(0),
            Some(value) => value.as_u64().ok_or_else(|| self.wrong(name, "a number")),
        }
    }

    /// A number with decimals; 0 where there is none.
    pub(super) fn float(&mut self, name: &str) -> Result<f64, NotCarried> {
        match self.take(name) {
            None => Ok(0.0),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(name, "a number")),
        }
    }

    /// As Go writes it, or nanoseconds; zero where there is none.
    pub(super) fn duration(&mut self, name: &str) -> Result<Duration, NotCarried> {
        match self.take(name) {
            None => Ok(Duration::ZERO),
            Some(Value::String(text)) if text.is_empty() => Ok(Duration::ZERO),
            Some(Value::String(text)) => duration::parse(text).ok_or_else(|| self.wrong(name, "a duration such as 15s")),
            Some(value) => value.as_u64().map(Duration::from_nanos).ok_or_else(|| self.wrong(name, "a duration such as 15s")),
        }
    }

    /// A list; empty where there is none.
    pub(super) fn list(&mut self, name: &str) -> Result<&'v [Value], NotCarried> {
        match self.take(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.wrong(name, "a list")),
        }
    }

    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, NotCarried> {
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned).ok_or_else(|| self.wrong(name, "a list of texts"));
        match self.left.iter().find(|(key, _)| is_name(key, name)) {
            Some((_, Value::Array(items))) => {
                let texts = items.iter().map(text).collect();
                self.take(name);
                texts
            }
            _ => self.list(name).map(|_| Vec::new()),
        }
    }

    /// The objects of a list, each with its place.
    pub(super) fn objects(&mut self, name: &str) -> Result<Vec<Reader<'v>>, NotCarried> {
        let place = self.place_of(name);
        let items = self.list(name)?.iter().enumerate();
        items.map(|(number, item)| Reader::of(format!("{place}[{number}]"), item)).collect()
    }

    /// An object; none where it is not there.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Reader<'v>>, NotCarried> {
        let place = self.place_of(name);
        self.take(name).map(|value| Reader::of(place, value)).transpose()
    }

    /// The objects of a map, each with its key and its place. Keys are as they were written.
    pub(super) fn map(&mut self, name: &str) -> Result<Vec<(&'v str, Reader<'v>)>, NotCarried> {
        let place = self.place_of(name);
        let Some(inner) = self.object(name)? else { return Ok(Vec::new()) };
        let one = |(key, value): (&'v str, &'v Value)| Ok((key, Reader::of(format!("{place}[{key:?}]"), value)?));
        inner.left.into_iter().map(one).collect()
    }

    /// A map of texts. Keys are as they were written.
    pub(super) fn labels(&mut self, name: &str) -> Result<BTreeMap<String, String>, NotCarried> {
        let Some(inner) = self.object(name)? else { return Ok(BTreeMap::new()) };
        let one = |(key, value): (&str, &Value)| match value {
            Value::String(text) => Ok((key.to_owned(), text.clone())),
            _ => Err(inner.wrong(key, "a text")),
        };
        inner.left.iter().copied().map(one).collect()
    }

    /// Fields that only Consul's servers write.
    pub(super) fn pass_over(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// A field that must say nothing, and what to do instead.
    pub(super) fn refuse(&mut self, name: &str, cure: &str) -> Result<(), NotCarried> {
        match self.take(name) {
            Some(value) if says_something(value) => {
                Err(NotCarried(format!("{} has no counterpart: {cure}", self.place_of(name))))
            }
            _ => Ok(()),
        }
    }

    /// The same for a text that may also be one of `same`, which hold here without being said.
    pub(super) fn refuse_but(&mut self, name: &str, same: &[&str], cure: &str) -> Result<(), NotCarried> {
        let text = self.text(name)?;
        if text.is_empty() || same.contains(&text) {
            return Ok(());
        }
        Err(NotCarried(format!("{} {text:?} has no counterpart: {cure}", self.place_of(name))))
    }

    /// Namespace and partition: there is one of each.
    pub(super) fn refuse_scopes(&mut self) -> Result<(), NotCarried> {
        let cure = "there is one namespace and one partition, default; leave it out";
        self.refuse_but("Namespace", &["default"], cure)?;
        self.refuse_but("Partition", &["default"], cure)
    }

    /// Whatever is left must say nothing.
    pub(super) fn finish(self) -> Result<(), NotCarried> {
        match self.left.iter().find(|(_, value)| says_something(value)) {
            None => Ok(()),
            Some((name, _)) => Err(NotCarried(format!(
                "{} has no counterpart: leave it out, or see docs/consul-api.md for what there is",
                self.place_of(name)
            ))),
        }
    }

    fn wrong(&self, name: &str, wanted: &str) -> NotCarried {
        NotCarried(format!("{} is not {wanted}", self.place_of(name)))
    }
}

fn is_name(written: &str, name: &str) -> bool {
    let mut letters = name.bytes();
    written.bytes().filter(|byte| *byte != b'_').all(|byte| letters.next().is_some_and(|own| own.eq_ignore_ascii_case(&byte)))
        && letters.next().is_none()
}

/// Whether a value is anything but the zero of its type.
pub fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => fields.values().any(says_something),
    }
}
