//! Flags of `meshctl control`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use postern_control::settings::{DnsListen, Recursor};
use postern_names::Address;
use postern_names::{Datacenter, TrustDomain};

use super::LogArgs;
use crate::duration;

/// The default policy as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// What no intention allows is denied.
    Deny,
    /// What no intention denies is allowed.
    Allow,
    /// As allow, and what deny would refuse is counted and logged.
    Audit,
}

impl From<Policy> for postern_intentions::DefaultPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Deny => Self::Deny,
            Policy::Allow => Self::Allow,
            Policy::Audit => Self::Audit,
        }
    }
}

/// The control plane.
#[derive(Debug, Clone, Args)]
pub struct ControlArgs {
    /// YAML file of settings; its keys are the names of these flags.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the store, the audit log and http.sock are [default: /var/lib/postern for root, else $XDG_STATE_HOME/postern].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// HTTP API; plain HTTP on loopback only, HTTPS elsewhere.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8500")]
    pub http: Address,
    /// Certificate chain (PEM) for the HTTP API [default off loopback: one of the mesh's own authority].
    #[arg(long, value_name = "FILE")]
    pub http_cert: Option<PathBuf>,
    /// Private key (PEM) of --http-cert.
    #[arg(long, value_name = "FILE")]
    pub http_key: Option<PathBuf>,
    /// Where sidecars connect (TLS).
    #[arg(long, value_name = "ADDR", default_value = "[::]:8502")]
    pub grpc: Address,
    /// DNS, on UDP and TCP; `off` for none [default: 127.0.0.1:8600, where it is free].
    #[arg(long, value_name = "ADDR")]
    pub dns: Option<DnsListen>,
    /// A DNS server that is asked for names that are not ours, in this order; without one they are refused.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub recursor: Vec<Recursor>,
    /// Trust domain, fixed at first start [default: a random one].
    #[arg(long, value_name = "TD")]
    pub trust_domain: Option<TrustDomain>,
    /// Datacenter, fixed at first start [default: dc1].
    #[arg(long, value_name = "DC")]
    pub datacenter: Option<Datacenter>,
    /// Default policy of a new store; `intention default` changes it later [default: deny].
    #[arg(long, value_name = "POLICY", value_enum)]
    pub default: Option<Policy>,
    /// Lifetime of an SVID, 5m to 72h.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
    pub svid_ttl: Duration,
    /// How long after its end an SVID can still be renewed; 0s turns it off.
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = duration::parse)]
    pub renew_grace: Duration,
    /// Your own root, or intermediate with its chain (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Private key (PEM) of --ca-cert.
    #[arg(long, value_name = "FILE")]
    pub ca_key: Option<PathBuf>,
    /// Key that seals CA keys at rest [default: /etc/postern/seal.key for root, else $XDG_CONFIG_HOME/postern/seal.key].
    #[arg(long, value_name = "FILE")]
    pub seal_key_file: Option<PathBuf>,
    /// Where the store is: redb (in the data directory), or etcd://HOST:PORT[,…] (not built yet).
    #[arg(long, value_name = "STORE", default_value = "redb")]
    pub store: String,
    /// How long recorded instances keep their state after a start.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse, help_heading = "Periods")]
    pub settle: Duration,
    /// Health checks that are registered may run programs on this machine.
    #[arg(long)]
    pub enable_script_checks: bool,
    /// How often the control plane speaks on a quiet stream.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, help_heading = "Periods")]
    pub heartbeat: Duration,
    /// How often a sidecar says that it lives.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse, help_heading = "Periods")]
    pub beat: Duration,
    /// How long a stream may be silent before either end drops it.
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = duration::parse, help_heading = "Periods")]
    pub silence: Duration,
    /// How long an instance counts as alive after it was last heard.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration::parse, help_heading = "Periods")]
    pub liveness: Duration,
    /// How long a silent instance is listed.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse, help_heading = "Periods")]
    pub removal: Duration,
    /// How long a sidecar may take to acknowledge before its stream is opened anew.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, help_heading = "Periods")]
    pub ack_timeout: Duration,
    /// Lifetime of the certificate that signs SVIDs, for tests of its renewal.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration::parse, hide = true)]
    pub intermediate_ttl: Duration,
    /// Lets every period go down to 1 s; refused off loopback.
    #[arg(long, hide = true)]
    pub test_periods: bool,
    /// Seals with a key that is only in memory: the store can not be opened again.
    #[arg(long, hide = true)]
    pub seal_in_memory: bool,
    /// Prints one JSON line with the addresses on stdout when ready.
    #[arg(long)]
    pub print_addresses: bool,
    /// Ends when stdin closes.
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}
