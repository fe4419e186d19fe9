//! What carries the streams between sidecars.

use std::fmt;

/// A transport and a record layer, as every sidecar of a mesh is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carriage {
    pub transport: &'static str,
    pub record_layer: &'static str,
}

pub const TUNNEL_IN_PLACE: Carriage = Carriage { transport: "tunnel", record_layer: "inplace" };
pub const TUNNEL_RUSTLS: Carriage = Carriage { transport: "tunnel", record_layer: "rustls" };
pub const DIRECT_IN_PLACE: Carriage = Carriage { transport: "direct", record_layer: "inplace" };
pub const DIRECT_RUSTLS: Carriage = Carriage { transport: "direct", record_layer: "rustls" };

impl Carriage {
    /// The flags of a sidecar.
    pub fn flags(self) -> [&'static str; 4] {
        ["--transport", self.transport, "--record-layer", self.record_layer]
    }
}

impl fmt::Display for Carriage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} records", self.transport, self.record_layer)
    }
}

/// Makes four tests of each function that takes a [`Carriage`].
#[allow(unused_macros)] // not every program of tests has cases of both sorts
macro_rules! over_every_carriage {
    ($($case:ident),* $(,)?) => { $(
        mod $case {
            use crate::support::{DIRECT_IN_PLACE, DIRECT_RUSTLS, TUNNEL_IN_PLACE, TUNNEL_RUSTLS};

            #[test]
            fn over_a_tunnel_with_records_in_place() {
                super::$case(TUNNEL_IN_PLACE);
            }

            #[test]
            fn over_a_tunnel_with_records_by_rustls() {
                super::$case(TUNNEL_RUSTLS);
            }

            #[test]
            fn over_direct_connections_with_records_in_place() {
                super::$case(DIRECT_IN_PLACE);
            }

            #[test]
            fn over_direct_connections_with_records_by_rustls() {
                super::$case(DIRECT_RUSTLS);
            }
        }
    )* };
}

/// Makes two tests of each function that takes a [`Carriage`]: those over a tunnel.
#[allow(unused_macros)] // as above
macro_rules! over_every_tunnel {
    ($($case:ident),* $(,)?) => { $(
        mod $case {
            use crate::support::{TUNNEL_IN_PLACE, TUNNEL_RUSTLS};

            #[test]
            fn over_a_tunnel_with_records_in_place() {
                super::$case(TUNNEL_IN_PLACE);
            }

            #[test]
            fn over_a_tunnel_with_records_by_rustls() {
                super::$case(TUNNEL_RUSTLS);
            }
        }
    )* };
}

#[allow(unused_imports)] // as above
pub(crate) use {over_every_carriage, over_every_tunnel};
