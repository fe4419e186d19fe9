//! What `meshctl control` can be told.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use postern_intentions::DefaultPolicy;
pub use postern_names::{Address, SettingError};
use postern_names::{Datacenter, TrustDomain};
use serde::{Deserialize, Serialize};

pub use crate::dns::{DnsListen, Recursor};

/// Everything that a control plane is told at its start. `Default` is what is shipped.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--data-dir`: the store, the audit log, the UNIX socket and the operator token; 0700, locked while in use.
    pub data_dir: PathBuf,
    /// `--http`: the HTTP API. Beyond loopback it is HTTPS.
    pub http: Address,
    /// `--http-cert`: PEM chain of the HTTP API, leaf first; together with `http_key`. `None` beyond loopback: one of the
    /// mesh's own authority, renewed by itself.
    pub http_cert: Option<PathBuf>,
    /// `--http-key`: PEM key of the HTTP API.
    pub http_key: Option<PathBuf>,
    /// `--grpc`: where sidecars connect (TLS).
    pub grpc: Address,
    /// `--dns`: where DNS is served.
    pub dns: DnsListen,
    /// `--recursor`: asked in this order for names that are not ours.
    pub recursors: Vec<Recursor>,
    /// `--trust-domain`: fixed at the first start. `None`: what is stored, `<uuid>.postern` for a new store.
    pub trust_domain: Option<TrustDomain>,
    /// `--datacenter`: fixed at the first start. `None`: what is stored, `dc1` for a new store.
    pub datacenter: Option<Datacenter>,
    /// `--default`: seeds a new store and has no effect on any other.
    pub default: DefaultPolicy,
    /// `--svid-ttl`: lifetime of an SVID, 5 minutes to 72 hours.
    pub svid_ttl: Duration,
    /// `--renew-grace`: for how long an expired SVID may still renew; zero: not at all.
    pub renew_grace: Duration,
    /// `--ca-cert`: PEM of an authority of your own, an intermediate with its whole chain; together with `ca_key`.
    pub ca_cert: Option<PathBuf>,
    /// `--ca-key`: its PEM key.
    pub ca_key: Option<PathBuf>,
    /// `--seal-key-file`: seals the keys in the store. `None`: `/etc/postern/seal.key` for root, else `$XDG_CONFIG_HOME/postern/seal.key`.
    pub seal_key_file: Option<PathBuf>,
    /// The store's keys are sealed with a key that lives in memory alone: the store opens in no other process.
    pub seal_in_memory: bool,
    /// `--store`: the engine.
    pub store: StoreEngine,
    /// `--heartbeat`: how often the control plane tells each sidecar its time.
    pub heartbeat: Duration,
    /// `--beat`: how often a sidecar says that it lives.
    pub beat: Duration,
    /// `--silence`: either end drops a stream that was silent for so long.
    pub silence: Duration,
    /// `--liveness`: an instance that was not heard for so long is critical.
    pub liveness: Duration,
    /// `--enable-script-checks`: whether checks that are registered may run programs on this machine.
    pub enable_script_checks: bool,
    /// `--settle`: after a start recorded instances keep their last state for so long.
    pub settle: Duration,
    /// `--intermediate-ttl` (hidden): lifetime of the certificate that signs SVIDs; renewed at its half.
    pub intermediate_ttl: Duration,
    /// `--removal`: an instance that was silent for so long is in no list any more.
    pub removal: Duration,
    /// `--ack-timeout`: a sidecar that did not acknowledge for so long gets its stream opened anew.
    pub ack_timeout: Duration,
    /// How long the shutdown may take before what is left is dropped.
    pub drain: Duration,
    /// `--test-periods` (hidden): every period may go down to a second. Refused off loopback.
    pub test_periods: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/postern"),
            http: Address::loopback(8500),
            http_cert: None,
            http_key: None,
            grpc: Address::Tcp { host: "::".into(), port: 8502 },
            dns: DnsListen::Usual,
            recursors: Vec::new(),
            trust_domain: None,
            datacenter: None,
            default: DefaultPolicy::Deny,
            svid_ttl: Duration::from_secs(24 * 3600),
            renew_grace: Duration::from_secs(72 * 3600),
            ca_cert: None,
            ca_key: None,
            seal_key_file: None,
            seal_in_memory: false,
            store: StoreEngine::Redb,
            heartbeat: Duration::from_secs(10),
            beat: Duration::from_secs(5),
            silence: Duration::from_secs(25),
            liveness: Duration::from_secs(15),
            enable_script_checks: false,
            settle: Duration::from_secs(60),
            intermediate_ttl: postern_ca::INTERMEDIATE_LIFETIME,
            removal: Duration::from_secs(300),
            ack_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(5),
            test_periods: false,
        }
    }
}

