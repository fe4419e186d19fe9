//! Operations on nodes, instances without a sidecar and checks, of which each sees what those before it did.

use std::collections::BTreeMap;

use super::register::{refuse_sidecar, refuse_without_record, stays_for_sidecar, validate};
use super::{Catalog, Check, Entry, Node, Registering, RegisteringService, check};
use crate::kv::{Beside, OpError};
use crate::mirror::View;
use crate::records::{self, CheckRecord, NodeRecord, RecordKey, RegisteredRecord};
use crate::registry::Home;
use crate::store::{Compare, Op};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It is read, and must exist.
    Get,
    /// It is put, whatever was there.
    Set,
    /// It is put if it was last changed in this revision; 0: if there is none.
    Cas(u64),
    /// It is deleted, if there is one.
    Delete,
    /// It is deleted if it was last changed in this revision.
    DeleteCas(u64),
}

/// To what. Reads and deletions look at the names alone.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// A node.
    Node(NodeRecord),
    /// An instance.
    Service(RegisteredRecord),
    /// A check.
    Check(Box<CheckRecord>),
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogOp {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub subject: Subject,
}

/// What an operation read or wrote. An index of 0 is that of the transaction.
#[derive(Debug, Clone)]
pub enum Found {
    /// A node.
    Node(Node),
    /// An instance.
    Service(Entry),
    /// A check.
    Check(Check),
}

/// A record as the transaction finds or leaves it.
#[derive(Debug, Clone)]
struct State {
    /// The revision that the store has; 0: none.
    stored: u64,
    now: Option<Subject>,
    is_changed: bool,
}

struct Run<'a> {
    view: &'a View,
    home: &'a Home,
    states: BTreeMap<RecordKey, State>,
}

impl Subject {
    fn key(&self) -> RecordKey {
        match self {
            Self::Node(record) => RecordKey::Node(record.node.clone()),
            Self::Service(record) => RecordKey::Registered(record.node.clone(), record.id.clone()),
            Self::Check(record) => RecordKey::Check(record.node.clone(), record.id.clone()),
        }
    }

    fn node(&self) -> &str {
        match self {
            Self::Node(record) => &record.node,
            Self::Service(record) => &record.node,
            Self::Check(record) => &record.node,
        }
    }

    /// For messages, as Consul has it.
    pub fn shown(&self) -> String {
        match self {
            Self::Node(record) => format!("node {:?}", record.node),
            Self::Service(record) => format!("service {:?} on node {:?}", record.id, record.node),
            Self::Check(record) => format!("check {:?} on node {:?}", record.id, record.node),
        }
    }

    fn created_in(&mut self) -> &mut Option<u64> {
        match self {
            Self::Node(record) => &mut record.created_in,
            Self::Service(record) => &mut record.created_in,
            Self::Check(record) => &mut record.created_in,
        }
    }
}

impl Found {
    /// The revision of the transaction is known.
    pub fn commit(&mut self, revision: u64) {
        let (create, modify) = match self {
            Self::Node(node) => (&mut node.create, &mut node.modify),
            Self::Service(entry) => (&mut entry.create, &mut entry.modify),
            Self::Check(check) => (&mut check.create, &mut check.modify),
        };
        for index in [create, modify] {
            if *index == 0 {
                *index = revision;
            }
        }
    }
}

/// Carries the operations out on what the view shows: what has to be written, and what each of them gives, by its number.
///
/// # Errors
/// Every operation that cannot be, by its number.
pub fn evaluate(view: &View, home: &Home, ops: &[CatalogOp]) -> Result<Beside<Vec<(usize, Found)>>, Vec<OpError>> {
    let mut run = Run { view, home, states: BTreeMap::new() };
    let (mut given, mut errors) = (Vec::new(), Vec::new());
    for (number, op) in ops.iter().enumerate() {
        match run.step(op) {
            Ok(found) => given.extend(found.map(|found| (number, found))),
            Err(what) => errors.push(OpError { op: number, what, is_state: true }),
        }
    }
    let written = run.finish();
    match written {
        Ok((compares, ops)) if errors.is_empty() => Ok(Beside { compares, ops, given }),
        Ok(_) => Err(errors),
        Err(what) => Err(vec![OpError { op: 0, what, is_state: false }]),
    }
}

