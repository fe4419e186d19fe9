//! What a verifier trusts.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use postern_names::Datacenter;

use crate::{Serial, TrustBundle};

/// What a verifier trusts at one moment; swapped whole when the control plane pushes a change.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The roots of our own trust domain.
    pub bundle: TrustBundle,
    /// The only datacenter whose services are let in.
    pub datacenter: Datacenter,
    /// Serials of revoked SVIDs that have not expired.
    pub revoked: HashSet<Serial>,
}

/// Where verifiers read the current trust, without waiting.
pub type TrustSource = Arc<ArcSwap<Trust>>;
