//! From the tree to any type that serde can read, gathering everything that is wrong.
//!
//! serde stops at the first fault. So what a fault is about is taken out of the tree and the rest is read again, until
//! nothing is wrong with what is left.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::Problem;
use super::nearest::nearest;
use super::node::{Kind, Node, NodeId, Number};

/// After so many faults the rest of the file is not looked at.
const FAULTS: usize = 50;

/// What a tree says.
#[derive(Debug)]
pub struct Decoded<T> {
    /// What is without fault; none where the whole is not.
    pub value: Option<T>,
    /// Everything that is wrong, in no order.
    pub problems: Vec<Problem>,
    /// The tree that `value` was read from: without what is wrong.
    pub tree: Node,
    /// Nodes of which something was taken out, at any depth.
    pub damaged: BTreeSet<NodeId>,
}

/// Reads the tree, each key once.
pub fn decode<T: DeserializeOwned>(mut tree: Node) -> Decoded<T> {
    let mut problems = Vec::new();
    let mut damaged = BTreeSet::new();
    take_out_repeated(&mut tree, &mut problems, &mut damaged);
    loop {
        let error = match T::deserialize(Reader { node: &tree, name: "the file" }) {
            Ok(value) => return Decoded { value: Some(value), problems, tree, damaged },
            Err(error) => error,
        };
        let at = error.place.as_ref().map_or(tree.id, |place| place.id);
        // What is missing where something was taken out was said of what was taken out.
        if !damaged.contains(&at) {
            problems.push(error.into_problem(at));
        }
        if problems.len() >= FAULTS || !take_out(&mut tree, at, &mut damaged) {
            return Decoded { value: None, problems, tree, damaged };
        }
    }
}

/// Notes keys that are given twice, and keeps the first of them.
fn take_out_repeated(node: &mut Node, problems: &mut Vec<Problem>, damaged: &mut BTreeSet<NodeId>) {
    match &mut node.kind {
        Kind::List(items) => items.iter_mut().for_each(|item| take_out_repeated(item, problems, damaged)),
        Kind::Map(entries) => {
            let mut first_of: HashMap<String, NodeId> = HashMap::new();
            entries.retain(|(key, _)| {
                let Kind::Text(name) = &key.kind else { return true };
                let Some(first) = first_of.get(name) else {
                    first_of.insert(name.clone(), key.id);
                    return true;
                };
                problems.push(Problem {
                    at: key.id,
                    what: format!("key {:?} is given twice", shown(name)),
                    first: Some(*first),
                    cure: Some("keep one of the two".to_owned()),
                });
                damaged.insert(node.id);
                false
            });
            entries.iter_mut().for_each(|(_, value)| take_out_repeated(value, problems, damaged));
        }
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => {}
    }
}

/// Takes the node out of whatever holds it; whether it was there.
fn take_out(node: &mut Node, id: NodeId, damaged: &mut BTreeSet<NodeId>) -> bool {
    let is_out = match &mut node.kind {
        Kind::List(items) => {
            let before = items.len();
            items.retain(|item| item.id != id);
            items.len() < before || items.iter_mut().any(|item| take_out(item, id, damaged))
        }
        Kind::Map(entries) => {
            let before = entries.len();
            entries.retain(|(key, value)| key.id != id && value.id != id);
            entries.len() < before || entries.iter_mut().any(|(_, value)| take_out(value, id, damaged))
        }
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => false,
    };
    if is_out {
        damaged.insert(node.id);
    }
    is_out
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A fault, and the innermost node that it is about.
#[derive(Debug)]
struct Fault {
    place: Option<Place>,
    kind: FaultKind,
}

#[derive(Debug)]
struct Place {
    id: NodeId,
    /// What the node is called.
    name: String,
    /// What it is.
    found: &'static str,
}

#[derive(Debug)]
enum FaultKind {
    UnknownKey(String, &'static [&'static str]),
    UnknownWord(String, &'static [&'static str]),
    Missing(&'static str),
    WrongKind(String),
    WrongValue(String),
    Said(String),
}

impl Fault {
    fn new(kind: FaultKind) -> Self {
        Self { place: None, kind }
    }

    fn at(mut self, node: &Node, name: &str) -> Self {
        self.place.get_or_insert_with(|| Place { id: node.id, name: name.to_owned(), found: node.kind.name() });
        self
    }

