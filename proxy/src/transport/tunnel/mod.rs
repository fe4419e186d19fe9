//! Many streams over one mutual TLS connection between two sidecars (ALPN `postern/1`).
//!
//! [`Machine`] is the protocol without I/O: it is told the plaintext of records as they come and the time, and says what
//! happened ([`Event`]), what may be sent and which control frames are due. `docs/tunnel.md` specifies the wire.

mod budget;
mod busy;
mod credit;
mod driver;
mod end;
mod frame;
mod limits;
mod link;
mod liveness;
mod machine;
mod outgoing;
mod pace;
mod pool;
mod proof;
mod questions;
mod rate;
mod reason;
mod round_trip;
mod side;
mod stream;
mod streams;
mod violation;

#[cfg(test)]
mod tests;

use std::ops::Range;

use postern_names::PortName;

pub(crate) use budget::Budgets;
pub(crate) use driver::{Driver, Identities};
pub(crate) use end::untrusted_word;
#[cfg(test)]
pub(crate) use frame::MOST_CONTROL;
pub use frame::MOST_DATA;
pub(crate) use frame::{EARLY_DATA, FRAME_HEADER, MOST_PROOF};
pub(crate) use limits::TunnelLimits;
pub(crate) use link::{Link, Opening, Unopened};
pub(crate) use machine::Machine;
pub(crate) use pool::{PeerTunnels, Tunnels};
pub(crate) use proof::{Binding, Proof, prove};
pub(crate) use reason::{Reason, StreamReset, reset_reason};
pub(crate) use stream::TunnelStream;
pub(crate) use streams::StreamId;
pub(crate) use violation::Violation;

/// The name of the protocol in the TLS handshake (RFC 7301).
pub(crate) const ALPN: &[u8] = b"postern/1";

/// Which end of the tunnel this is. Only the dialler opens streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The end that dialled the connection: the TLS client.
    Dialler,
    /// The end that took it: the TLS server.
    Acceptor,
}

/// What the peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The peer wants a stream to `port`; answer with [`Machine::accept`] or [`Machine::refuse`].
    Opened {
        /// The new stream.
        id: StreamId,
        /// The port of this instance that it is for.
        port: PortName,
        /// The trace context that the peer sent along: printable ASCII.
        trace: Option<String>,
    },
    /// The peer accepted the stream. There is credit to send with, as after [`Event::Writable`].
    Accepted {
        /// The stream.
        id: StreamId,
    },
    /// Bytes of the stream, at `range` of the plaintext that was given to [`Machine::receive`].
    Data {
        /// The stream.
        id: StreamId,
        /// Where they are; never empty.
        range: Range<usize>,
    },
    /// The peer sends no more on this stream. Told once.
    Finished {
        /// The stream.
        id: StreamId,
    },
    /// The stream is over, and what was told of it and not consumed is to be dropped. Told once, and nothing follows it.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        reason: Reason,
    },
    /// There is credit again for a stream that had none.
    Writable {
        /// The stream.
        id: StreamId,
    },
    /// The peer asks for a proof of identity.
    Challenge([u8; 32]),
    /// The peer's answer to a challenge, at most [`MOST_PROOF`] bytes. Whether one was asked for is not checked here.
    Proof(Vec<u8>),
}

/// Why no stream can be opened on this tunnel now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// As many streams are open as one tunnel carries.
    #[error("the tunnel carries as many streams as it may; use another one")]
    Full,
    /// The peer refused so many streams lately that more refusals would end the tunnel, or so many wait for its answer
    /// that it would if it refused them all.
    #[error("too many streams were refused within a second, or wait for an answer; try again when one of them was accepted")]
    TooManyUnanswered,
    /// Every stream id was used.
    #[error("the tunnel has used all its stream ids; dial another one")]
    Exhausted,
    /// Only the dialler opens streams.
    #[error("this end of the tunnel was dialled; only the dialler opens streams")]
    NotDialler,
    /// The tunnel has ended.
    #[error("the tunnel has ended: {0}")]
    Ended(Violation),
}
