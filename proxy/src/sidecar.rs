//! The whole sidecar: puts the parts together, runs them, takes them down.

mod data_threads;
mod listeners;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use postern_api::convert;
use postern_ca::{EnrolmentToken, Expected, SvidSlot, SvidVerifier};
use postern_names::PortName;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::admin::{Admin, Inside};
use crate::clock::Clock;
use crate::control_client::dial::ControlDialler;
use crate::control_client::health::Health;
use crate::control_client::{ControlClient, Instance, Publisher, Resources, SnapshotWriter, health};
use crate::data_plane::DataPlaneConfig;
use crate::identity::{Identity, tell_svid, trust_of};
use crate::limits::Limits;
use crate::local::LocalTarget;
use crate::metrics::Metrics;
use crate::outbound::{UpstreamListener, UpstreamSpec};
use crate::settings::{Address, Settings, TokenSource, host_name};
use crate::sightings::Reports;
use crate::spans;
use crate::state::{Enrolment, StateDir, StateError};
use crate::status::{Stage, Status};
use data_threads::DataThreads;

/// Files that are kept for everything but connections.
const OTHER_FILES: u64 = 1_000;
/// How long the last spans may take to be delivered at shutdown.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Where a sidecar can be reached, as `--print-addresses` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Addresses {
    /// Where other sidecars connect; absent for an instance that only calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<String>,
    /// `/metrics` and `/ready`.
    pub admin: String,
    /// `NAME` or `NAME:PORTNAME` → where the caller connects.
    pub upstreams: BTreeMap<String, String>,
}

/// How a sidecar goes down: it deregisters at once, carries traffic until `until`, then drains.
pub struct Shutdown {
    /// Told to the control plane.
    pub reason: String,
    /// What it still waits for before it drains, such as the end of the command beside it.
    pub until: BoxFuture<'static, ()>,
}

impl Shutdown {
    /// Deregister and drain, waiting for nothing in between.
    pub fn now(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), until: Box::pin(std::future::ready(())) }
    }

    /// Deregister, carry traffic until `until`, then drain.
    pub fn after(reason: impl Into<String>, until: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { reason: reason.into(), until: Box::pin(until) }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Why a sidecar did not start, or stopped by itself. Every text says what, why and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A setting that cannot work.
    #[error("{0}")]
    Configuration(String),
    /// The enrolment token was not accepted, or is not one.
    #[error("{0}")]
    TokenRefused(String),
    /// Nothing says who this instance is.
    #[error(
        "no enrolment token and no earlier state in {0}: create a token with `meshctl token create --service NAME` and give it with --token-file"
    )]
    NotEnrolled(String),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; {cure}")]
    Bind {
        /// What was asked for.
        address: String,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        cure: String,
    },
    /// Something of the system failed that a sidecar cannot do without.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ProxyError {
    /// The exit code of the process: 2, an error, whatever it is.
    pub fn exit_code(&self) -> u8 {
        2
    }
}

/// Runs a sidecar until `shutdown` comes; `ready` is called once, when it can serve traffic.
///
/// The future runs the control stream, the disk and the admin listener; traffic has threads of its own. It never ends
/// because the control plane cannot be reached.
///
/// # Errors
/// [`ProxyError`]: settings that cannot work, a refused token, a state directory in use; all of them at the start.
pub async fn run(
    settings: Settings,
    shutdown: impl Future<Output = Shutdown> + Send,
    ready: impl FnOnce(&Addresses) + Send,
) -> Result<(), ProxyError> {
    let mut shutdown = pin!(shutdown);
    let mut claimed = Claimed::claim(settings)?;
    let enrolment = tokio::select! {
        biased;
        _ = &mut shutdown => return Ok(()),
        enrolment = claimed.enrolment() => enrolment?,
    };
    let addresses = claimed.addresses()?;
    let mut running = claimed.start(enrolment).await?;
    let stopping = running.serve(shutdown, || ready(&addresses)).await?;
    running.stop(stopping).await;
    Ok(())
}

