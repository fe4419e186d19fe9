//! The life of one stream: admitted, welcomed, fed, ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use postern_api::convert::millis;
use postern_api::key::ResourceKey;
use postern_api::v1;
use postern_api::v1::control_message::Message as Down;
use postern_api::v1::refusal::Code;
use postern_api::v1::sidecar_message::Message as Up;
use postern_ca::Peer;
use postern_names::{NameError, ServiceName};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::MeshService;
use super::configuration::Configuration;
use super::lanes::{Content, into_chunks};
use super::render::{Receiver, Source};
use super::sidecar::{Cut, End, Identity, Sidecar, Told};
use crate::edges::{Allowance, Teller};
use crate::registry::{RegisterError, Registration};

/// Upstreams that one sidecar may have.
const MAX_UPSTREAMS: usize = 1000;
/// Parts of an intention that a sidecar may say that it understands.
const MAX_UNDERSTOOD: usize = 256;
/// How long a sidecar that is told to come back later waits.
const BUSY_RETRY: Duration = Duration::from_secs(30);
/// For the last words of a stream to leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// A sleep that ends when something else wakes the stream.
const LONG: Duration = Duration::from_secs(3600);

pub(super) type Messages = mpsc::Sender<Result<v1::ControlMessage, Status>>;

/// Who opens a stream, as the handshake proved it.
pub(super) struct Opener {
    pub(super) address: SocketAddr,
    pub(super) peer: Peer,
    pub(super) service: ServiceName,
}

/// Serves one stream until it ends.
pub(super) async fn serve(
    mesh: Arc<MeshService>,
    opener: Opener,
    mut inbound: Streaming<v1::SidecarMessage>,
    messages: Messages,
) {
    let admitted = match first_message(&mesh, &mut inbound).await {
        Ok(hello) => admit(&mesh, &opener, &hello).await,
        Err(refusal) => Err(refusal),
    };
    match admitted {
        Ok(sidecar) => {
            mesh.sidecars.stats.sidecars.fetch_add(1, Ordering::Relaxed);
            let stream = OpenStream::new(&mesh, &opener, Arc::clone(&sidecar), messages.clone());
            let end = stream.run(inbound).await;
            sidecar.is_open.store(false, Ordering::Release);
            mesh.traffic.ended(sidecar.number);
            mesh.sidecars.release(&sidecar);
            mesh.sidecars.stats.sidecars.fetch_sub(1, Ordering::Relaxed);
            tracing::info!(instance = %sidecar.identity.instance, address = %opener.address, because = end.reason(), "sidecar disconnected");
            farewell(&messages, end).await;
        }
        Err(refusal) => {
            mesh.sidecars.stats.count(&mesh.sidecars.stats.refused);
            tracing::warn!(service = %opener.service, address = %opener.address, because = %refusal.reason, "stream refused");
            farewell(&messages, End::Refused(refusal)).await;
        }
    }
}

async fn farewell(messages: &Messages, end: End) {
    let message = match end {
        End::Refused(refusal) => Ok(v1::ControlMessage { message: Some(Down::Refusal(refusal)) }),
        End::Interrupted(reason) => Err(Status::unavailable(reason)),
        End::Quiet(_) => return,
    };
    // A sidecar that does not read loses the reason, nothing more.
    let _ = tokio::time::timeout(FAREWELL, messages.send(message)).await;
}

fn refusal(code: Code, reason: impl Into<String>) -> v1::Refusal {
    v1::Refusal { code: code.into(), reason: reason.into(), retry_after_ms: 0 }
}

async fn first_message(mesh: &MeshService, inbound: &mut Streaming<v1::SidecarMessage>) -> Result<v1::Hello, v1::Refusal> {
    let first = tokio::time::timeout(mesh.settings.hello_timeout, inbound.message()).await;
    match first {
        Ok(Ok(Some(v1::SidecarMessage { message: Some(Up::Hello(hello)) }))) => Ok(hello),
        Ok(Ok(_)) => Err(refusal(Code::Refused, "the first message of a stream must be Hello")),
        Ok(Err(status)) => Err(refusal(Code::Refused, format!("the first message cannot be read: {}", status.message()))),
        Err(_) => Err(refusal(Code::Refused, "no Hello came in time")),
    }
}

