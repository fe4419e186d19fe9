//! A request before the permissions of an intention.

use serde::{Deserialize, Serialize};

use super::permissions::{Criterion, Facts, Permissions};
use super::{JudgedPath, PathRefused, Request, RequestTarget};
use crate::{Action, Because, Call, Decision};

/// What becomes of a request, and what to forward if it goes through. From [`judge_request`](crate::judge_request).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct RequestDecision {
    /// The verdict, and why.
    pub decision: Decision,
    forward: Forward,
}

/// The request target to forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// As it was received.
    Untouched,
    /// This one, path and query, in origin-form (or `*`): the path that was judged.
    Target(String),
}

impl RequestDecision {
    pub(crate) fn untouched(decision: Decision) -> Self {
        Self { decision, forward: Forward::Untouched }
    }

    pub(crate) fn forwarding(decision: Decision, forward: Forward) -> Self {
        Self { decision, forward }
    }

    /// What to forward; nothing of a request that is refused.
    pub fn forward(&self) -> Option<&Forward> {
        self.decision.allowed().then_some(&self.forward)
    }

    /// Why the request is answered with 400 and not with 403.
    pub fn refused(&self) -> Option<PathRefused> {
        match self.decision.because {
            Because::PathRefused { why, .. } if !self.decision.allowed() => Some(why),
            _ => None,
        }
    }
}

/// What decided among permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    Permission(usize, Action),
    Otherwise(Action),
    Refused(PathRefused),
}

impl Decided {
    pub(crate) fn action(self) -> Action {
        match self {
            Self::Permission(_, action) | Self::Otherwise(action) => action,
            Self::Refused(_) => Action::Deny,
        }
    }
}

/// Judges every reading of the request's path. Allowed only if each is; the first that is not decides.
pub(crate) fn by_permissions(permissions: &Permissions, call: &Call<'_>, request: &Request<'_>) -> (Decided, Forward) {
    let (target, path) = match read(request) {
        Ok(read) => read,
        Err(refused) => return (Decided::Refused(refused), Forward::Untouched),
    };
    let decided = |reading| match permissions.first_match(&facts(call, request, &target, reading)) {
        Some((index, action)) => Decided::Permission(index, action),
        None => Decided::Otherwise(permissions.otherwise),
    };
    let of_forwarded = decided(path.forwarded());
    let denied = path.readings().skip(1).map(decided).find(|decided| decided.action() == Action::Deny);
    let forward = target.with_path(path.forwarded()).map_or(Forward::Untouched, Forward::Target);
    match (of_forwarded.action(), denied) {
        (Action::Allow, Some(denied)) => (denied, forward),
        (Action::Allow, None) | (Action::Deny, _) => (of_forwarded, forward),
    }
}

fn read<'a>(request: &Request<'a>) -> Result<(RequestTarget<'a>, JudgedPath<'a>), PathRefused> {
    let target = RequestTarget::read(request.method, request.target, request.host)?;
    Ok((target, JudgedPath::read(&target, request.paths)?))
}

fn facts<'f>(call: &Call<'f>, request: &Request<'f>, target: &RequestTarget<'f>, path: &'f str) -> Facts<'f> {
    let Request { method, headers, tokens, .. } = *request;
    Facts { method, path, query: target.query(), port: call.port, headers, tokens }
}

/// What the permissions of the governing intention make of one reading of the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingExplanation {
    /// The path as it is read; the first is the one that is forwarded.
    pub path: String,
    /// Each permission, in order.
    pub permissions: Vec<PermissionExplanation>,
    /// `allow` or `deny`: of the first that matches, else of `otherwise`.
    pub action: Action,
}

/// What became of one permission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionExplanation {
    /// What it says: `allow GET, path_prefix /pub/`.
    pub says: String,
    /// `matches`, `an earlier one matches`, or the first criterion that does not hold: `method POST is not GET`.
    pub outcome: String,
}

/// Each reading of the request's path, permission by permission; none where the path is refused.
pub(crate) fn reading_explanations(permissions: &Permissions, call: &Call<'_>, request: &Request<'_>) -> Vec<ReadingExplanation> {
    let Ok((target, path)) = read(request) else { return Vec::new() };
    path.readings().map(|reading| explained(permissions, &facts(call, request, &target, reading))).collect()
}

/// Every way to read the request's path, the one that is forwarded first; none where the path is refused.
pub(crate) fn reading_paths(request: &Request<'_>) -> Option<Vec<String>> {
    let (_, path) = read(request).ok()?;
    Some(path.readings().map(str::to_owned).collect())
}

fn explained(permissions: &Permissions, facts: &Facts<'_>) -> ReadingExplanation {
    let mut action = None;
    let mut outcomes = Vec::with_capacity(permissions.list.len());
    for permission in &permissions.list {
        let failure: Option<Criterion> = permission.first_failure(facts);
        let outcome = match (action, failure) {
            (Some(_), _) => "an earlier one matches".to_owned(),
            (None, Some(criterion)) => permission.why_not(criterion, facts),
            (None, None) => {
                action = Some(permission.permission.action);
                "matches".to_owned()
            }
        };
        outcomes.push(PermissionExplanation { says: permission.says(), outcome });
    }
    ReadingExplanation { path: facts.path.to_owned(), permissions: outcomes, action: action.unwrap_or(permissions.otherwise) }
}
