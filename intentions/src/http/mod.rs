//! HTTP requests: the path that is judged and forwarded, and the permissions that judge it.
//!
//! [`judge_request`](crate::judge_request) reads the target of a request ([`RequestTarget`]), brings its path into the
//! form that is forwarded and finds every other way in which a service may read it ([`JudgedPath`]), and asks the
//! compiled permissions of the governing intention about each.

mod claims;
mod criteria;
mod describe;
mod judgement;
mod path;
mod path_rule;
mod permissions;
mod query;
mod refused;
mod request;
mod settings;
mod spelling;
mod target;
mod text_rule;
mod tokens;

pub use criteria::RequestCriteria;
pub(crate) use judgement::{Decided, by_permissions, reading_explanations, reading_paths};
pub use judgement::{Forward, PermissionExplanation, ReadingExplanation, RequestDecision};
pub use path::JudgedPath;
pub(crate) use path_rule::path_covers;
pub(crate) use permissions::Permissions;
pub use refused::PathRefused;
pub use request::Request;
pub use settings::PathSettings;
pub(crate) use spelling::never_in_a_path;
pub use target::RequestTarget;
pub use tokens::VerifiedTokens;
