//! The text as a tree, with everything in it: keys given twice, values of any type.
//!
//! Nodes are numbered in the order of the text. `position` finds their places again when something is to be said of
//! them; a file without faults pays nothing for it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{DEPTH_LIMIT, FileKind};

/// What the text may unfold to, in nodes and bytes, however small it is: aliases repeat what they name.
const UNFOLDED_FLOOR: usize = 1 << 20;
/// Open brackets before the parser is asked; it takes time with the square of them.
const BRACKET_LIMIT: usize = 1000;

/// Number of a node, in the order of the text.
pub type NodeId = u32;

/// One value of the text, or a key.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug)]
pub enum Kind {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// Values in order.
    List(Vec<Node>),
    /// Keys and values in order; a key may be there twice.
    Map(Vec<(Node, Node)>),
}

/// A number as the text has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Below zero.
    Negative(i64),
    /// Zero or more.
    Positive(u64),
    /// With a fraction or an exponent.
    Float(f64),
    /// Larger than 64 bits.
    Huge,
}

impl Kind {
    /// What it is called in a message.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// The text is no tree.
#[derive(Debug)]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The text as the parser is given it. JSON writes characters past U+FFFF as two escapes (RFC 8259 §7), YAML as one.
pub fn prepared<'t>(text: &'t str, file_name: &str) -> Cow<'t, str> {
    let is_json = file_name.to_ascii_lowercase().ends_with(".json");
    if !is_json || !text.contains("\\ud") && !text.contains("\\uD") {
        return Cow::Borrowed(text);
    }
    let mut joined = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        joined.push_str(&rest[..at]);
        rest = &rest[at..];
        let (written, taken) = match surrogate_pair(rest) {
            Some(character) => (format!("\\U{:08X}", u32::from(character)), 12),
            // The backslash with the character that it escapes.
            None => {
                let taken = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                (rest[..taken].to_owned(), taken)
            }
        };
        joined.push_str(&written);
        rest = &rest[taken..];
    }
    joined.push_str(rest);
    Cow::Owned(joined)
}

/// The character that `\uD83D\uDE00` at the beginning stands for.
fn surrogate_pair(text: &str) -> Option<char> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    char::decode_utf16([unit(0)?, unit(6)?]).next()?.ok().filter(|c| u32::from(*c) > 0xffff)
}

/// The tree of the text. `of` is for messages.
///
/// # Errors
/// The first thing that is no YAML, nested too deep, or unfolds too far.
pub fn parse(text: &str, of: &FileKind) -> Result<Node, SyntaxError> {
    check_brackets(text, of)?;
    let mut builder = Builder { next: 0, depth: 0, budget: UNFOLDED_FLOOR.max(text.len().saturating_mul(4)), of };
    NodeSeed(&mut builder).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| syntax_error(text, of, &error))
}

fn check_brackets(text: &str, of: &FileKind) -> Result<(), SyntaxError> {
    let mut open = 0_usize;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > BRACKET_LIMIT {
            let before = &text[..=index];
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            return Err(SyntaxError {
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count(),
                message: too_deep(of),
            });
        }
    }
    Ok(())
}

fn too_deep(of: &FileKind) -> String {
    format!("lists and maps are nested deeper than {DEPTH_LIMIT}: {} needs {}", of.name, of.depth)
}

/// What the parser says, with the place in front and our advice where a `*` was meant.
fn syntax_error(text: &str, of: &FileKind, error: &serde_yaml::Error) -> SyntaxError {
    let (line, column) = error.location().map_or((1, 1), |location| (location.line(), location.column()));
    let said = error.to_string();
    let message = if said.contains("while scanning an alias") || said.contains("unknown anchor") {
        let start = alias_column(text, line, column);
        return SyntaxError { line, column: start, message: of.alias.to_owned() };
    } else if said.starts_with("EOF while parsing") {
        of.empty.to_owned()
    } else if said.starts_with("deserializing from YAML containing more than one document") {
        format!("the file has more than one document: leave out the lines ---, and {}", of.one_document)
    } else if said.starts_with("repetition limit") {
        unfolds_too_far()
    } else if said.starts_with("recursion limit") {
        too_deep(of)
    } else {
        format!("not valid YAML: {}", without_place(&said))
    };
    SyntaxError { line, column, message }
}

