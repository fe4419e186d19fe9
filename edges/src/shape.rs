//! Paths without what names one thing among many.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What stands for a segment that names one thing among many.
const ID: &str = "{id}";
/// The shape of everything for which a destination has no room left.
pub const REST: &str = "…";
/// Shapes that are told apart at one destination; the rest is [`REST`].
pub const MOST_SHAPES: usize = 200;
/// The longest shape; what is beyond it stands as `/…`.
pub const MOST_SHAPE_BYTES: usize = 120;
/// Hexadecimal digits from which on a segment is an id: a short one may be a word (`face`, `added`).
const LONG_HEX: usize = 16;

/// The shape of a path: `/v1/invoices/{id}`. Segments that are numbers, UUIDs or long hexadecimal are replaced; a query is
/// no part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape(Arc<str>);

impl Shape {
    /// The shape of the path in the target of a request. It allocates; [`write_shape`] does not.
    pub fn of(target: &str) -> Self {
        let mut text = String::with_capacity(target.len().min(MOST_SHAPE_BYTES));
        write_shape(target, &mut text);
        Self(text.into())
    }

    /// The shape of what has no room.
    pub fn rest() -> Self {
        Self(REST.into())
    }

    /// Whether it stands for more than one shape.
    pub fn is_open_ended(&self) -> bool {
        self.0.ends_with(REST)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Writes the shape of the path in `target` into `shape`, which is empty.
pub fn write_shape(target: &str, shape: &mut String) {
    let path = path_of(target);
    for segment in path.split('/').skip(1) {
        let written = if names_one_of_many(segment) { Cow::Borrowed(ID) } else { printable(segment) };
        if shape.len() + 1 + written.len() + REST.len() + 1 > MOST_SHAPE_BYTES {
            shape.push('/');
            shape.push_str(REST);
            return;
        }
        shape.push('/');
        shape.push_str(&written);
    }
    if shape.is_empty() {
        // Such as `*` of OPTIONS.
        shape.push('/');
    }
}

/// The path of an origin-form or absolute-form target (RFC 9112 §3.2).
fn path_of(target: &str) -> &str {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let target = &target[..end];
    if target.starts_with('/') {
        return target;
    }
    let after_scheme = target.find("://").map_or("", |at| &target[at + 3..]);
    after_scheme.find('/').map_or("/", |at| &after_scheme[at..])
}

/// What cannot be shown, and what a shape itself means, is taken out of a segment.
fn printable(segment: &str) -> Cow<'_, str> {
    let is_shown = |c: char| c.is_ascii_graphic() && !matches!(c, '{' | '}');
    if segment.chars().all(is_shown) {
        Cow::Borrowed(segment)
    } else {
        segment.chars().map(|c| if is_shown(c) { c } else { '_' }).collect::<String>().into()
    }
}

fn names_one_of_many(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    is_number(bytes) || is_uuid(bytes) || is_long_hexadecimal(bytes)
}

fn is_number(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// RFC 9562 §4.
fn is_uuid(bytes: &[u8]) -> bool {
    let is_in_place = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    bytes.len() == 36 && bytes.iter().enumerate().all(is_in_place)
}

fn is_long_hexadecimal(bytes: &[u8]) -> bool {
    bytes.len() >= LONG_HEX && bytes.iter().all(u8::is_ascii_hexdigit)
}

/// So that a table of shapes is asked with a text.
impl Borrow<str> for Shape {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A text that is no shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the shape of a path: it begins with / or is …, and has at most {MOST_SHAPE_BYTES} bytes")]
pub struct ShapeError(String);

impl FromStr for Shape {
    type Err = ShapeError;

    /// Takes a shape that another sidecar made. What this one would not have made is not taken.
    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let is_shown = |c: char| c.is_ascii_graphic() || c == '…';
        let is_shape = text == REST || text.starts_with('/');
        if is_shape && text.len() <= MOST_SHAPE_BYTES && text.chars().all(is_shown) {
            Ok(Self(text.into()))
        } else {
            Err(ShapeError(text.chars().take(MOST_SHAPE_BYTES).collect()))
        }
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_names_one_of_many_is_replaced() {
        for (path, shape) in [
            ("/", "/"),
            ("/v1/invoices/17", "/v1/invoices/{id}"),
            ("/v1/invoices/-17/lines/0", "/v1/invoices/{id}/lines/{id}"),
            ("/users/9b2d1c4e-0f6a-4d7b-8c3e-5a1f2b3c4d5e?x=1", "/users/{id}"),
            ("/blobs/0123456789abcdef", "/blobs/{id}"),
            ("/face/added/v2", "/face/added/v2"),
            ("/a/", "/a/"),
            ("//a", "//a"),
            ("http://api/v1/7?q", "/v1/{id}"),
            ("http://api", "/"),
            ("*", "/"),
            ("/{id}", "/_id_"),
            ("/a#b", "/a"),
            ("/postern.Demo/Say", "/postern.Demo/Say"),
        ] {
            assert_eq!(Shape::of(path).as_str(), shape, "{path}");
        }
    }

    #[test]
    fn a_long_path_is_cut_at_a_segment() {
        let long = format!("/a/{}/b", "x".repeat(200));
        assert_eq!(Shape::of(&long).as_str(), "/a/…");
        assert!(Shape::of(&long).is_open_ended());
    }

    proptest! {
        #[test]
        fn every_shape_is_short_printable_and_read_back(target in ".{0,300}") {
            let shape = Shape::of(&target);
            prop_assert!(shape.as_str().len() <= MOST_SHAPE_BYTES);
            prop_assert_eq!(shape.as_str().parse::<Shape>(), Ok(shape.clone()));
        }
    }
}
