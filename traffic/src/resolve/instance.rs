//! What resolving needs to know of an instance.

use postern_names::{InstanceId, PortName};

use crate::Locality;

/// An instance of a service that can take requests, in whatever form the caller keeps it.
pub trait Instance {
    /// Its id, unique in the mesh.
    fn id(&self) -> &InstanceId;

    /// The value of a label that it was started with (`--meta K=V`).
    fn meta(&self, key: &str) -> Option<&str>;

    /// Where it runs, if it says so.
    fn locality(&self) -> Option<Locality<'_>>;

    /// The ports that it serves.
    fn ports(&self) -> impl Iterator<Item = &PortName>;

    /// What it gets beside the others: twice the weight, twice the requests. 0: only what no other can take.
    fn weight(&self) -> u32 {
        1
    }
}

/// The sidecar that picks.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The instance that it is the sidecar of: never picked.
    pub instance: &'a InstanceId,
    /// Where it runs, if it says so.
    pub locality: Option<Locality<'a>>,
    /// Any number that other sidecars do not have: where `round_robin` begins.
    pub seed: u64,
}
