//! The settings of a sidecar: one field for each flag of `meshctl proxy`, parsed and valid.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use postern_checks::Definition;
use postern_intentions::Protocol;
pub use postern_names::{Address, SettingError};
use postern_names::{InstanceId, PortName, ServiceName};
pub use postern_traffic::settings::Percent;
use zeroize::Zeroizing;

pub use crate::transport::{RecordLayerKind, TransportMode};

pub use crate::spans::OtlpUrl;

use crate::configuration::Teller;

pub use crate::access_log::{LineFormat, LogMode as AccessLogMode, Sink};

/// Everything that a sidecar is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--service`: whose sidecar this is.
    pub service: ServiceName,
    /// `--id`: the instance, unique in the mesh.
    pub id: InstanceId,
    /// `--token` or `--token-file`: spent at the first start only.
    pub token: Option<TokenSource>,
    /// `--control`: tried in turn, names resolved at each try.
    pub control: Vec<Address>,
    /// `--listen`: where other sidecars connect; `None`: `[::]`, the first free port of 21000–21255.
    pub listen: Option<Address>,
    /// `--advertise`: what others dial; `None`: the local address of the connection to the control plane.
    pub advertise: Option<Advertise>,
    /// `--local`: the service's own ports. Empty: it only calls, no inbound listener, no endpoint.
    pub locals: BTreeMap<PortName, Address>,
    /// `--upstream`: the services that it calls, each with its own listener.
    pub upstreams: Vec<UpstreamSetting>,
    /// `--protocol`: declared at the first registration; `None`: what the mesh already knows, else tcp.
    pub protocol: Option<Protocol>,
    /// `--admin`: `None`: the first free port of 19000–19255 on loopback.
    pub admin: Option<Address>,
    /// `--metrics`: a second listener for `/metrics` and `/ready`, where Prometheus can reach it.
    pub metrics: Option<Address>,
    /// `--state-dir`: the SVID, its key and the last snapshot, locked while in use.
    pub state_dir: PathBuf,
    /// `--workers`: threads that carry traffic, at least 1.
    pub workers: usize,
    /// `--transport`: how instances are dialled, and whether tunnels are accepted.
    pub transport: TransportMode,
    /// `--record-layer`: what seals and opens TLS records.
    pub record_layer: RecordLayerKind,
    /// `--drain`: how long open connections may take to end at shutdown.
    pub drain: Duration,
    /// `--access-log`: which connections get a line.
    pub access_log: AccessLogMode,
    /// `--access-log-sample`: the share of what was allowed that gets a line.
    pub access_log_sample: Percent,
    /// Where those lines go.
    pub access_log_sink: Sink,
    /// Where configuration for the command beside it is asked for; `None`: it needs none.
    pub configuration: Option<Teller>,
    /// `--otlp`: where spans of requests are sent; `None`: nowhere.
    pub otlp: Option<OtlpUrl>,
    /// `--meta`: labels of the instance.
    pub meta: BTreeMap<String, String>,
    /// `--locality`: REGION or REGION/ZONE; empty: not told.
    pub locality: String,
    /// `--tag`: by which the instance can be found.
    pub tags: Vec<String>,
    /// `--weight`: what it gets of the calls to its service.
    pub weight: Weight,
    /// `--check` and `--checks`: how well the service is; none: whether it accepts connections.
    pub checks: Vec<Definition>,
    /// `--max-connections`: inbound, at most (file limit − 1,000) / 2.
    pub max_connections: usize,
    /// `--max-connections-per-peer`: `None`: a quarter of `max_connections`.
    pub max_connections_per_peer: Option<usize>,
    /// Whether calls are counted for the control plane.
    pub counts_calls: bool,
    /// Periods that only tests change.
    pub periods: Periods,
}

