//! Intentions and permissions that decide nothing, because others stand before them or say the same.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use postern_names::ServiceName;
use serde::{Deserialize, Serialize};

use crate::http::path_covers;
use crate::{Action, Intention, Party, Permission, Precedence, Rule};

/// Comparisons of permissions of all intentions together; what comes after is not looked at.
const COMPARISONS: usize = 2_000_000;

/// An intention, or a permission of one, that could be left out without any verdict being another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadowed {
    /// `web -> api`
    pub intention: String,
    /// The permission of it that no request reaches, counted from 0; none: the whole intention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<usize>,
    /// What stands before it: `* -> api`, several of them, or `permission 0`.
    pub by: String,
    /// What that one does: `says the same`.
    pub why: String,
}

/// `web -> api: * -> api says the same`, `web -> api, permission 2: permission 0 takes every request before it`
impl fmt::Display for Shadowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { intention, permission, by, why } = self;
        f.write_str(intention)?;
        if let Some(index) = permission {
            write!(f, ", permission {index}")?;
        }
        write!(f, ": {by} {why}")
    }
}

/// Which of `judged` decide nothing in the set `all`, which holds them: permanent intentions, one a pair. Taking out every
/// intention that is found to say the same as another changes no verdict. `services` are those that there are: an
/// intention `web -> *` that gives way to a `* -> DST` for each of them is found, too.
pub fn shadowed<'a>(
    judged: impl IntoIterator<Item = &'a Intention>,
    all: &'a [Intention],
    services: &BTreeSet<ServiceName>,
) -> Vec<Shadowed> {
    let set = Set::of(all);
    let mut comparisons = 0;
    let mut found = Vec::new();
    for intention in judged {
        match set.said_by(intention).or_else(|| set.gives_way(intention, services)) {
            Some(shadowed) => found.push(shadowed),
            None => found.extend(unreached(intention, &mut comparisons)),
        }
    }
    found
}

/// Which of `judged` match no call, since a side of them names a service that is not among `services`.
pub fn never_matched<'a>(judged: impl IntoIterator<Item = &'a Intention>, services: &BTreeSet<ServiceName>) -> Vec<String> {
    let is_known = |party: &Party| party.service().is_none_or(|name| services.contains(name));
    let judged = judged.into_iter();
    judged.filter(|one| !is_known(&one.source) || !is_known(&one.destination)).map(Intention::pair).collect()
}

/// A set of permanent intentions, by pair.
struct Set<'a> {
    by_pair: HashMap<(&'a Party, &'a Party), &'a Intention>,
    /// Sources of every `web -> *` that says something else than `* -> *`.
    deviating: HashSet<&'a Party>,
}

impl<'a> Set<'a> {
    fn of(all: &'a [Intention]) -> Self {
        let by_pair: HashMap<_, _> = all.iter().map(|one| ((&one.source, &one.destination), one)).collect();
        let widest = by_pair.get(&(&Party::Any, &Party::Any)).copied();
        let of_sources = all.iter().filter(|one| one.precedence() == Precedence::ServiceToAny);
        let deviating = of_sources.filter(|one| !widest.is_some_and(|widest| says_the_same(one, widest)));
        let deviating = deviating.map(|one| &one.source).collect();
        Self { by_pair, deviating }
    }

