//! One control plane, from its first listener to its last task.

mod data_dir;
mod founding;
mod operator;
mod restore;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::data_dir::DataDir;
use crate::acl::Accounts;
use crate::audit::{AuditSettings, AuditWriter, spawn_writer};
use crate::dns::{self, DnsError, DnsListen, DnsListener, DnsServer};
use crate::doctor::Surroundings;
use crate::edges::{KEEP_EVERY, Traffic};
use crate::events::Events;
use crate::grpc::{self, GrpcConfig, GrpcError, GrpcServer, GrpcSettings};
use crate::http::certificate::{CertificateSlot, Reachable};
use crate::http::consul::renderings::Renderings;
use crate::http::host::HostNames;
use crate::http::serve::{self, HttpServer, Limits, Listener, ServeError};
use crate::http::{self, Api};
use crate::identity::{BroughtCa, IdentityError, IdentityService, IdentitySettings};
use crate::kv::KeyValues;
use crate::metrics::{IssuedCounter, MeteredStore, Metrics};
use crate::mirror::{Mirror, MirrorError};
use crate::policy::Policy;
use crate::push::{MeshService, PushSettings};
use crate::queries::Queries;
use crate::registry::{Home, RegistrySettings};
use crate::seal::{SealError, SealKey};
use crate::service_config::ServiceConfigs;
use crate::service_config::jwks::JwksKeeper;
use crate::sessions::{SessionSettings, Sessions};
use crate::settings::{Address, Addresses, SettingError, Settings};
use crate::snapshot::Snapshots;
use crate::store::{RedbStore, Store, StoreError, StoreSettings};

/// How often temporary intentions and tokens that have ended are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// Why a control plane did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A setting that cannot be.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The data directory cannot be used.
    #[error("cannot use the data directory {}: {why}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and the cure.
        why: String,
    },
    /// Another control plane has this data directory.
    #[error("a control plane already runs on {}{}; stop it, or give another --data-dir", path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Running {
        /// The directory.
        path: PathBuf,
        /// Its process, as it wrote it.
        pid: Option<u32>,
    },
    /// What was fixed at the first start is given differently.
    #[error(
        "{flag} {given} differs from {stored}, which was fixed when this store was made; leave it out, or start with an empty --data-dir"
    )]
    Fixed {
        /// The flag.
        flag: &'static str,
        /// What it says.
        given: String,
        /// What is stored.
        stored: String,
    },
    /// The seal key is missing or does not fit.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store cannot be read.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The authority cannot be loaded or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The sidecars' port does not open.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// The HTTP API does not open.
    #[error(transparent)]
    Http(#[from] ServeError),
    /// DNS does not open where it was asked for.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// The address of the sidecars' port has no number.
    #[error("cannot resolve --grpc {address}: {why}; give an IP address of this host")]
    Resolve {
        /// As given.
        address: Address,
        /// The resolver's words.
        why: String,
    },
    /// The operator token cannot be read or written.
    #[error("{0}")]
    OperatorToken(String),
    /// Something that no setting cures.
    #[error("{0}")]
    Internal(String),
}

/// Runs a control plane until `shutdown` is ready, then drains it. `ready` is called once, when every listener is bound
/// and the first request can be answered.
///
/// # Errors
/// [`ControlError`] says what, why, and what to do.
pub async fn run(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
    ready: impl FnOnce(&Addresses) + Send,
) -> Result<(), ControlError> {
    settings.validate()?;
    if settings.test_periods {
        tracing::warn!("--test-periods: periods may be so short that a real mesh would not be stable");
    }
    let data_dir = DataDir::open(&settings.data_dir)?;
    let mut control = Control::start(&settings, &data_dir, None).await?;
    ready(&control.addresses);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tracing::info!(
            http = control.addresses.http,
            grpc = control.addresses.grpc,
            dns = control.addresses.dns,
            "the control plane serves"
        );
        tokio::select! {
            () = &mut shutdown => break,
            () = control.snapshots.accepted() => {}
        }
        control = restore::anew(control, &settings, &data_dir).await?;
    }
    tracing::info!("the control plane stops; the mesh works on without it");
    control.stop(settings.drain).await;
    Ok(())
}

/// Everything that runs.
struct Control {
    addresses: Addresses,
    http: HttpServer,
    grpc: GrpcServer,
    dns: Option<DnsServer>,
    mesh: Arc<MeshService>,
    identity: Arc<IdentityService>,
    audit: AuditWriter,
    sweeper: JoinHandle<()>,
    snapshots: Arc<Snapshots>,
    seal: Arc<SealKey>,
    engine: Arc<RedbStore>,
}

