//! What a change of intentions does to the calls that were seen.

use std::collections::BTreeMap;
use std::time::SystemTime;

use postern_intentions::{Decision, RuleSet};
use postern_names::ServiceName;

use crate::{Called, OpenKey, Seen, Verdict, judge};

/// Calls whose verdict changes.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// They go through now and would be refused.
    pub newly_denied: Vec<Effect>,
    /// They are refused now and would go through.
    pub newly_allowed: Vec<Effect>,
    /// They would go through because of audit alone, and now do not or do so without it.
    pub newly_audited: Vec<Effect>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Effect {
    /// What was seen of such calls, whatever the verdict was then. The verdict here is that of now.
    pub seen: Seen,
    /// What decides now.
    pub before: Decision,
    /// What would decide.
    pub after: Decision,
}

/// Judges what was seen before and after a change. Calls that were never judged are left out, and calls that differ only in
/// how they were judged are one. Most calls first.
pub fn effects(
    seen: &[Seen],
    before: &RuleSet,
    after: &RuleSet,
    called: impl Fn(&ServiceName) -> Called,
    now: SystemTime,
) -> Effects {
    let mut effects = Effects::default();
    for mut seen in folded(seen) {
        let called = called(&seen.sighting.edge.destination);
        let (old, new) = (judge(before, &seen.sighting, called, now), judge(after, &seen.sighting, called, now));
        let list = match (verdict(&old), verdict(&new)) {
            (Verdict::Deny, Verdict::Allow) => &mut effects.newly_allowed,
            (Verdict::Allow | Verdict::Audit, Verdict::Deny) => &mut effects.newly_denied,
            (Verdict::Deny | Verdict::Allow, Verdict::Audit) => &mut effects.newly_audited,
            _ => continue,
        };
        seen.sighting.edge.verdict = verdict(&old);
        seen.sighting.edge.because = old.because.to_string().into();
        list.push(Effect { seen, before: old, after: new });
    }
    for list in [&mut effects.newly_denied, &mut effects.newly_allowed, &mut effects.newly_audited] {
        let most_first = |effect: &Effect| std::cmp::Reverse(effect.seen.sighting.tally.count);
        list.sort_by(|a, b| (most_first(a), &a.seen.sighting.edge).cmp(&(most_first(b), &b.seen.sighting.edge)));
    }
    effects
}

/// A decision as it is counted.
pub fn verdict(decision: &Decision) -> Verdict {
    match (decision.allowed(), decision.would_deny) {
        (false, _) => Verdict::Deny,
        (true, true) => Verdict::Audit,
        (true, false) => Verdict::Allow,
    }
}

fn folded(seen: &[Seen]) -> Vec<Seen> {
    let mut by_call: BTreeMap<OpenKey, Seen> = BTreeMap::new();
    for one in seen.iter().filter(|one| one.sighting.edge.verdict != Verdict::Failed) {
        match by_call.get_mut(&OpenKey::of(&one.sighting.edge)) {
            Some(kept) => {
                kept.sighting.tally.merge(&one.sighting.tally);
                kept.sighting.instances = kept.sighting.instances.max(one.sighting.instances);
                kept.recent.merge(&one.recent);
                kept.open = kept.open.max(one.open);
            }
            None => drop(by_call.insert(OpenKey::of(&one.sighting.edge), one.clone())),
        }
    }
    by_call.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{connection, now, request, rules};
    use crate::{Sighting, Window};

    fn seen<const N: usize>(sightings: [Sighting; N]) -> Vec<Seen> {
        sightings.into_iter().map(|sighting| Seen { sighting, recent: Window::default(), open: 0 }).collect()
    }

    fn shown(list: &[Effect]) -> Vec<String> {
        list.iter()
            .map(|effect| {
                let edge = &effect.seen.sighting.edge;
                let what = edge.http.as_ref().map(|http| format!(" {} {}", http.method, http.shape)).unwrap_or_default();
                format!(
                    "{} -> {}{what} ×{}: {}",
                    edge.source, edge.destination, effect.seen.sighting.tally.count, effect.after.because
                )
            })
            .collect()
    }

    #[test]
    fn calls_that_change_sides_are_told_with_what_decides() {
        let seen = seen([
            connection("web", "db", 3),
            request("web", "api", "GET", "/v1/7", 5),
            request("web", "api", "POST", "/v1/7", 2),
            request("old", "api", "GET", "/", 1),
        ]);
        let before = rules("default: allow\nintentions: [{source: old, destination: api, action: deny}]");
        let after = rules(
            "default: deny\nintentions: [{source: old, destination: api, action: allow}, {source: web, destination: api, permissions: [{action: allow, methods: [GET], path_prefix: /v1/}]}, {source: web, destination: db, action: deny, mode: audit}]",
        );
        let found = effects(&seen, &before, &after, |_| crate::samples::called("http"), now());
        assert_eq!(
            shown(&found.newly_denied),
            ["web -> api POST /v1/{id} ×2: intention web -> api (otherwise: no permission matches)"]
        );
        assert_eq!(shown(&found.newly_allowed), ["old -> api GET / ×1: intention old -> api (allow)"]);
        assert_eq!(shown(&found.newly_audited), ["web -> db ×3: intention web -> db (deny, audit)"]);
    }

    #[test]
    fn how_it_was_judged_then_does_not_count_twice_and_what_was_never_judged_not_at_all() {
        let mut seen = seen([connection("web", "db", 3), connection("web", "db", 4), connection("web", "db", 50)]);
        seen[1].sighting.edge.verdict = Verdict::Deny;
        seen[2].sighting.edge.verdict = Verdict::Failed;
        let (before, after) = (rules("default: allow\nintentions: []"), rules("default: deny\nintentions: []"));
        let found = effects(&seen, &before, &after, |_| Called::default(), now());
        assert_eq!(shown(&found.newly_denied), ["web -> db ×7: default (deny)"]);
    }
}
