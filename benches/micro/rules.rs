//! Rule sets of any size, and calls to judge by them.

use std::sync::Arc;

use postern_intentions::{Action, Entry, EntryContent, Intention};
use postern_names::ServiceName;

/// How the intentions lie.
#[derive(Clone, Copy)]
pub enum Shape {
    /// Of a whole mesh, as the control plane has them: a thousand services, each with a hundred that it calls.
    Mesh,
    /// Of one service, as its sidecar has them: every intention names another caller.
    Sidecar,
}

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Sidecar => "sidecar",
        }
    }

    /// The sides of `count` intentions.
    pub fn pairs(self, count: usize) -> Vec<(String, String)> {
        let callers = match self {
            Self::Mesh => (count / 100).max(5),
            Self::Sidecar => count,
        };
        (0..count).map(|n| (format!("web-service-{}", n % callers), format!("api-service-{}", n / callers))).collect()
    }
}

/// An intention for each pair; every third one denies.
pub fn entries(pairs: &[(String, String)]) -> Vec<Entry> {
    pairs
        .iter()
        .zip(1_u64..)
        .map(|((source, destination), revision)| {
            let action = if revision.is_multiple_of(3) { Action::Deny } else { Action::Allow };
            let party = |text: &str| text.parse().expect("a service name");
            let intention = Intention::new(party(source), party(destination), action);
            Entry { revision, content: EntryContent::Understood(Arc::new(intention)) }
        })
        .collect()
}

/// 65,536 calls on `hot` of the pairs, in an order that is random and always the same. The names of a call lie together,
/// as they do when its certificate was just read.
pub fn calls(pairs: &[(String, String)], hot: usize) -> Vec<(ServiceName, ServiceName)> {
    let mut random = Random(7);
    let hot: Vec<usize> = (0..hot).map(|_| random.below(pairs.len())).collect();
    let mut call = || {
        let (source, destination) = &pairs[hot[random.below(hot.len())]];
        (source.parse().expect("a service name"), destination.parse().expect("a service name"))
    };
    (0..65_536).map(|_| call()).collect()
}

/// SplitMix64: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}