/// Sockets that are bound before anything is written: a taken port changes nothing.
struct Sockets {
    http: Vec<Listener>,
    http_address: String,
    host_names: HostNames,
    /// Where the HTTP API shows a certificate of the mesh's authority, and under which names.
    certificate: Option<(Reachable, Arc<CertificateSlot>)>,
    grpc: std::net::TcpListener,
    dns: Result<Option<DnsListener>, String>,
}

impl Control {
    /// `seal` is the key that this process has already.
    async fn start(settings: &Settings, data_dir: &DataDir, seal: Option<Arc<SealKey>>) -> Result<Self, ControlError> {
        let started_at = SystemTime::now();
        let host = host_name();
        let file_limit = raise_file_limit();
        let sockets = bind(settings, data_dir, &host).await?;
        let metrics = Arc::new(Metrics::new().map_err(|error| ControlError::Internal(error.to_string()))?);
        let engine = Arc::new(open_store(data_dir.store()).await?);
        let store: Arc<dyn Store> = Arc::new(MeteredStore::new(Arc::clone(&engine) as Arc<dyn Store>, Arc::clone(&metrics)));
        let found = founding::found(&store, settings).await?;
        let seal = seal.unwrap_or_else(|| Arc::new(found));
        let operators = operator::ensure(&store, &data_dir.operator_token()).await?;
        let mirror = Mirror::start(Arc::clone(&store)).await?;
        mirror.observe(Arc::new(IssuedCounter::new(Arc::clone(&metrics))));
        let identity =
            IdentityService::new(Arc::clone(&store), Arc::clone(&mirror), Arc::clone(&seal), identity_settings(settings)).await?;
        if let Some((reachable, slot)) = sockets.certificate {
            identity.certify(reachable, slot)?;
        }
        let audit = spawn_writer(Arc::clone(&store), data_dir.audit(), AuditSettings::default());
        let keys = KeyValues::new(Arc::clone(&store), Arc::clone(&mirror), Arc::clone(&seal));
        let traffic = Traffic::start(Arc::clone(&store), keep_every(settings)).await?;
        let mesh = start_mesh(settings, &store, &mirror, &keys, &traffic, &identity, &metrics);
        mesh.follow_bundle(identity.bundle_changes());
        let policy = Arc::new(Policy::new(Arc::clone(&store), Arc::clone(&mirror), mesh.sidecars()));
        let service_configs = Arc::new(ServiceConfigs::new(Arc::clone(&store), Arc::clone(&mirror), mesh.sidecars()));
        let jwks = JwksKeeper::start(Arc::clone(&store), Arc::clone(&mirror));
        let pending = data_dir.pending_snapshot();
        let snapshots = Arc::new(Snapshots::new(Arc::clone(&store), Arc::clone(&mirror), Arc::clone(&seal), pending));
        let sessions = Sessions::start(Arc::clone(&store), Arc::clone(&mirror), Arc::clone(&keys), session_settings(settings));
        let accounts = Arc::new(Accounts::new(Arc::clone(&store), Arc::clone(&mirror)));
        let sweeper = tokio::spawn(sweep(Arc::clone(&policy), Arc::clone(&accounts)));
        let grpc = GrpcServer::start(GrpcConfig {
            listener: sockets.grpc,
            svid: identity.svid(),
            trust: identity.trust(),
            mirror: Arc::clone(&mirror),
            identity: Arc::clone(&identity),
            mesh: Arc::clone(&mesh),
            settings: GrpcSettings { renew_grace: settings.renew_grace, ..GrpcSettings::default() },
        })?;
        let stop = CancellationToken::new();
        let (dns, dns_problem) = match sockets.dns {
            Ok(listener) => (listener.map(|listener| serve_dns(listener, &mirror, &mesh, settings)).transpose()?, None),
            Err(problem) => (None, Some(problem)),
        };
        let api = Api {
            accounts,
            snapshots: Arc::clone(&snapshots),
            mirror: Arc::clone(&mirror),
            policy,
            service_configs,
            jwks,
            keys,
            traffic,
            sessions,
            queries: Arc::new(Queries::new(Arc::clone(&store), Arc::clone(&mirror))),
            renderings: Renderings::default(),
            events: Events::new(started_at),
            identity: Arc::clone(&identity),
            sidecars: mesh.sidecars(),
            registry: mesh.registry(),
            push: mesh.stats(),
            metrics,
            operators,
            host_names: sockets.host_names,
            started_at,
            svid_ttl: settings.svid_ttl,
            grpc_address: grpc.local_addr().to_string(),
            stop: stop.clone(),
            surroundings: Surroundings { host, file_limit, audit_dir: data_dir.audit(), dns_problem },
            store,
        };
        let addresses = Addresses {
            http: sockets.http_address,
            grpc: grpc.local_addr().to_string(),
            dns: dns.as_ref().map(|dns| dns.local_addr().to_string()),
        };
        let http = HttpServer::start(sockets.http, http::router(Arc::new(api)), Limits::default(), stop);
        Ok(Self { addresses, http, grpc, dns, mesh, identity, audit, sweeper, snapshots, seal, engine })
    }

