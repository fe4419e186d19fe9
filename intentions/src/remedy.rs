//! The least that would let a denied call through.

use std::sync::Arc;
use std::time::SystemTime;

use crate::decision::candidates;
use crate::http::reading_paths;
use crate::rules::{Pair, Says, Slot};
use crate::{
    Action, Call, Decision, DefaultPolicy, Entry, EntryContent, Intention, Mode, Party, PathCriterion, Permission, Precedence,
    Protocol, Rule, RuleSet, decide,
};

/// The least that would let a denied call through: what to end, and what to set. Never more than the pair itself, and of a
/// request never more than its method and its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// The temporary intention of the pair has to end: it denies, whatever else is set.
    pub ends_temporary: bool,
    /// The permanent intention to set for the pair; none: what is there lets it through.
    pub intention: Option<Intention>,
    /// Which intention decides now, and how that is got by.
    pub why: String,
}

/// What would let the call through: none where it goes through already, and not by audit alone, or where nothing so
/// small would. What comes of it was decided by [`decide`] on what the rules would be.
pub fn remedy(rules: &RuleSet, call: &Call<'_>, now: SystemTime) -> Option<Remedy> {
    let decision = decide(rules, call, now);
    if is_good(&decision) {
        return None;
    }
    let held = Held::of(rules, call, now);
    let ends_temporary = held.temporary_governs;
    let deciding = decision.because.to_string();
    let told = |way: &str| format!("{deciding} decides; {way}");
    if ends_temporary && is_good(&decide(&held.with(true, None), call, now)) {
        return Some(Remedy {
            ends_temporary,
            intention: None,
            why: told("without it, what is permanent lets the call through"),
        });
    }
    let intention = match (call.protocol, call.request) {
        (Protocol::Tcp, _) | (_, None) => held.allow(call),
        (Protocol::Http | Protocol::Http2 | Protocol::Grpc, Some(_)) => held.allow_request(call, now, ends_temporary)?,
    };
    intention.validate().ok()?;
    if !is_good(&decide(&held.with(ends_temporary, Some(&intention)), call, now)) {
        return None;
    }
    let pair = intention.pair();
    let way = match (&held.permanent, &intention.rule) {
        (Some(_), Rule::Permissions { .. }) => format!("a permission more of {pair} is judged before it"),
        (Some(before), Rule::Action(_)) => format!("this takes the place of {pair} ({before})"),
        (None, _) => format!("{pair} goes before it"),
    };
    Some(Remedy { ends_temporary, intention: Some(intention), why: told(&way) })
}

/// Let through, and not by audit alone.
fn is_good(decision: &Decision) -> bool {
    decision.allowed() && !decision.would_deny
}

/// What the rules hold of a call.
struct Held {
    default: DefaultPolicy,
    entries: Vec<(Entry, Party, Party, bool)>,
    /// The exact pair's temporary intention governs.
    temporary_governs: bool,
    /// What the exact pair's permanent intention says, where there is one.
    permanent: Option<String>,
}

impl Held {
    fn of(rules: &RuleSet, call: &Call<'_>, now: SystemTime) -> Self {
        let mut held = Self { default: rules.default_policy(), entries: Vec::new(), temporary_governs: false, permanent: None };
        for (source, destination, pair) in candidates(rules, call) {
            if Precedence::of(&source, &destination) == Precedence::ServiceToService {
                held.temporary_governs = temporary_governs(&pair, now);
                held.permanent = pair.permanent.as_ref().map(|slot| summary(slot, &source, &destination));
            }
            for (slot, is_temporary) in pair
                .temporary
                .as_deref()
                .map(|slot| (slot, true))
                .into_iter()
                .chain(pair.permanent.as_ref().map(|slot| (slot, false)))
            {
                held.entries.push((
                    entry(slot, &source, &destination, is_temporary),
                    source.clone(),
                    destination.clone(),
                    is_temporary,
                ));
            }
        }
        held
    }

