//! The form in which people and Consul's API write a check, and what makes it valid.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Deserializer, Serialize};

use crate::definition::{Definition, GrpcProbe, HttpProbe, InvalidCheck, Kind, PingProbe, Probe, Schedule, Tls};
use crate::duration;
use crate::loose::list;
use crate::{Status, Thresholds};

/// The shortest interval.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest interval, time-out and time to live.
const LONGEST: Duration = Duration::from_secs(86_400);
/// The time-out of a probe, and of a script.
const TIMEOUT: Duration = Duration::from_secs(10);
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a text.
const TEXT_LIMIT: usize = 4096;
/// Headers of a request, and arguments of a program.
const LIST_LIMIT: usize = 64;

/// A check as it is written: one of `HTTP`, `TCP`, `UDP`, `GRPC`, `H2PING`, `Args`, `TTL`, `AliasService` or `AliasNode`
/// says what it does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Consul's documentation of check definitions")]
pub struct CheckForm {
    #[serde(rename = "CheckID", skip_serializing_if = "String::is_empty")]
    pub check_id: String,
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub notes: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(rename = "ServiceID", skip_serializing_if = "String::is_empty")]
    pub service_id: String,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub script_args: Vec<String>,
    #[serde(rename = "HTTP", skip_serializing_if = "String::is_empty")]
    pub http: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    #[serde(rename = "TCP", skip_serializing_if = "String::is_empty")]
    pub tcp: String,
    #[serde(rename = "TCPUseTLS", skip_serializing_if = "std::ops::Not::not")]
    pub tcp_use_tls: bool,
    #[serde(rename = "UDP", skip_serializing_if = "String::is_empty")]
    pub udp: String,
    #[serde(rename = "GRPC", skip_serializing_if = "String::is_empty")]
    pub grpc: String,
    #[serde(rename = "GRPCUseTLS", skip_serializing_if = "std::ops::Not::not")]
    pub grpc_use_tls: bool,
    #[serde(rename = "H2PING", skip_serializing_if = "String::is_empty")]
    pub h2ping: String,
    /// Consul's default is true.
    #[serde(rename = "H2PingUseTLS", skip_serializing_if = "Option::is_none")]
    pub h2ping_use_tls: Option<bool>,
    #[serde(rename = "TLSServerName", skip_serializing_if = "String::is_empty")]
    pub tls_server_name: String,
    #[serde(rename = "TLSSkipVerify", skip_serializing_if = "std::ops::Not::not")]
    pub tls_skip_verify: bool,
    #[serde(rename = "TTL", deserialize_with = "time", skip_serializing_if = "String::is_empty")]
    pub ttl: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias_node: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias_service: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub docker_container_id: String,
    #[serde(rename = "OSService", skip_serializing_if = "String::is_empty")]
    pub os_service: String,
    #[serde(deserialize_with = "time", skip_serializing_if = "String::is_empty")]
    pub interval: String,
    #[serde(deserialize_with = "time", skip_serializing_if = "String::is_empty")]
    pub timeout: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub success_before_passing: u32,
    /// As many as before it is critical, unless told otherwise.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures_before_warning: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub failures_before_critical: u32,
    #[serde(deserialize_with = "time", skip_serializing_if = "String::is_empty")]
    pub deregister_critical_service_after: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A time is a text, or a number of nanoseconds.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Time {
        Text(String),
        Nanoseconds(u64),
        Nothing(()),
    }
    Ok(match Time::deserialize(deserializer)? {
        Time::Text(text) => text,
        Time::Nanoseconds(0) | Time::Nothing(()) => String::new(),
        Time::Nanoseconds(nanoseconds) => duration::text(Duration::from_nanos(nanoseconds)),
    })
}

impl CheckForm {
    /// Whether it says what to do; one that does not only holds a status that somebody else tells.
    pub fn has_kind(&self) -> bool {
        self.kinds().next().is_some()
    }

    fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("HTTP", !self.http.is_empty()),
            ("TCP", !self.tcp.is_empty()),
            ("UDP", !self.udp.is_empty()),
            ("GRPC", !self.grpc.is_empty()),
            ("H2PING", !self.h2ping.is_empty()),
            ("Args", !(self.args.is_empty() && self.script_args.is_empty())),
            ("TTL", !self.ttl.is_empty()),
            ("AliasService", !(self.alias_service.is_empty() && self.alias_node.is_empty())),
            ("DockerContainerID", !self.docker_container_id.is_empty()),
            ("OSService", !self.os_service.is_empty()),
        ];
        given.into_iter().filter_map(|(name, is_given)| is_given.then_some(name))
    }

    fn refuse(&self, why: impl Into<String>) -> InvalidCheck {
        let names = [&self.check_id, &self.id, &self.name];
        let name = names.into_iter().find(|name| !name.is_empty()).map(String::as_str).unwrap_or_default();
        InvalidCheck { check: name.chars().take(80).collect(), why: why.into() }
    }

    fn time(&self, field: &str, text: &str) -> Result<Option<Duration>, InvalidCheck> {
        if text.is_empty() {
            return Ok(None);
        }
        duration::parse(text).map(Some).map_err(|error| self.refuse(format!("{field}: {error}")))
    }

    fn schedule(&self, timeout: Duration) -> Result<Schedule, InvalidCheck> {
        let interval = self.time("Interval", &self.interval)?;
        let interval = interval.ok_or_else(|| self.refuse("it has no Interval; give one such as 10s"))?;
        if !(SHORTEST..=LONGEST).contains(&interval) {
            return Err(self.refuse(format!("Interval {} is not from 100ms to 24h", self.interval)));
        }
        let timeout = self.time("Timeout", &self.timeout)?.filter(|timeout| !timeout.is_zero()).unwrap_or(timeout);
        if timeout > LONGEST {
            return Err(self.refuse(format!("Timeout {} is longer than 24h", self.timeout)));
        }
        Ok(Schedule { interval, timeout })
    }

    fn tls(&self) -> Tls {
        let server_name = Some(self.tls_server_name.clone()).filter(|name| !name.is_empty());
        Tls { skip_verify: self.tls_skip_verify, server_name }
    }

    fn address(&self, field: &str, text: &str) -> Result<String, InvalidCheck> {
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
        match port {
            Some(port) if port != 0 && !text.contains(['/', ' ', '@']) => Ok(text.to_owned()),
            _ => Err(self.refuse(format!("{field} {text:?} is not HOST:PORT"))),
        }
    }

    fn http(&self) -> Result<HttpProbe, InvalidCheck> {
        let url: Uri = self.http.parse().map_err(|error| self.refuse(format!("HTTP {:?} is not a URL: {error}", self.http)))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
            return Err(self.refuse(format!("HTTP {:?} is not a URL such as http://127.0.0.1:8080/health", self.http)));
        }
        let method = if self.method.is_empty() { "GET" } else { &self.method };
        let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
            .map_err(|_| self.refuse(format!("Method {:?} is not one", self.method)))?;
        let mut headers = Vec::new();
        for (name, value) in self.header.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value))) {
            let refuse = || self.refuse(format!("header {name:?} or its value cannot be sent"));
            headers
                .push((name.parse::<HeaderName>().map_err(|_| refuse())?, HeaderValue::from_str(value).map_err(|_| refuse())?));
        }
        if headers.len() > LIST_LIMIT {
            return Err(self.refuse(format!("{} headers, at most {LIST_LIMIT} are allowed", headers.len())));
        }
        Ok(HttpProbe { url, method, headers, body: self.body.clone(), tls: self.tls() })
    }

    fn probe(&self, kind: &str) -> Result<Probe, InvalidCheck> {
        Ok(match kind {
            "HTTP" => Probe::Http(self.http()?),
            "TCP" => {
                Probe::Tcp(PingProbe { address: self.address("TCP", &self.tcp)?, tls: self.tcp_use_tls.then(|| self.tls()) })
            }
            "UDP" => Probe::Udp(self.address("UDP", &self.udp)?),
            "GRPC" => {
                let (address, service) = self.grpc.split_once('/').unwrap_or((&self.grpc, ""));
                Probe::Grpc(GrpcProbe {
                    address: self.address("GRPC", address)?,
                    service: service.to_owned(),
                    tls: self.grpc_use_tls.then(|| self.tls()),
                })
            }
            "H2PING" => Probe::H2Ping(PingProbe {
                address: self.address("H2PING", &self.h2ping)?,
                tls: self.h2ping_use_tls.unwrap_or(true).then(|| self.tls()),
            }),
            _ => {
                let args = if self.args.is_empty() { &self.script_args } else { &self.args };
                if args.len() > LIST_LIMIT || args.iter().any(|arg| arg.len() > TEXT_LIMIT || arg.contains('\0')) {
                    return Err(self.refuse(format!("Args has more than {LIST_LIMIT} entries, or one that cannot be passed")));
                }
                Probe::Script(args.clone())
            }
        })
    }

    fn kind(&self) -> Result<Kind, InvalidCheck> {
        let kinds: Vec<_> = self.kinds().collect();
        match kinds.as_slice() {
            [] => Err(self.refuse("it does nothing; give one of HTTP, TCP, UDP, GRPC, H2PING, Args, TTL, AliasService")),
            [kind @ ("DockerContainerID" | "OSService")] => {
                Err(self.refuse(format!("{kind} is not a kind of check here; use Args with a program that asks")))
            }
            ["TTL"] => match self.time("TTL", &self.ttl)? {
                Some(ttl) if (SHORTEST..=LONGEST).contains(&ttl) => Ok(Kind::Ttl(ttl)),
                _ => Err(self.refuse(format!("TTL {} is not from 100ms to 24h", self.ttl))),
            },
            ["AliasService"] => {
                let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
                Ok(Kind::Alias { node: given(&self.alias_node), service: given(&self.alias_service) })
            }
            [kind] => {
                let timeout = if *kind == "Args" { SCRIPT_TIMEOUT } else { TIMEOUT };
                Ok(Kind::Probe(self.probe(kind)?, self.schedule(timeout)?))
            }
            several => Err(self.refuse(format!("it says {} at once; make a check of each", several.join(" and ")))),
        }
    }

    /// The check that this is.
    ///
    /// # Errors
    /// [`InvalidCheck`] says what is missing or wrong.
    pub fn validate(&self) -> Result<Definition, InvalidCheck> {
        let texts = [&self.check_id, &self.id, &self.name, &self.http, &self.notes, &self.tls_server_name, &self.grpc];
        if texts.iter().any(|text| text.len() > TEXT_LIMIT || text.chars().any(|c| c.is_control() && c != '\n'))
            || self.body.len() > 4 * TEXT_LIMIT
        {
            return Err(self.refuse("a text in it is too long or holds control characters"));
        }
        let initial = match self.status.as_str() {
            "" => Status::Critical,
            word => word.parse().map_err(|error| self.refuse(format!("Status: {error}")))?,
        };
        let deregister_after = self.time("DeregisterCriticalServiceAfter", &self.deregister_critical_service_after)?;
        let before_warning =
            if self.failures_before_warning == 0 { self.failures_before_critical } else { self.failures_before_warning };
        if before_warning > self.failures_before_critical.max(1) {
            return Err(self.refuse("FailuresBeforeWarning is more than FailuresBeforeCritical: it would never be a warning"));
        }
        Ok(Definition {
            id: if self.check_id.is_empty() { self.id.clone() } else { self.check_id.clone() },
            name: self.name.clone(),
            notes: self.notes.clone(),
            kind: self.kind()?,
            initial,
            thresholds: Thresholds {
                success_before_passing: self.success_before_passing,
                failures_before_warning: before_warning,
                failures_before_critical: self.failures_before_critical,
            },
            deregister_after: deregister_after.filter(|after| !after.is_zero()).map(|after| after.max(Duration::from_secs(60))),
        })
    }
}

