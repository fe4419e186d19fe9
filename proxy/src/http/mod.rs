//! What the sidecar does with HTTP.

pub mod framing;
