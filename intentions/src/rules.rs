//! The compiled rule set: everything that a decision needs, in one table.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use postern_names::ServiceName;

use crate::error::IntentionError;
use crate::http::Permissions;
use crate::keyed_hash::Keys;
use crate::table::{Filling, Kind, Said, Sides, Table};
use crate::{Action, DefaultPolicy, Intention, Mode, PairKey, Precedence, Rule};

/// Highest first: `web -> api`, `* -> api`, `web -> *`, `* -> *`.
pub(crate) const PRECEDENCES: [Precedence; 4] =
    [Precedence::ServiceToService, Precedence::AnyToService, Precedence::ServiceToAny, Precedence::AnyToAny];

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
/// A pair with an intention of its own is decided by one look-up, any other by one more for each shape of wildcard that
/// occurs: `* -> api`, `web -> *`, `* -> *`.
#[derive(Debug)]
pub struct RuleSet {
    default: DefaultPolicy,
    table: Table,
    /// Pairs that say more than fits the table.
    pairs: Vec<Pair>,
    /// When temporary intentions end, in order.
    expiries: Vec<SystemTime>,
    entries: usize,
}

/// Permissions that were compiled before, by the intention that they are of, which they keep alive.
type Compiled = HashMap<*const Intention, Arc<Permissions>>;

/// The two places of a pair.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pair {
    pub(crate) permanent: Option<Slot>,
    pub(crate) temporary: Option<Box<Slot>>,
}

/// One stored intention of a pair. `Rules` and `Why` are borrowed while a call is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<Rules = Arc<Permissions>, Why = Arc<str>> {
    pub(crate) revision: u64,
    pub(crate) until: Option<SystemTime>,
    pub(crate) says: Says<Rules, Why>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Says<Rules = Arc<Permissions>, Why = Arc<str>> {
    Action(Action, Mode),
    Permissions(Mode, Rules),
    NotUnderstood(Why),
}

/// A slot while a call is judged.
pub(crate) type Borrowed<'r> = Slot<&'r Permissions, &'r Arc<str>>;

/// What was found for a pair.
#[derive(Clone, Copy)]
pub(crate) enum Found<'r> {
    /// One permanent intention of an action, and its revision.
    Action(Action, Mode, u64),
    /// Anything else.
    Pair(&'r Pair),
}

impl<'r> Found<'r> {
    /// The pair's intention that governs, if any does.
    #[inline]
    pub(crate) fn governing(self, now: SystemTime) -> Option<Borrowed<'r>> {
        match self {
            Self::Action(action, mode, revision) => Some(Slot { revision, until: None, says: Says::Action(action, mode) }),
            Self::Pair(pair) => pair.governing(now).map(Slot::borrowed),
        }
    }

    /// Both places.
    pub(crate) fn into_pair(self) -> Cow<'r, Pair> {
        match self {
            Self::Action(action, mode, revision) => {
                let slot = Slot { revision, until: None, says: Says::Action(action, mode) };
                Cow::Owned(Pair { permanent: Some(slot), temporary: None })
            }
            Self::Pair(pair) => Cow::Borrowed(pair),
        }
    }
}

impl Slot {
    fn of(intention: &Arc<Intention>, revision: u64, compiled: &Compiled) -> Self {
        let says = match compiled.get(&Arc::as_ptr(intention)) {
            Some(permissions) => Says::Permissions(intention.mode, Arc::clone(permissions)),
            None => Self::understood(intention).unwrap_or_else(|error| Says::NotUnderstood(error.to_string().into())),
        };
        Self { revision, until: intention.expires_at, says }
    }

    /// Whatever is not valid is not understood either, whoever handed it in.
    fn understood(intention: &Arc<Intention>) -> Result<Says, IntentionError> {
        intention.validate()?;
        Ok(match &intention.rule {
            Rule::Action(action) => Says::Action(*action, intention.mode),
            Rule::Permissions { permissions, otherwise } => {
                Says::Permissions(intention.mode, Arc::new(Permissions::compile(intention, permissions, *otherwise)?))
            }
        })
    }