impl TryFrom<CheckForm> for Definition {
    type Error = InvalidCheck;

    fn try_from(form: CheckForm) -> Result<Self, InvalidCheck> {
        form.validate()
    }
}

impl From<Definition> for CheckForm {
    fn from(check: Definition) -> Self {
        let mut form = Self {
            check_id: check.id,
            name: check.name,
            notes: check.notes,
            status: check.initial.to_string(),
            success_before_passing: check.thresholds.success_before_passing,
            failures_before_warning: check.thresholds.failures_before_warning,
            failures_before_critical: check.thresholds.failures_before_critical,
            deregister_critical_service_after: check.deregister_after.map(duration::text).unwrap_or_default(),
            ..Self::default()
        };
        match check.kind {
            Kind::Ttl(ttl) => form.ttl = duration::text(ttl),
            Kind::Alias { node, service } => {
                form.alias_node = node.unwrap_or_default();
                form.alias_service = service.unwrap_or_default();
            }
            Kind::Probe(probe, schedule) => {
                form.interval = duration::text(schedule.interval);
                form.timeout = duration::text(schedule.timeout);
                form.put_probe(probe);
            }
        }
        form
    }
}

impl CheckForm {
    fn put_tls(&mut self, tls: Tls) {
        self.tls_skip_verify = tls.skip_verify;
        self.tls_server_name = tls.server_name.unwrap_or_default();
    }

