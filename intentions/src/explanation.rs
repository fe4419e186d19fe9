//! Why a decision is what it is: every intention that matches, and what became of it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::decision::{candidates, governing_permissions};
use crate::http::{ReadingExplanation, reading_explanations};
use crate::rules::{Pair, Says, Slot};
use crate::{Call, Decision, Mode, Precedence, Protocol, RuleSet, decide, timestamp};

/// A decision with everything that was considered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What [`decide`] says.
    pub decision: Decision,
    /// All intentions that match the call, highest precedence first; within a pair the temporary one first.
    pub candidates: Vec<Candidate>,
    /// For a request that permissions judge: every way to read its path, permission by permission. All must be allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readings: Vec<ReadingExplanation>,
}

/// An intention that matches the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// `web -> api`
    pub pair: String,
    /// 5, 6, 8 or 9.
    pub precedence: u8,
    /// The revision that last changed it.
    pub revision: u64,
    /// What it says: `allow`, `deny, audit`, `permissions`, `not understood`, with `, until …` for a temporary one.
    pub says: String,
    /// `governs`, `lower precedence`, `expired`, `replaced by the temporary one until …`, or
    /// `the pair's other intention is not understood`.
    pub outcome: String,
}

/// The decision on a call, with everything that was considered.
pub fn explain(rules: &RuleSet, call: &Call<'_>, now: SystemTime) -> Explanation {
    let mut governed = false;
    let mut considered = Vec::new();
    for (source, destination, pair) in candidates(rules, call) {
        let governing = pair.governing(now).filter(|_| !governed);
        for slot in pair.temporary.as_deref().into_iter().chain(&pair.permanent) {
            considered.push(Candidate {
                pair: format!("{source} -> {destination}"),
                precedence: Precedence::of(&source, &destination).value(),
                revision: slot.revision,
                says: says(slot),
                outcome: outcome(slot, &pair, governing, now),
            });
        }
        governed |= governing.is_some();
    }
    Explanation { decision: decide(rules, call, now), candidates: considered, readings: readings(rules, call, now) }
}

fn readings(rules: &RuleSet, call: &Call<'_>, now: SystemTime) -> Vec<ReadingExplanation> {
    match (call.protocol, call.request, governing_permissions(rules, call, now)) {
        (Protocol::Tcp, ..) | (_, None, _) | (.., None) => Vec::new(),
        (_, Some(request), Some(permissions)) => reading_explanations(permissions, call, request),
    }
}

fn outcome(slot: &Slot, pair: &Pair, governing: Option<&Slot>, now: SystemTime) -> String {
    if governing.is_some_and(|governing| std::ptr::eq(governing, slot)) {
        return "governs".to_owned();
    }
    if !slot.is_live(now) {
        return "expired".to_owned();
    }
    let replaced_by = pair.governing(now).filter(|other| !std::ptr::eq(*other, slot));
    match replaced_by.map(|other| (other.is_understood(), other.until)) {
        Some((false, _)) => "the pair's other intention is not understood".to_owned(),
        Some((true, Some(end))) => format!("replaced by the temporary one until {}", timestamp::to_the_second(end)),
        _ => "lower precedence".to_owned(),
    }
}

fn says(slot: &Slot) -> String {
    let (what, mode) = match &slot.says {
        Says::Action(action, mode) => (action.as_str(), *mode),
        Says::Permissions(mode, _) => ("permissions", *mode),
        Says::NotUnderstood(_) => ("not understood", Mode::Enforce),
    };
    let audit = if mode == Mode::Audit { ", audit" } else { "" };
    let until = slot.until.map(|end| format!(", until {}", timestamp::to_the_second(end))).unwrap_or_default();
    format!("{what}{audit}{until}")
}