impl Settings {
    /// The settings of `service` with every default; the state lives in `<data_dir>/proxy/<id>`.
    ///
    /// # Errors
    /// [`SettingError`] where the host's name gives no valid instance id.
    pub fn new(service: ServiceName, data_dir: &Path) -> Result<Self, SettingError> {
        let id = default_id(&service)?;
        let state_dir = state_dir(data_dir, &id);
        Ok(Self {
            service,
            id,
            token: None,
            control: vec![Address::Tcp { host: "127.0.0.1".into(), port: 8502 }],
            listen: None,
            advertise: None,
            locals: BTreeMap::new(),
            upstreams: Vec::new(),
            protocol: None,
            admin: None,
            metrics: None,
            state_dir,
            workers: 1,
            transport: TransportMode::default(),
            record_layer: RecordLayerKind::default(),
            drain: Duration::from_secs(10),
            access_log: AccessLogMode::default(),
            access_log_sample: Percent::ALL,
            access_log_sink: Sink::default(),
            configuration: None,
            otlp: None,
            meta: BTreeMap::new(),
            locality: String::new(),
            tags: Vec::new(),
            weight: Weight::default(),
            checks: Vec::new(),
            max_connections: 10_000,
            max_connections_per_peer: None,
            counts_calls: true,
            periods: Periods::default(),
        })
    }

    /// Gives the instance another id, and its state the directory that follows from it.
    pub fn with_id(mut self, id: InstanceId, data_dir: &Path) -> Self {
        self.state_dir = state_dir(data_dir, &id);
        self.id = id;
        self
    }
}

/// Where the state of an instance is kept unless told otherwise.
pub fn state_dir(data_dir: &Path, id: &InstanceId) -> PathBuf {
    data_dir.join("proxy").join(id.as_str())
}

/// `<service>-<hostname>`.
///
/// # Errors
/// [`SettingError`] where the host has no name that can be part of an id.
pub fn default_id(service: &ServiceName) -> Result<InstanceId, SettingError> {
    let host = host_name();
    format!("{service}-{host}")
        .parse()
        .map_err(|error| SettingError(format!("the host name {host:?} gives no instance id: {error}; give --id")))
}

/// The host's name, cut at nothing; `localhost` where it has none.
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

/// What an instance gets of the calls to its service, beside others: `PASSING` or `PASSING/WARNING`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// While its checks are passing, 1 to 65,535.
    pub passing: u16,
    /// While one is in warning, 0 to 65,535.
    pub warning: u16,
}

impl Default for Weight {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

impl FromStr for Weight {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let refuse = || SettingError(format!("{text:?} is no weight: give PASSING or PASSING/WARNING, such as 10 or 10/1"));
        let (passing, warning) = match text.split_once('/') {
            Some((passing, warning)) => (passing, Some(warning)),
            None => (text, None),
        };
        let passing: u16 = passing.parse().ok().filter(|passing| *passing > 0).ok_or_else(refuse)?;
        let warning = warning.map_or(Ok(passing), |warning| warning.parse().map_err(|_| refuse()))?;
        Ok(Self { passing, warning })
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.passing, self.warning)
    }
}

/// Where the enrolment token comes from.
#[derive(Clone)]
pub enum TokenSource {
    /// The token itself.
    Text(Zeroizing<String>),
    /// A file that holds it and nothing else.
    File(PathBuf),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// What others dial: `HOST` (with the inbound port) or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// A DNS name or an IP literal without brackets.
    pub host: String,
    /// `None`: the port that the sidecar listens on.
    pub port: Option<u16>,
}

impl Advertise {
    /// HOST:PORT, given the port that the sidecar listens on.
    pub fn address(&self, inbound: u16) -> String {
        Address::Tcp { host: self.host.clone(), port: self.port.unwrap_or(inbound) }.to_string()
    }
}

impl FromStr for Advertise {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
            return Ok(Self { host: ip.to_string(), port: None });
        }
        if !text.is_empty() && !text.contains([':', '/', ' ']) {
            return Ok(Self { host: text.into(), port: None });
        }
        match text.parse()? {
            Address::Tcp { host, port } if port != 0 && host != "::" => Ok(Self { host, port: Some(port) }),
            _ => Err(SettingError(format!("cannot advertise {text:?}: give the HOST or HOST:PORT that other sidecars dial"))),
        }
    }
}

/// One `--local`: `ADDR` (port `main`) or `NAME=ADDR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSetting {
    /// The port's name.
    pub port: PortName,
    /// Where the service listens.
    pub address: Address,
}

impl FromStr for LocalSetting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text.split_once('=') {
            Some((name, address)) if !text.starts_with("unix:") => Ok(Self { port: port_name(name)?, address: address.parse()? }),
            _ => Ok(Self { port: PortName::main(), address: text.parse()? }),
        }
    }
}

