//! What the end-to-end tests stand on: processes that are ended with the test, a mesh, small servers and clients.

mod host;
mod mesh;
mod process;
mod terminal;
mod traffic;

pub use host::{Host, link};
pub use mesh::Mesh;
pub use process::{Process, eventually, free_port};
pub use terminal::Terminal;
pub use traffic::{EchoServer, connect, http_get, is_closed, say};

use std::time::Duration;

/// How long a test waits for something that normally takes milliseconds: outcomes are asserted here, not speed.
pub const PATIENCE: Duration = Duration::from_secs(30);
