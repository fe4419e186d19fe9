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

/// Writes the shape of the path in `target` into `shape`, which is empty. It looks at each byte once: every request passes it.
pub fn write_shape(target: &str, shape: &mut String) {
    let path = path_of(target);
    let mut at = 0;
    while path.as_bytes().get(at) == Some(&b'/') {
        let start = at + 1;
        let (length, classes) = measure(path.as_bytes().get(start..).unwrap_or_default());
        at = start + length;
        let segment = path.get(start..at).unwrap_or_default();
        let written =
            if names_one_of_many(segment.as_bytes(), classes) { Cow::Borrowed(ID) } else { printable(segment, classes) };
        if shape.len() + 1 + written.len() + REST.len() + 1 > MOST_SHAPE_BYTES {
            shape.push('/');
            shape.push_str(REST);
            return;
        }
        shape.push('/');
        shape.push_str(&written);
    }
}

const DIGIT: u8 = 1;
const HEXADECIMAL: u8 = 2;
/// It stands in a shape as it is.
const SHOWN: u8 = 4;
/// It ends a segment.
const END: u8 = 8;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let of = byte as u8;
        let digit = if of.is_ascii_digit() { DIGIT } else { 0 };
        let hexadecimal = if of.is_ascii_hexdigit() { HEXADECIMAL } else { 0 };
        let shown = if of.is_ascii_graphic() && !matches!(of, b'{' | b'}') { SHOWN } else { 0 };
        let end = if matches!(of, b'/' | b'?' | b'#') { END } else { 0 };
        classes[byte] = digit | hexadecimal | shown | end;
        byte += 1;
    }
    classes
}

/// The length of the segment that `rest` begins with, and the classes that all its bytes have.
fn measure(rest: &[u8]) -> (usize, u8) {
    let mut all = DIGIT | HEXADECIMAL | SHOWN;
    for (at, byte) in rest.iter().enumerate() {
        let classes = CLASSES[usize::from(*byte)];
        if classes & END != 0 {
            return (at, all);
        }
        all &= classes;
    }
    (rest.len(), all)
}

/// From the path on in an origin-form or absolute-form target (RFC 9112 §3.2); `/` where there is none, as in `*`.
fn path_of(target: &str) -> &str {
    if target.starts_with('/') {
        return target;
    }
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let after_scheme = target[..end].find("://").map_or("", |at| &target[at + 3..end]);
    after_scheme.find('/').map_or("/", |at| &after_scheme[at..])
}

/// What cannot be shown, and what a shape itself means, is taken out of a segment.
fn printable(segment: &str, classes: u8) -> Cow<'_, str> {
    if classes & SHOWN != 0 {
        return Cow::Borrowed(segment);
    }
    let is_shown = |c: char| u8::try_from(c).is_ok_and(|byte| CLASSES[usize::from(byte)] & SHOWN != 0);
    segment.chars().map(|c| if is_shown(c) { c } else { '_' }).collect::<String>().into()
}

fn names_one_of_many(bytes: &[u8], classes: u8) -> bool {
    if classes & HEXADECIMAL != 0 {
        return bytes.len() >= LONG_HEX || classes & DIGIT != 0 && !bytes.is_empty();
    }
    is_negative_number(bytes) || is_uuid(bytes)
}

fn is_negative_number(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"-").is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
}

/// RFC 9562 §4.
fn is_uuid(bytes: &[u8]) -> bool {
    let is_in_place = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    bytes.len() == 36 && bytes.iter().enumerate().all(is_in_place)
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

    /// The same, segment by segment and rule by rule.
    fn model(target: &str) -> String {
        let end = target.find(['?', '#']).unwrap_or(target.len());
        let target = &target[..end];
        let path = if target.starts_with('/') {
            target
        } else {
            let after_scheme = target.find("://").map_or("", |at| &target[at + 3..]);
            after_scheme.find('/').map_or("/", |at| &after_scheme[at..])
        };
        let is_number = |segment: &str| {
            let digits = segment.strip_prefix('-').unwrap_or(segment);
            !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
        };
        let is_long_hexadecimal = |segment: &str| segment.len() >= LONG_HEX && segment.chars().all(|c| c.is_ascii_hexdigit());
        let is_shown = |c: char| c.is_ascii_graphic() && !matches!(c, '{' | '}');
        let mut shape = String::new();
        for segment in path.split('/').skip(1) {
            let written = if is_number(segment) || is_long_hexadecimal(segment) || is_uuid(segment.as_bytes()) {
                ID.to_owned()
            } else {
                segment.chars().map(|c| if is_shown(c) { c } else { '_' }).collect()
            };
            if shape.len() + 1 + written.len() + REST.len() + 1 > MOST_SHAPE_BYTES {
                return shape + "/" + REST;
            }
            shape = shape + "/" + &written;
        }
        shape
    }

    fn target() -> impl Strategy<Value = String> {
        let segment = prop_oneof![
            "-?[0-9]{0,20}",
            "[0-9a-fA-F]{0,18}",
            "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{11,12}",
            "[a-z{}é .%-]{0,9}"
        ];
        let path = proptest::collection::vec(segment, 0..9).prop_map(|segments| segments.join("/"));
        (prop_oneof!["", "/", "//", "http://", "http://h/", "\\*"], path, prop_oneof!["", "[?#].{0,9}"])
            .prop_map(|(a, b, c)| a + &b + &c)
    }

    proptest! {
        #[test]
        fn a_shape_is_that_of_the_model(target in target()) {
            let shape = Shape::of(&target);
            prop_assert_eq!(shape.as_str(), model(&target));
        }
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