fn unfolds_too_far() -> String {
    "aliases make the file far larger than it is written: write the values out".to_owned()
}

/// Where the `*` is that the parser stumbled over: at the place it names, or just before it.
fn alias_column(text: &str, line: usize, column: usize) -> usize {
    let before: Vec<char> = text.lines().nth(line - 1).unwrap_or_default().chars().take(column).collect();
    before.iter().rposition(|c| *c == '*').map_or(column, |at| at + 1)
}

/// The message without the path before it and its first ` at line L column C`, which stand in front already.
fn without_place(said: &str) -> String {
    let Some(at) = said.find(" at line ") else {
        return said.to_owned();
    };
    let place = &said[at + " at line ".len()..];
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &place[digits(place)..];
    let rest = rest.strip_prefix(" column ").map_or(rest, |column| &column[digits(column)..]);
    format!("{}{rest}", &said[..at])
}

struct Builder<'k> {
    next: NodeId,
    depth: usize,
    /// Nodes and bytes that may still come.
    budget: usize,
    of: &'k FileKind,
}

struct NodeSeed<'b, 'k>(&'b mut Builder<'k>);

impl NodeSeed<'_, '_> {
    fn spend<E: serde::de::Error>(&mut self, amount: usize) -> Result<(), E> {
        self.0.budget = self.0.budget.checked_sub(amount).ok_or_else(|| E::custom(unfolds_too_far()))?;
        Ok(())
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.0.depth += 1;
        if self.0.depth > DEPTH_LIMIT { Err(E::custom(too_deep(self.0.of))) } else { Ok(()) }
    }

    fn text<E: serde::de::Error>(mut self, text: String) -> Result<Kind, E> {
        self.spend(text.len())?;
        Ok(Kind::Text(text))
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_, '_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Node, D::Error> {
        let id = self.0.next;
        self.0.next = id.checked_add(1).ok_or_else(|| D::Error::custom(unfolds_too_far()))?;
        self.spend(1)?;
        Ok(Node { id, kind: deserializer.deserialize_any(self)? })
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_, '_> {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Number(if value < 0 { Number::Negative(value) } else { Number::Positive(value.unsigned_abs()) }))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Kind, E> {
        Ok(Kind::Number(Number::Huge))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Number(Number::Positive(value)))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Kind, E> {
        Ok(Kind::Number(Number::Huge))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Number(Number::Float(value)))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Kind, E> {
        self.text(text.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Kind, E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Kind, A::Error> {
        self.enter()?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(NodeSeed(self.0))? {
            items.push(item);
        }
        self.0.depth -= 1;
        Ok(Kind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Kind, A::Error> {
        self.enter()?;
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(NodeSeed(self.0))? {
            entries.push((key, map.next_value_seed(NodeSeed(self.0))?));
        }
        self.0.depth -= 1;
        Ok(Kind::Map(entries))
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, _: A) -> Result<Kind, A::Error> {
        Err(A::Error::custom("a YAML tag (!) has no meaning here: leave it out, or quote the text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_escapes_past_the_first_plane_are_joined() {
        assert_eq!(prepared(r#"{"d": "\\ud83d \ud83d\ude00 \u00e9"}"#, "a.json"), r#"{"d": "\\ud83d \U0001F600 \u00e9"}"#);
        assert_eq!(prepared(r#"{"d": "\ud83d\ude00"}"#, "a.yaml"), r#"{"d": "\ud83d\ude00"}"#);
        assert_eq!(prepared("\"\\ud83d\\", "a.json"), "\"\\ud83d\\");
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let repeated = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{repeated}]\n"));
        }
        assert!(parse(&text, &crate::file::KIND).unwrap_err().message.contains("aliases make the file far larger"));
    }
}
