//! The protocols of the transport on bytes alone, without sockets: for fuzz targets, benchmarks and instruction counts.
//! The sidecar itself uses nothing of it, and it does nothing that the sidecar does not.

mod proof;
mod records;
mod tunnel_end;

use super::tunnel::Role;

pub use super::hello::{Arrival, arrival};
pub use proof::{Bound, ReadProof, prove};
pub use records::{AFTER, BEFORE, MOST_CONTENT, Record, Records, record_length, shake};
pub use tunnel_end::{MOST_DATA, Told, TunnelEnd};

/// An end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The end that dialled: the client of the handshake.
    Dialler,
    /// The end that was dialled: the server of the handshake.
    Acceptor,
}

impl End {
    fn role(self) -> Role {
        match self {
            Self::Dialler => Role::Dialler,
            Self::Acceptor => Role::Acceptor,
        }
    }
}
