//! The decision on one call, and why.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use postern_names::{PortName, ServiceName};
use serde::{Deserialize, Serialize};

use crate::http::{Decided, PathRefused, Permissions, Request, RequestDecision, by_permissions};
use crate::rules::{Borrowed, PRECEDENCES, Pair, Says};
use crate::{Action, DefaultPolicy, Mode, Party, Precedence, Protocol, RuleSet, timestamp};

/// A connection, or one request on it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The caller, from its verified SVID.
    pub source: &'a ServiceName,
    /// The service that is called.
    pub destination: &'a ServiceName,
    /// Its port.
    pub port: &'a PortName,
    /// What the destination speaks.
    pub protocol: Protocol,
    /// None while only a connection is judged.
    pub request: Option<&'a Request<'a>>,
}

/// Whether the call goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It does.
    Allow,
    /// It is refused.
    Deny,
}

/// The verdict on a call, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Decision {
    /// Whether the call goes through.
    pub verdict: Verdict,
    /// Allowed only because of audit: counted and logged as such. Never together with a deny.
    pub would_deny: bool,
    /// What decided.
    pub because: Because,
}

impl Decision {
    /// Whether the call goes through.
    pub fn allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

/// What decided. Its text is in log lines, in answers to refused callers and in `meshctl intention explain`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// An intention.
    Intention {
        /// Its source.
        source: Party,
        /// Its destination.
        destination: Party,
        /// The revision that last changed it.
        revision: u64,
        /// What it says.
        action: Action,
        /// Whether it is carried out.
        mode: Mode,
        /// When it ends, for a temporary one.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::option")]
        temporary_until: Option<SystemTime>,
        /// The permission that matched, counted from 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        permission: Option<usize>,
    },
    /// No intention matches.
    Default(DefaultPolicy),
    /// None of the intention's permissions matches.
    Otherwise {
        /// Its source.
        source: Party,
        /// Its destination.
        destination: Party,
        /// The revision that last changed it.
        revision: u64,
    },
    /// Permissions judge HTTP requests, and the destination speaks none.
    PermissionsOnTcp {
        /// Its source.
        source: Party,
        /// Its destination.
        destination: Party,
        /// The revision that last changed it.
        revision: u64,
    },
    /// The intention has permissions, which judge each request on the connection. Only for connections, which are let
    /// through for it: whoever cannot judge the requests must not serve the connection.
    PerRequest {
        /// Its source.
        source: Party,
        /// Its destination.
        destination: Party,
        /// The revision that last changed it.
        revision: u64,
        /// Whether its denials are carried out.
        mode: Mode,
    },
    /// The intention has permissions, and the target of the request cannot be judged by them.
    PathRefused {
        /// Its source.
        source: Party,
        /// Its destination.
        destination: Party,
        /// The revision that last changed it.
        revision: u64,
        /// What is wrong with the target.
        why: PathRefused,
    },
    /// The intention holds something that this version does not understand.
    NotUnderstood {
        /// Its source.
        source: Party,
        /// Its destination.
        destination: Party,
        /// What was not understood.
        why: Arc<str>,
    },
}

