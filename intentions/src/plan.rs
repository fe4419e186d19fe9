//! The difference between the intentions that are stored and those that are wanted.

use std::collections::BTreeMap;
use std::fmt;

use crate::file::{IntentionFile, in_order};
use crate::{DefaultPolicy, Intention, PairKey};

/// What an apply would do. Pairs are in order: highest precedence first, then by source and destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Pairs that are new.
    pub added: Vec<Intention>,
    /// Before and after.
    pub changed: Vec<(Intention, Intention)>,
    /// Pairs that go.
    pub removed: Vec<Intention>,
    /// The default before and after, where it changes.
    pub default: Option<(DefaultPolicy, DefaultPolicy)>,
}

/// What to do to get from `current` to `wanted`: pairs that are not wanted go, unless `merge` keeps them. Temporary
/// intentions on either side are left out of it; without a wanted default the current one stays.
pub fn difference(current: &IntentionFile, wanted: &IntentionFile, merge: bool) -> Plan {
    let before = permanent(current);
    let after = permanent(wanted);
    let mut plan = Plan { default: default_change(current, wanted), ..Plan::default() };
    for (key, intention) in &after {
        match before.get(key) {
            None => plan.added.push((*intention).clone()),
            Some(old) if old != intention => plan.changed.push(((*old).clone(), (*intention).clone())),
            Some(_) => {}
        }
    }
    if !merge {
        let gone = before.iter().filter(|(key, _)| !after.contains_key(*key));
        plan.removed.extend(gone.map(|(_, intention)| (*intention).clone()));
    }
    plan.added.sort_by(in_order);
    plan.changed.sort_by(|(a, _), (b, _)| in_order(a, b));
    plan.removed.sort_by(in_order);
    plan
}

/// The permanent intentions after the difference: those that are wanted, and with `merge` those that are there besides.
pub fn merged(current: &IntentionFile, wanted: &IntentionFile, merge: bool) -> Vec<Intention> {
    let mut after = permanent(wanted);
    if merge {
        for (key, intention) in permanent(current) {
            after.entry(key).or_insert(intention);
        }
    }
    after.into_values().cloned().collect()
}

fn permanent(file: &IntentionFile) -> BTreeMap<PairKey, &Intention> {
    file.intentions.iter().filter(|intention| !intention.is_temporary()).map(|intention| (intention.key(), intention)).collect()
}

fn default_change(current: &IntentionFile, wanted: &IntentionFile) -> Option<(DefaultPolicy, DefaultPolicy)> {
    let before = current.default.unwrap_or_default();
    wanted.default.filter(|after| *after != before).map(|after| (before, after))
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty() && self.default.is_none()
    }

    /// «this lets web reach db», for every pair that comes into audit mode.
    pub fn opens(&self) -> Vec<String> {
        let added = self.added.iter().filter_map(Intention::opens);
        let changed = self.changed.iter().filter_map(|(before, after)| after.opens().filter(|_| before.opens().is_none()));
        added.chain(changed).collect()
    }
}

/// One line for each change: `+ web -> api (allow)`, `- web -> db (deny)`, `~ web -> billing (deny => allow, audit)`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((before, after)) = self.default {
            writeln!(f, "~ default ({before} => {after})")?;
        }
        for intention in &self.added {
            writeln!(f, "+ {} ({}){}", intention.pair(), intention.summary(), note(intention.opens()))?;
        }
        for (before, after) in &self.changed {
            let opens = after.opens().filter(|_| before.opens().is_none());
            writeln!(f, "~ {} ({}){}", after.pair(), change(before, after), note(opens))?;
        }
        for intention in &self.removed {
            writeln!(f, "- {} ({})", intention.pair(), intention.summary())?;
        }
        Ok(())
    }
}

fn note(opens: Option<String>) -> String {
    opens.map(|text| format!(": {text}")).unwrap_or_default()
}

/// What changes, in a few words; where the summaries agree, what else does.
fn change(before: &Intention, after: &Intention) -> String {
    let (old, new) = (before.summary(), after.summary());
    if old != new {
        return format!("{old} => {new}");
    }
    let mut parts = Vec::new();
    if before.rule != after.rule {
        parts.push("permissions");
    }
    if before.description != after.description {
        parts.push("description");
    }
    if before.meta != after.meta {
        parts.push("meta");
    }
    format!("{new}; {} changed", parts.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::parse;

    fn file(text: &str) -> IntentionFile {
        parse(text, "test.yaml").unwrap()
    }

    #[test]
    fn what_is_not_wanted_goes_unless_merged() {
        let current =
            file("intentions: [{source: a, destination: b, action: allow}, {source: a, destination: c, action: allow}]");
        let wanted =
            file("intentions: [{source: a, destination: b, action: deny}, {source: \"*\", destination: b, action: deny}]");

        let plan = difference(&current, &wanted, false);
        assert_eq!(plan.to_string(), "+ * -> b (deny)\n~ a -> b (allow => deny)\n- a -> c (allow)\n");

        let merged = difference(&current, &wanted, true);
        assert_eq!(merged.to_string(), "+ * -> b (deny)\n~ a -> b (allow => deny)\n");
    }

    #[test]
    fn a_file_without_default_leaves_it() {
        let current = IntentionFile { default: Some(DefaultPolicy::Allow), ..IntentionFile::default() };
        assert!(difference(&current, &file("intentions: []"), false).is_empty());
        let plan = difference(&current, &file("default: audit\nintentions: []"), false);
        assert_eq!(plan.to_string(), "~ default (allow => audit)\n");
    }

    #[test]
    fn temporary_intentions_are_never_touched() {
        let mut current = file("intentions: [{source: a, destination: b, action: allow}]");
        current.intentions[0].expires_at = Some(std::time::UNIX_EPOCH + std::time::Duration::from_secs(60));
        assert!(difference(&current, &file("intentions: []"), false).is_empty());
    }

    #[test]
    fn a_pair_that_comes_into_audit_mode_is_said_to_open() {
        let current = file("intentions: [{source: web, destination: db, action: deny}]");
        let wanted = file("intentions: [{source: web, destination: db, action: deny, mode: audit}]");
        let plan = difference(&current, &wanted, false);
        assert_eq!(plan.to_string(), "~ web -> db (deny => deny, audit): this lets web reach db\n");
        assert_eq!(plan.opens(), ["this lets web reach db"]);
        assert!(difference(&wanted, &wanted, false).opens().is_empty());
    }

    #[test]
    fn a_change_that_the_summary_does_not_show_is_named() {
        let current = file("intentions: [{source: a, destination: b, action: allow}]");
        let wanted = file("intentions: [{source: a, destination: b, action: allow, description: why, meta: {team: x}}]");
        assert_eq!(difference(&current, &wanted, false).to_string(), "~ a -> b (allow; description and meta changed)\n");
    }
}