/// Checks who it is and what it says it is, takes its id, and takes its registration in.
async fn admit(mesh: &MeshService, opener: &Opener, hello: &v1::Hello) -> Result<Arc<Sidecar>, v1::Refusal> {
    let wire = hello.registration.as_ref().ok_or_else(|| refusal(Code::Refused, "Hello has no registration"))?;
    let registration = Registration::from_wire(wire).map_err(|error| refuse_registration(&error))?;
    let upstreams = upstreams(hello)?;
    let serial = opener.peer.serial;
    let issued = mesh
        .mirror
        .read(|view| view.issuances.get(&serial).map(|issuance| (issuance.lineage.clone(), issuance.instance.clone())));
    let lineage = match issued {
        Some((_, instance)) if instance != registration.id => {
            let why =
                format!("this SVID was issued to instance {instance}, not {}; use its own state directory", registration.id);
            return Err(refusal(Code::Refused, why));
        }
        Some((lineage, _)) => lineage,
        // Issued before a restore of the store: each such SVID counts as an enrolment of its own.
        None => serial.to_string(),
    };
    if mesh.sidecars.len() >= mesh.settings.max_streams {
        let retry_after_ms = u32::try_from(BUSY_RETRY.as_millis()).unwrap_or(u32::MAX);
        return Err(v1::Refusal { retry_after_ms, ..refusal(Code::Busy, "this control plane has as many sidecars as it may") });
    }
    let identity =
        Identity { instance: registration.id.clone(), service: opener.service.clone(), serial, lineage, address: opener.address };
    let understands = hello.understands.iter().take(MAX_UNDERSTOOD).map(|name| name.chars().take(64).collect());
    let told = Told { upstreams, version: hello.version.chars().take(64).collect(), understands: understands.collect() };
    let sidecar = mesh.sidecars.claim(identity, told).map_err(|error| refusal(Code::IdInUse, error.to_string()))?;
    // Asked after the id was taken: a revocation from here on closes the stream by itself.
    let is_revoked = mesh.mirror.read(|view| view.is_revoked(&sidecar.identity.serial));
    let registered = if is_revoked {
        Err(refusal(Code::Refused, "the SVID was revoked"))
    } else {
        register(mesh, &sidecar, registration).await
    };
    match registered {
        Ok(()) => {
            (mesh.on_open)(sidecar.identity.serial);
            Ok(sidecar)
        }
        Err(refusal) => {
            mesh.sidecars.release(&sidecar);
            Err(refusal)
        }
    }
}

fn upstreams(hello: &v1::Hello) -> Result<BTreeSet<ServiceName>, v1::Refusal> {
    if hello.upstreams.len() > MAX_UPSTREAMS {
        return Err(refusal(Code::Refused, format!("{} upstreams, at most {MAX_UPSTREAMS} are allowed", hello.upstreams.len())));
    }
    let names: Result<_, NameError> = hello.upstreams.iter().map(|name| name.parse()).collect();
    names.map_err(|error| refusal(Code::Refused, format!("upstream: {error}")))
}

async fn register(mesh: &MeshService, sidecar: &Sidecar, registration: Registration) -> Result<(), v1::Refusal> {
    let identity = &sidecar.identity;
    let registered = mesh.registry.register(&identity.service, &identity.lineage, &registration).await;
    registered.map_err(|error| refuse_registration(&error))?;
    *sidecar.warnings.lock() = registration.warnings;
    Ok(())
}

