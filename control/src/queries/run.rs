//! Which instances a query finds.

use postern_checks::Status;
use postern_names::ServiceName;
use rand::Rng;
use rand::seq::SliceRandom;

use crate::records::QueriedService;
use crate::registry::catalog::{Catalog, Check, Entry, Node};

/// The node of the control plane, by the name that agents have for themselves.
pub const AGENT: &str = "_agent";

/// An instance that a query found.
#[derive(Debug, Clone)]
pub struct FoundInstance {
    /// Itself.
    pub entry: Entry,
    /// Where it is.
    pub node: Node,
    /// All checks that count for it.
    pub checks: Vec<Check>,
}

/// The instances that are asked for, shuffled, those on the node `near` first. A name that no service can have finds none.
pub fn run(catalog: &Catalog<'_>, home: &str, asked: &QueriedService, near: &str, rng: &mut impl Rng) -> Vec<FoundInstance> {
    let Ok(service) = asked.service.parse::<ServiceName>() else { return Vec::new() };
    let entries = catalog.entries_of(&service).into_iter().filter(|entry| wants(asked, entry));
    let mut found: Vec<FoundInstance> = entries
        .filter_map(|entry| {
            let node = catalog.node(&entry.node)?;
            let has_label = |(key, value): (&String, &String)| node.meta.get(key) == Some(value);
            if !asked.node_meta.iter().all(has_label) {
                return None;
            }
            let checks = catalog.checks_of(&entry);
            is_well(asked, &checks).then_some(FoundInstance { entry, node, checks })
        })
        .collect();
    found.shuffle(rng);
    let near = if near == AGENT { home } else { near };
    if !near.is_empty() {
        found.sort_by_key(|instance| instance.entry.node != near);
    }
    found
}

fn wants(asked: &QueriedService, entry: &Entry) -> bool {
    let has = |wanted: &str| entry.tags.iter().any(|tag| tag.eq_ignore_ascii_case(wanted));
    let has_tags = asked.tags.iter().all(|tag| match tag.strip_prefix('!') {
        Some(unwanted) => !has(unwanted),
        None => has(tag),
    });
    let has_labels = asked.service_meta.iter().all(|(key, value)| entry.meta.get(key) == Some(value));
    has_tags && has_labels && (entry.has_sidecar || !asked.connect)
}

fn is_well(asked: &QueriedService, checks: &[Check]) -> bool {
    let counting = checks.iter().filter(|check| !asked.ignore_check_ids.contains(&check.id));
    let worst = counting.map(|check| check.status).max().unwrap_or(Status::Passing);
    if asked.only_passing { worst == Status::Passing } else { worst != Status::Critical }
}