    fn into_problem(self, at: NodeId) -> Problem {
        let (name, found) = self.place.map_or(("the file".to_owned(), "a value"), |place| (place.name, place.found));
        let (what, cure) = match self.kind {
            FaultKind::UnknownKey(given, known) => {
                (format!("unknown key {:?}", shown(&given)), meant(&given, known, "known here are", "and"))
            }
            FaultKind::UnknownWord(given, known) => {
                (format!("{name} {:?} is not known", shown(&given)), meant(&given, known, "use", "or"))
            }
            FaultKind::Missing(key) => (format!("{key} is missing"), format!("give {key}")),
            FaultKind::WrongKind(expected) => {
                let quotes = expected == "a text" && matches!(found, "a number" | "true or false");
                let cure = if quotes { "expected a text; put it in quotes".to_owned() } else { format!("expected {expected}") };
                (format!("{name} is {found}"), cure)
            }
            FaultKind::WrongValue(expected) => (format!("{name} is out of range"), format!("expected {expected}")),
            FaultKind::Said(text) => return Problem { at, what: said_of(&name, &text), first: None, cure: None },
        };
        Problem { at, what, first: None, cure: Some(cure) }
    }
}

/// What a type says of its value, with the key in front where it is one.
fn said_of(name: &str, text: &str) -> String {
    if name.contains(' ') || text.starts_with(name) { text.to_owned() } else { format!("{name}: {text}") }
}

fn meant(given: &str, known: &[&str], words: &str, last: &str) -> String {
    match nearest(given, known) {
        Some(word) => format!("did you mean {word:?}?"),
        None => format!("{words} {}", joined(known, last)),
    }
}

/// `a, b and c`
fn joined(words: &[&str], last_word: &str) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} {last_word} {last}", first.join(", ")),
    }
}

/// serde's names of what was expected, as people say them.
fn for_people(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a string" | "str" | "a borrowed string" => "a text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "f64" | "f32" => "a number".to_owned(),
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        "u64" => whole(u64::MAX),
        text if text.starts_with("struct ") => "a map".to_owned(),
        text => text.to_owned(),
    }
}

fn whole(most: u64) -> String {
    format!("a whole number from 0 to {most}")
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.kind, f)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(said: T) -> Self {
        Self::new(FaultKind::Said(said.to_string()))
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(FaultKind::WrongKind(for_people(expected)))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(FaultKind::WrongValue(for_people(expected)))
    }

    fn unknown_field(given: &str, known: &'static [&'static str]) -> Self {
        Self::new(FaultKind::UnknownKey(given.to_owned(), known))
    }

    fn unknown_variant(given: &str, known: &'static [&'static str]) -> Self {
        Self::new(FaultKind::UnknownWord(given.to_owned(), known))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(FaultKind::Missing(field))
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Reader<'n> {
    node: &'n Node,
    name: &'n str,
}

impl<'n> Reader<'n> {
    fn wrong_kind<T>(self, expected: &str) -> Result<T, Fault> {
        Err(Fault::new(FaultKind::WrongKind(expected.to_owned())).at(self.node, self.name))
    }

    fn list<'de, V: Visitor<'de>>(self, items: &'n [Node], visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(Items { items: items.iter(), name: format!("an item of {}", self.name) })
    }

    fn map<'de, V: Visitor<'de>>(self, entries: &'n [(Node, Node)], visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Entries { entries: entries.iter(), value: None })
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let read = match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Number(Number::Negative(value)) => visitor.visit_i64(*value),
            Kind::Number(Number::Positive(value)) => visitor.visit_u64(*value),
            Kind::Number(Number::Float(value)) => visitor.visit_f64(*value),
            Kind::Number(Number::Huge) => Err(Fault::new(FaultKind::WrongValue("a smaller number".to_owned()))),
            Kind::Text(text) => visitor.visit_str(text),
            Kind::List(items) => self.list(items, visitor),
            Kind::Map(entries) => self.map(entries, visitor),
        };
        read.map_err(|fault| fault.at(self.node, self.name))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|fault| fault.at(self.node, self.name))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self).map_err(|fault| fault.at(self.node, self.name))
    }

    /// A list is no struct, whatever its length.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Map(entries) => self.map(entries, visitor).map_err(|fault| fault.at(self.node, self.name)),
            _ => self.wrong_kind(&format!("a map with {}", joined(known, "and"))),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let read = match &self.node.kind {
            Kind::Text(word) => visitor.visit_enum(StrDeserializer::new(word)),
            Kind::Map(entries) if entries.len() == 1 => {
                visitor.visit_enum(Variant { key: &entries[0].0, value: &entries[0].1, name: self.name })
            }
            Kind::Map(_) => return self.wrong_kind(&format!("a map with one of {}", joined(known, "and"))),
            _ => return self.wrong_kind(&joined(known, "or")),
        };
        read.map_err(|fault| fault.at(self.node, self.name))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'n> {
    items: std::slice::Iter<'n, Node>,
    name: String,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.items.next() else { return Ok(None) };
        seed.deserialize(Reader { node, name: &self.name }).map(Some).map_err(|fault| fault.at(node, &self.name))
    }
}