fn refuse_registration(error: &RegisterError) -> v1::Refusal {
    let code = match error {
        RegisterError::ProtocolDiffers { .. } => Code::ProtocolDiffers,
        RegisterError::OtherService { .. } => Code::IdInUse,
        RegisterError::Name(_) | RegisterError::Invalid(_) | RegisterError::HasSidecar { .. } | RegisterError::Unwritable(_) => {
            Code::Refused
        }
        RegisterError::Contended(_) | RegisterError::Busy(_) | RegisterError::Store(_) => Code::Busy,
    };
    v1::Refusal { retry_after_ms: if code == Code::Busy { 1000 } else { 0 }, ..refusal(code, error.to_string()) }
}

/// A message on its way out, chunk by chunk.
#[derive(Default)]
struct Outgoing {
    chunks: VecDeque<v1::Delta>,
    /// The keys of the message that is sent or in flight, to know what its acknowledgement supersedes.
    keys: Vec<String>,
    complete: bool,
    /// When the message was rendered, or its latest chunk left.
    moved_at: Option<Instant>,
}

struct OpenStream<'a> {
    mesh: &'a MeshService,
    sidecar: Arc<Sidecar>,
    messages: Messages,
    expires_at: SystemTime,
    authority: Outgoing,
    reachability: Outgoing,
    configuration: Configuration,
    configured: Outgoing,
    /// Welcome, heartbeats and the like: they go before any chunk.
    first: VecDeque<Down>,
    verdicts: BTreeMap<ServiceName, SystemTime>,
    bundle_sequence: u64,
    heard_at: Instant,
    heartbeat_at: Instant,
    teller: Teller,
    allowance: Allowance,
    /// It said goodbye.
    has_left: bool,
}

impl<'a> OpenStream<'a> {
    fn new(mesh: &'a MeshService, opener: &Opener, sidecar: Arc<Sidecar>, messages: Messages) -> Self {
        let now = Instant::now();
        let welcome = welcome(mesh, opener);
        sidecar.is_open.store(true, Ordering::Release);
        tracing::info!(instance = %sidecar.identity.instance, service = %opener.service, address = %opener.address, "sidecar connected");
        let Identity { instance, service, .. } = sidecar.identity.clone();
        Self {
            teller: Teller { stream: sidecar.number, service, instance },
            allowance: Allowance::full(now),
            heartbeat_at: now + first_heartbeat(mesh.settings.heartbeat, sidecar.number),
            mesh,
            sidecar,
            messages,
            expires_at: opener.peer.not_after,
            authority: Outgoing::default(),
            reachability: Outgoing::default(),
            configuration: Configuration::default(),
            configured: Outgoing::default(),
            first: VecDeque::from([Down::Welcome(welcome)]),
            verdicts: BTreeMap::new(),
            bundle_sequence: 0,
            heard_at: now,
            has_left: false,
        }
    }

    /// Runs until the stream ends, and says why it did.
    async fn run(mut self, mut inbound: Streaming<v1::SidecarMessage>) -> End {
        loop {
            self.prepare();
            let timer = self.next_timer();
            let lanes = [&self.authority, &self.reachability, &self.configured];
            let has_something = !self.first.is_empty() || lanes.iter().any(|outgoing| !outgoing.chunks.is_empty());
            let messages = self.messages.clone();
            let sidecar = Arc::clone(&self.sidecar);
            tokio::select! {
                // What ends the stream comes first; then what leaves, so that a deny does not wait for a busy sidecar's beats.
                biased;
                () = sidecar.closed.cancelled() => return sidecar.closed_because(),
                permit = messages.reserve(), if has_something => match permit {
                    Ok(permit) => if let Some(message) = self.next_message() {
                        permit.send(Ok(v1::ControlMessage { message: Some(message) }));
                    },
                    Err(_) => return End::Quiet("the sidecar hung up".to_owned()),
                },
                message = inbound.message() => match message {
                    Ok(Some(message)) => if let Err(end) = self.take_in(message).await {
                        return end;
                    },
                    Ok(None) => return End::Quiet("the sidecar ended the stream".to_owned()),
                    Err(status) => return End::Quiet(format!("the stream broke: {}", status.message())),
                },
                () = sidecar.wake.notified() => {}
                () = self.configuration.changed() => {}
                () = tokio::time::sleep_until(timer) => if let Some(end) = self.on_timer() {
                    return End::Interrupted(end);
                },
            }
        }
    }

