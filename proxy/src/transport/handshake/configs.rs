//! rustls configurations of the SVID of the moment.
//!
//! A configuration that reads the slot itself does not tell which leaf it showed. These are made once a rotation, with
//! the one SVID that they show.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use postern_ca::{Svid, SvidSource};
use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};

use crate::transport::record::RecordLayerKind;

/// The accepting end's.
pub(crate) type ServerConfigs = Configs<ServerConfig>;

/// The dialling end's.
pub(crate) type ClientConfigs = Configs<ClientConfig>;

/// A configuration of either end.
pub(crate) trait Config: Sized {
    /// The same, which shows this SVID, and whose connections hand out their secrets if the record layer needs them.
    fn showing(&self, svid: &Svid, kind: RecordLayerKind) -> Self;
}

impl Config for ServerConfig {
    fn showing(&self, svid: &Svid, kind: RecordLayerKind) -> Self {
        let mut config = self.clone();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(svid.certified_key()));
        config.enable_secret_extraction = kind == RecordLayerKind::InPlace;
        config
    }
}

impl Config for ClientConfig {
    fn showing(&self, svid: &Svid, kind: RecordLayerKind) -> Self {
        let mut config = self.clone();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(svid.certified_key()));
        config.enable_secret_extraction = kind == RecordLayerKind::InPlace;
        config
    }
}

/// A configuration and the SVIDs that it shows, one at a time.
pub(crate) struct Configs<C> {
    base: Arc<C>,
    svid: SvidSource,
    kind: RecordLayerKind,
    made: ArcSwapOption<Made<C>>,
}

/// What was made for one SVID.
struct Made<C> {
    svid: Arc<Svid>,
    config: Arc<C>,
}

impl<C: Config> Configs<C> {
    /// Of this configuration, whose own certificate is replaced.
    pub(crate) fn new(base: Arc<C>, svid: SvidSource, kind: RecordLayerKind) -> Self {
        Self { base, svid, kind, made: ArcSwapOption::empty() }
    }

    /// The configuration for a handshake that begins now, with the leaf that it shows; `None` while there is no SVID.
    pub(crate) fn current(&self) -> Option<(Arc<C>, CertificateDer<'static>)> {
        let svid = self.svid.load()?;
        let leaf = svid.chain().first()?.clone();
        if let Some(made) = self.made.load().as_ref().filter(|made| Arc::ptr_eq(&made.svid, &svid)) {
            return Some((made.config.clone(), leaf));
        }
        let config = Arc::new(self.base.showing(&svid, self.kind));
        self.made.store(Some(Arc::new(Made { svid, config: config.clone() })));
        Some((config, leaf))
    }
}