/// A sidecar that has its directory and its addresses, and no SVID yet.
struct Claimed {
    settings: Settings,
    state: Arc<StateDir>,
    clock: Arc<Clock>,
    status: Status,
    metrics: Arc<Metrics>,
    dialler: Arc<ControlDialler>,
    inbound: Option<TcpListener>,
    upstreams: Vec<(UpstreamSpec, UpstreamListener)>,
    admin: SocketAddr,
    scraped: SocketAddr,
    inside: watch::Sender<Option<Inside>>,
    /// For `doctor`.
    warnings: Vec<String>,
    tasks: JoinSet<()>,
}

impl Claimed {
    fn claim(settings: Settings) -> Result<Self, ProxyError> {
        raise_file_limit();
        let state = Arc::new(StateDir::open(&settings.state_dir, &settings.id)?);
        let metrics =
            Metrics::new().map_err(|error| ProxyError::Configuration(format!("the metrics cannot be set up: {error}")))?;
        let before = state.port();
        let inbound = listeners::inbound(&settings, &state)?;
        let warnings = moved(&settings, before, inbound.as_ref())?;
        let upstreams = listeners::upstreams(&settings)?;
        let admin_listener = listeners::admin(&settings)?;
        let admin = listeners::local_address(&admin_listener)?;
        let mut claimed = Self {
            dialler: Arc::new(ControlDialler::new(settings.control.clone(), settings.periods.dial)),
            state,
            clock: Arc::new(Clock::new()),
            status: Status::default(),
            metrics,
            inbound,
            upstreams,
            admin,
            scraped: admin,
            inside: watch::channel(None).0,
            warnings,
            tasks: JoinSet::new(),
            settings,
        };
        claimed.serve_admin(admin_listener)?;
        Ok(claimed)
    }

    fn serve_admin(&mut self, listener: TcpListener) -> Result<(), ProxyError> {
        let system = |source| ProxyError::System { what: "cannot serve the admin listener", source };
        let admin = Arc::new(Admin {
            metrics: self.metrics.clone(),
            status: self.status.clone(),
            clock: self.clock.clone(),
            names: Admin::names_of(&self.settings, &host_name()),
            who: (self.settings.service.to_string(), self.settings.id.to_string()),
            inside: self.inside.subscribe(),
        });
        let mut listeners = vec![listener];
        if let Some(address) = &self.settings.metrics {
            let scraped = listeners::tcp(address, "choose another --metrics")?;
            self.scraped = listeners::local_address(&scraped)?;
            listeners.push(scraped);
        }
        for listener in listeners {
            self.tasks.spawn(admin.clone().serve(tokio::net::TcpListener::from_std(listener).map_err(system)?));
        }
        let private = listeners::unix(&self.state.admin_socket())?;
        self.tasks.spawn(admin.serve_private(tokio::net::UnixListener::from_std(private).map_err(system)?));
        Ok(())
    }

    /// Who this instance is: what is kept on disk, else what the token gives.
    async fn enrolment(&mut self) -> Result<Enrolment, ProxyError> {
        if let Some(enrolment) = self.state.enrolment()? {
            return self.known(enrolment);
        }
        let token = self.token()?.ok_or_else(|| ProxyError::NotEnrolled(self.state.path().display().to_string()))?;
        self.identity(None).enrol(&token).await
    }

    fn known(&self, enrolment: Enrolment) -> Result<Enrolment, ProxyError> {
        if enrolment.service == self.settings.service && enrolment.instance == self.settings.id {
            return Ok(enrolment);
        }
        Err(ProxyError::Configuration(format!(
            "{} holds the state of {} ({}), not of {} ({}): give another --state-dir",
            self.state.path().display(),
            enrolment.instance,
            enrolment.service,
            self.settings.id,
            self.settings.service
        )))
    }

    fn token(&self) -> Result<Option<EnrolmentToken>, ProxyError> {
        let text = match &self.settings.token {
            None => return Ok(None),
            Some(TokenSource::Text(text)) => text.clone(),
            Some(TokenSource::File(path)) => std::fs::read_to_string(path)
                .map(Into::into)
                .map_err(|error| ProxyError::Configuration(format!("cannot read the token file {}: {error}", path.display())))?,
        };
        text.trim().parse().map(Some).map_err(|error: postern_ca::TokenError| ProxyError::TokenRefused(error.to_string()))
    }