impl Because {
    /// The value of the metric label `intention`: `web -> api`, `default` or `not_understood`.
    pub fn label(&self) -> String {
        match self {
            Self::Intention { source, destination, .. }
            | Self::Otherwise { source, destination, .. }
            | Self::PermissionsOnTcp { source, destination, .. }
            | Self::PerRequest { source, destination, .. }
            | Self::PathRefused { source, destination, .. } => format!("{source} -> {destination}"),
            Self::Default(_) => "default".to_owned(),
            Self::NotUnderstood { .. } => "not_understood".to_owned(),
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intention { source, destination, action, mode, temporary_until, permission, .. } => {
                write!(f, "intention {source} -> {destination} ({action}")?;
                if let Some(index) = permission {
                    write!(f, ", permission {index}")?;
                }
                if *mode == Mode::Audit {
                    f.write_str(", audit")?;
                }
                if let Some(end) = temporary_until {
                    write!(f, ", until {}", timestamp::to_the_second(*end))?;
                }
                f.write_str(")")
            }
            Self::Default(policy) => write!(f, "default ({policy})"),
            Self::Otherwise { source, destination, .. } => {
                write!(f, "intention {source} -> {destination} (otherwise: no permission matches)")
            }
            Self::PermissionsOnTcp { source, destination, .. } => {
                write!(f, "intention {source} -> {destination} has permissions, and ")?;
                match destination {
                    Party::Any => f.write_str("the destination is tcp"),
                    Party::Service(name) => write!(f, "{name} is tcp"),
                }
            }
            Self::PerRequest { source, destination, .. } => {
                write!(f, "intention {source} -> {destination} has permissions, which judge each request")
            }
            Self::PathRefused { source, destination, why, .. } => {
                write!(f, "intention {source} -> {destination} has permissions, and {why}")
            }
            Self::NotUnderstood { source, destination, why } => {
                write!(f, "intention {source} -> {destination} is not understood: {why}")
            }
        }
    }
}

/// The decision on a call at `now`: on a connection, or with [`Call::request`] on a request. It takes no lock. It
/// allocates nothing but for a path or a query that is not in its usual form; the first uses of a regular expression
/// make room for its states.
///
/// On a connection to HTTP whose governing intention has permissions the answer is to let it live, because of
/// [`Because::PerRequest`]. Whoever forwards requests asks [`judge_request`], which also says what to forward.
pub fn decide(rules: &RuleSet, call: &Call<'_>, now: SystemTime) -> Decision {
    // As in `governing`, and judged on the spot: handing on what was found takes a tenth of the whole.
    let names = rules.sides(call.source, call.destination);
    for precedence in PRECEDENCES {
        if let Some(slot) = rules.get(&names, precedence).and_then(|found| found.governing(now)) {
            return judge(slot, precedence, call);
        }
    }
    by_default(rules.default_policy())
}

/// The decision on a request at `now`, and what to forward if it goes through: the target as received where no permissions
/// govern, else the path that was judged. The one way in for whatever forwards requests, so that no path is judged
/// while another one is forwarded. `request` stands in for [`Call::request`].
pub fn judge_request(rules: &RuleSet, call: &Call<'_>, request: &Request<'_>, now: SystemTime) -> RequestDecision {
    let call = Call { request: Some(request), ..*call };
    match governing(rules, &call, now) {
        Some((Borrowed { says: Says::Permissions(mode, permissions), revision, until }, precedence)) => {
            by_request(permissions, Place { sides: sides(precedence, &call), revision, until, mode }, &call)
        }
        Some((slot, precedence)) => RequestDecision::untouched(judge(slot, precedence, &call)),
        None => RequestDecision::untouched(by_default(rules.default_policy())),
    }
}

/// Whether the intention that governs this pair at `now` has permissions, so that single requests are judged.
pub fn has_permissions(rules: &RuleSet, call: &Call<'_>, now: SystemTime) -> bool {
    governing_permissions(rules, call, now).is_some()
}

/// The intention that governs, and which of the call's pairs it is of.
fn governing<'r>(rules: &'r RuleSet, call: &Call<'_>, now: SystemTime) -> Option<(Borrowed<'r>, Precedence)> {
    let names = rules.sides(call.source, call.destination);
    for precedence in PRECEDENCES {
        if let Some(slot) = rules.get(&names, precedence).and_then(|found| found.governing(now)) {
            return Some((slot, precedence));
        }
    }
    None
}

/// The sides of the call's pair with this precedence.
fn sides(precedence: Precedence, call: &Call<'_>) -> (Party, Party) {
    let source = || Party::Service(call.source.clone());
    let destination = || Party::Service(call.destination.clone());
    match precedence {
        Precedence::ServiceToService => (source(), destination()),
        Precedence::AnyToService => (Party::Any, destination()),
        Precedence::ServiceToAny => (source(), Party::Any),
        Precedence::AnyToAny => (Party::Any, Party::Any),
    }
}

