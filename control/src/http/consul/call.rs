//! What every request of Consul's API carries: who asks, and the parameters that all routes share.
//!
//! Parameters are read as leniently as Consul reads them: what is not known is passed over, and a flag is on where it is
//! named, whatever its value.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::HeaderName;
use axum::http::request::Parts;
use postern_api::consul::duration;

use super::super::Api;
use super::error::ConsulError;
use crate::acl::{Access, Authority, Resource};
use crate::policy::Author;

const NAMESPACE: HeaderName = HeaderName::from_static("x-consul-namespace");
const PARTITION: HeaderName = HeaderName::from_static("x-consul-partition");

/// How long a blocking query waits unless it says so.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);
/// How long it may wait at most.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// How fresh an answer must be. One control plane answers all three alike: from its view, which holds every change that
/// it has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Neither was asked for.
    Default,
    /// `?consistent`
    Consistent,
    /// `?stale`
    Stale,
}

impl Consistency {
    /// As the header `X-Consul-Effective-Consistency` says it.
    pub fn effective(self) -> &'static str {
        match self {
            Self::Default => "leader",
            Self::Consistent => "consistent",
            Self::Stale => "stale",
        }
    }
}

/// One request.
#[derive(Debug)]
pub struct Call {
    /// Who asks.
    pub authority: Authority,
    /// In whose name a change is logged.
    pub author: Author,
    /// The path, still percent-encoded.
    pub path: String,
    /// `index`: answer when there is something newer. 0: answer at once.
    pub index: u64,
    /// `wait`: answer after this long at the latest, with jitter included.
    pub wait: Duration,
    /// `hash`: answer when the content has another hash.
    pub hash: Option<String>,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// `pretty`: JSON for people.
    pub pretty: bool,
    params: Params,
}

/// The parameters of a query, decoded.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub struct Params(Vec<(Vec<u8>, Vec<u8>)>);

impl Params {
    /// Reads `a=b&c&d=%2F`. Nothing is refused.
    pub fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name, Plus::IsSpace), decode(value, Plus::IsSpace))
                })
                .collect(),
        )
    }

    /// Whether the parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.bytes(name).is_some()
    }

    /// The bytes of its first value.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| &value[..])
    }

    /// Its first value, where it is text; empty where it has none.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.bytes(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Those that are not among these.
    #[must_use]
    pub fn without(&self, names: &[&str]) -> Self {
        let is_kept = |(name, _): &&(Vec<u8>, Vec<u8>)| !names.iter().any(|other| name == other.as_bytes());
        Self(self.0.iter().filter(is_kept).cloned().collect())
    }

    /// All its values that are text.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let values = self.0.iter().filter(move |(key, _)| key == name.as_bytes());
        values.filter_map(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// What `+` stands for: a space in a query, itself in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plus {
    /// In a query.
    IsSpace,
    /// In a path.
    IsPlus,
}

/// Undoes percent-encoding. What is no valid escape stands for itself.
pub fn decode(text: &str, plus: Plus) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            (b'+', _) if plus == Plus::IsSpace => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    decoded
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

impl Call {
    /// Whether a parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.params.has(name)
    }

    /// All parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The first value of a parameter, where it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.params.text(name)
    }

    /// A parameter that is a number.
    ///
    /// # Errors
    /// 400 where it is there and no number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ConsulError> {
        let Some(text) = self.params.bytes(name) else { return Ok(None) };
        let text = String::from_utf8_lossy(text);
        let invalid = || ConsulError::bad_request(format!("Invalid {name} value: {:?} is not a number", shown(&text)));
        text.parse().map(Some).map_err(|_| invalid())
    }

    /// The rest of the path after `prefix`, decoded, without leading slashes.
    pub fn rest_of_path(&self, prefix: &str) -> Vec<u8> {
        let rest = self.path.strip_prefix(prefix).unwrap_or_default();
        let decoded = decode(rest, Plus::IsPlus);
        let slashes = decoded.iter().take_while(|byte| **byte == b'/').count();
        decoded.get(slashes..).unwrap_or_default().to_vec()
    }

    /// One text after `prefix` in the path.
    ///
    /// # Errors
    /// 400 where it is empty or no text.
    pub fn name_after(&self, prefix: &str, what: &str) -> Result<String, ConsulError> {
        match String::from_utf8(self.rest_of_path(prefix)) {
            Ok(name) if !name.is_empty() => Ok(name),
            _ => Err(ConsulError::bad_request(format!("Missing {what}"))),
        }
    }

    /// Whether the request may do this.
    ///
    /// # Errors
    /// 403, as Consul words it.
    pub fn require(&self, access: Access, resource: Resource<'_>) -> Result<(), ConsulError> {
        self.authority.require(access, resource).map_err(ConsulError::from)
    }

    fn read(parts: &Parts, datacenter: &str) -> Result<Self, ConsulError> {
        let params = Params::parse(parts.uri.query().unwrap_or_default());
        check_scope(parts, &params, datacenter)?;
        let authority = parts.extensions.get::<Authority>().cloned().unwrap_or_else(Authority::anonymous);
        let author = parts.extensions.get::<Author>().cloned();
        let author = author.ok_or_else(|| ConsulError::internal("a request came without its author"))?;
        let index = match params.text("index") {
            None | Some("") => 0,
            Some(text) => text.parse().map_err(|_| ConsulError::bad_request("Invalid index"))?,
        };
        let wait = match params.text("wait") {
            None | Some("") => DEFAULT_WAIT,
            Some(text) => duration::parse(text).ok_or_else(|| ConsulError::bad_request("Invalid wait time"))?,
        };
        let consistency = match (params.has("consistent"), params.has("stale")) {
            (true, true) => {
                return Err(ConsulError::bad_request("Cannot specify ?stale with ?consistent, conflicting semantics."));
            }
            (true, false) => Consistency::Consistent,
            (false, true) => Consistency::Stale,
            (false, false) => Consistency::Default,
        };
        Ok(Self {
            authority,
            author,
            path: parts.uri.path().to_owned(),
            index,
            wait: with_jitter(if wait.is_zero() { DEFAULT_WAIT } else { wait.min(MAX_WAIT) }),
            hash: params.text("hash").filter(|hash| !hash.is_empty()).map(ToOwned::to_owned),
            consistency,
            pretty: params.has("pretty"),
            params,
        })
    }
}