/// One `--upstream`: `NAME=ADDR` or `NAME:PORTNAME=ADDR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSetting {
    /// The service that is called.
    pub service: ServiceName,
    /// Which of its ports.
    pub port: PortName,
    /// Where this sidecar listens for the caller.
    pub listen: Address,
}

impl UpstreamSetting {
    /// `NAME`, or `NAME:PORTNAME` for another port than `main`: its key in [`crate::Addresses`].
    pub fn name(&self) -> String {
        if self.port == PortName::main() { self.service.to_string() } else { format!("{}:{}", self.service, self.port) }
    }
}

impl FromStr for UpstreamSetting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let (name, address) = text
            .split_once('=')
            .ok_or_else(|| SettingError(format!("upstream {text:?} has no address: use NAME=ADDR, for example db=5432")))?;
        let (service, port) = match name.split_once(':') {
            Some((service, port)) => (service, port_name(port)?),
            None => (name, PortName::main()),
        };
        let service = service.parse().map_err(|error| SettingError(format!("upstream {text:?}: {error}")))?;
        Ok(Self { service, port, listen: address.parse()? })
    }
}

fn port_name(text: &str) -> Result<PortName, SettingError> {
    text.parse().map_err(|error| SettingError(format!("{error}")))
}

/// How often, and how long at most. What the control plane tells (heartbeats, beats, silence) is not here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Periods {
    /// Between two probes of the local service.
    pub probe: Duration,
    /// The longest that one probe may take.
    pub probe_timeout: Duration,
    /// The first ceiling of the random wait before the control plane is tried again; it doubles at each failure.
    pub reconnect_floor: Duration,
    /// The last such ceiling.
    pub reconnect_ceiling: Duration,
    /// The ceiling after the control plane said that it is busy.
    pub busy: Duration,
    /// The longest that name look-up, connection and handshake with one control address may take together.
    pub dial: Duration,
    /// The longest that a call to the control plane may take.
    pub call: Duration,
    /// The ceiling of the random wait before a failed renewal is tried again.
    pub renew_ceiling: Duration,
    /// The longest that a goodbye may take at shutdown.
    pub goodbye: Duration,
    /// Between two reports of the calls that were seen.
    pub report: Duration,
}

impl Default for Periods {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(2),
            reconnect_floor: Duration::from_millis(200),
            reconnect_ceiling: Duration::from_secs(5),
            busy: Duration::from_secs(30),
            dial: Duration::from_secs(5),
            call: Duration::from_secs(10),
            renew_ceiling: Duration::from_secs(30),
            goodbye: Duration::from_secs(1),
            report: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    #[test]
    fn an_upstream_names_a_service_a_port_and_an_address() {
        let upstream: UpstreamSetting = "api:grpc=unix:/run/api.sock".parse().unwrap();
        assert_eq!((upstream.service.as_str(), upstream.port.as_str()), ("api", "grpc"));
        assert_eq!(upstream.name(), "api:grpc");
        assert!("db".parse::<UpstreamSetting>().is_err());
        assert_eq!("db=5432".parse::<UpstreamSetting>().unwrap().listen, tcp("127.0.0.1", 5432));
    }

    #[test]
    fn a_local_port_is_main_unless_named() {
        assert_eq!("8080".parse::<LocalSetting>().unwrap().port, PortName::main());
        assert_eq!("admin=8081".parse::<LocalSetting>().unwrap().port.as_str(), "admin");
        assert_eq!("unix:/a=b".parse::<LocalSetting>().unwrap().address, Address::Unix("/a=b".into()));
    }

    #[test]
    fn a_weight_has_one_number_or_two() {
        assert_eq!("10".parse::<Weight>().unwrap(), Weight { passing: 10, warning: 10 });
        assert_eq!("10/0".parse::<Weight>().unwrap(), Weight { passing: 10, warning: 0 });
        for text in ["", "0", "0/1", "x", "1/", "70000", "1/2/3", "-1"] {
            assert!(text.parse::<Weight>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_advertised_may_leave_out_the_port() {
        assert_eq!("web-1.example".parse::<Advertise>().unwrap().address(21_000), "web-1.example:21000");
        assert_eq!("10.0.0.5:9000".parse::<Advertise>().unwrap().address(21_000), "10.0.0.5:9000");
        assert_eq!("fd00::5".parse::<Advertise>().unwrap().address(21_000), "[fd00::5]:21000");
        assert!(":9000".parse::<Advertise>().is_err());
    }
}
