//! What somebody who changes intentions should know beside that it was done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use postern_api::http::pair;
use postern_intentions::plan::Plan;
use postern_intentions::{
    Action, Call, DefaultPolicy, Entry, EntryContent, Intention, Mode, PairKey, Party, Protocol, Rule, RuleSet, decide,
};
use postern_names::{PortName, ServiceName};

use crate::mirror::{View, providers_in};

/// Stands for «any service that no intention names».
const ANYONE: &str = "any-service-that-no-intention-names";

/// Notes on setting `wanted` where `stored` was.
pub(super) fn of_set(view: &View, wanted: &Intention, stored: Option<&Intention>, now: SystemTime) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(opened(view, wanted, now));
    notes.extend(permissions_lost(wanted, stored));
    if !wanted.is_temporary() {
        notes.extend(temporary_in_front(view, &wanted.key(), now));
    }
    notes.extend(unknown_services(view, [&wanted.source, &wanted.destination]));
    notes
}

/// Notes on a deletion that is already in the view.
pub(super) fn of_delete(view: &View, key: &PairKey, now: SystemTime) -> Vec<String> {
    if key.temporary { Vec::new() } else { temporary_in_front(view, key, now).into_iter().collect() }
}

/// Notes on a change of the default.
pub(super) fn of_default(before: DefaultPolicy, after: DefaultPolicy) -> Vec<String> {
    let opens = before == DefaultPolicy::Deny && after != DefaultPolicy::Deny;
    if opens { vec!["this lets every service reach every other where no intention says otherwise".into()] } else { Vec::new() }
}

/// Notes on an apply: what its audit intentions open.
pub(super) fn of_plan(view: &View, plan: &Plan, now: SystemTime) -> Vec<String> {
    let set = plan.added.iter().chain(plan.changed.iter().map(|(_, after)| after));
    let mut notes: Vec<String> = set.clone().filter_map(|intention| opened(view, intention, now)).collect();
    let named: BTreeSet<PortName> = set.flat_map(providers_in).collect();
    let missing = named.iter().filter(|name| !view.settings.providers.contains_key(*name));
    notes.extend(missing.map(|name| format!("there is no JWT provider {name} yet, and no token of it is good")));
    if let Some((before, after)) = plan.default {
        notes.extend(of_default(before, after));
    }
    notes
}

/// An intention in audit mode lets through what it would deny, and so opens what a lower one or the default denies.
fn opened(view: &View, wanted: &Intention, now: SystemTime) -> Option<String> {
    let would_deny = match &wanted.rule {
        Rule::Action(action) => *action == Action::Deny,
        Rule::Permissions { .. } => true,
    };
    if wanted.mode != Mode::Audit || !would_deny {
        return None;
    }
    let source = service_or_anyone(&wanted.source)?;
    let destination = service_or_anyone(&wanted.destination)?;
    let port = PortName::main();
    let call = Call { source: &source, destination: &destination, port: &port, protocol: Protocol::Tcp, request: None };
    let without = decide(&rules_without(view, wanted, &source, &destination), &call, now);
    if without.allowed() {
        return None;
    }
    let name = |party: &Party| match party {
        Party::Any => "every service".to_owned(),
        Party::Service(name) => name.to_string(),
    };
    let because = &without.because;
    Some(format!("this lets {} reach {}, which is denied without it: {because}", name(&wanted.source), name(&wanted.destination)))
}

fn service_or_anyone(party: &Party) -> Option<ServiceName> {
    match party {
        Party::Service(name) => Some(name.clone()),
        Party::Any => ANYONE.parse().ok(),
    }
}

/// What can match the call, without both intentions of the pair itself.
fn rules_without(view: &View, wanted: &Intention, source: &ServiceName, destination: &ServiceName) -> RuleSet {
    let mut entries = Vec::new();
    for source in [Party::Service(source.clone()), Party::Any] {
        for destination in [Party::Service(destination.clone()), Party::Any] {
            if source == wanted.source && destination == wanted.destination {
                continue;
            }
            for temporary in [false, true] {
                let key = PairKey { source: source.clone(), destination: destination.clone(), temporary };
                if let Some((record, revision)) = view.intentions.get(&key) {
                    let content = EntryContent::Understood(Arc::new(record.intention.clone()));
                    entries.push(Entry { revision: *revision, content });
                }
            }
        }
    }
    RuleSet::compile(view.default.0, entries)
}

fn permissions_lost(wanted: &Intention, stored: Option<&Intention>) -> Option<String> {
    let Rule::Permissions { permissions, .. } = &stored?.rule else { return None };
    let is_lost = matches!(wanted.rule, Rule::Action(_));
    is_lost.then(|| format!("this replaced {} permissions of {}", permissions.len(), wanted.pair()))
}

/// The live temporary intention that stands in for the permanent one of this pair.
fn temporary_in_front(view: &View, key: &PairKey, now: SystemTime) -> Option<String> {
    let temporary = PairKey { temporary: true, ..key.clone() };
    let (record, _) = view.intentions.get(&temporary)?;
    if !record.intention.is_live(now) {
        return None;
    }
    let until = record.intention.expires_at.map(crate::http::rfc3339).unwrap_or_default();
    Some(format!(
        "a temporary intention governs {} until {until}; end it with `meshctl intention delete {} {} --temporary`",
        pair(&key.source, &key.destination),
        shell(&key.source),
        shell(&key.destination)
    ))
}

fn shell(party: &Party) -> String {
    match party {
        Party::Any => "'*'".into(),
        Party::Service(name) => name.to_string(),
    }
}

/// Every service that has enrolled, may enrol by a token, or is registered.
pub(super) fn known_services(view: &View) -> BTreeSet<ServiceName> {
    let mut names = view.service_names();
    names.extend(view.tokens.values().map(|token| token.service.clone()));
    names
}

/// A name that nothing in the mesh has may be a slip of the pen.
fn unknown_services(view: &View, parties: [&Party; 2]) -> Vec<String> {
    let is_known = |name: &ServiceName| {
        view.services.contains_key(name)
            || view.instances_of(name).next().is_some()
            || view.tokens.values().any(|token| token.service == *name)
    };
    let mut notes = Vec::new();
    for party in parties {
        if let Party::Service(name) = party
            && !is_known(name)
        {
            let note = format!("no service {name} has enrolled yet");
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}
