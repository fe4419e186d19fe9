//! What a change of intentions does to the calls that were seen.

use std::collections::BTreeMap;
use std::time::SystemTime;

use postern_intentions::{Decision, RuleSet};
use postern_names::{PortName, ServiceName};

use crate::{Called, HttpPart, Sighting, Verdict, judge};

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
    pub seen: Sighting,
    /// What decides now.
    pub before: Decision,
    /// What would decide.
    pub after: Decision,
}

/// What makes a call, without how it was judged.
type CallPart = (ServiceName, ServiceName, PortName, Option<HttpPart>);

/// Judges what was seen before and after a change. Calls that were never judged are left out, and calls that differ only in
/// how they were judged are one. Most calls first.
pub fn effects(
    seen: &[Sighting],
    before: &RuleSet,
    after: &RuleSet,
    called: impl Fn(&ServiceName) -> Called,
    now: SystemTime,
) -> Effects {
    let mut effects = Effects::default();
    for sighting in folded(seen) {
        let called = called(&sighting.edge.destination);
        let (old, new) = (judge(before, &sighting, called, now), judge(after, &sighting, called, now));
        let list = match (verdict(&old), verdict(&new)) {
            (Verdict::Deny, Verdict::Allow) => &mut effects.newly_allowed,
            (Verdict::Allow | Verdict::Audit, Verdict::Deny) => &mut effects.newly_denied,
            (Verdict::Deny | Verdict::Allow, Verdict::Audit) => &mut effects.newly_audited,
            _ => continue,
        };
        let mut seen = sighting;
        seen.edge.verdict = verdict(&old);
        seen.edge.because = old.because.to_string().into();
        list.push(Effect { seen, before: old, after: new });
    }
    for list in [&mut effects.newly_denied, &mut effects.newly_allowed, &mut effects.newly_audited] {
        list.sort_by(|a, b| b.seen.tally.count.cmp(&a.seen.tally.count).then_with(|| a.seen.edge.cmp(&b.seen.edge)));
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

fn folded(seen: &[Sighting]) -> Vec<Sighting> {
    let mut by_call: BTreeMap<CallPart, Sighting> = BTreeMap::new();
    for sighting in seen.iter().filter(|sighting| sighting.edge.verdict != Verdict::Failed) {
        let edge = &sighting.edge;
        let key = (edge.destination.clone(), edge.source.clone(), edge.port.clone(), edge.http.clone());
        match by_call.get_mut(&key) {
            Some(kept) => {
                kept.tally.merge(&sighting.tally);
                kept.instances = kept.instances.max(sighting.instances);
            }
            None => drop(by_call.insert(key, sighting.clone())),
        }
    }
    by_call.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{connection, now, request, rules};

    fn shown(list: &[Effect]) -> Vec<String> {
        list.iter()
            .map(|effect| {
                let edge = &effect.seen.edge;
                let what = edge.http.as_ref().map(|http| format!(" {} {}", http.method, http.shape)).unwrap_or_default();
                format!("{} -> {}{what} ×{}: {}", edge.source, edge.destination, effect.seen.tally.count, effect.after.because)
            })
            .collect()
    }

    #[test]
    fn calls_that_change_sides_are_told_with_what_decides() {
        let seen = [
            connection("web", "db", 3),
            request("web", "api", "GET", "/v1/7", 5),
            request("web", "api", "POST", "/v1/7", 2),
            request("old", "api", "GET", "/", 1),
        ];
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
        let mut seen = vec![connection("web", "db", 3), connection("web", "db", 4), connection("web", "db", 50)];
        seen[1].edge.verdict = Verdict::Deny;
        seen[2].edge.verdict = Verdict::Failed;
        let (before, after) = (rules("default: allow\nintentions: []"), rules("default: deny\nintentions: []"));
        let found = effects(&seen, &before, &after, |_| Called::default(), now());
        assert_eq!(shown(&found.newly_denied), ["web -> db ×7: default (deny)"]);
    }
}
