//! The compiled rule set: everything that a decision needs, in hash tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use postern_names::ServiceName;

use crate::keyed_hash::KeyedState;
use crate::{Action, DefaultPolicy, Intention, Mode, PairKey, Party, Rule};

/// One intention as it is stored, with the revision that last changed it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The store revision that last changed it.
    pub revision: u64,
    /// What it says, if that is understood.
    pub content: EntryContent,
}

/// The content of an [`Entry`].
#[derive(Debug, Clone)]
pub enum EntryContent {
    /// A valid intention.
    Understood(Arc<Intention>),
    /// One that cannot be read or holds something unknown: it denies its pair.
    NotUnderstood {
        /// Its place.
        key: PairKey,
        /// What was not understood.
        why: Arc<str>,
    },
}

/// All intentions that apply somewhere, compiled for [`decide`](crate::decide). It does not change: a new one takes its place.
///
/// A decision takes three hash look-ups: source, destination, and the pair of both. What is said of `web -> *` and
/// `* -> web` lies with the name `web`.
#[derive(Debug)]
pub struct RuleSet {
    default: DefaultPolicy,
    names: HashMap<ServiceName, Name, KeyedState>,
    pairs: HashMap<u64, Pair, KeyedState>,
    any_to_any: Pair,
    /// When temporary intentions end, in order.
    expiries: Vec<SystemTime>,
    entries: usize,
}

/// What is known of a service by its name alone.
#[derive(Debug)]
struct Name {
    /// Stands for the name in the key of a pair.
    id: u32,
    to_any: Option<Box<Pair>>,
    from_any: Option<Box<Pair>>,
}

/// The two places of a pair.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    pub(crate) permanent: Option<Slot>,
    pub(crate) temporary: Option<Box<Slot>>,
}

/// One stored intention of a pair.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) revision: u64,
    pub(crate) until: Option<SystemTime>,
    pub(crate) says: Says,
}

#[derive(Debug)]
pub(crate) enum Says {
    Action(Action, Mode),
    Permissions(Mode),
    NotUnderstood(Arc<str>),
}

impl Slot {
    fn of(intention: &Intention, revision: u64) -> Self {
        // Whatever is not valid is not understood either, whoever handed it in.
        let says = match (intention.validate(), &intention.rule) {
            (Err(error), _) => Says::NotUnderstood(error.to_string().into()),
            (Ok(()), Rule::Action(action)) => Says::Action(*action, intention.mode),
            (Ok(()), Rule::Permissions { .. }) => Says::Permissions(intention.mode),
        };
        Self { revision, until: intention.expires_at, says }
    }

    pub(crate) fn is_understood(&self) -> bool {
        !matches!(self.says, Says::NotUnderstood(_))
    }

    pub(crate) fn is_live(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|end| now < end)
    }

    /// Whether this one goes where two entries claim the same place: what is not understood stays, then the newer one.
    fn yields_to(&self, other: &Self) -> bool {
        self.is_understood() && (!other.is_understood() || other.revision >= self.revision)
    }
}

impl Pair {
    /// The one of the pair's intentions that governs, if any does. One that is not understood comes first: it might have
    /// said anything.
    pub(crate) fn governing(&self, now: SystemTime) -> Option<&Slot> {
        let Some(temporary) = self.temporary.as_deref() else {
            return self.permanent.as_ref();
        };
        if !temporary.is_understood() {
            return Some(temporary);
        }
        match &self.permanent {
            Some(permanent) if !permanent.is_understood() => Some(permanent),
            _ if temporary.is_live(now) => Some(temporary),
            permanent => permanent.as_ref(),
        }
    }

    fn put(&mut self, slot: Slot, temporary: bool) {
        if temporary {
            if self.temporary.as_ref().is_none_or(|old| old.yields_to(&slot)) {
                self.temporary = Some(Box::new(slot));
            }
        } else if self.permanent.as_ref().is_none_or(|old| old.yields_to(&slot)) {
            self.permanent = Some(slot);
        }
    }
}

