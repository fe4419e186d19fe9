//! The compiled rule set against an evaluator that is as plain as the specification.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postern_intentions::{
    Action, Because, Call, Decision, DefaultPolicy, Entry, EntryContent, Intention, Mode, PairKey, Party, Permission, Protocol,
    Rule, RuleSet, Verdict, decide, explain,
};
use postern_names::{PortName, ServiceName};
use proptest::prelude::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000 + seconds)
}

fn key_of(entry: &Entry) -> PairKey {
    match &entry.content {
        EntryContent::Understood(intention) => intention.key(),
        EntryContent::NotUnderstood { key, .. } => key.clone(),
    }
}

/// Reads the entries as the specification says them: from the highest precedence down, whatever the pair holds.
fn plainly(
    default: DefaultPolicy,
    entries: &[Entry],
    source: &ServiceName,
    destination: &ServiceName,
    protocol: Protocol,
    now: SystemTime,
) -> Decision {
    let sides = [
        (Party::Service(source.clone()), Party::Service(destination.clone())),
        (Party::Any, Party::Service(destination.clone())),
        (Party::Service(source.clone()), Party::Any),
        (Party::Any, Party::Any),
    ];
    for (source, destination) in sides {
        let of_pair = |temporary| {
            let key = PairKey { source: source.clone(), destination: destination.clone(), temporary };
            entries.iter().find(move |entry| key_of(entry) == key)
        };
        let both = [of_pair(true), of_pair(false)];
        for entry in both.into_iter().flatten() {
            if let EntryContent::NotUnderstood { why, .. } = &entry.content {
                let because = Because::NotUnderstood { source, destination, why: why.clone() };
                return Decision { verdict: Verdict::Deny, would_deny: false, because };
            }
        }
        for entry in both.into_iter().flatten() {
            let EntryContent::Understood(intention) = &entry.content else { unreachable!() };
            if intention.expires_at.is_some_and(|end| end <= now) {
                continue;
            }
            let revision = entry.revision;
            let (denies, because) = match (&intention.rule, protocol) {
                (Rule::Action(action), _) => (
                    *action == Action::Deny,
                    Because::Intention {
                        source,
                        destination,
                        revision,
                        action: *action,
                        mode: intention.mode,
                        temporary_until: intention.expires_at,
                        permission: None,
                    },
                ),
                (Rule::Permissions { .. }, Protocol::Tcp) => (true, Because::PermissionsOnTcp { source, destination, revision }),
                (Rule::Permissions { .. }, _) => {
                    (false, Because::PerRequest { source, destination, revision, mode: intention.mode })
                }
            };
            let audit = intention.mode == Mode::Audit;
            let verdict = if denies && !audit { Verdict::Deny } else { Verdict::Allow };
            return Decision { verdict, would_deny: denies && audit, because };
        }
    }
    let verdict = if default == DefaultPolicy::Deny { Verdict::Deny } else { Verdict::Allow };
    Decision { verdict, would_deny: default == DefaultPolicy::Audit, because: Because::Default(default) }
}

/// A set of entries, made of small numbers so that many can be tried.
#[derive(Debug, Clone)]
struct Draft {
    source: usize,
    destination: usize,
    content: usize,
    end: u64,
}

fn draft() -> impl Strategy<Value = Draft> {
    (0..4_usize, 0..4_usize, 0..14_usize, 0..20_u64).prop_map(|(source, destination, content, end)| Draft {
        source,
        destination,
        content,
        end,
    })
}