    /// Renders what was marked, lane by lane, where nothing is in flight.
    fn prepare(&mut self) {
        if let Some(follow) = self.sidecar.take_follow() {
            self.first.retain(|message| !matches!(message, Down::Follow(_)));
            self.first.push_back(Down::Follow(follow));
        }
        let trust = self.mesh.trust.load_full();
        if trust.bundle.sequence != self.bundle_sequence {
            self.bundle_sequence = trust.bundle.sequence;
            self.sidecar.mark(v1::Lane::Authority, &ResourceKey::Bundle, Instant::now());
        }
        let sidecars = &self.mesh.sidecars;
        let (sidecar, verdicts) = (&self.sidecar, &mut self.verdicts);
        // Marks are made under the view's lock: what is taken here and what is rendered are of one revision.
        let (configuration, home) = (&mut self.configuration, &self.mesh.settings.registry.home);
        let (authority, reachability, asked) = self.mesh.mirror.read(|view| {
            let source =
                Source { view, sets: &sidecars.sets, encoded: &sidecars.encoded, bundle: &trust.bundle, now: SystemTime::now() };
            let position = v1::Position { epoch: view.cluster.epoch, revision: view.revision };
            let watched = sidecar.watched.lock();
            let receiver = Receiver {
                service: &sidecar.identity.service,
                watched: &watched,
                settings: sidecar.settings,
                weights: sidecar.weights,
            };
            let authority = sidecar.take(v1::Lane::Authority, view.revision).map(|pending| source.authority(&receiver, &pending));
            let reachability = sidecar
                .take(v1::Lane::Reachability, view.revision)
                .map(|pending| source.reachability(&receiver, &pending, verdicts));
            let asked = configuration.take(view, home, &sidecar.identity.service);
            let at = |content| (position, content);
            (authority.map(at), reachability.map(at), asked.map(|draft| (position, draft)))
        });
        if let Some((position, content)) = authority {
            self.authority = Outgoing::new(v1::Lane::Authority, position, content);
            sidecars.stats.count(&sidecars.stats.pushes);
        }
        if let Some((position, content)) = reachability {
            self.reachability = Outgoing::new(v1::Lane::Reachability, position, content);
            sidecars.stats.count(&sidecars.stats.pushes);
        }
        if let Some((position, draft)) = asked {
            // Values are opened here: not under the view's lock.
            let watch = draft.watch();
            self.configured = Outgoing::new(v1::Lane::Configuration, position, draft.into_content(&self.mesh.keys));
            self.configured.answers(watch);
            sidecars.stats.count(&sidecars.stats.pushes);
        }
    }

    /// The next message to leave: authority before reachability before configuration at every chunk boundary.
    fn next_message(&mut self) -> Option<Down> {
        let now = Instant::now();
        self.first
            .pop_front()
            .or_else(|| self.authority.next(now))
            .or_else(|| self.reachability.next(now))
            .or_else(|| self.configured.next(now))
    }