/// Other datacenters, namespaces and partitions than ours are refused: an answer for ours would be about something else.
fn check_scope(parts: &Parts, params: &Params, datacenter: &str) -> Result<(), ConsulError> {
    if params.text("dc").is_some_and(|dc| !dc.is_empty() && dc != datacenter) {
        return Err(ConsulError::refused("No path to datacenter"));
    }
    for (param, header, what) in [("ns", NAMESPACE, "namespace"), ("partition", PARTITION, "admin partition")] {
        let header = parts.headers.get(header).and_then(|value| value.to_str().ok());
        if params.text(param).or(header).is_some_and(|given| !given.is_empty() && given != "default") {
            let text = format!("Invalid query parameter: {param:?} - there is one {what}, default");
            return Err(ConsulError::bad_request(text));
        }
    }
    Ok(())
}

/// Up to a sixteenth more, so that queries that began together do not all come back together.
fn with_jitter(wait: Duration) -> Duration {
    wait + (wait / 16).mul_f64(rand::random::<f64>())
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

impl FromRequestParts<Arc<Api>> for Call {
    type Rejection = ConsulError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ConsulError> {
        let datacenter = api.mirror.read(|view| view.cluster.datacenter.to_string());
        Self::read(parts, &datacenter)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, StatusCode};

    use super::*;

    fn call(uri: &str) -> Result<Call, (StatusCode, String)> {
        let (mut parts, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
        parts.extensions.insert(Author { who: "test".into(), from: "test".into() });
        Call::read(&parts, "dc1").map_err(|error| (error.status(), error.text().to_owned()))
    }

    #[test]
    fn a_flag_is_on_where_it_is_named() {
        for query in ["recurse", "recurse=", "recurse=true", "recurse=1&a=b", "a&recurse"] {
            assert!(call(&format!("/v1/kv/a?{query}")).unwrap().has("recurse"), "{query}");
        }
        assert!(!call("/v1/kv/a?recursed").unwrap().has("recurse"));
        assert!(call("/v1/kv/a?pretty").unwrap().pretty);
    }

    #[test]
    fn a_key_may_hold_any_bytes() {
        let key = |path: &str| call(path).unwrap().rest_of_path("/v1/kv/");
        assert_eq!(key("/v1/kv/a%2Fb"), b"a/b");
        assert_eq!(key("/v1/kv/a/b"), b"a/b");
        assert_eq!(key("/v1/kv//a"), b"a", "no leading slash");
        assert_eq!(key("/v1/kv/%2Fa"), b"a");
        assert_eq!(key("/v1/kv/a+b%20c"), b"a+b c");
        assert_eq!(key("/v1/kv/%ff%00"), [0xff, 0]);
        assert_eq!(key("/v1/kv/100%"), b"100%");
        assert_eq!(key("/v1/kv/%zz%4"), b"%zz%4");
        assert_eq!(key("/v1/kv/a/"), b"a/");
        assert_eq!(key("/v1/kv/"), b"");
    }

    #[test]
    fn index_and_wait_are_those_of_a_blocking_query() {
        let asked = call("/v1/kv/a?index=7&wait=10s").unwrap();
        assert_eq!(asked.index, 7);
        assert!(asked.wait >= Duration::from_secs(10) && asked.wait <= Duration::from_millis(10_625), "{:?}", asked.wait);
        let asked = call("/v1/kv/a").unwrap();
        assert!(asked.index == 0 && asked.wait >= DEFAULT_WAIT);
        let asked = call("/v1/kv/a?index=&wait=24h").unwrap();
        assert!(asked.wait >= MAX_WAIT && asked.wait <= MAX_WAIT + MAX_WAIT / 16, "{:?}", asked.wait);
        assert_eq!(call("/v1/kv/a?index=x").unwrap_err(), (StatusCode::BAD_REQUEST, "Invalid index".into()));
        assert_eq!(call("/v1/kv/a?wait=x").unwrap_err(), (StatusCode::BAD_REQUEST, "Invalid wait time".into()));
    }

    #[test]
    fn only_what_is_ours_is_answered_for() {
        assert!(call("/v1/kv/a?dc=dc1&ns=default&partition=default&dc=").is_ok());
        let refused = call("/v1/kv/a?dc=dc2").unwrap_err();
        assert_eq!(refused, (StatusCode::INTERNAL_SERVER_ERROR, "No path to datacenter".into()));
        for query in ["ns=team", "partition=team"] {
            assert_eq!(call(&format!("/v1/kv/a?{query}")).unwrap_err().0, StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn an_answer_is_stale_or_consistent_not_both() {
        assert_eq!(call("/v1/kv/a?stale").unwrap().consistency, Consistency::Stale);
        assert_eq!(call("/v1/kv/a?consistent&cached").unwrap().consistency, Consistency::Consistent);
        assert_eq!(call("/v1/kv/a?consistent&stale").unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}