/// The permissions that govern the call, if any do.
pub(crate) fn governing_permissions<'r>(rules: &'r RuleSet, call: &Call<'_>, now: SystemTime) -> Option<&'r Permissions> {
    match governing(rules, call, now)?.0.says {
        Says::Permissions(_, permissions) => Some(permissions),
        Says::Action(..) | Says::NotUnderstood(_) => None,
    }
}

/// The pairs of the call that something is said of, with their sides, highest precedence first.
pub(crate) fn candidates<'r>(rules: &'r RuleSet, call: &Call<'_>) -> Vec<(Party, Party, Cow<'r, Pair>)> {
    let names = rules.sides(call.source, call.destination);
    let found = PRECEDENCES.into_iter().filter_map(|precedence| Some((precedence, rules.get(&names, precedence)?)));
    found
        .map(|(precedence, found)| {
            let (source, destination) = sides(precedence, call);
            (source, destination, found.into_pair())
        })
        .collect()
}

#[inline(always)]
fn judge(slot: Borrowed<'_>, precedence: Precedence, call: &Call<'_>) -> Decision {
    let (source, destination) = sides(precedence, call);
    let Borrowed { revision, until, says } = slot;
    match says {
        Says::NotUnderstood(why) => enforced(Action::Deny, Because::NotUnderstood { source, destination, why: Arc::clone(why) }),
        Says::Action(action, mode) => {
            let because =
                Because::Intention { source, destination, revision, action, mode, temporary_until: until, permission: None };
            in_mode(mode, action, because)
        }
        Says::Permissions(mode, permissions) => {
            by_request(permissions, Place { sides: (source, destination), revision, until, mode }, call).decision
        }
    }
}

/// Of the intention that has permissions.
struct Place {
    sides: (Party, Party),
    revision: u64,
    until: Option<SystemTime>,
    mode: Mode,
}

/// Not in line: a decision on a connection by an action has no use for it.
#[inline(never)]
fn by_request(permissions: &Permissions, place: Place, call: &Call<'_>) -> RequestDecision {
    let Place { sides: (source, destination), revision, until, mode } = place;
    let request = match (call.protocol, call.request) {
        (Protocol::Tcp, _) => {
            let because = Because::PermissionsOnTcp { source, destination, revision };
            return RequestDecision::untouched(in_mode(mode, Action::Deny, because));
        }
        (Protocol::Http | Protocol::Http2 | Protocol::Grpc, None) => {
            let because = Because::PerRequest { source, destination, revision, mode };
            return RequestDecision::untouched(enforced(Action::Allow, because));
        }
        (Protocol::Http | Protocol::Http2 | Protocol::Grpc, Some(request)) => request,
    };
    let (decided, forward) = by_permissions(permissions, call, request);
    let because = match decided {
        Decided::Permission(index, action) => {
            Because::Intention { source, destination, revision, action, mode, temporary_until: until, permission: Some(index) }
        }
        Decided::Otherwise(_) => Because::Otherwise { source, destination, revision },
        Decided::Refused(why) => Because::PathRefused { source, destination, revision, why },
    };
    RequestDecision::forwarding(in_mode(mode, decided.action(), because), forward)
}

fn by_default(policy: DefaultPolicy) -> Decision {
    let because = Because::Default(policy);
    match policy {
        DefaultPolicy::Allow => enforced(Action::Allow, because),
        DefaultPolicy::Deny => enforced(Action::Deny, because),
        DefaultPolicy::Audit => in_mode(Mode::Audit, Action::Deny, because),
    }
}

fn in_mode(mode: Mode, action: Action, because: Because) -> Decision {
    match mode {
        Mode::Enforce => enforced(action, because),
        Mode::Audit => Decision { verdict: Verdict::Allow, would_deny: action == Action::Deny, because },
    }
}

fn enforced(action: Action, because: Because) -> Decision {
    let verdict = match action {
        Action::Allow => Verdict::Allow,
        Action::Deny => Verdict::Deny,
    };
    Decision { verdict, would_deny: false, because }
}
