//! Flags of `meshctl proxy` and `meshctl run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use postern_checks::OwnCheck;
use postern_intentions::Protocol;
use postern_names::{InstanceId, ServiceName};
use postern_proxy::settings::{
    Address, Advertise, LocalSetting, OtlpUrl, Percent, RecordLayerKind, TransportMode, UpstreamSetting, Weight,
};

use super::LogArgs;
use super::template::{TemplateArg, env_prefix};
use crate::duration;

/// What the access log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLogWord {
    /// Every connection.
    All,
    /// Denied connections only.
    Denied,
    /// Nothing.
    Off,
}

/// `--listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `[::]` without a port: every address, the first free port of the range.
    FirstFree,
    /// There and nowhere else.
    At(Address),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "[::]" => Ok(Self::FirstFree),
            _ => text.parse().map(Self::At).map_err(|error: postern_names::NameError| error.to_string()),
        }
    }
}

/// `--meta K=V`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaArg {
    /// The key.
    pub key: String,
    /// The value, which may be empty.
    pub value: String,
}

impl FromStr for MetaArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.into(), value: value.into() }),
            _ => Err(format!("{text:?} is not K=V")),
        }
    }
}

fn percent(text: &str) -> Result<Percent, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("{text:?} is no number from 0 to 100"))?;
    Percent::try_from(number).map_err(|error| error.to_string())
}

fn protocol(text: &str) -> Result<Protocol, String> {
    text.parse().map_err(|_| format!("{text:?} is not a protocol; write tcp, http, http2 or grpc"))
}

/// The sidecar.
#[derive(Debug, Clone, Args)]
pub struct ProxyArgs {
    /// YAML file of settings; its keys are the names of these flags.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The service that this is an instance of.
    #[arg(long, value_name = "NAME", required = true)]
    pub service: Option<ServiceName>,
    /// Unique in the mesh [default: <service>-<hostname>].
    #[arg(long, value_name = "ID")]
    pub id: Option<InstanceId>,
    /// Enrolment token (postern1.…); visible to other users of this machine, so prefer --token-file or the variable.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// File that holds the enrolment token.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The control plane; names are resolved again at each try.
    #[arg(long, value_name = "ADDR", value_delimiter = ',', default_value = "127.0.0.1:8502")]
    pub control: Vec<Address>,
    /// Where other sidecars connect [default: [::], first free of 21000-21255, remembered].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Listen>,
    /// What others dial [default: the local address of the connection to the control plane].
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise: Option<Advertise>,
    /// Where the service listens, as ADDR or NAME=ADDR for a named port; without it the instance only calls.
    #[arg(long, value_name = "ADDR")]
    pub local: Vec<LocalSetting>,
    /// A service to call and where to listen for it, such as db=5432, api:grpc=7001 or db=unix:/run/db.sock.
    #[arg(long, value_name = "NAME=ADDR")]
    pub upstream: Vec<UpstreamSetting>,
    /// What the service speaks: tcp, http, http2 or grpc [default: as registered before, else tcp].
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    pub protocol: Option<Protocol>,
    /// /metrics and /ready [default: first free of 19000-19255 on loopback].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<Address>,
    /// /metrics and /ready once more, where Prometheus can reach them.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<Address>,
    /// Where the SVID, its key and the last snapshot are [default: <data directory>/proxy/<id>].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Threads that carry traffic.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// How other instances are dialled: a warm tunnel where the other sidecar speaks it, else a connection for each (auto),
    /// connections only (direct), or tunnels only (tunnel).
    #[arg(long, value_name = "HOW", default_value_t)]
    pub transport: TransportMode,
    /// What seals and opens TLS records: in their place (inplace), or rustls' own way with copies (rustls).
    #[arg(long, value_name = "WHICH", default_value_t)]
    pub record_layer: RecordLayerKind,
    /// How long open connections may take to end at shutdown.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    pub drain: Duration,
    /// Which connections are logged.
    #[arg(long, value_name = "WHAT", value_enum, default_value = "all")]
    pub access_log: AccessLogWord,
    /// How many of a hundred allowed connections and requests get a line; denials always do.
    #[arg(long, value_name = "PERCENT", default_value = "100", value_parser = percent)]
    pub access_log_sample: Percent,
    /// Sends a span of each sampled HTTP request there, by OTLP over HTTP; http only, and without a path to /v1/traces.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<OtlpUrl>,
    /// Told to the control plane with the instance.
    #[arg(long, value_name = "K=V")]
    pub meta: Vec<MetaArg>,
    /// Where it runs; instances of the same zone, then region, are preferred.
    #[arg(long, value_name = "REGION[/ZONE]")]
    pub locality: Option<String>,
    /// By which the instance can be found.
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// What it gets of the calls to its service, while its checks pass and while one warns, such as 10 or 10/1.
    #[arg(long, value_name = "PASSING[/WARNING]", default_value_t)]
    pub weight: Weight,
    /// How the sidecar sees that the service is well, in place of connecting to --local: http://…, https://…, tcp://HOST:PORT,
    /// udp://HOST:PORT, grpc://HOST:PORT[/SERVICE], grpcs://… or h2ping://HOST:PORT, with settings after it such as
    /// "http://127.0.0.1:8080/health interval=5s failures_before_critical=2".
    #[arg(long, value_name = "URL [KEY=VALUE…]")]
    pub check: Vec<OwnCheck>,
    /// YAML or JSON file with a list of checks, in the form of Consul's check definitions.
    #[arg(long, value_name = "FILE")]
    pub checks: Option<PathBuf>,
    /// Checks of --checks may run programs.
    #[arg(long)]
    pub enable_script_checks: bool,
    /// Inbound connections in all.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Inbound connections of one peer service [default: a quarter of --max-connections].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections_per_peer: Option<u32>,
    /// How often the sidecar sees whether the service accepts connections.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    pub probe: Duration,
    /// Counts no calls, and tells the control plane of none.
    #[arg(long, hide = true)]
    pub no_edges: bool,
    /// Prints one JSON line with the addresses on stdout when ready.
    #[arg(long)]
    pub print_addresses: bool,
    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The service and its sidecar.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The sidecar.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// How long the sidecar and what is rendered may take until COMMAND can start.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse, help_heading = "The command")]
    pub ready_timeout: Duration,
    /// From deregistering to the signal to COMMAND, so that callers have gone elsewhere.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration::parse, help_heading = "The command")]
    pub shutdown_delay: Duration,
    /// From SIGTERM to SIGKILL.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, help_heading = "The command")]
    pub kill_timeout: Duration,
    /// Renders OUT from the template IN with values and instances of the control plane, and again when those change; then
    /// COMMAND gets the signal (HUP, USR1, …), is restarted (restart, the default) or left alone (none).
    #[arg(long, value_name = "IN:OUT[:SIGNAL]", help_heading = "The command")]
    pub template: Vec<TemplateArg>,
    /// Keys below it are variables of COMMAND, which is restarted when one changes: app/config/db_url is DB_URL.
    #[arg(long, value_name = "PREFIX", value_parser = env_prefix, help_heading = "The command")]
    pub env_prefix: Vec<String>,
    /// Ends when stdin closes.
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
