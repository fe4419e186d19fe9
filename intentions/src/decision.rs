//! The decision on one call, and why.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use postern_names::{PortName, ServiceName};
use serde::{Deserialize, Serialize};

use crate::rules::{PRECEDENCES, Pair, Says, Slot};
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
    pub request: Option<&'a Request>,
}

/// An HTTP request, as it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// As received; methods depend on case (RFC 9110 §9.1).
    pub method: String,
    /// The request target as received.
    pub path: String,
    /// Names in lower case, and values as received.
    pub headers: Vec<(String, Vec<u8>)>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Permissions that this version cannot judge.
    PermissionsNotEnforced {
        /// Its source.
        source: Party,
        /// Its destination.
        destination: Party,
        /// The revision that last changed it.
        revision: u64,
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
            | Self::PermissionsNotEnforced { source, destination, .. } => format!("{source} -> {destination}"),
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
            Self::PermissionsNotEnforced { source, destination, .. } => {
                write!(f, "intention {source} -> {destination} has permissions, which this version cannot judge yet")
            }
            Self::NotUnderstood { source, destination, why } => {
                write!(f, "intention {source} -> {destination} is not understood: {why}")
            }
        }
    }
}

/// The decision on a call at `now`. It allocates nothing.
pub fn decide(rules: &RuleSet, call: &Call<'_>, now: SystemTime) -> Decision {
    let names = rules.sides(call.source, call.destination);
    for precedence in PRECEDENCES {
        if let Some(slot) = rules.get(&names, precedence).and_then(|found| found.governing(now)) {
            let (source, destination) = sides(precedence, call);
            return judge(slot, source, destination, call.protocol);
        }
    }
    by_default(rules.default_policy())
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

fn judge(slot: Slot<&Arc<str>>, source: Party, destination: Party, protocol: Protocol) -> Decision {
    let revision = slot.revision;
    match slot.says {
        Says::NotUnderstood(why) => enforced(Action::Deny, Because::NotUnderstood { source, destination, why: Arc::clone(why) }),
        Says::Action(action, mode) => {
            let because =
                Because::Intention { source, destination, revision, action, mode, temporary_until: slot.until, permission: None };
            in_mode(mode, action, because)
        }
        Says::Permissions(mode) => {
            let because = match protocol {
                Protocol::Tcp => Because::PermissionsOnTcp { source, destination, revision },
                Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
                    Because::PermissionsNotEnforced { source, destination, revision }
                }
            };
            in_mode(mode, Action::Deny, because)
        }
    }
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
