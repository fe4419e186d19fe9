//! One call, as it is counted.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem;
use std::time::Duration;

use postern_edges::{Method, Verdict};
use postern_intentions::{Because, Protocol};
use postern_names::{PortName, ServiceName};
use tokio::time::Instant;

use crate::http::exchange::Decider;
use crate::metrics::{Direction, Judged};

/// A call, or part of what there is to tell of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting<'a> {
    /// Who dialled, or sent the request.
    pub(crate) direction: Direction,
    /// The other service.
    pub(crate) peer: &'a ServiceName,
    /// The port of the called service.
    pub(crate) port: &'a PortName,
    /// What the called service speaks.
    pub(crate) protocol: Protocol,
    /// What became of it.
    pub(crate) verdict: Verdict,
    /// What decided.
    pub(crate) because: Why<'a>,
    /// Of a request.
    pub(crate) http: Option<HttpCall<'a>>,
    /// How much there was of it.
    pub(crate) amounts: Amounts,
    /// When it was judged, or ended.
    pub(crate) at: Instant,
}

/// What decided.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Why<'a> {
    /// The evaluator, in this sidecar. Its text is made once an edge.
    Rules(&'a Because),
    /// As the log says it.
    Words(&'a str),
}

/// What there is besides of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HttpCall<'a> {
    pub(crate) method: Method,
    /// Without the query.
    pub(crate) path: &'a str,
    /// Of the answer; 0: there was none.
    pub(crate) status: u16,
}

/// How much is added to an edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    /// 0 where the call was counted before.
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    /// From the caller.
    pub(crate) bytes_in: u64,
    /// To the caller.
    pub(crate) bytes_out: u64,
    /// Of a request: from its head to the last byte of the answer.
    pub(crate) took: Option<Duration>,
}

impl Amounts {
    /// One call of which nothing else is known.
    pub(crate) const ONE_CALL: Self = Self { calls: 1, errors: 0, bytes_in: 0, bytes_out: 0, took: None };
    /// One call that was counted before and failed.
    pub(crate) const ONE_ERROR: Self = Self { errors: 1, calls: 0, ..Self::ONE_CALL };
}

impl Why<'_> {
    /// Whether it is the same as what is kept.
    pub(super) fn is(&self, kept: &Decider) -> bool {
        match (self, kept) {
            (Self::Rules(because), Decider::Rules(kept)) => *because == kept,
            (Self::Words(words), Decider::Words(kept)) => **words == **kept,
            _ => false,
        }
    }

    pub(super) fn to_kept(self) -> Decider {
        match self {
            Self::Rules(because) => Decider::Rules(because.clone()),
            Self::Words(words) => Decider::Words(words.into()),
        }
    }
}

/// Cheaply: of what the rules say, only what tells most reasons of one peer apart.
impl Hash for Why<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Rules(because) => {
                mem::discriminant(*because).hash(state);
                if let Because::Intention { revision, permission, .. } = because {
                    (revision, permission).hash(state);
                }
            }
            Self::Words(words) => words.hash(state),
        }
    }
}

impl<'a> From<&'a Decider> for Why<'a> {
    fn from(decider: &'a Decider) -> Self {
        match decider {
            Decider::Rules(because) => Self::Rules(because),
            Decider::Words(words) => Self::Words(words),
        }
    }
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(because) => because.fmt(f),
            Self::Words(words) => f.write_str(words),
        }
    }
}

/// The verdict of what was judged so; what was not judged has failed.
pub(crate) fn verdict_of(judged: Option<Judged>) -> Verdict {
    match judged {
        Some(Judged::Allow) => Verdict::Allow,
        Some(Judged::Audit) => Verdict::Audit,
        Some(Judged::Deny) => Verdict::Deny,
        None => Verdict::Failed,
    }
}