impl Run<'_> {
    fn step(&mut self, op: &CatalogOp) -> Result<Option<Found>, String> {
        let subject = &op.subject;
        let key = subject.key();
        let shown = subject.shown();
        let is_at = |state: &State, index: u64| !state.is_changed && state.stored == index;
        match op.verb {
            Verb::Get => {
                let found = self.found(&key, subject);
                found.map(Some).ok_or_else(|| format!("{shown} doesn't exist"))
            }
            Verb::Cas(index) if !is_at(self.state(&key), index) => Err(format!("failed to set {shown}, index is stale")),
            Verb::DeleteCas(index) if index == 0 || !is_at(self.state(&key), index) => {
                Err(format!("failed to delete {shown}, index is stale"))
            }
            Verb::Set | Verb::Cas(_) => {
                self.set(key.clone(), subject.clone())?;
                Ok(self.found(&key, subject))
            }
            Verb::Delete | Verb::DeleteCas(_) => {
                self.delete(&key, subject)?;
                Ok(None)
            }
        }
    }

    fn state(&mut self, key: &RecordKey) -> &mut State {
        let view = self.view;
        self.states.entry(key.clone()).or_insert_with(|| {
            let stored = stored(view, key);
            State {
                stored: stored.as_ref().map_or(0, |(_, revision)| *revision),
                now: stored.map(|(now, _)| now),
                is_changed: false,
            }
        })
    }

    fn has_node(&mut self, name: &str) -> bool {
        let key = RecordKey::Node(name.to_owned());
        let state = self.state(&key);
        if state.is_changed {
            return state.now.is_some();
        }
        Catalog::new(self.view, self.home).node(name).is_some()
    }

    fn set(&mut self, key: RecordKey, mut subject: Subject) -> Result<(), String> {
        check_limits(&subject)?;
        match &subject {
            Subject::Node(_) => {}
            Subject::Service(record) => {
                refuse_sidecar(self.view, record).map_err(|error| error.to_string())?;
                if !self.has_node(&record.node) {
                    return Err(format!("Missing node registration: {:?}", record.node));
                }
            }
            Subject::Check(record) => {
                if !self.has_node(&record.node) {
                    return Err(format!("Missing node registration: {:?}", record.node));
                }
                let is_there = record.service_id.is_empty() || self.entry(&record.node, &record.service_id).is_some();
                if !is_there {
                    return Err(format!("Missing service registration: {:?}", record.service_id));
                }
            }
        }
        let state = self.state(&key);
        if let (Some(Subject::Check(before)), Subject::Check(record)) = (&state.now, &mut subject)
            && before.status == record.status
        {
            record.status_since = before.status_since;
        }
        if let Some(before) = &mut state.now {
            let created = *before.created_in();
            *subject.created_in() = created;
            if *before == subject {
                return Ok(());
            }
        }
        *subject.created_in() = match &mut state.now {
            Some(before) => before.created_in().or(Some(state.stored).filter(|stored| *stored > 0)),
            None => None,
        };
        state.now = Some(subject);
        state.is_changed = true;
        Ok(())
    }

    fn delete(&mut self, key: &RecordKey, subject: &Subject) -> Result<(), String> {
        let node = subject.node().to_owned();
        let mut gone = vec![key.clone()];
        let stored = self.view.catalog.node(&node);
        let pending: Vec<RecordKey> = self.states.keys().cloned().collect();
        match subject {
            Subject::Check(_) => {}
            Subject::Service(record) => {
                refuse_without_record(self.view, &node, &record.id).map_err(|error| error.to_string())?;
                let checks = stored.into_iter().flat_map(|node| node.checks_of(&record.id));
                gone.extend(checks.map(|(check, _)| RecordKey::Check(node.clone(), check.id.clone())));
                gone.extend(pending.into_iter().filter(|key| self.is_check_of(key, &node, &record.id)));
            }
            Subject::Node(_) => {
                let services = stored.into_iter().flat_map(|of| of.registered.keys());
                gone.extend(services.map(|id| RecordKey::Registered(node.clone(), id.clone())));
                let checks = stored.into_iter().flat_map(|of| of.checks.keys());
                gone.extend(checks.map(|id| RecordKey::Check(node.clone(), id.clone())));
                let is_on_it =
                    |key: &RecordKey| matches!(key, RecordKey::Registered(on, _) | RecordKey::Check(on, _) if *on == node);
                gone.extend(pending.into_iter().filter(is_on_it));
            }
        }
        let (view, is_check) = (self.view, matches!(subject, Subject::Check(_)));
        for key in gone {
            let state = self.state(&key);
            if !is_check && matches!(&state.now, Some(Subject::Check(check)) if stays_for_sidecar(view, check)) {
                continue;
            }
            if state.now.take().is_some() {
                state.is_changed = true;
            }
        }
        Ok(())
    }

    fn is_check_of(&self, key: &RecordKey, node: &str, id: &str) -> bool {
        let now = self.states.get(key).and_then(|state| state.now.as_ref());
        matches!(now, Some(Subject::Check(check)) if check.node == node && check.service_id == id)
    }

    fn entry(&mut self, node: &str, id: &str) -> Option<Entry> {
        let key = RecordKey::Registered(node.to_owned(), id.to_owned());
        let state = self.state(&key);
        match &state.now {
            Some(Subject::Service(record)) => Some(Entry::of_registered(record, modified(state))),
            _ if state.is_changed => None,
            // It may have a sidecar.
            _ => Catalog::new(self.view, self.home).entry(node, id),
        }
    }

    fn found(&mut self, key: &RecordKey, subject: &Subject) -> Option<Found> {
        match subject {
            Subject::Node(record) => {
                let catalog = Catalog::new(self.view, self.home);
                let state = self.state(key);
                match &state.now {
                    Some(Subject::Node(now)) => Some(Found::Node(catalog.node_of(now, modified(state)))),
                    _ if state.is_changed => None,
                    _ => catalog.node(&record.node).map(Found::Node),
                }
            }
            Subject::Service(record) => self.entry(&record.node, &record.id).map(Found::Service),
            Subject::Check(_) => {
                let state = self.state(key);
                let modify = modified(state);
                let Some(Subject::Check(record)) = state.now.clone() else { return None };
                let entry = if record.service_id.is_empty() { None } else { self.entry(&record.node, &record.service_id) };
                Some(Found::Check(check(&record, modify, entry.as_ref())))
            }
        }
    }

    /// Everything that was looked at must be as it was.
    fn finish(self) -> Result<(Vec<Compare>, Vec<Op>), String> {
        let (mut compares, mut ops) = (Vec::new(), Vec::new());
        for (key, state) in self.states {
            let key = key.to_bytes();
            compares.push(Compare::unchanged(key.clone(), state.stored));
            if !state.is_changed {
                continue;
            }
            let encoded = match &state.now {
                Some(Subject::Node(record)) => Some(records::encode(record)),
                Some(Subject::Service(record)) => Some(records::encode(record)),
                Some(Subject::Check(record)) => Some(records::encode(record)),
                None => None,
            };
            match encoded {
                Some(encoded) => ops.push(Op::put(key, encoded.map_err(|error| error.to_string())?)),
                None if state.stored > 0 => ops.push(Op::delete(key)),
                None => {}
            }
        }
        Ok((compares, ops))
    }
}

/// 0 where the transaction changes it.
fn modified(state: &State) -> u64 {
    if state.is_changed { 0 } else { state.stored }
}

fn stored(view: &View, key: &RecordKey) -> Option<(Subject, u64)> {
    match key {
        RecordKey::Node(node) => {
            let (record, revision) = view.catalog.node(node)?.record.clone()?;
            Some((Subject::Node(record), revision))
        }
        RecordKey::Registered(node, id) => {
            let (record, revision) = view.catalog.node(node)?.registered.get(id).cloned()?;
            Some((Subject::Service(record), revision))
        }
        RecordKey::Check(node, id) => {
            let (record, revision) = view.catalog.node(node)?.checks.get(id).cloned()?;
            Some((Subject::Check(Box::new(record)), revision))
        }
        _ => None,
    }
}

fn check_limits(subject: &Subject) -> Result<(), String> {
    let registering = match subject.clone() {
        Subject::Node(record) => Registering { node: Some(record), ..Registering::default() },
        Subject::Service(record) => {
            Registering { service: Some(RegisteringService { record, replaces_checks: false }), ..Registering::default() }
        }
        Subject::Check(record) => Registering { checks: vec![*record], ..Registering::default() },
    };
    validate(&registering).map_err(|error| error.to_string())
}
