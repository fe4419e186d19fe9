//! The push: change → who cares → what to send → acknowledged.
//!
//! | module | what it holds |
//! |---|---|
//! | `sidecars` | all open streams; marks each change on those it concerns; waits until it is in force |
//! | `sidecar` | one open stream as others see it |
//! | `lanes` | what one lane still has to send, and what is in flight: no I/O |
//! | `configuration` | keys and instances that one sidecar asked for: who may, and what is new to it |
//! | `render` | the resources of a lane, read off the view, serialised once and shared |
//! | `stream` | the life of one stream: admitted, welcomed, fed, ended |
//! | `stats` | counters for `/metrics` |

mod configuration;
mod lanes;
mod render;
mod sidecar;
mod sidecars;
mod stats;
mod stream;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use parking_lot::Mutex;
use postern_api::v1;
use postern_api::v1::mesh_server::Mesh;
use postern_ca::{Serial, TrustSource};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub use self::sidecar::{Identity, SidecarStatus};
pub use self::sidecars::{IdInUse, Sidecars};
pub use self::stats::{ObservePush, PushStats};
use crate::edges::Traffic;
use crate::identity::CallerInfo;
use crate::kv::KeyValues;
use crate::mirror::Mirror;
use crate::registry::{EndpointSets, Registry, RegistrySettings};
use crate::store::Store;

/// Periods of the push.
#[derive(Debug, Clone)]
pub struct PushSettings {
    /// Between two heartbeats on a stream; spread evenly over the sidecars.
    pub heartbeat: Duration,
    /// Between two beats of a sidecar, as it is told in the Welcome.
    pub beat: Duration,
    /// Either end drops a stream that was silent for so long.
    pub silence: Duration,
    /// A message that was not acknowledged for so long ends the stream.
    pub ack_timeout: Duration,
    /// For the first message of a stream.
    pub hello_timeout: Duration,
    /// Streams at once; more are told to come back later.
    pub max_streams: usize,
    /// Periods of the registry.
    pub registry: RegistrySettings,
}

impl Default for PushSettings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            beat: Duration::from_secs(5),
            silence: Duration::from_secs(25),
            ack_timeout: Duration::from_secs(10),
            hello_timeout: Duration::from_secs(5),
            max_streams: 50_000,
            registry: RegistrySettings::default(),
        }
    }
}

/// Is called with the serial of each SVID that opens a stream.
pub type OnOpen = Arc<dyn Fn(Serial) + Send + Sync>;

/// The `Mesh` service: one stream per sidecar.
pub struct MeshService {
    mirror: Arc<Mirror>,
    registry: Arc<Registry>,
    sidecars: Arc<Sidecars>,
    keys: Arc<KeyValues>,
    traffic: Arc<Traffic>,
    trust: TrustSource,
    on_open: OnOpen,
    settings: PushSettings,
    streams: Mutex<JoinSet<()>>,
    /// Follows the bundle.
    follower: Mutex<JoinSet<()>>,
}

impl MeshService {
    /// Starts the registry and the push. `trust` holds the bundle that sidecars get; `on_open` hears of each SVID in use,
    /// `keys` opens the values that sidecars ask for, `traffic` keeps what they see.
    pub fn start(
        store: Arc<dyn Store>,
        mirror: Arc<Mirror>,
        keys: Arc<KeyValues>,
        traffic: Arc<Traffic>,
        trust: TrustSource,
        on_open: OnOpen,
        settings: PushSettings,
    ) -> Arc<Self> {
        let sets = Arc::new(EndpointSets::default());
        let sidecars = Sidecars::new(Arc::clone(&mirror), Arc::clone(&sets), Arc::new(PushStats::default()));
        let registry = Registry::start(store, Arc::clone(&mirror), sets, settings.registry.clone());
        let (streams, follower) = (Mutex::default(), Mutex::default());
        Arc::new(Self { mirror, registry, sidecars, keys, traffic, trust, on_open, settings, streams, follower })
    }

    /// Has every stream send the bundle as soon as `changes` tells of a new one, which `trust` then holds.
    pub fn follow_bundle(&self, mut changes: watch::Receiver<u64>) {
        let sidecars = Arc::downgrade(&self.sidecars);
        changes.mark_unchanged();
        self.follower.lock().spawn(async move {
            while changes.changed().await.is_ok() {
                let Some(sidecars) = sidecars.upgrade() else { return };
                sidecars.wake_all();
            }
        });
    }

    /// All open streams.
    pub fn sidecars(&self) -> Arc<Sidecars> {
        Arc::clone(&self.sidecars)
    }

    /// What the sidecars see of calls.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Who is where.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// Counters for `/metrics`.
    pub fn stats(&self) -> Arc<PushStats> {
        Arc::clone(&self.sidecars.stats)
    }

    /// Ends every stream and waits until they ended.
    pub async fn shut_down(&self) {
        self.sidecars.close_all("the control plane stops; the mesh works on without it");
        let mut streams = std::mem::take(&mut *self.streams.lock());
        while streams.join_next().await.is_some() {}
    }

    fn serve(self: Arc<Self>, opener: stream::Opener, inbound: Streaming<v1::SidecarMessage>, messages: stream::Messages) {
        let mesh = Arc::clone(&self);
        let mut streams = self.streams.lock();
        while streams.try_join_next().is_some() {}
        streams.spawn(stream::serve(mesh, opener, inbound, messages));
    }
}

/// What the control plane says on a stream.
type ControlMessages = Pin<Box<dyn Stream<Item = Result<v1::ControlMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Mesh for Shared {
    type ConnectStream = ControlMessages;

    async fn connect(&self, request: Request<Streaming<v1::SidecarMessage>>) -> Result<Response<ControlMessages>, Status> {
        let caller = request.extensions().get::<CallerInfo>().cloned().ok_or_else(no_certificate)?;
        let peer = caller.peer.ok_or_else(no_certificate)?;
        let service =
            peer.service.clone().ok_or_else(|| Status::permission_denied("only the SVID of a service may open a stream"))?;
        if peer.not_after <= SystemTime::now() {
            return Err(Status::unauthenticated("the SVID expired; renew it, or enrol with a new token"));
        }
        let (messages, receiver) = tokio::sync::mpsc::channel(2);
        let opener = stream::Opener { address: caller.address, peer, service };
        Arc::clone(&self.0).serve(opener, request.into_inner(), messages);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The service as tonic takes it: the orphan rule wants a type of ours around the `Arc`.
#[derive(Clone)]
pub struct Shared(pub Arc<MeshService>);

fn no_certificate() -> Status {
    Status::unauthenticated("this call needs the SVID of a service as client certificate")
}
