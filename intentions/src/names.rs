//! The names of a rule set, packed, so that those of 100,000 services are two or three megabytes.

use crate::keyed_hash::{Keys, half_word, word};

/// Where `*` is, which no service is called.
pub(crate) const ANY: u32 = 0;
/// The text of `*`.
pub(crate) const ANY_TEXT: &[u8] = b"*";

/// Names begin at multiples of this: the place of a name is counted in words.
const WORD: usize = 8;

/// Names by their place: a byte of length, then the text (at most 63 bytes, RFC 1035 §2.3.4), then zeros up to a whole word.
pub(crate) struct Names(Vec<u8>);

impl Names {
    /// Whether this is the name at the place.
    #[inline]
    pub(crate) fn is(&self, place: u32, name: &[u8]) -> bool {
        are_equal(self.text(place), name)
    }

    #[inline]
    fn text(&self, place: u32) -> &[u8] {
        match self.0.get(place as usize * WORD..) {
            Some([length, rest @ ..]) => rest.get(..usize::from(*length)).unwrap_or_default(),
            _ => &[],
        }
    }

    fn add(&mut self, name: &[u8]) -> u32 {
        // 2³² words are 32 GiB of names: memory ends before.
        let place = (self.0.len() / WORD) as u32;
        self.0.push(name.len() as u8);
        self.0.extend_from_slice(name);
        self.0.resize(self.0.len().next_multiple_of(WORD), 0);
        place
    }
}

/// As `==`, without a call: names are short.
#[inline]
fn are_equal(a: &[u8], b: &[u8]) -> bool {
    let length = a.len();
    if length != b.len() {
        return false;
    }
    match length {
        0..=3 => a == b,
        4..=7 => half_word(a, 0) == half_word(b, 0) && half_word(a, length - 4) == half_word(b, length - 4),
        _ => {
            let mut at = 0;
            while at + 8 < length {
                if word(a, at) != word(b, at) {
                    return false;
                }
                at += 8;
            }
            word(a, length - 8) == word(b, length - 8)
        }
    }
}

/// Gives names their places, while a rule set is compiled.
pub(crate) struct Naming {
    keys: Keys,
    names: Names,
    /// Open, at most half full.
    index: Vec<Named>,
    named: usize,
}

/// A name that has a place, with its hash; [`ANY`] marks what is free.
#[derive(Clone, Copy)]
pub(crate) struct Named {
    pub(crate) place: u32,
    pub(crate) hash: u64,
}

impl Naming {
    /// Only `*` has a place.
    pub(crate) fn new(keys: Keys) -> Self {
        let mut names = Names(Vec::new());
        let any = names.add(ANY_TEXT);
        debug_assert_eq!(any, ANY);
        Self { keys, names, index: vec![Named { place: ANY, hash: 0 }; 16], named: 0 }
    }

    /// `*`
    pub(crate) fn any(&self) -> Named {
        Named { place: ANY, hash: self.keys.of_name(ANY_TEXT) }
    }

    /// The place of a name that is not `*`; a new one if it has none.
    pub(crate) fn of(&mut self, name: &[u8]) -> Named {
        let hash = self.keys.of_name(name);
        let mask = self.index.len() - 1;
        let mut at = (hash as usize) & mask;
        while self.index[at].place != ANY {
            if self.index[at].hash == hash && self.names.is(self.index[at].place, name) {
                return self.index[at];
            }
            at = (at + 1) & mask;
        }
        let named = Named { place: self.names.add(name), hash };
        self.index[at] = named;
        self.named += 1;
        if self.named * 2 > self.index.len() {
            self.grow();
        }
        named
    }

    /// The text of a name.
    pub(crate) fn text(&self, place: u32) -> &[u8] {
        self.names.text(place)
    }

    /// The names alone.
    pub(crate) fn finish(mut self) -> Names {
        self.names.0.shrink_to_fit();
        self.names
    }

    fn grow(&mut self) {
        let mut index = vec![Named { place: ANY, hash: 0 }; self.index.len() * 4];
        let mask = index.len() - 1;
        for named in self.index.iter().filter(|named| named.place != ANY) {
            let mut at = (named.hash as usize) & mask;
            while index[at].place != ANY {
                at = (at + 1) & mask;
            }
            index[at] = *named;
        }
        self.index = index;
    }
}
