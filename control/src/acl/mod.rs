//! Who may do what with what Consul's API serves: keys, services, nodes, sessions and the rest.
//!
//! Every route of that API asks the [`Authority`] that its request came with, and nothing else: what an authority may is
//! decided here. An operator may do everything, everyone else nothing.
//!
//! | module | what it holds |
//! |---|---|
//! | `resource` | what can be read and written, and how |
//! | `authority` | who asks, and what it may |

mod authority;
mod resource;

pub use self::authority::{Authority, Denied};
pub use self::resource::{Access, Resource};