impl Settings {
    /// Checks what one flag alone cannot tell.
    ///
    /// # Errors
    /// [`SettingError`] names the flags and what they may be.
    pub fn validate(&self) -> Result<(), SettingError> {
        both_or_none("--http-cert", self.http_cert.is_some(), "--http-key", self.http_key.is_some())?;
        both_or_none("--ca-cert", self.ca_cert.is_some(), "--ca-key", self.ca_key.is_some())?;
        if self.seal_in_memory && self.seal_key_file.is_some() {
            return refuse("--seal-key-file is given for a store that is sealed with a key in memory; leave one of them out");
        }
        if self.test_periods && !(self.http.is_loopback() && self.grpc.is_loopback()) {
            return refuse(
                "--test-periods is for tests on one machine; bind --http and --grpc to loopback (--grpc 127.0.0.1:8502), or leave it out",
            );
        }
        if matches!(self.grpc, Address::Unix(_)) {
            return refuse("--grpc is where sidecars of other hosts connect; write HOST:PORT, [v6]:PORT, :PORT or PORT");
        }
        self.validate_periods()
    }

    fn validate_periods(&self) -> Result<(), SettingError> {
        const MINUTE: u64 = 60;
        const DAY: u64 = 24 * 3600;
        let least = |shipped: u64| Duration::from_secs(if self.test_periods { 1 } else { shipped });
        let ranges = [
            ("--svid-ttl", self.svid_ttl, least(5 * MINUTE), 3 * DAY),
            ("--intermediate-ttl", self.intermediate_ttl, least(7 * DAY), 365 * DAY),
            ("--heartbeat", self.heartbeat, least(1), MINUTE),
            ("--beat", self.beat, least(1), MINUTE),
            ("--silence", self.silence, least(5), 10 * MINUTE),
            ("--liveness", self.liveness, least(5), 10 * MINUTE),
            ("--removal", self.removal, least(MINUTE), 365 * DAY),
            ("--ack-timeout", self.ack_timeout, least(1), 10 * MINUTE),
        ];
        for (flag, given, least, most) in ranges {
            let most = Duration::from_secs(most);
            if given < least || given > most {
                return refuse(format!("{flag} {given:?} is out of range; give {least:?} to {most:?}"));
            }
        }
        if self.renew_grace > Duration::from_secs(30 * DAY) {
            return refuse(format!("--renew-grace {:?} is out of range; give 0s (off) to 30d", self.renew_grace));
        }
        if self.silence <= self.heartbeat || self.silence <= self.beat {
            return refuse(format!(
                "--silence {:?} would drop healthy streams: it must be longer than --heartbeat ({:?}) and --beat ({:?})",
                self.silence, self.heartbeat, self.beat
            ));
        }
        if self.liveness <= self.beat {
            return refuse(format!("--liveness {:?} must be longer than --beat ({:?})", self.liveness, self.beat));
        }
        Ok(())
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, SettingError> {
    Err(SettingError(why.into()))
}

fn both_or_none(first: &str, has_first: bool, second: &str, has_second: bool) -> Result<(), SettingError> {
    match (has_first, has_second) {
        (true, false) => refuse(format!("{first} needs {second} beside it")),
        (false, true) => refuse(format!("{second} needs {first} beside it")),
        _ => Ok(()),
    }
}

/// The engine that keeps the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreEngine {
    /// One file in the data directory.
    Redb,
}

impl FromStr for StoreEngine {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text {
            "redb" => Ok(Self::Redb),
            _ if text.starts_with("etcd://") => {
                refuse("this version keeps its store in redb only; give --store redb or leave it out")
            }
            _ => refuse(format!("there is no store engine {text:?}; give --store redb or leave it out")),
        }
    }
}

impl fmt::Display for StoreEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redb")
    }
}

/// The addresses that a control plane really has, as `--print-addresses` prints them. A key is absent while that listener is not running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// HOST:PORT of the HTTP API, or `unix:/path`.
    pub http: String,
    /// HOST:PORT where sidecars connect.
    pub grpc: String,
    /// HOST:PORT of the DNS server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_is_valid() {
        Settings::default().validate().unwrap();
    }

    #[test]
    fn short_periods_need_the_switch_and_loopback() {
        let mut settings = Settings { svid_ttl: Duration::from_secs(2), ..Settings::default() };
        assert!(settings.validate().unwrap_err().to_string().contains("--svid-ttl"));
        settings.test_periods = true;
        assert!(settings.validate().unwrap_err().to_string().contains("loopback"));
        settings.grpc = Address::loopback(0);
        settings.validate().unwrap();
    }

    #[test]
    fn a_certificate_comes_with_its_key() {
        let settings = Settings { ca_cert: Some("/c".into()), ..Settings::default() };
        assert!(settings.validate().unwrap_err().to_string().contains("--ca-key"));
    }

    #[test]
    fn a_silence_shorter_than_the_heartbeat_is_refused() {
        let settings = Settings { silence: Duration::from_secs(10), ..Settings::default() };
        assert!(settings.validate().unwrap_err().to_string().contains("--silence"));
    }
}