    fn put_probe(&mut self, probe: Probe) {
        match probe {
            Probe::Http(http) => {
                self.http = http.url.to_string();
                self.method = http.method.to_string();
                for (name, value) in &http.headers {
                    let values = self.header.entry(name.to_string()).or_default();
                    values.push(String::from_utf8_lossy(value.as_bytes()).into_owned());
                }
                self.body = http.body;
                self.put_tls(http.tls);
            }
            Probe::Tcp(tcp) => {
                self.tcp = tcp.address;
                self.tcp_use_tls = tcp.tls.is_some();
                self.put_tls(tcp.tls.unwrap_or_default());
            }
            Probe::Udp(address) => self.udp = address,
            Probe::Grpc(grpc) => {
                let service = if grpc.service.is_empty() { String::new() } else { format!("/{}", grpc.service) };
                self.grpc = format!("{}{service}", grpc.address);
                self.grpc_use_tls = grpc.tls.is_some();
                self.put_tls(grpc.tls.unwrap_or_default());
            }
            Probe::H2Ping(ping) => {
                self.h2ping = ping.address;
                self.h2ping_use_tls = Some(ping.tls.is_some());
                self.put_tls(ping.tls.unwrap_or_default());
            }
            Probe::Script(args) => self.args = args,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::loose::{Unknown, from_value};

    fn read(value: serde_json::Value) -> Result<Definition, InvalidCheck> {
        from_value::<CheckForm>(value, Unknown::Refused).unwrap().validate()
    }

    #[test]
    fn every_kind_reads_back_as_it_was_written() {
        for value in [
            json!({"id": "a", "http": "https://h:1/x?y=z", "method": "post", "header": {"X-A": ["1", "2"]}, "body": "b",
                   "tls_skip_verify": true, "tls_server_name": "n", "interval": "10s", "timeout": "1s"}),
            json!({"TCP": "[::1]:80", "TCPUseTLS": true, "Interval": "1m30s"}),
            json!({"udp": "h:53", "interval": "5s", "status": "passing"}),
            json!({"grpc": "h:1/pkg.Svc", "grpc_use_tls": true, "interval": "5s", "notes": "n"}),
            json!({"h2ping": "h:1", "h2ping_use_tls": false, "interval": "5s"}),
            json!({"args": ["/bin/true", "x"], "interval": "5s", "deregister_critical_service_after": "2h"}),
            json!({"ttl": "30s", "success_before_passing": 2, "failures_before_critical": 3, "failures_before_warning": 1}),
            json!({"alias_service": "db-1", "alias_node": "n"}),
        ] {
            let definition = read(value).unwrap();
            let stored = serde_json::to_string(&definition).unwrap();
            assert_eq!(serde_json::from_str::<Definition>(&stored).unwrap(), definition, "{stored}");
        }
    }

    #[test]
    fn what_consul_leaves_out_has_consuls_defaults() {
        let check =
            read(json!({"http": "http://127.0.0.1/", "interval": "10s", "deregistercriticalserviceafter": "5s"})).unwrap();
        assert_eq!(check.initial, Status::Critical);
        assert_eq!(check.deregister_after, Some(Duration::from_secs(60)));
        let Kind::Probe(Probe::Http(http), schedule) = check.kind else { panic!() };
        assert_eq!((http.method, schedule.timeout), (Method::GET, Duration::from_secs(10)));
        let check = read(json!({"h2ping": "h:1", "interval": 10_000_000_000_u64})).unwrap();
        let Kind::Probe(Probe::H2Ping(ping), schedule) = check.kind else { panic!() };
        assert!(ping.tls.is_some());
        assert_eq!(schedule.interval, Duration::from_secs(10));
        let check = read(json!({"ttl": "1s", "failures_before_critical": 4})).unwrap();
        assert_eq!(check.thresholds.failures_before_warning, 4);
    }

    #[test]
    fn what_is_no_check_is_refused_with_the_reason() {
        for (value, why) in [
            (json!({"name": "x"}), "does nothing"),
            (json!({"http": "http://h/"}), "no Interval"),
            (json!({"http": "h/", "interval": "1s"}), "not a URL"),
            (json!({"http": "ftp://h/", "interval": "1s"}), "not a URL"),
            (json!({"tcp": "h", "interval": "1s"}), "HOST:PORT"),
            (json!({"tcp": "h:0", "interval": "1s"}), "HOST:PORT"),
            (json!({"tcp": "h:1", "ttl": "1s"}), "at once"),
            (json!({"tcp": "h:1", "interval": "1ms"}), "from 100ms"),
            (json!({"tcp": "h:1", "interval": "soon"}), "not a time"),
            (json!({"docker_container_id": "x", "interval": "1s"}), "not a kind"),
            (json!({"ttl": "1s", "status": "bad"}), "not a status"),
            (json!({"ttl": "1s", "failures_before_warning": 3, "failures_before_critical": 2}), "never be a warning"),
            (json!({"http": "http://h/", "interval": "1s", "header": {"a b": ["x"]}}), "header"),
        ] {
            let error = read(value.clone()).unwrap_err().to_string();
            assert!(error.contains(why), "{value}: {error}");
        }
    }
}
