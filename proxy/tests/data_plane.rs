//! Two data planes in one process, with real certificates and snapshots made by hand: the same cases over both transports and
//! both record layers.

mod mesh;

macro_rules! carried_over {
    ($name:ident, $transport:ident, $record_layer:ident) => {
        mod $name {
            use postern_proxy::data_plane::{RecordLayerKind, TransportMode};

            const CARRIED: super::mesh::Carried =
                super::mesh::Carried { transport: TransportMode::$transport, record_layer: RecordLayerKind::$record_layer };

            include!("cases/data_plane.rs");
        }
    };
}

carried_over!(tunnel_inplace, Auto, InPlace);
carried_over!(tunnel_rustls, Auto, Rustls);
carried_over!(direct_inplace, Direct, InPlace);
carried_over!(direct_rustls, Direct, Rustls);
