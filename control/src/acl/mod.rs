//! Who may do what with what the HTTP API serves: keys, services, nodes, sessions, intentions and the rest.
//!
//! Every route asks the [`Authority`] that its request came with, and nothing else. An operator may do everything; whoever
//! shows a token, what its policies grant; everyone else, what the anonymous token grants: nothing, until somebody gives it
//! a policy.
//!
//! | module | what it holds |
//! |---|---|
//! | `resource` | what can be read and written, and how |
//! | `policy`, `syntax` | what a policy says, and how it is written |
//! | `grants` | what all policies of a holder grant together: the one decision |
//! | `authority` | who asks, and what it may |
//! | `accounts` | changes of tokens, policies and roles |
//! | `service` | what a sidecar may read for its service |

mod accounts;
mod authority;
mod grants;
mod policy;
mod resource;
mod service;
mod syntax;

pub use self::accounts::{
    ANONYMOUS_ACCESSOR, AccountError, Accounts, GLOBAL_MANAGEMENT, MANAGEMENT, Named, NewLinks, NewPolicy, NewRole, NewToken,
    Secret, anonymous, hash_of,
};
pub use self::authority::{Authority, Denied};
pub use self::grants::Grants;
pub use self::policy::{Kind, Level, NodeIdentity, Reach, Rule, ServiceIdentity, of_management};
pub use self::resource::{Access, Resource};
pub use self::service::service_may;
pub use self::syntax::{SyntaxError, parse};
