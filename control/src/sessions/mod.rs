//! Sessions: who holds locks, for as long as it shows that it lives.
//!
//! A session ends when it is destroyed, when its time to live passes without a renewal, or when its node or one of its
//! checks is lost. Then its locks are released, or the keys deleted, and cannot be locked for its lock-delay: whoever held
//! them has that long to notice. A renewal is no durable write, so a start of the control plane gives every session its
//! full time again: a time to live is a lower bound.
//!
//! | module | what it holds |
//! |---|---|
//! | `record`, `view` | a session as stored, and all of them at one revision |
//! | `deadlines` | when each ends unless it is renewed |
//! | `witness` | whether the node and the checks of a session are there |
//! | `keeper` | [`Sessions`]: made, renewed, ended |

mod deadlines;
mod keeper;
mod record;
mod view;
mod witness;

pub use self::keeper::{NewSession, SessionError, SessionSettings, Sessions};
pub use self::record::{Behaviour, ServiceCheck, SessionRecord, session_key};
pub use self::view::SessionsView;
pub use self::witness::{Missing, NODE_CHECK};
