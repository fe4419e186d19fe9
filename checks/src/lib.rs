//! Health checks: what they are, when one has changed, and how each kind is run. Whoever stands next to an instance runs
//! them: its sidecar, or the control plane for an instance without one.
//!
//! | module | what it holds |
//! |---|---|
//! | `status` | passing, warning, critical |
//! | `definition`, `form` | a check that is valid, and the form in which people and Consul's API write it |
//! | `loose` | reading JSON whose field names are written `LikeThis` or `like_this` |
//! | `own` | the checks that a sidecar runs of its own service, as flags and files give them |
//! | `duration` | times as Go writes them |
//! | `damper` | from results to a status: thresholds, so that one slip changes nothing |
//! | `output` | what a check said, cut to 4 KiB |
//! | `run` | the checks that are asked every so often: http, tcp, udp, grpc, h2ping, script |

mod damper;
mod definition;
pub mod duration;
mod form;
pub mod loose;
mod output;
mod own;
pub mod run;
mod status;

pub use damper::{Damper, Thresholds};
pub use definition::{Definition, GrpcProbe, HttpProbe, InvalidCheck, Kind, PingProbe, Probe, Schedule, Tls};
pub use form::CheckForm;
pub use output::{OUTPUT_LIMIT, shortened};
pub use own::{InvalidOwn, OwnCheck, parse_file};
pub use status::{Status, UnknownStatus};
