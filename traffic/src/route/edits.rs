//! Changes to headers, ready to apply.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::RoutingError;
use crate::matching::header_name;
use crate::settings::{HeaderEdits, is_reserved};

/// What a route changes in the headers of a request or an answer: takes away, then replaces, then adds.
#[derive(Debug, Clone, Default)]
pub struct HeaderChanges {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, HeaderValue)]>,
    add: Box<[(HeaderName, HeaderValue)]>,
}

impl HeaderChanges {
    /// Reads names and values.
    ///
    /// # Errors
    /// A name or a value that no header can have, and a header that routes may not touch.
    pub fn compile(edits: &HeaderEdits) -> Result<Self, RoutingError> {
        let pair = |(name, value): (&String, &String)| Ok((editable(name)?, value_of(name, value)?));
        Ok(Self {
            remove: edits.remove.iter().map(|name| editable(name)).collect::<Result<_, _>>()?,
            set: edits.set.iter().map(pair).collect::<Result<_, RoutingError>>()?,
            add: edits.add.iter().map(pair).collect::<Result<_, RoutingError>>()?,
        })
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Changes the headers.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}

fn editable(name: &str) -> Result<HeaderName, RoutingError> {
    let header = header_name(name)?;
    if is_reserved(header.as_str()) { Err(RoutingError::Header { name: name.to_owned() }) } else { Ok(header) }
}

fn value_of(name: &str, value: &str) -> Result<HeaderValue, RoutingError> {
    HeaderValue::from_str(value).map_err(|_| RoutingError::HeaderValue { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(yaml: &str) -> HeaderEdits {
        serde_yaml::from_str(yaml).expect("edits")
    }

    #[test]
    fn headers_are_removed_then_set_then_added() {
        let changes = HeaderChanges::compile(&edits("{remove: [x-a, X-B], set: {x-b: new, x-c: new}, add: {x-c: more}}"));
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "old"), ("x-b", "old"), ("x-b", "older"), ("x-c", "old"), ("x-d", "old")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        changes.expect("changes").apply(&mut headers);
        let values = |name| headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect::<Vec<_>>();
        assert_eq!(values("x-a"), Vec::<&str>::new());
        assert_eq!(values("x-b"), ["new"]);
        assert_eq!(values("x-c"), ["new", "more"]);
        assert_eq!(values("x-d"), ["old"]);
    }

    #[test]
    fn headers_of_the_mesh_and_of_framing_cannot_be_named() {
        for name in [
            "X-Postern-Source",
            "X-Forwarded-Client-Cert",
            "Host",
            "transfer-encoding",
            "content-length",
            "connection",
            "upgrade",
        ] {
            for yaml in [format!("{{remove: [{name}]}}"), format!("{{set: {{{name}: a}}}}"), format!("{{add: {{{name}: a}}}}")] {
                let error = HeaderChanges::compile(&edits(&yaml)).unwrap_err();
                assert!(matches!(error, RoutingError::Header { .. }), "{yaml}: {error}");
            }
        }
        assert!(HeaderChanges::compile(&edits("{set: {'x y': a}}")).is_err());
        assert!(HeaderChanges::compile(&edits(r#"{set: {x-y: "a\r\nx-z: b"}}"#)).is_err());
    }
}