    /// The rules as they would be.
    fn with(&self, ends_temporary: bool, permanent: Option<&Intention>) -> RuleSet {
        let stays = |source: &Party, destination: &Party, is_temporary: bool| match Precedence::of(source, destination) {
            Precedence::ServiceToService if is_temporary => !ends_temporary,
            Precedence::ServiceToService => permanent.is_none(),
            Precedence::AnyToService | Precedence::ServiceToAny | Precedence::AnyToAny => true,
        };
        let kept = self.entries.iter().filter(|(_, source, destination, is_temporary)| stays(source, destination, *is_temporary));
        let new =
            permanent.map(|intention| Entry { revision: 0, content: EntryContent::Understood(Arc::new(intention.clone())) });
        RuleSet::compile(self.default, kept.map(|(entry, ..)| entry.clone()).chain(new))
    }

    fn allow(&self, call: &Call<'_>) -> Intention {
        Intention::new(call.source.clone().into(), call.destination.clone().into(), Action::Allow)
    }

    /// The permissions that govern, behind one that allows this request in each way in which its path may be read. Where no
    /// permissions govern, what is not allowed by it stays as it is.
    fn allow_request(&self, call: &Call<'_>, now: SystemTime, ends_temporary: bool) -> Option<Intention> {
        let request = call.request?;
        let permission = |path: String| Permission {
            action: Action::Allow,
            methods: vec![request.method.to_owned()],
            path: Some(PathCriterion::Exact(path)),
            headers: Vec::new(),
            query: Vec::new(),
            ports: if call.port.as_str() == "main" { Vec::new() } else { vec![call.port.clone()] },
            jwt: Vec::new(),
        };
        let mut permissions: Vec<Permission> = reading_paths(request)?.into_iter().map(permission).collect();
        let governing = self.governing(ends_temporary, now);
        let (mode, otherwise) = match governing.as_deref() {
            None => match self.default {
                DefaultPolicy::Deny | DefaultPolicy::Allow => (Mode::Enforce, Action::Deny),
                DefaultPolicy::Audit => (Mode::Audit, Action::Deny),
            },
            Some(Intention { rule: Rule::Action(action), mode, .. }) => (*mode, *action),
            Some(Intention { rule: Rule::Permissions { permissions: more, otherwise }, mode, .. }) => {
                permissions.extend(more.iter().cloned());
                (*mode, *otherwise)
            }
        };
        let mut intention = self.allow(call);
        if let Some(own) = governing.filter(|one| one.precedence() == Precedence::ServiceToService) {
            intention.description.clone_from(&own.description);
            intention.meta.clone_from(&own.meta);
        }
        Some(Intention { rule: Rule::Permissions { permissions, otherwise }, mode, ..intention })
    }

    /// The intention that governs, where it is understood.
    fn governing(&self, ends_temporary: bool, now: SystemTime) -> Option<Arc<Intention>> {
        // Highest precedence first, the temporary one of a pair first.
        self.entries.iter().find_map(|(entry, source, destination, is_temporary)| {
            let is_ended = ends_temporary && *is_temporary && Precedence::of(source, destination) == Precedence::ServiceToService;
            match &entry.content {
                EntryContent::Understood(intention) if !is_ended && intention.is_live(now) => Some(Arc::clone(intention)),
                _ => None,
            }
        })
    }
}

fn temporary_governs(pair: &Pair, now: SystemTime) -> bool {
    let governing = pair.governing(now);
    pair.temporary.as_deref().is_some_and(|temporary| governing.is_some_and(|slot| std::ptr::eq(slot, temporary)))
}

/// The slot as it was compiled from.
fn entry(slot: &Slot, source: &Party, destination: &Party, is_temporary: bool) -> Entry {
    let content = match &slot.says {
        Says::Action(action, mode) => {
            let intention = Intention::new(source.clone(), destination.clone(), *action);
            EntryContent::Understood(Arc::new(Intention { mode: *mode, expires_at: slot.until, ..intention }))
        }
        Says::Permissions(_, permissions) => EntryContent::Understood(Arc::clone(&permissions.of)),
        Says::NotUnderstood(why) => {
            let key = crate::PairKey { source: source.clone(), destination: destination.clone(), temporary: is_temporary };
            EntryContent::NotUnderstood { key, why: Arc::clone(why) }
        }
    };
    Entry { revision: slot.revision, content }
}

fn summary(slot: &Slot, source: &Party, destination: &Party) -> String {
    match entry(slot, source, destination, false).content {
        EntryContent::Understood(intention) => intention.summary(),
        EntryContent::NotUnderstood { .. } => "not understood".to_owned(),
    }
}
