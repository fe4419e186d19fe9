//! What the end-to-end tests stand on: processes that are ended with the test, a mesh, small servers and clients.

mod carriage;
mod databases;
mod host;
mod http;
mod mesh;
mod process;
mod sequence;
mod svid;
mod terminal;
mod traffic;

pub use carriage::{Carriage, DIRECT_IN_PLACE, DIRECT_RUSTLS, TUNNEL_IN_PLACE, TUNNEL_RUSTLS};
pub(crate) use carriage::{over_every_carriage, over_every_tunnel};
pub use databases::{POSTGRES_BIN, Postgres, Redis, psql};
pub use host::{Host, link};
pub use http::{Pair, Service, curl, run_script, run_script_of, script};
pub use mesh::{Mesh, Sidecar};
pub use process::{Process, eventually, free_port, meshctl_binary};
pub use sequence::{Ended, converse, receive, send};
pub use svid::SvidFiles;
pub use terminal::Terminal;
pub use traffic::{EchoServer, connect, http_get, is_closed, say};

use std::time::Duration;

/// How long a test waits for something that normally takes milliseconds: outcomes are asserted here, not speed.
pub const PATIENCE: Duration = Duration::from_secs(30);
