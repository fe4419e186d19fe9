//! Where nodes are in the text.
//!
//! The parser tells a place with an error only. So the text is read once more, and each node that something is to be
//! said of answers with an error, which is caught and its place kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::node::NodeId;
use super::{FileError, Problem};

/// Empty lists and maps have to be looked for one by one; past so many the place before them must do.
const SEARCH_LIMIT: usize = 16;

/// Line and column, from 1.
type Place = (usize, usize);

/// The problems with their places, by line.
pub fn located(text: &str, file_name: &str, problems: Vec<Problem>) -> Vec<FileError> {
    let wanted: BTreeSet<NodeId> = problems.iter().flat_map(|problem| [Some(problem.at), problem.first]).flatten().collect();
    let places = places(text, &wanted);
    let place = |id: NodeId| places.range(..=id).next_back().map_or((1, 1), |(_, place)| *place);
    let mut errors: Vec<FileError> = problems
        .into_iter()
        .map(|problem| {
            let (line, column) = place(problem.at);
            let first = problem.first.map(|id| format!(", first on line {}", place(id).0)).unwrap_or_default();
            let cure = problem.cure.map(|cure| format!(": {cure}")).unwrap_or_default();
            FileError { file: file_name.to_owned(), line, column, message: format!("{}{first}{cure}", problem.what) }
        })
        .collect();
    errors.sort_by_key(|error| (error.line, error.column));
    errors
}

fn places(text: &str, wanted: &BTreeSet<NodeId>) -> BTreeMap<NodeId, Place> {
    let mut finder = Finder { next: 0, wanted, pending: Vec::new(), empty: Vec::new(), found: BTreeMap::new() };
    // The text was read before, so it can be read again; what was found until a fault stays true all the same.
    let _complete = Seek(&mut finder).deserialize(serde_yaml::Deserializer::from_str(text));
    let Finder { empty, mut found, .. } = finder;
    for id in empty.into_iter().take(SEARCH_LIMIT) {
        found.extend(search(text, id).map(|place| (id, place)));
    }
    found
}

/// Reads up to one node and stops there.
fn search(text: &str, id: NodeId) -> Option<Place> {
    let mut next = 0;
    let stopped = Stop { id, next: &mut next }.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    stopped.location().map(|location| (location.line(), location.column()))
}

struct Finder<'w> {
    next: NodeId,
    wanted: &'w BTreeSet<NodeId>,
    /// Lists and maps that are where their first text is.
    pending: Vec<NodeId>,
    /// Lists and maps without any.
    empty: Vec<NodeId>,
    found: BTreeMap<NodeId, Place>,
}

impl Finder<'_> {
    fn count(&mut self) -> NodeId {
        let id = self.next;
        self.next += 1;
        id
    }
}

/// Passes through a node, and keeps its place if it is wanted.
struct Seek<'f, 'w>(&'f mut Finder<'w>);

impl<'de> DeserializeSeed<'de> for Seek<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let id = self.0.count();
        let mut probed = false;
        let result = deserializer.deserialize_any(SeekVisitor { finder: self.0, id, probed: &mut probed });
        match result {
            Err(error) if probed => {
                let place = place_in(&error.to_string());
                let here = self.0.pending.drain(..).chain([id]).map(|id| (id, place));
                self.0.found.extend(here);
                Ok(())
            }
            other => other,
        }
    }
}

const PROBE: &str = "place";

/// The place in the parser's message, which leaves out the first line's first column.
fn place_in(message: &str) -> Place {
    let number = |word: &str| {
        let digits = &message[message.rfind(word)? + word.len()..];
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok()
    };
    (number(" line ").unwrap_or(1), number(" column ").unwrap_or(1))
}

struct SeekVisitor<'f, 'w, 'p> {
    finder: &'f mut Finder<'w>,
    id: NodeId,
    probed: &'p mut bool,
}

impl SeekVisitor<'_, '_, '_> {
    fn scalar<E: serde::de::Error>(self) -> Result<(), E> {
        if self.finder.pending.is_empty() && !self.finder.wanted.contains(&self.id) {
            return Ok(());
        }
        *self.probed = true;
        Err(E::custom(PROBE))
    }

    fn enter(&mut self) {
        if self.finder.wanted.contains(&self.id) {
            self.finder.pending.push(self.id);
        }
    }

    fn leave(&mut self) {
        if self.finder.pending.last() == Some(&self.id) {
            self.finder.pending.pop();
            self.finder.empty.push(self.id);
        }
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),+) => {
        $(fn $method<E: serde::de::Error>(self, _: $type) -> Result<(), E> {
            self.scalar()
        })+
    };
}

impl<'de> Visitor<'de> for SeekVisitor<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.scalar()
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.enter();
        while list.next_element_seed(Seek(self.finder))?.is_some() {}
        self.leave();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.enter();
        while map.next_key_seed(Seek(self.finder))?.is_some() {
            map.next_value_seed(Seek(self.finder))?;
        }
        self.leave();
        Ok(())
    }
}

/// Fails at one node, whatever it is.
struct Stop<'n> {
    id: NodeId,
    next: &'n mut NodeId,
}

impl<'de> DeserializeSeed<'de> for Stop<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let id = *self.next;
        *self.next += 1;
        deserializer.deserialize_any(StopVisitor { is_here: id == self.id, stop: self })
    }
}

struct StopVisitor<'n> {
    stop: Stop<'n>,
    is_here: bool,
}

impl StopVisitor<'_> {
    fn pass<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.is_here { Err(E::custom(PROBE)) } else { Ok(()) }
    }

    fn inner(&mut self) -> Stop<'_> {
        Stop { id: self.stop.id, next: self.stop.next }
    }
}

macro_rules! passed {
    ($($method:ident: $type:ty),+) => {
        $(fn $method<E: serde::de::Error>(self, _: $type) -> Result<(), E> {
            self.pass()
        })+
    };
}

impl<'de> Visitor<'de> for StopVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.pass()
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.pass()
    }

    passed!(visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.pass()?;
        while list.next_element_seed(self.inner())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.pass()?;
        while map.next_key_seed(self.inner())?.is_some() {
            map.next_value_seed(self.inner())?;
        }
        Ok(())
    }
}