    /// Requests under way are answered and streams told; what takes longer than `deadline` is dropped.
    async fn stop(self, deadline: Duration) {
        let Self { http, grpc, dns, mesh, identity, audit, sweeper, engine, .. } = self;
        sweeper.abort();
        let serving = async {
            if let Some(dns) = dns {
                dns.shut_down().await;
            }
            // All at once: what the sidecars' port still lets in, the mesh ends.
            tokio::join!(http.shut_down(deadline), grpc.shut_down(), mesh.shut_down());
        };
        if tokio::time::timeout(deadline + Duration::from_secs(1), serving).await.is_err() {
            tracing::warn!(?deadline, "not everything ended in time");
        }
        // After the last sidecar told its last.
        mesh.traffic().stop().await;
        // Ends its upkeep; nobody else holds it any more.
        drop(identity);
        audit.stop().await;
        // Waits for what is being committed; not on the runtime.
        if let Err(error) = tokio::task::spawn_blocking(move || engine.close()).await {
            tracing::error!(%error, "the store did not close in order");
        }
    }
}

async fn open_store(path: PathBuf) -> Result<RedbStore, ControlError> {
    let opened = tokio::task::spawn_blocking(move || RedbStore::open(path, &StoreSettings::default())).await;
    Ok(opened.map_err(|error| ControlError::Internal(format!("opening the store failed: {error}")))??)
}

async fn bind(settings: &Settings, data_dir: &DataDir, host: &str) -> Result<Sockets, ControlError> {
    let mut names = vec![host.to_owned()];
    if let Address::Tcp { host, .. } = &settings.http {
        names.push(host.clone());
    }
    let (acceptor, own) = match (&settings.http_cert, &settings.http_key) {
        (Some(certificate), Some(key)) => {
            let brought = serve::load_tls(certificate, key)?;
            names.extend(brought.names);
            (Some(brought.acceptor), None)
        }
        _ if settings.http.is_loopback() => (None, None),
        _ => {
            let slot = Arc::new(CertificateSlot::default());
            (Some(serve::tls_of(Arc::clone(&slot))?), Some(slot))
        }
    };
    let listener = Listener::bind(&settings.http, acceptor).await?;
    let bound = listener.local_addr();
    let certificate = bound.zip(own).map(|(bound, slot)| (Reachable::new(host, &settings.http, bound.ip()), slot));
    let http_address = bound.map_or_else(|| settings.http.to_string(), |address| address.to_string());
    let mut http = vec![listener];
    http.extend(bind_socket(&data_dir.http_socket()));
    let grpc = grpc::bind(resolve(&settings.grpc).await?)?;
    let dns = bind_dns(&settings.dns).await?;
    Ok(Sockets { http, http_address, host_names: HostNames::new(names), certificate, grpc, dns })
}

/// The socket in the data directory is a convenience: where the path is too long for one, the port remains.
fn bind_socket(path: &Path) -> Option<Listener> {
    match Listener::bind_unix(path) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(%error, "no UNIX socket; the HTTP API is served on its port only");
            None
        }
    }
}

/// DNS where it was asked for, or nothing starts; on its usual port where that is free, or the reason why not.
async fn bind_dns(listen: &DnsListen) -> Result<Result<Option<DnsListener>, String>, ControlError> {
    match listen {
        DnsListen::Off => Ok(Ok(None)),
        DnsListen::At(address) => Ok(Ok(Some(DnsListener::bind(address).await?))),
        DnsListen::Usual => Ok(match DnsListener::bind(&dns::usual()).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                tracing::warn!(%error, "DNS is not served; everything else is");
                Err(error.to_string())
            }
        }),
    }
}