    fn identity(&self, token: Option<EnrolmentToken>) -> Identity {
        Identity {
            service: self.settings.service.clone(),
            instance: self.settings.id.clone(),
            ports: self.settings.locals.keys().filter(|port| **port != PortName::main()).cloned().collect(),
            state: self.state.clone(),
            dialler: self.dialler.clone(),
            clock: self.clock.clone(),
            status: self.status.clone(),
            metrics: self.metrics.clone(),
            periods: self.settings.periods,
            token,
        }
    }

    fn addresses(&self) -> Result<Addresses, ProxyError> {
        let inbound = self.inbound.as_ref().map(listeners::local_address).transpose()?;
        let mut upstreams = BTreeMap::new();
        for (setting, (_, listener)) in self.settings.upstreams.iter().zip(&self.upstreams) {
            let address = match listener {
                UpstreamListener::Tcp(listener) => shown(listeners::local_address(listener)?),
                UpstreamListener::Unix(path, _) => Address::Unix(path.clone()).to_string(),
            };
            upstreams.insert(setting.name(), address);
        }
        Ok(Addresses { inbound: inbound.map(shown), admin: shown(self.admin), upstreams })
    }

    /// What was pushed before, where it is of this cluster.
    fn stored(&self, enrolment: &Enrolment) -> Result<Resources, ProxyError> {
        match self.state.snapshot() {
            Ok(Some(stored)) if stored.cluster_id == enrolment.cluster_id => {
                if stored.server_time_ms != 0 {
                    let told = convert::time(stored.server_time_ms);
                    self.clock.observe(told);
                    self.status.confirm(told);
                }
                Ok(Resources::from_stored(stored))
            }
            Ok(_) => Ok(Resources::new(enrolment.cluster_id.clone())),
            Err(StateError::Damaged { path, why }) => {
                tracing::error!(path = %path.display(), why, "the last snapshot is damaged; waiting for one from the control plane");
                Ok(Resources::new(enrolment.cluster_id.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn start(self, enrolment: Enrolment) -> Result<Running, ProxyError> {
        let given = trust_of(&enrolment).map_err(ProxyError::Configuration)?;
        let trust_domain = given.bundle.trust_domain.clone();
        let resources = self.stored(&enrolment)?;
        let publisher = Publisher::new(self.settings.service.clone(), self.settings.protocol, resources, given);
        let trust = publisher.trust();
        let svid = Arc::new(SvidSlot::new(enrolment.svid.clone()));
        let clock = self.clock.clone();
        let verifier = SvidVerifier::new(trust.clone(), Expected::ControlPlane).with_clock(move || clock.now());
        let tls = postern_ca::client_config(svid.clone(), verifier, &[b"h2"]);
        let token = self.token().unwrap_or_default();
        let identity = self.identity(token);
        let locals = locals(&self.settings)?;
        let instance = self.instance(&locals)?;
        let Self { settings, state, clock, status, metrics, dialler, inbound, upstreams, inside, warnings, mut tasks, .. } = self;
        let of = (&settings.service, &settings.id);
        let spans = settings.otlp.clone().map(|url| spans::queue(url, of, metrics.clone()));
        let data = DataPlaneConfig {
            service: settings.service.clone(),
            trust_domain,
            instance: settings.id.clone(),
            locality: settings.locality.clone(),
            svid: svid.clone(),
            trust: trust.clone(),
            snapshots: publisher.snapshots(),
            clock: clock.clone(),
            inbound,
            locals,
            upstreams,
            transport: settings.transport,
            record_layer: settings.record_layer,
            limits: limits(&settings),
            access_log: AccessLog::new(settings.access_log, settings.access_log_sample, settings.access_log_sink.clone()),
            spans: spans.as_ref().map(|(sink, _)| sink.clone()),
            metrics: metrics.clone(),
        };
        // From here on the threads that carry traffic hold the queue: it ends with them.
        let exporter = spans.map(|(_, exporter)| tokio::spawn(exporter.run()));
        let data = DataThreads::start(settings.workers, data).await?;
        inside.send_replace(Some(Inside { svid: svid.clone(), known: publisher.known() }));
        tell_start(&status, &metrics, &enrolment, &publisher, &instance);

        let (tell, told) = watch::channel(Health::unknown(&settings.checks));
        match settings.checks.as_slice() {
            [] => {
                let periods = &settings.periods;
                tasks.spawn(health::probe(instance.locals.clone(), periods.probe, periods.probe_timeout, tell))
            }
            checks => tasks.spawn(health::check(checks.into(), tell)),
        };
        let (goodbye, leaving) = watch::channel(None);
        let (left, has_left) = watch::channel(false);
        let drained = CancellationToken::new();
        let control = ControlClient {
            instance,
            dialler,
            tls: tls.clone(),
            svid: svid.clone(),
            cluster_id: enrolment.cluster_id.clone(),
            publisher,
            enforced: data.enforced(),
            writer: SnapshotWriter::start(state.clone()),
            configuration: settings.configuration.clone().unwrap_or_default(),
            health: told,
            open_connections: data.open_connections(),
            reports: Reports::new(data.sightings(), metrics.clone()),
            cut: data.cut(),
            cut_told: (0, 0),
            goodbye: leaving,
            left,
            drained: drained.clone(),
            clock: clock.clone(),
            status: status.clone(),
            metrics,
            periods: settings.periods,
            warnings,
        };
        let control = tokio::spawn(control.run());
        tasks.spawn(identity.keep_fresh(enrolment, svid, trust, tls));
        Ok(Running { settings, state, clock, status, data, exporter, control, goodbye, has_left, drained, tasks })
    }

    fn instance(&self, locals: &BTreeMap<PortName, LocalTarget>) -> Result<Instance, ProxyError> {
        let mut upstreams: Vec<_> = self.settings.upstreams.iter().map(|upstream| upstream.service.clone()).collect();
        upstreams.sort();
        upstreams.dedup();
        Ok(Instance {
            id: self.settings.id.clone(),
            advertise: self.settings.advertise.clone(),
            inbound: self.inbound.as_ref().map(listeners::local_address).transpose()?,
            protocol: self.settings.protocol,
            ports: self.settings.locals.keys().cloned().collect(),
            meta: self.settings.meta.clone(),
            locality: self.settings.locality.clone(),
            node: host_name(),
            metrics: self.scraped,
            transport: self.settings.transport,
            upstreams,
            locals: locals.values().cloned().collect(),
            tags: self.settings.tags.clone(),
            weight: self.settings.weight,
        })
    }
}

/// A sidecar that carries traffic.
struct Running {
    settings: Settings,
    state: Arc<StateDir>,
    clock: Arc<Clock>,
    status: Status,
    data: DataThreads,
    exporter: Option<JoinHandle<()>>,
    control: JoinHandle<Result<(), ProxyError>>,
    goodbye: watch::Sender<Option<String>>,
    has_left: watch::Receiver<bool>,
    drained: CancellationToken,
    /// Admin listeners, renewal, health. Dropping them ends them.
    tasks: JoinSet<()>,
}

impl Running {
    async fn serve(
        &mut self,
        mut shutdown: Pin<&mut (impl Future<Output = Shutdown> + Send)>,
        ready: impl FnOnce() + Send,
    ) -> Result<Shutdown, ProxyError> {
        let mut ready = Some(ready);
        loop {
            tokio::select! {
                biased;
                stopping = &mut shutdown => return Ok(stopping),
                () = until_ready(&self.status, &self.clock), if ready.is_some() => {
                    if let Some(ready) = ready.take() {
                        ready();
                    }
                }
                () = self.data.ended() => return Err(ended("the threads that carry traffic ended")),
                control = &mut self.control => return Err(match control {
                    Ok(Err(error)) => error,
                    Ok(Ok(())) | Err(_) => ended("the task that talks to the control plane ended"),
                }),
            }
        }
    }

    /// Deregisters, waits for what the shutdown waits for, drains. The control stream ends last: until the last
    /// connection is closed, a deny has to close it.
    async fn stop(self, stopping: Shutdown) {
        let Self { settings, state, status, data, exporter, control, goodbye, mut has_left, drained, mut tasks, .. } = self;
        tracing::info!(reason = stopping.reason, "leaving the mesh");
        status.tell(|facts| facts.stage = Stage::Stopping);
        goodbye.send_replace(Some(stopping.reason));
        // A client that has ended tells nothing more: then there is nobody to wait for.
        let deregistered = async { has_left.wait_for(|left| *left).await.is_ok() };
        let (_, ()) = tokio::join!(deregistered, stopping.until);
        data.drain(settings.drain).await;
        if let Some(exporter) = exporter
            && tokio::time::timeout(LAST_SPANS, exporter).await.is_err()
        {
            tracing::warn!("the last spans were not delivered in time");
        }
        drained.cancel();
        if let Ok(Err(error)) = control.await {
            tracing::warn!(%error, "the goodbye was not said");
        }
        tasks.shutdown().await;
        if let Err(error) = std::fs::remove_file(state.admin_socket()) {
            tracing::debug!(%error, "the admin socket was not removed");
        }
        // A renewal that was being written is written to its end, so that the directory is free when this returns.
        if let Err(error) = tokio::task::spawn_blocking(move || state.release()).await {
            tracing::warn!(%error, "the state directory was not released in order");
        }
    }
}

/// What callers that knew the port of before have to learn.
fn moved(settings: &Settings, before: Option<u16>, inbound: Option<&TcpListener>) -> Result<Vec<String>, ProxyError> {
    let is_chosen = matches!(&settings.listen, Some(Address::Tcp { port, .. }) if *port != 0);
    let (Some(before), Some(inbound), false) = (before, inbound, is_chosen) else { return Ok(Vec::new()) };
    let now = listeners::local_address(inbound)?.port();
    if now == before {
        return Ok(Vec::new());
    }
    let warning = format!("port {before}, where it was found before, is taken by another process; it listens on {now} now");
    tracing::warn!("{warning}");
    Ok(vec![warning])
}

async fn until_ready(status: &Status, clock: &Clock) {
    let mut facts = status.subscribe();
    // The sender lives in `status`, so the wait cannot fail.
    let _ = facts.wait_for(|facts| facts.readiness(clock.now()).is_ok()).await;
}

fn ended(what: &'static str) -> ProxyError {
    ProxyError::System { what, source: std::io::Error::other("this is a fault of the sidecar; its log says more") }
}

fn tell_start(status: &Status, metrics: &Metrics, enrolment: &Enrolment, publisher: &Publisher, instance: &Instance) {
    tell_svid(metrics, &enrolment.svid);
    let positions = publisher.resources().positions();
    metrics.snapshot_revision.set(i64::try_from(positions.newest()).unwrap_or(i64::MAX));
    status.tell(|facts| {
        facts.stage = Stage::Running;
        facts.svid_not_after = Some(enrolment.svid.not_after());
        facts.has_snapshot = positions.serve(instance.upstreams.is_empty());
    });
}

fn locals(settings: &Settings) -> Result<BTreeMap<PortName, LocalTarget>, ProxyError> {
    let target = |address: &Address| match address {
        // `:PORT` is every interface; the service is dialled on this host.
        Address::Tcp { host, port } if host == "::" => format!("127.0.0.1:{port}").parse::<LocalTarget>(),
        address => address.to_string().parse(),
    };
    settings
        .locals
        .iter()
        .map(|(port, address)| Ok((port.clone(), target(address).map_err(|error| ProxyError::Configuration(error.to_string()))?)))
        .collect()
}

/// Connections of both ends need a file each: more than the files allow would end in errors of accept.
fn limits(settings: &Settings) -> Limits {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let most = usize::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(usize::MAX).max(16);
    // A little less than the shipped limit is nothing to trouble anyone with.
    if settings.max_connections / 2 > most {
        tracing::warn!(
            asked = settings.max_connections,
            most,
            "the file limit allows fewer connections; raise it (LimitNOFILE=)"
        );
    }
    let limits = Limits::with_max_connections(settings.max_connections.min(most), settings.max_connections_per_peer);
    Limits { counts_calls: settings.counts_calls, ..limits }
}

fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// A listener on every interface shows as the loopback address.
fn shown(listener: SocketAddr) -> String {
    if listener.ip().is_unspecified() { format!("127.0.0.1:{}", listener.port()) } else { listener.to_string() }
}