    fn borrowed(&self) -> Borrowed<'_> {
        let says = match &self.says {
            Says::Action(action, mode) => Says::Action(*action, *mode),
            Says::Permissions(mode, permissions) => Says::Permissions(*mode, &**permissions),
            Says::NotUnderstood(why) => Says::NotUnderstood(why),
        };
        Slot { revision: self.revision, until: self.until, says }
    }

    /// What the table says for this one alone in its pair, if that fits.
    fn said(&self) -> Option<Said> {
        let kind = match self.says {
            Says::Action(Action::Allow, Mode::Enforce) => Kind::Allow,
            Says::Action(Action::Deny, Mode::Enforce) => Kind::Deny,
            Says::Action(Action::Allow, Mode::Audit) => Kind::AllowAudit,
            Says::Action(Action::Deny, Mode::Audit) => Kind::DenyAudit,
            Says::Permissions(..) | Says::NotUnderstood(_) => return None,
        };
        let fits = self.until.is_none() && self.revision <= Said::MOST;
        fits.then_some(Said { kind, number: self.revision })
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
        Self::compile_with(Keys::random(), default, entries, &Compiled::new())
    }

    /// As [`RuleSet::compile`]. Permissions of an intention that `before` holds too, by the same `Arc`, are not compiled again:
    /// a regular expression takes longer than a thousand intentions of an action.
    pub fn compile_after(before: &Self, default: DefaultPolicy, entries: impl IntoIterator<Item = Entry>) -> Self {
        let slots = before.pairs.iter().flat_map(|pair| pair.temporary.as_deref().into_iter().chain(&pair.permanent));
        let compiled = slots.filter_map(|slot| match &slot.says {
            Says::Permissions(_, permissions) => Some((Arc::as_ptr(&permissions.of), Arc::clone(permissions))),
            Says::Action(..) | Says::NotUnderstood(_) => None,
        });
        Self::compile_with(Keys::random(), default, entries, &compiled.collect())
    }

    /// As [`RuleSet::compile`], with the same hash keys each time, so that instructions can be counted. Never for rules
    /// that judge anybody: whoever knows the keys can prepare names that collide.
    #[doc(hidden)]
    pub fn compile_with_known_keys(default: DefaultPolicy, entries: impl IntoIterator<Item = Entry>) -> Self {
        Self::compile_with(Keys::known(), default, entries, &Compiled::new())
    }

    fn compile_with(keys: Keys, default: DefaultPolicy, entries: impl IntoIterator<Item = Entry>, compiled: &Compiled) -> Self {
        let entries = entries.into_iter();
        let mut filling = Filling::with_room_for(entries.size_hint().0, keys);
        let (mut pairs, mut expiries, mut count) = (Vec::new(), Vec::new(), 0);
        for Entry { revision, content } in entries {
            count += 1;
            match content {
                EntryContent::Understood(intention) => {
                    expiries.extend(intention.expires_at);
                    let slot = Slot::of(&intention, revision, compiled);
                    let is_temporary = intention.is_temporary();
                    filling.change(&intention.source, &intention.destination, |said| put(&mut pairs, said, slot, is_temporary));
                }
                EntryContent::NotUnderstood { key, why } => {
                    let slot = Slot { revision, until: None, says: Says::NotUnderstood(why) };
                    filling.change(&key.source, &key.destination, |said| put(&mut pairs, said, slot, key.temporary));
                }
            }
        }
        expiries.sort_unstable();
        expiries.dedup();
        Self { default, table: filling.finish(), pairs, expiries, entries: count }
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

    /// The names of a call, ready to be looked up.
    #[inline]
    pub(crate) fn sides<'a>(&self, source: &'a ServiceName, destination: &'a ServiceName) -> Sides<'a> {
        self.table.sides(source, destination)
    }

    /// What is said of the call's pair with this precedence.
    #[inline]
    pub(crate) fn get(&self, sides: &Sides<'_>, precedence: Precedence) -> Option<Found<'_>> {
        found(&self.pairs, self.table.get(sides, precedence)?)
    }
}

/// What the table says means. Nothing for a free place, and there is no place that names a pair that is not there.
#[inline]
fn found(pairs: &[Pair], said: Said) -> Option<Found<'_>> {
    let (action, mode) = match said.kind {
        Kind::Free => return None,
        Kind::Allow => (Action::Allow, Mode::Enforce),
        Kind::Deny => (Action::Deny, Mode::Enforce),
        Kind::AllowAudit => (Action::Allow, Mode::Audit),
        Kind::DenyAudit => (Action::Deny, Mode::Audit),
        Kind::Elsewhere => return pairs.get(said.number as usize).map(Found::Pair),
    };
    Some(Found::Action(action, mode, said.number))
}

/// Adds a slot to what is said of its pair; tells what to say now.
fn put(pairs: &mut Vec<Pair>, said: Option<Said>, slot: Slot, is_temporary: bool) -> Said {
    if let (None, false, Some(alone)) = (said, is_temporary, slot.said()) {
        return alone;
    }
    if let Some(Said { kind: Kind::Elsewhere, number }) = said
        && let Some(pair) = pairs.get_mut(number as usize)
    {
        pair.put(slot, is_temporary);
        return Said { kind: Kind::Elsewhere, number };
    }
    let mut pair = said.and_then(|said| found(pairs, said)).map_or_else(Pair::default, |found| found.into_pair().into_owned());
    pair.put(slot, is_temporary);
    pairs.push(pair);
    Said { kind: Kind::Elsewhere, number: pairs.len() as u64 - 1 }
}
