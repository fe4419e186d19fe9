//! Who calls whom, as the sidecars see it: told → kept → asked for.
//!
//! What a sidecar tells grants nothing and decides nothing. It can speak of its own service alone, as often as its
//! [`Allowance`] lets it, and nothing that it tells ends its stream.
//!
//! | module | what it holds |
//! |---|---|
//! | `traffic` | what was told, in memory: edges (`postern_edges::Ledger`), single decisions, and whoever follows them |
//! | `allowance` | how much one sidecar may tell |
//! | `decision` | one call as it is told and as it is shown |
//! | `lately` | the last decisions of each pair |
//! | `places` | how many follow at once, in all and of one token |
//! | `kept` | edges as they are in the store |

mod allowance;
mod decision;
mod kept;
mod lately;
mod places;
mod traffic;

pub use self::allowance::Allowance;
pub use self::places::{Follower, NoPlace, OF_HOLDER, Place};
pub use self::traffic::{KEEP_EVERY, Teller, Traffic, TrafficCounts};
