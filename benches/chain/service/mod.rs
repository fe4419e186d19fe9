//! The services behind the pairs, which none of the pairs must have to wait for.

mod bytes;
pub mod http2;
mod nginx;

use std::net::SocketAddr;
use std::path::Path;

use crate::install::Tools;
use crate::layer::Protocol;
use crate::process::Process;

/// One that runs.
#[derive(Debug)]
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ended when dropped; what needs no process ends with this one.
    #[expect(dead_code, reason = "held for its end")]
    process: Option<Process>,
}

/// Starts the one for a protocol: for bytes a thread of this process, for HTTP/1.1 nginx, for HTTP/2 this program once more.
///
/// # Errors
/// If it does not start.
pub fn start(protocol: Protocol, tools: &Tools, directory: &Path) -> anyhow::Result<Service> {
    match protocol {
        Protocol::Tcp => Ok(Service { address: bytes::start()?, process: None }),
        Protocol::Http => {
            let (address, process) = nginx::start(&tools.nginx, &directory.join("service"))?;
            Ok(Service { address, process: Some(process) })
        }
        Protocol::Http2 | Protocol::Grpc => {
            let (address, process) = http2::start(&directory.join("service-http2.log"))?;
            Ok(Service { address, process: Some(process) })
        }
    }
}