impl RuleSet {
    /// Compiles entries in any order. Where two claim the same place, one that is not understood stays, else the one
    /// with the higher revision. An intention that is not valid counts as not understood.
    pub fn compile(default: DefaultPolicy, entries: impl IntoIterator<Item = Entry>) -> Self {
        let entries = entries.into_iter();
        let mut rules = Self {
            default,
            names: HashMap::with_hasher(KeyedState::random()),
            pairs: HashMap::with_capacity_and_hasher(entries.size_hint().0, KeyedState::random()),
            any_to_any: Pair::default(),
            expiries: Vec::new(),
            entries: 0,
        };
        for Entry { revision, content } in entries {
            rules.entries += 1;
            match content {
                EntryContent::Understood(intention) => {
                    rules.expiries.extend(intention.expires_at);
                    let slot = Slot::of(&intention, revision);
                    rules.pair_mut(&intention.source, &intention.destination).put(slot, intention.is_temporary());
                }
                EntryContent::NotUnderstood { key, why } => {
                    let slot = Slot { revision, until: None, says: Says::NotUnderstood(why) };
                    rules.pair_mut(&key.source, &key.destination).put(slot, key.temporary);
                }
            }
        }
        rules.expiries.sort_unstable();
        rules.expiries.dedup();
        if rules.pairs.capacity() / 4 > rules.pairs.len() {
            rules.pairs.shrink_to_fit();
        }
        rules
    }

    /// Denies every call: what a sidecar starts with.
    pub fn deny_all() -> Self {
        Self::compile(DefaultPolicy::Deny, [])
    }

    /// The verdict where nothing matches.
    pub fn default_policy(&self) -> DefaultPolicy {
        self.default
    }

    /// How many entries it was compiled from.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether only the default speaks.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// When the next temporary intention ends, after `now`: decisions do not change by time alone before that.
    pub fn next_expiry(&self, now: SystemTime) -> Option<SystemTime> {
        let ended = self.expiries.partition_point(|end| *end <= now);
        self.expiries.get(ended).copied()
    }

    /// What is said of the call's pairs, highest precedence first: `web -> api`, `* -> api`, `web -> *`, `* -> *`.
    pub(crate) fn matching(&self, source: &ServiceName, destination: &ServiceName) -> [Option<&Pair>; 4] {
        let source = self.names.get(source);
        let destination = self.names.get(destination);
        let exact = match (source, destination) {
            (Some(source), Some(destination)) => self.pairs.get(&pair_id(source.id, destination.id)),
            _ => None,
        };
        [
            exact,
            destination.and_then(|name| name.from_any.as_deref()),
            source.and_then(|name| name.to_any.as_deref()),
            Some(&self.any_to_any),
        ]
    }

    fn pair_mut(&mut self, source: &Party, destination: &Party) -> &mut Pair {
        match (source, destination) {
            (Party::Any, Party::Any) => &mut self.any_to_any,
            (Party::Service(source), Party::Any) => self.name_mut(source).to_any.get_or_insert_default(),
            (Party::Any, Party::Service(destination)) => self.name_mut(destination).from_any.get_or_insert_default(),
            (Party::Service(source), Party::Service(destination)) => {
                let id = pair_id(self.id_of(source), self.id_of(destination));
                self.pairs.entry(id).or_default()
            }
        }
    }

    fn name_mut(&mut self, name: &ServiceName) -> &mut Name {
        // Every name takes far more than a byte, so their number is below 2³².
        let id = self.names.len() as u32;
        self.names.entry(name.clone()).or_insert(Name { id, to_any: None, from_any: None })
    }

    fn id_of(&mut self, name: &ServiceName) -> u32 {
        match self.names.get(name) {
            Some(known) => known.id,
            None => self.name_mut(name).id,
        }
    }
}

fn pair_id(source: u32, destination: u32) -> u64 {
    (u64::from(source) << 32) | u64::from(destination)
}
