//! What is said of each pair, in one open table of sixteen bytes a pair.
//!
//! What 100,000 pairs take decides what a look-up takes: past a few megabytes each step to another place is a wait for
//! memory. So a pair has one place, that follows from the hashes of both names, and leads to their texts, which are
//! compared; it takes as little as will do, and the table has half as many places again as pairs.

use std::fmt;

use postern_names::ServiceName;

use crate::keyed_hash::Keys;
use crate::names::{ANY, ANY_TEXT, Named, Names, Naming};
use crate::{Party, Precedence};

/// What a place holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nothing: the place is free.
    Free,
    /// One permanent intention of an action.
    Allow,
    Deny,
    AllowAudit,
    DenyAudit,
    /// More than that; the number says where.
    Elsewhere,
}

/// What is said of a pair: a kind, and a number of at most [`Said::MOST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) kind: Kind,
    /// The revision; for [`Kind::Elsewhere`], where.
    pub(crate) number: u64,
}

impl Said {
    /// The largest number that a place can hold.
    pub(crate) const MOST: u64 = (1 << 40) - 1;
}

#[derive(Clone, Copy)]
#[repr(align(16))]
struct Place {
    source: u32,
    destination: u32,
    low: u32,
    high: u8,
    kind: Kind,
    /// Bits of the hash that the place does not follow from: another pair has the same in one of 65,536 cases, so that
    /// names are seldom compared in vain.
    tag: u16,
}

const _: () = assert!(size_of::<Place>() == 16);

impl Place {
    const FREE: Self = Self { source: ANY, destination: ANY, low: 0, high: 0, kind: Kind::Free, tag: 0 };

    #[inline]
    fn said(&self) -> Said {
        Said { kind: self.kind, number: (u64::from(self.high) << 32) | u64::from(self.low) }
    }

    fn say(&mut self, said: Said) {
        debug_assert!(said.number <= Said::MOST);
        self.kind = said.kind;
        self.low = said.number as u32;
        self.high = (said.number >> 32) as u8;
    }
}

/// At most two thirds full: a look-up ends after two places on average, four where there is nothing to find.
struct Places(Vec<Place>);

impl Places {
    fn with_room_for(pairs: usize) -> Self {
        Self(vec![Place::FREE; pairs + pairs / 2 + 2])
    }

    fn room(&self) -> usize {
        self.0.len() / 3 * 2
    }

    #[inline]
    fn first(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.0.len() as u128) >> 64) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.0.len() { 0 } else { at + 1 }
    }

    /// Where the pair is, or the free place where it goes.
    fn find(&self, hash: u64, source: u32, destination: u32) -> usize {
        let mut at = self.first(hash);
        while self.0[at].kind != Kind::Free && (self.0[at].source, self.0[at].destination) != (source, destination) {
            at = self.after(at);
        }
        at
    }
}

#[inline]
fn tag(hash: u64) -> u16 {
    hash as u16
}

/// Pair → what is said of it.
pub(crate) struct Table {
    keys: Keys,
    any: u64,
    names: Names,
    places: Places,
    /// Whether anything is said of pairs of this shape.
    shapes: Shapes,
}

/// A flag for each [`Precedence`].
#[derive(Debug, Clone, Copy, Default)]
struct Shapes(u16);

impl Shapes {
    fn add(&mut self, shape: Precedence) {
        self.0 |= 1 << shape.value();
    }

    #[inline]
    fn has(self, shape: Precedence) -> bool {
        self.0 & (1 << shape.value()) != 0
    }
}