struct Entries<'n> {
    entries: std::slice::Iter<'n, (Node, Node)>,
    value: Option<(&'n Node, &'n str)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        let name = if let Kind::Text(name) = &key.kind { name } else { "a value" };
        self.value = Some((value, name));
        seed.deserialize(Reader { node: key, name: "a key" }).map(Some).map_err(|fault| fault.at(key, "a key"))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((node, name)) = self.value.take() else { return Err(de::Error::custom("a key without a value")) };
        seed.deserialize(Reader { node, name }).map_err(|fault| fault.at(node, name))
    }
}

/// `{header: x-team}`
struct Variant<'n> {
    key: &'n Node,
    value: &'n Node,
    name: &'n str,
}

impl<'de, 'n> EnumAccess<'de> for Variant<'n> {
    type Error = Fault;
    type Variant = Reader<'n>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Reader<'n>), Fault> {
        let word = seed.deserialize(Reader { node: self.key, name: self.name }).map_err(|fault| fault.at(self.key, self.name))?;
        let name = if let Kind::Text(name) = &self.key.kind { name } else { self.name };
        Ok((word, Reader { node: self.value, name }))
    }
}

impl<'de> VariantAccess<'de> for Reader<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        self.wrong_kind("the word alone, without a value")
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, known: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_struct("", known, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::yaml::{FileKind, parse};

    const KIND: FileKind = FileKind { name: "a test", depth: 3, empty: "empty", alias: "alias", one_document: "join them" };

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        name: String,
        #[serde(default)]
        size: u16,
        #[serde(default)]
        colour: Option<Colour>,
        #[serde(default)]
        labels: BTreeMap<String, String>,
        #[serde(default)]
        parts: Vec<Thing>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase", deny_unknown_fields)]
    enum Colour {
        Red,
        Mixed { of: Vec<String> },
    }

    fn decoded(text: &str) -> Decoded<Thing> {
        decode(parse(text, &KIND).unwrap())
    }

    fn said(text: &str) -> Vec<String> {
        let problems = decoded(text).problems.into_iter();
        problems.map(|one| one.cure.map_or(one.what.clone(), |cure| format!("{}: {cure}", one.what))).collect()
    }

    #[test]
    fn a_tree_without_fault_is_read() {
        let read = decoded("{name: a, size: 3, colour: {mixed: {of: [x]}}, labels: {k: v}, parts: [{name: b, colour: red}]}");
        assert!(read.problems.is_empty() && read.damaged.is_empty());
        let part = Thing { name: "b".into(), size: 0, colour: Some(Colour::Red), labels: BTreeMap::new(), parts: vec![] };
        assert_eq!(read.value.unwrap().parts, [part]);
    }

    #[test]
    fn every_fault_is_told_once_and_what_follows_from_it_is_not() {
        let mut told = said(
            "{name: a, sise: 1, colour: rde, labels: {k: 1, k: v}, parts: [{nmae: b}, {size: 70000}, {name: c, size: x}, [d, 1], {name: true}]}",
        );
        told.sort();
        assert_eq!(
            told,
            [
                "an item of parts is a list: expected a map with name, size, colour, labels and parts",
                "colour \"rde\" is not known: did you mean \"red\"?",
                "k is a number: expected a text; put it in quotes",
                "key \"k\" is given twice: keep one of the two",
                "name is true or false: expected a text; put it in quotes",
                "size is a text: expected a whole number from 0 to 65535",
                "size is out of range: expected a whole number from 0 to 65535",
                "unknown key \"nmae\": did you mean \"name\"?",
                "unknown key \"sise\": did you mean \"size\"?",
            ]
        );
    }

    #[test]
    fn a_missing_key_is_told_where_nothing_else_is_wrong() {
        assert_eq!(said("{parts: [{name: b}]}"), ["name is missing: give name"]);
        assert_eq!(said("{name: a, parts: [{size: 1}]}"), ["name is missing: give name"]);
    }

    #[test]
    fn what_is_without_fault_is_read_beside_what_is_not() {
        let read = decoded("{name: a, parts: [{name: 1}, {name: b}]}");
        assert_eq!(read.value.unwrap().parts.len(), 1);
        assert!(read.damaged.contains(&read.tree.id));
    }

    #[test]
    fn very_many_faults_end_the_reading() {
        let parts = vec!["{nmae: b}"; 1000].join(", ");
        assert_eq!(decoded(&format!("{{name: a, parts: [{parts}]}}")).problems.len(), FAULTS);
    }
}