fn entry(draft: &Draft, revision: u64) -> Entry {
    let party = |index: usize| if index == 3 { Party::Any } else { Party::Service(NAMES[index].parse().unwrap()) };
    let (source, destination) = (party(draft.source), party(draft.destination));
    // Half of them are temporary, and end before, at or after the times that are asked about.
    let end = (draft.end < 10).then(|| at(draft.end));
    if draft.content == 0 {
        let key = PairKey { source, destination, temporary: end.is_some() };
        return Entry { revision, content: EntryContent::NotUnderstood { key, why: "strange".into() } };
    }
    let action = if draft.content.is_multiple_of(2) { Action::Allow } else { Action::Deny };
    let mut intention = Intention::new(source, destination, action);
    intention.expires_at = end;
    if draft.content > 8 {
        intention.mode = Mode::Audit;
    }
    if draft.content.is_multiple_of(6) {
        let permission = Permission {
            action,
            methods: Vec::new(),
            path: None,
            headers: Vec::new(),
            query: Vec::new(),
            ports: Vec::new(),
            jwt: Vec::new(),
        };
        intention.rule = Rule::Permissions { permissions: vec![permission], otherwise: action };
    }
    Entry { revision, content: EntryContent::Understood(Arc::new(intention)) }
}

/// Each place once, as in the store.
fn entries(drafts: &[Draft]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (draft, revision) in drafts.iter().zip(1..) {
        let entry = entry(draft, revision);
        if entries.iter().all(|earlier| key_of(earlier) != key_of(&entry)) {
            entries.push(entry);
        }
    }
    entries
}

fn default_policy() -> impl Strategy<Value = DefaultPolicy> {
    prop_oneof![Just(DefaultPolicy::Deny), Just(DefaultPolicy::Allow), Just(DefaultPolicy::Audit)]
}

fn names() -> [ServiceName; 4] {
    NAMES.map(|name| name.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn the_compiled_rules_decide_as_the_specification_reads(
        default in default_policy(),
        drafts in prop::collection::vec(draft(), 0..12),
        source in 0..4_usize,
        destination in 0..4_usize,
        is_tcp in any::<bool>(),
        now in 0..12_u64,
    ) {
        let entries = entries(&drafts);
        let rules = RuleSet::compile(default, entries.iter().cloned());
        let (names, port) = (names(), PortName::main());
        let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Grpc };
        let call = Call { source: &names[source], destination: &names[destination], port: &port, protocol, request: None };

        let decision = decide(&rules, &call, at(now));

        prop_assert_eq!(&decision, &plainly(default, &entries, call.source, call.destination, protocol, at(now)));
        prop_assert!(decision.allowed() || !decision.would_deny);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn an_explanation_has_one_governing_intention_or_the_default(
        default in default_policy(),
        drafts in prop::collection::vec(draft(), 0..12),
        now in 0..12_u64,
    ) {
        let entries = entries(&drafts);
        let rules = RuleSet::compile(default, entries.iter().cloned());
        let (names, port) = (names(), PortName::main());
        let call = Call { source: &names[0], destination: &names[1], port: &port, protocol: Protocol::Tcp, request: None };

        let explanation = explain(&rules, &call, at(now));

        let governing = explanation.candidates.iter().filter(|candidate| candidate.outcome == "governs").count();
        let is_default = matches!(explanation.decision.because, Because::Default(_));
        prop_assert_eq!(governing, usize::from(!is_default));
        let matching = entries.iter().map(key_of).filter(|key| key.source.includes(call.source) && key.destination.includes(call.destination));
        prop_assert_eq!(explanation.candidates.len(), matching.count());
    }

    #[test]
    fn time_alone_changes_no_decision_before_the_next_expiry(
        default in default_policy(),
        drafts in prop::collection::vec(draft(), 0..12),
        now in 0..12_u64,
    ) {
        let rules = RuleSet::compile(default, entries(&drafts));
        let (names, port) = (names(), PortName::main());
        let last = rules.next_expiry(at(now)).unwrap_or(at(100)) - Duration::from_nanos(1);
        for source in &names {
            for destination in &names {
                let call = Call { source, destination, port: &port, protocol: Protocol::Tcp, request: None };
                prop_assert_eq!(decide(&rules, &call, at(now)), decide(&rules, &call, last));
            }
        }
    }
}