/// The names of a call with their hashes, which are computed once for all of its pairs.
pub(crate) struct Sides<'a> {
    source: (&'a [u8], u64),
    destination: (&'a [u8], u64),
}

impl Table {
    /// Prepares the look-ups of a call.
    #[inline]
    pub(crate) fn sides<'a>(&self, source: &'a ServiceName, destination: &'a ServiceName) -> Sides<'a> {
        let side = |name: &'a ServiceName| {
            let text = name.as_str().as_bytes();
            (text, self.keys.of_name(text))
        };
        Sides { source: side(source), destination: side(destination) }
    }

    /// What is said of the call's pair of this shape.
    #[inline]
    pub(crate) fn get(&self, sides: &Sides<'_>, shape: Precedence) -> Option<Said> {
        if !self.shapes.has(shape) {
            return None;
        }
        let any = (ANY_TEXT, self.any);
        let (source, destination) = match shape {
            Precedence::ServiceToService => (sides.source, sides.destination),
            Precedence::AnyToService => (any, sides.destination),
            Precedence::ServiceToAny => (sides.source, any),
            Precedence::AnyToAny => (any, any),
        };
        let hash = self.keys.of_pair(source.1, destination.1);
        let mut at = self.places.first(hash);
        loop {
            let place = &self.places.0[at];
            if place.kind == Kind::Free {
                return None;
            }
            let is_it = || self.names.is(place.source, source.0) && self.names.is(place.destination, destination.0);
            if place.tag == tag(hash) && is_it() {
                return Some(place.said());
            }
            at = self.places.after(at);
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("places", &self.places.0.len()).finish_non_exhaustive()
    }
}

/// A table that is being filled.
pub(crate) struct Filling {
    keys: Keys,
    naming: Naming,
    places: Places,
    filled: usize,
    shapes: Shapes,
}

impl Filling {
    /// An empty one; more pairs than told cost time, not correctness.
    pub(crate) fn with_room_for(pairs: usize, keys: Keys) -> Self {
        Self { keys, naming: Naming::new(keys), places: Places::with_room_for(pairs), filled: 0, shapes: Shapes::default() }
    }

    /// Replaces what is said of a pair by what `change` makes of it.
    pub(crate) fn change(&mut self, source: &Party, destination: &Party, change: impl FnOnce(Option<Said>) -> Said) {
        self.shapes.add(Precedence::of(source, destination));
        let (source, destination) = (self.named(source), self.named(destination));
        let hash = self.keys.of_pair(source.hash, destination.hash);
        let at = self.places.find(hash, source.place, destination.place);
        let place = &mut self.places.0[at];
        if place.kind != Kind::Free {
            place.say(change(Some(place.said())));
            return;
        }
        *place = Place { source: source.place, destination: destination.place, tag: tag(hash), ..Place::FREE };
        place.say(change(None));
        self.filled += 1;
        if self.filled > self.places.room() {
            self.resize(self.filled * 2);
        }
    }

    /// The table as it stays.
    pub(crate) fn finish(mut self) -> Table {
        if self.places.room() > self.filled * 2 {
            self.resize(self.filled);
        }
        Table {
            keys: self.keys,
            any: self.naming.any().hash,
            names: self.naming.finish(),
            places: self.places,
            shapes: self.shapes,
        }
    }

    fn named(&mut self, party: &Party) -> Named {
        match party {
            Party::Any => self.naming.any(),
            Party::Service(name) => self.naming.of(name.as_str().as_bytes()),
        }
    }

    fn resize(&mut self, pairs: usize) {
        let old = std::mem::replace(&mut self.places, Places::with_room_for(pairs));
        for place in old.0.into_iter().filter(|place| place.kind != Kind::Free) {
            let hash_of = |name| self.keys.of_name(self.naming.text(name));
            let hash = self.keys.of_pair(hash_of(place.source), hash_of(place.destination));
            let at = self.places.find(hash, place.source, place.destination);
            self.places.0[at] = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn service(n: usize) -> ServiceName {
        format!("service-{n}").parse().unwrap()
    }

    fn party(n: usize) -> Party {
        if n == 0 { Party::Any } else { Party::Service(service(n)) }
    }

    /// `n -> n * 7 % 600` for every n below 600, said with the revision n; 0 is `*`.
    fn filled(room: usize) -> (Table, HashMap<(usize, usize), u64>) {
        let mut filling = Filling::with_room_for(room, Keys::known());
        let mut pairs = HashMap::new();
        for n in 0..600 {
            let destination = n * 7 % 600;
            filling.change(&party(n), &party(destination), |_| Said { kind: Kind::Allow, number: n as u64 });
            pairs.insert((n, destination), n as u64);
        }
        (filling.finish(), pairs)
    }

    #[test]
    fn each_pair_is_found_and_no_other_however_much_room_there_was() {
        for room in [0, 600, 100_000] {
            let (table, pairs) = filled(room);
            let names: Vec<ServiceName> = (1..600).map(service).collect();
            for (source, from) in names.iter().zip(1..) {
                for (destination, to) in names.iter().zip(1..) {
                    let found = table.get(&table.sides(source, destination), Precedence::ServiceToService);
                    assert_eq!(found.map(|said| said.number), pairs.get(&(from, to)).copied(), "{source} -> {destination}");
                }
            }
        }
    }

    #[test]
    fn a_pair_with_a_star_is_found_by_its_other_side() {
        let mut filling = Filling::with_room_for(0, Keys::known());
        for (source, destination, number) in [(0, 0, 1), (0, 2, 2), (3, 0, 3)] {
            filling.change(&party(source), &party(destination), |_| Said { kind: Kind::Deny, number });
        }
        let table = filling.finish();
        let numbers = |source, destination| {
            let (source, destination) = (service(source), service(destination));
            let shapes = [Precedence::ServiceToService, Precedence::AnyToService, Precedence::ServiceToAny, Precedence::AnyToAny];
            shapes.map(|shape| table.get(&table.sides(&source, &destination), shape).map(|said| said.number))
        };
        assert_eq!(numbers(3, 2), [None, Some(2), Some(3), Some(1)]);
        assert_eq!(numbers(2, 3), [None, None, None, Some(1)]);
    }

    #[test]
    fn a_pair_that_is_said_twice_has_one_place() {
        let mut filling = Filling::with_room_for(0, Keys::known());
        filling.change(&party(1), &party(2), |before| {
            assert_eq!(before, None);
            Said { kind: Kind::Allow, number: Said::MOST }
        });
        filling.change(&party(1), &party(2), |before| {
            assert_eq!(before, Some(Said { kind: Kind::Allow, number: Said::MOST }));
            Said { kind: Kind::Elsewhere, number: 5 }
        });
        assert_eq!(filling.filled, 1);
        let table = filling.finish();
        let (source, destination) = (service(1), service(2));
        let said = table.get(&table.sides(&source, &destination), Precedence::ServiceToService);
        assert_eq!(said, Some(Said { kind: Kind::Elsewhere, number: 5 }));
    }

    #[test]
    fn names_of_every_length_are_told_apart() {
        let names: Vec<ServiceName> =
            (1..=63).flat_map(|n| ["a", "b"].map(|end| format!("{}{end}", "a".repeat(n - 1)).parse().unwrap())).collect();
        let mut filling = Filling::with_room_for(0, Keys::known());
        for (name, number) in names.iter().zip(0..) {
            filling.change(&Party::Service(name.clone()), &Party::Any, |_| Said { kind: Kind::Allow, number });
        }
        let table = filling.finish();
        for (name, number) in names.iter().zip(0..) {
            let said = table.get(&table.sides(name, name), Precedence::ServiceToAny);
            assert_eq!(said.map(|said| said.number), Some(number), "{name}");
        }
    }
}
