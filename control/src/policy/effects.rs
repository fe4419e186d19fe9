//! What a change of intentions would do to the calls that were seen, and to those that are open.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use postern_api::http::{Applied, OpenPair, WouldClose};
use postern_edges::effects::{Effects, effects};
use postern_edges::{Called, Edge, OpenKey, Seen, Shape, Sighting, Tally, Verdict, judge};
use postern_intentions::{Intention, PairKey, Protocol, Rule, RuleSet};
use postern_names::ServiceName;
use postern_traffic::ServiceSettings;

use crate::mirror::View;

/// Pairs of which is told how much would be closed.
const MOST_PAIRS: usize = 100;

/// The rules as they are, and as they would be.
pub struct Change {
    before: Arc<RuleSet>,
    after: RuleSet,
    /// Services that are called, as they judge now.
    called: HashMap<ServiceName, Called>,
    /// Intentions that come or go and look at what is not counted.
    looks_further: Vec<String>,
    /// Calls whose paths are not told apart, of pairs of which an intention with permissions comes or goes.
    any_path: u64,
}

impl Change {
    /// Of what an apply would do to what the view holds, for these calls.
    pub fn of(view: &View, applied: &Applied, seen: &[Seen], open: &[(OpenKey, u64)]) -> Self {
        let removed: BTreeSet<PairKey> = applied.removed.iter().map(Intention::key).collect();
        let set: BTreeMap<PairKey, &Intention> = sets(applied).map(|intention| (intention.key(), intention)).collect();
        let default = applied.default.map_or(view.default.0, |(_, after)| after);
        let mut called = called(view, seen.iter().map(|seen| &seen.sighting));
        for (key, _) in open {
            called.entry(key.destination.clone()).or_insert_with(|| called_as(view, &key.destination));
        }
        let befores = applied.changed.iter().map(|(before, _)| before).chain(&applied.removed);
        let by_request: Vec<&Intention> =
            sets(applied).chain(befores.clone()).filter(|one| matches!(one.rule, Rule::Permissions { .. })).collect();
        let judges = |edge: &Edge| {
            by_request.iter().any(|one| one.source.includes(&edge.source) && one.destination.includes(&edge.destination))
        };
        let is_any = |edge: &Edge| edge.http.as_ref().is_some_and(|http| http.shape == Shape::rest());
        let any_path = seen.iter().map(|seen| &seen.sighting).filter(|seen| is_any(&seen.edge) && judges(&seen.edge));
        let any_path = any_path.fold(0u64, |sum, seen| sum.saturating_add(seen.tally.count));
        let further = sets(applied).chain(befores).filter(|intention| looks_further(intention)).map(Intention::pair);
        Self {
            before: view.rules(),
            after: view.rules_with(default, &removed, &set),
            called,
            any_path,
            looks_further: further.collect::<BTreeSet<_>>().into_iter().collect(),
        }
    }

    fn called(&self, service: &ServiceName) -> Called {
        self.called.get(service).copied().unwrap_or_default()
    }

    /// What becomes of the calls that were seen.
    pub fn effects(&self, seen: &[Seen], now: SystemTime) -> Effects {
        effects(seen, &self.before, &self.after, |service| self.called(service), now)
    }

    /// What is open, goes on now, and would be closed.
    pub fn closes(&self, open: &[(OpenKey, u64)], now: SystemTime) -> WouldClose {
        let mut pairs: BTreeMap<(&ServiceName, &ServiceName), OpenPair> = BTreeMap::new();
        for (key, count) in open {
            let (call, called) = (call_of(key, now), self.called(&key.destination));
            if !judge(&self.before, &call, called, now).allowed() || judge(&self.after, &call, called, now).allowed() {
                continue;
            }
            let pair = pairs.entry((&key.source, &key.destination)).or_insert_with(|| OpenPair {
                source: key.source.clone(),
                destination: key.destination.clone(),
                connections: 0,
                requests: 0,
            });
            match key.http {
                None => pair.connections += count,
                Some(_) => pair.requests += count,
            }
        }
        let mut of: Vec<OpenPair> = pairs.into_values().collect();
        let sum = |each: fn(&OpenPair) -> u64| of.iter().map(each).sum();
        let (connections, requests) = (sum(|pair| pair.connections), sum(|pair| pair.requests));
        of.sort_by_key(|pair| std::cmp::Reverse(pair.connections + pair.requests));
        of.truncate(MOST_PAIRS);
        WouldClose { connections, requests, of }
    }

    /// What cannot be judged for sure.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.looks_further.is_empty() {
            let pairs = self.looks_further.join(", ");
            notes.push(format!(
                "{pairs}: permissions on headers, queries and tokens are judged as if calls had none, since these are not counted"
            ));
        }
        if self.any_path > 0 {
            notes.push(format!(
                "the paths of {} calls were too many to tell apart (`…`): what permissions say of them is not known for sure",
                self.any_path
            ));
        }
        notes
    }
}

/// What is set anew.
fn sets(applied: &Applied) -> impl Iterator<Item = &Intention> {
    applied.added.iter().chain(applied.changed.iter().map(|(_, after)| after))
}

fn looks_further(intention: &Intention) -> bool {
    match &intention.rule {
        Rule::Action(_) => false,
        Rule::Permissions { permissions, .. } => permissions
            .iter()
            .any(|permission| !permission.headers.is_empty() || !permission.query.is_empty() || !permission.jwt.is_empty()),
    }
}

/// How the destinations of these calls judge now.
pub fn called<'a>(view: &View, seen: impl IntoIterator<Item = &'a Sighting>) -> HashMap<ServiceName, Called> {
    let mut called = HashMap::new();
    for sighting in seen {
        let destination = &sighting.edge.destination;
        called.entry(destination.clone()).or_insert_with(|| called_as(view, destination));
    }
    called
}

fn called_as(view: &View, service: &ServiceName) -> Called {
    let paths = view.settings.of(service).map(ServiceSettings::paths).unwrap_or_default();
    Called { protocol: view.protocol(service), paths }
}

/// A call like those that are open.
fn call_of(key: &OpenKey, now: SystemTime) -> Sighting {
    let edge = Edge {
        source: key.source.clone(),
        destination: key.destination.clone(),
        port: key.port.clone(),
        protocol: Protocol::Tcp,
        verdict: Verdict::Allow,
        because: "".into(),
        http: key.http.clone(),
    };
    Sighting { edge, tally: Tally::new(now), instances: 0 }
}