    async fn take_in(&mut self, message: v1::SidecarMessage) -> Result<(), End> {
        self.heard_at = Instant::now();
        match message.message {
            Some(Up::Ack(ack)) => self.acknowledged(ack),
            Some(Up::Beat(beat)) => {
                self.sidecar.active_connections.store(beat.active_connections, Ordering::Relaxed);
                let ahead = i128::from(beat.sidecar_time_ms) - i128::from(millis(SystemTime::now()));
                self.sidecar.clock_ahead_ms.store(i64::try_from(ahead).unwrap_or(i64::MAX), Ordering::Relaxed);
                if !self.has_left {
                    self.mesh.registry.beat(&self.sidecar.identity.instance, beat.healthy);
                }
                Ok(())
            }
            Some(Up::Goodbye(goodbye)) => self.leave(goodbye).await,
            Some(Up::Registration(_)) if self.has_left => Err(End::refused("a registration after the goodbye")),
            Some(Up::Registration(wire)) => self.registered_again(&wire).await,
            Some(Up::Watch(watch)) => {
                let topics = self.mesh.mirror.topics();
                self.configuration.watch(watch, topics).map_err(End::refused)
            }
            Some(Up::Seen(seen)) => {
                self.mesh.traffic.take(&self.teller, &mut self.allowance, seen, SystemTime::now());
                Ok(())
            }
            Some(Up::Hello(_)) | None => Err(End::refused("a message that has no place here")),
        }
    }

    /// Nobody is sent to this instance any more. The stream goes on: a deny has to reach the connections that it drains.
    async fn leave(&mut self, goodbye: v1::Goodbye) -> Result<(), End> {
        let reason: String = goodbye.reason.chars().take(200).collect();
        let instance = &self.sidecar.identity.instance;
        if let Err(error) = self.mesh.registry.leave(instance, Vec::new()).await {
            return Err(End::Quiet(format!("goodbye: {reason}; not recorded: {error}")));
        }
        tracing::info!(%instance, reason, "sidecar leaves");
        self.has_left = true;
        self.first.push_back(Down::Left(v1::Left {}));
        Ok(())
    }

    fn acknowledged(&mut self, ack: v1::Ack) -> Result<(), End> {
        let lane = ack.lane();
        let outgoing = match lane {
            v1::Lane::Authority => &mut self.authority,
            v1::Lane::Reachability => &mut self.reachability,
            v1::Lane::Configuration => &mut self.configured,
            v1::Lane::Unspecified => return Err(End::refused("an acknowledgement of no lane")),
        };
        if !outgoing.chunks.is_empty() {
            return Err(End::refused("an acknowledgement of a message that was not sent wholly"));
        }
        let revision = ack.position.map_or(0, |position| position.revision);
        if lane == v1::Lane::Configuration {
            if self.configuration.acknowledge(revision) {
                *outgoing = Outgoing::default();
            }
            return Ok(());
        }
        // What was not understood is known before anyone hears that the revision is in force.
        self.sidecar.forget_nacks(lane, outgoing.complete, &outgoing.keys);
        for nack in &ack.nacks {
            tracing::warn!(instance = %self.sidecar.identity.instance, key = %nack.key, why = %nack.why, "not understood: {}", postern_api::key::when_not_understood(&nack.key));
            self.mesh.sidecars.stats.count(&self.mesh.sidecars.stats.nacks);
        }
        self.sidecar.keep_nacks(lane, ack.nacks);
        if lane == v1::Lane::Authority {
            let cut = Cut { connections: ack.closed_connections, requests: ack.ended_requests };
            self.sidecar.keep_cut(revision, cut);
        }
        if let Some(took) = self.sidecar.acknowledge(lane, revision) {
            *outgoing = Outgoing::default();
            self.mesh.sidecars.stats.pushed(took);
        }
        Ok(())
    }

    async fn registered_again(&mut self, wire: &v1::Registration) -> Result<(), End> {
        let registration = match Registration::from_wire(wire) {
            Ok(registration) if registration.id == self.sidecar.identity.instance => registration,
            Ok(_) => return Err(End::refused("a registration under another instance id")),
            Err(error) => return Err(End::refused(error.to_string())),
        };
        register(self.mesh, &self.sidecar, registration).await.map_err(End::Refused)
    }

    /// When each lane's message last moved, where it has one.
    fn moved_at(&self) -> [Option<Instant>; 3] {
        [self.authority.moved_at, self.reachability.moved_at, self.configured.moved_at]
    }

