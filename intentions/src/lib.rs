//! Who may call whom: the model of intentions, their precedence, the compiled rule set, the decision and its
//! explanation, the YAML file, and the difference between two sets.
//!
//! Everything here is pure: time comes in as `now`, nothing reads a clock, a file or the network. Anything unknown,
//! malformed or not understood denies.

mod decision;
mod error;
mod explanation;
pub mod file;
mod form;
mod http;
mod intention;
mod keyed_hash;
mod names;
mod party;
mod permission;
pub mod plan;
mod remedy;
mod rules;
mod shadow;
mod table;
mod timestamp;
mod words;
pub mod yaml;

pub use decision::{Because, Call, Decision, Verdict, decide, has_permissions, judge_request};
pub use error::IntentionError;
pub use explanation::{Candidate, Explanation, explain};
pub use http::{
    Forward, JudgedPath, PathRefused, PathSettings, PermissionExplanation, ReadingExplanation, Request, RequestCriteria,
    RequestDecision, RequestTarget, VerifiedTokens,
};
pub use intention::{Intention, Rule};
pub use party::{PairKey, Party, PartyError, Precedence};
pub use permission::{
    ClaimCriterion, ClaimMatch, HeaderCriterion, JwtCriterion, PathCriterion, Permission, QueryCriterion, TextMatch,
};
pub use remedy::{Remedy, remedy};
pub use rules::{Entry, EntryContent, RuleSet};
pub use shadow::{Shadowed, never_matched, shadowed};
pub use words::{Action, DefaultPolicy, DoubleSlash, EncodedSlash, Mode, Protocol, UnknownWord};

/// Checks of single values that permissions and the settings of services share.
pub mod checks {
    pub use crate::permission::{check_header_name, check_method, check_path, check_regex, check_text};
}