    fn get(&self, source: &Party, destination: &Party) -> Option<&'a Intention> {
        self.by_pair.get(&(source, destination)).copied()
    }

    /// The one that would decide in its place, and says the same.
    fn said_by(&self, one: &Intention) -> Option<Shadowed> {
        let widest = || self.get(&Party::Any, &Party::Any);
        let next = match one.precedence() {
            Precedence::ServiceToService => {
                self.get(&Party::Any, &one.destination).or_else(|| self.get(&one.source, &Party::Any)).or_else(widest)
            }
            Precedence::AnyToService => widest().filter(|_| self.all_deviating_are_exempt(one)),
            Precedence::ServiceToAny => widest(),
            Precedence::AnyToAny => None,
        };
        let next = next.filter(|next| says_the_same(one, next))?;
        Some(Shadowed { intention: one.pair(), permission: None, by: next.pair(), why: "says the same".to_owned() })
    }

    /// Without this `* -> DST`, every `web -> *` that says something else would decide, but for callers with an intention of
    /// their own; one that says the same as this does not count: it may be taken out, too.
    fn all_deviating_are_exempt(&self, one: &Intention) -> bool {
        let is_exempt = |source: &Party| self.get(source, &one.destination).is_some_and(|exact| !says_the_same(exact, one));
        self.deviating.iter().all(|source| is_exempt(source))
    }

    /// A `web -> *` that never decides, since there is something more exact for every service; more than catching what is
    /// left was meant where a `* -> DST` that says something else goes before it.
    fn gives_way(&self, one: &Intention, services: &BTreeSet<ServiceName>) -> Option<Shadowed> {
        if one.precedence() != Precedence::ServiceToAny {
            return None;
        }
        let others = services.iter().filter(|service| one.source.service() != Some(service));
        let mut before = Vec::new();
        let mut overrules = false;
        for service in others {
            let destination = Party::Service(service.clone());
            let exact = self.get(&one.source, &destination);
            let of_all = || self.get(&Party::Any, &destination);
            overrules |= exact.is_none() && of_all().is_some_and(|of_all| !says_the_same(one, of_all));
            before.push(exact.or_else(of_all)?.pair());
        }
        let shown = before.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let by = match before.len().checked_sub(3) {
            Some(more) if more > 0 => format!("{shown} and {more} more"),
            _ => shown,
        };
        let verb = if before.len() == 1 { "goes" } else { "go" };
        let why = format!("{verb} before it, and there is no other service");
        overrules.then_some(Shadowed { intention: one.pair(), permission: None, by, why })
    }
}

fn says_the_same(a: &Intention, b: &Intention) -> bool {
    a.rule == b.rule && a.mode == b.mode
}

/// Permissions behind one that takes all of their requests.
fn unreached(intention: &Intention, comparisons: &mut usize) -> Vec<Shadowed> {
    let Rule::Permissions { permissions, .. } = &intention.rule else { return Vec::new() };
    let mut found = Vec::new();
    for (index, narrow) in permissions.iter().enumerate() {
        *comparisons += index;
        if *comparisons > COMPARISONS {
            break;
        }
        if let Some(wide) = permissions.iter().take(index).position(|wide| covers(wide, narrow)) {
            found.push(Shadowed {
                intention: intention.pair(),
                permission: Some(index),
                by: format!("permission {wide}"),
                why: "takes every request before it".to_owned(),
            });
        }
    }
    found
}

/// Whether every request that `narrow` matches is matched by `wide`. Where that is not plain, it is said not to be.
fn covers(wide: &Permission, narrow: &Permission) -> bool {
    // A deny matches methods in any case and values that are not understood, which an allow does not.
    let may_differ = narrow.action == Action::Deny && wide.action == Action::Allow;
    if may_differ && !(wide.methods.is_empty() && wide.headers.is_empty() && wide.query.is_empty()) {
        return false;
    }
    let path = match (&wide.path, &narrow.path) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => path_covers(wide, narrow),
        (Some(_), None) => false,
    };
    path && includes(&wide.methods, &narrow.methods)
        && includes(&wide.ports, &narrow.ports)
        && wide.headers.iter().all(|criterion| narrow.headers.contains(criterion))
        && wide.query.iter().all(|criterion| narrow.query.contains(criterion))
        && wide.jwt.iter().all(|criterion| narrow.jwt.contains(criterion))
}

/// Lists of which one has to match; empty: anything does.
fn includes<T: PartialEq>(wide: &[T], narrow: &[T]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|one| wide.contains(one)))
}