    fn next_timer(&self) -> Instant {
        let settings = &self.mesh.settings;
        let now = Instant::now();
        let wall = SystemTime::now();
        let from_wall = |time: SystemTime| now + time.duration_since(wall).unwrap_or_default().min(LONG);
        let acks = self.moved_at().into_iter().flatten().map(|at| at + settings.ack_timeout);
        let verdict = self.verdicts.values().min().map(|until| from_wall(*until) + Duration::from_millis(1));
        let fixed = [self.heartbeat_at, self.heard_at + settings.silence, from_wall(self.expires_at)];
        fixed.into_iter().chain(acks).chain(verdict).min().unwrap_or(now + LONG)
    }

    /// Does what is due. Gives why the stream has to end, if it has.
    fn on_timer(&mut self) -> Option<String> {
        let settings = &self.mesh.settings;
        let (now, wall) = (Instant::now(), SystemTime::now());
        let late = |at: Option<Instant>| at.is_some_and(|at| now >= at + settings.ack_timeout);
        if self.moved_at().into_iter().any(late) {
            self.mesh.sidecars.stats.count(&self.mesh.sidecars.stats.ack_timeouts);
            return Some(format!("nothing was acknowledged for {:?}; connect anew", settings.ack_timeout));
        }
        if now >= self.heard_at + settings.silence {
            return Some(format!("nothing was heard for {:?}", settings.silence));
        }
        if wall >= self.expires_at {
            return Some("its SVID expired; connect with the renewed one".to_owned());
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + settings.heartbeat;
            self.configuration.wait_again(self.mesh.mirror.topics());
            if !self.first.iter().any(|message| matches!(message, Down::Heartbeat(_))) {
                self.first.push_back(Down::Heartbeat(v1::Heartbeat { server_time_ms: millis(wall) }));
            }
        }
        let ended: Vec<_> =
            self.verdicts.iter().filter(|(_, until)| **until <= wall).map(|(upstream, _)| upstream.clone()).collect();
        for upstream in ended {
            self.verdicts.remove(&upstream);
            self.sidecar.mark(v1::Lane::Reachability, &ResourceKey::Service(upstream), now);
        }
        None
    }
}

impl Outgoing {
    fn new(lane: v1::Lane, to: v1::Position, content: Content) -> Self {
        let complete = content.complete;
        // A complete message supersedes everything; only a delta needs to remember its keys.
        let keys = if complete {
            Vec::new()
        } else {
            content.upserts.iter().map(|resource| resource.key.clone()).chain(content.deletes.iter().cloned()).collect()
        };
        Self { chunks: into_chunks(lane, to, content).into(), keys, complete, moved_at: Some(Instant::now()) }
    }

    /// Says which Watch the message answers.
    fn answers(&mut self, watch: u64) {
        for chunk in &mut self.chunks {
            chunk.watch = watch;
        }
    }

    fn next(&mut self, now: Instant) -> Option<Down> {
        let chunk = self.chunks.pop_front()?;
        self.moved_at = Some(now);
        Some(Down::Delta(chunk))
    }
}

fn welcome(mesh: &MeshService, opener: &Opener) -> v1::Welcome {
    let wire_millis = |period: Duration| u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    v1::Welcome {
        cluster_id: mesh.mirror.read(|view| view.cluster.cluster_id.clone()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        server_time_ms: millis(SystemTime::now()),
        observed_address: opener.address.ip().to_canonical().to_string(),
        heartbeat_ms: wire_millis(mesh.settings.heartbeat),
        beat_ms: wire_millis(mesh.settings.beat),
        silence_ms: wire_millis(mesh.settings.silence),
        understands: postern_api::understanding::OF_CONTROL.map(String::from).to_vec(),
    }
}

/// Spreads the heartbeats of all streams evenly over the period: multiples of the golden ratio never cluster.
fn first_heartbeat(period: Duration, number: u64) -> Duration {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let fraction = (number.wrapping_mul(GOLDEN) >> 32) as f64 / f64::from(u32::MAX);
    period.mul_f64(fraction)
}