fn serve_dns(
    listener: DnsListener,
    mirror: &Arc<Mirror>,
    mesh: &MeshService,
    settings: &Settings,
) -> Result<DnsServer, DnsError> {
    let catalog = Arc::new(dns::Registered::new(Arc::clone(mirror), mesh.registry()));
    let recursors = settings.recursors.iter().map(|recursor| recursor.0).collect();
    DnsServer::start(listener, catalog, recursors)
}

async fn resolve(address: &Address) -> Result<SocketAddr, ControlError> {
    let unresolved = |why: String| ControlError::Resolve { address: address.clone(), why };
    let Address::Tcp { host, port } = address else { return Err(unresolved("it is a UNIX socket".into())) };
    let mut found = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| unresolved(error.to_string()))?;
    found.next().ok_or_else(|| unresolved("the name has no address".into()))
}

fn identity_settings(settings: &Settings) -> IdentitySettings {
    IdentitySettings {
        svid_ttl: settings.svid_ttl,
        renew_grace: settings.renew_grace,
        intermediate_ttl: settings.intermediate_ttl,
        ca: brought_ca(settings),
        // Short lives, which only tests have, are looked at as often.
        upkeep: (settings.svid_ttl / 10).clamp(Duration::from_millis(200), Duration::from_secs(10)),
        ..IdentitySettings::default()
    }
}

/// Tests need not wait for a minute.
fn keep_every(settings: &Settings) -> Duration {
    if settings.test_periods { Duration::from_secs(1) } else { KEEP_EVERY }
}

fn session_settings(settings: &Settings) -> SessionSettings {
    let min_ttl = if settings.test_periods { Duration::from_secs(1) } else { SessionSettings::default().min_ttl };
    SessionSettings { min_ttl, home: home(settings) }
}

fn brought_ca(settings: &Settings) -> Option<BroughtCa> {
    let (certificates, key) = (settings.ca_cert.clone()?, settings.ca_key.clone()?);
    Some(BroughtCa { certificates, key })
}

fn start_mesh(
    settings: &Settings,
    store: &Arc<dyn Store>,
    mirror: &Arc<Mirror>,
    keys: &Arc<KeyValues>,
    traffic: &Arc<Traffic>,
    identity: &Arc<IdentityService>,
    metrics: &Arc<Metrics>,
) -> Arc<MeshService> {
    let push = PushSettings {
        heartbeat: settings.heartbeat,
        beat: settings.beat,
        silence: settings.silence,
        ack_timeout: settings.ack_timeout,
        registry: RegistrySettings {
            home: home(settings),
            script_checks: settings.enable_script_checks,
            liveness: settings.liveness,
            removal: settings.removal,
            settle: settings.settle,
        },
        ..PushSettings::default()
    };
    let mesh = MeshService::start(
        Arc::clone(store),
        Arc::clone(mirror),
        Arc::clone(keys),
        Arc::clone(traffic),
        identity.trust(),
        identity.on_open(),
        push,
    );
    let metrics = Arc::clone(metrics);
    mesh.stats().observe_with(Box::new(move |took| metrics.pushed(took)));
    mesh
}

async fn sweep(policy: Arc<Policy>, accounts: Arc<Accounts>) {
    loop {
        if let Err(error) = policy.sweep(SystemTime::now()).await {
            tracing::warn!(%error, "intentions were not tidied up; trying again later");
        }
        if let Err(error) = accounts.sweep(SystemTime::now()).await {
            tracing::warn!(%error, "tokens that have ended were not tidied up; trying again later");
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// The node that this control plane is: its host, at the address that the sidecars' port is bound to, or that this host
/// has on the network.
fn home(settings: &Settings) -> Home {
    let bound = match &settings.grpc {
        Address::Tcp { host, .. } => host.parse::<std::net::IpAddr>().ok().filter(|ip| !ip.is_unspecified()),
        Address::Unix(_) => None,
    };
    let address = bound.or_else(outward_address).unwrap_or(std::net::IpAddr::from([127, 0, 0, 1]));
    Home { node: host_name(), address: address.to_string() }
}

/// The address that this host would send from; nothing is sent. The destination is one for documentation (RFC 5737).
fn outward_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".into())
}

/// Every sidecar takes a file: the soft limit becomes the hard one. Gives the limit.
fn raise_file_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the file limit was not raised");
            soft
        }
    }
}

#[cfg(test)]
mod tests;
