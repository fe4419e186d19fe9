//! A running Consul, or files of its JSON.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use serde_json::{Map, Value};

use crate::client::{Target, target};
use crate::commands::input_file::text_of;
use crate::outcome::Failure;

/// Bytes of an answer or a file.
const LIMIT: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// Config entries that have a counterpart, or might be missed. Intentions come from their own list.
const KINDS: [&str; 8] = [
    "service-defaults",
    "service-router",
    "service-splitter",
    "service-resolver",
    "proxy-defaults",
    "ingress-gateway",
    "terminating-gateway",
    "exported-services",
];

/// What a Consul has, as it says it.
#[derive(Debug, Default)]
pub struct Source {
    /// `allow` or `deny`, where it is known.
    pub default_policy: Option<String>,
    /// Intentions in the form of the list.
    pub intentions: Vec<Value>,
    /// Config entries.
    pub entries: Vec<Value>,
    /// Keys: `Key`, `Value` (base64), `Flags`.
    pub keys: Vec<Value>,
    /// Instances as `/v1/health/service/NAME` or `/v1/catalog/service/NAME` has them.
    pub instances: Vec<Value>,
    /// What could not be read.
    pub unread: Vec<(String, String)>,
}

impl Source {
    /// Takes in a file: one answer of Consul's API, an export of keys, a config entry, or a list of any of those.
    ///
    /// # Errors
    /// It cannot be read, or nothing in it is known.
    pub fn read_file(&mut self, path: &str) -> Result<(), Failure> {
        let (text, name) = text_of(Path::new(path), LIMIT as u64)?;
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            Failure::new(format!("{name} is no JSON: {error}"))
                .cure("write config entries as JSON: `consul config read -kind K -name N`")
        })?;
        let before = self.count();
        self.sort_in(value);
        if self.count() == before {
            return Err(Failure::new(format!("nothing in {name} is known as Consul's"))
                .cure("give the output of `consul kv export`, `consul config read`, or of /v1/connect/intentions, /v1/config/KIND, /v1/kv/?recurse, /v1/health/service/NAME"));
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.intentions.len() + self.entries.len() + self.keys.len() + self.instances.len()
    }

    fn sort_in(&mut self, value: Value) {
        let items = match value {
            Value::Array(items) => items,
            other => vec![other],
        };
        for item in items {
            let Value::Object(object) = &item else { continue };
            let has = |name: &str| object.keys().any(|key| key.eq_ignore_ascii_case(name));
            if has("Kind") && (has("Name") || has("Sources")) && !has("Address") {
                self.entries.push(item);
            } else if has("SourceName") && has("DestinationName") {
                self.intentions.push(item);
            } else if has("key") && has("value") {
                self.keys.push(item);
            } else if has("Service") || has("ServiceName") {
                self.instances.push(item);
            }
        }
    }

    /// Asks a running Consul for everything.
    ///
    /// # Errors
    /// It does not answer, or lets nothing be read.
    pub async fn ask(&mut self, url: &str, token_file: Option<&Path>) -> Result<(), Failure> {
        let token = match token_file {
            Some(file) => Some(text_of(file, 1 << 20)?.0.trim().to_owned()),
            None => std::env::var("CONSUL_HTTP_TOKEN").ok().filter(|token| !token.is_empty()),
        };
        let mut consul = Consul { target: target_of(url)?, token, default_policy: None };
        let services = consul.get("/v1/catalog/services").await?.unwrap_or_default();
        let names: Vec<String> = services.as_object().map(|services| services.keys().cloned().collect()).unwrap_or_default();
        for name in names.iter().filter(|name| *name != "consul") {
            let path = format!("/v1/health/service/{}", crate::client::encode(name));
            self.take(&mut consul, &path, |source, value| source.sort_in(value)).await?;
        }
        self.take(&mut consul, "/v1/kv/?recurse", |source, value| source.sort_in(value)).await?;
        self.take(&mut consul, "/v1/connect/intentions", |source, value| source.sort_in(value)).await?;
        for kind in KINDS {
            self.take(&mut consul, &format!("/v1/config/{kind}"), |source, value| source.sort_in(value)).await?;
        }
        self.default_policy = self.default_policy.take().or(consul.default_policy);
        Ok(())
    }

    async fn take(&mut self, consul: &mut Consul, path: &str, then: impl FnOnce(&mut Self, Value)) -> Result<(), Failure> {
        match consul.get(path).await {
            Ok(Some(value)) => then(self, value),
            Ok(None) => {}
            Err(failure) => self.unread.push((path.to_owned(), failure.to_string())),
        }
        Ok(())
    }
}

struct Consul {
    target: Target,
    token: Option<String>,
    default_policy: Option<String>,
}

impl Consul {
    /// A document; none where Consul has nothing.
    async fn get(&mut self, path: &str) -> Result<Option<Value>, Failure> {
        let place = self.target.to_string();
        let failed = |why: String| Failure::new(format!("{place}{path}: {why}"));
        let mut sender = self
            .target
            .connect()
            .await
            .map_err(|error| failed(error.to_string()).cure("is it the address of Consul's HTTP API?"))?;
        let mut request = Request::builder().uri(path).header(HOST, self.target.authority());
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token);
        }
        let request = request.body(Full::new(Bytes::new())).map_err(|error| failed(error.to_string()))?;
        let exchange = async {
            let (parts, body) = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?.into_parts();
            let body = Limited::new(body, LIMIT).collect().await.map_err(|error| failed(error.to_string()))?.to_bytes();
            Ok::<_, Failure>((parts, body))
        };
        let exchanged = tokio::time::timeout(PATIENCE, exchange).await;
        let (parts, body) = exchanged.map_err(|_| failed("no answer within 60 s".into()))??;
        let told = parts.headers.get("x-consul-default-acl-policy").and_then(|value| value.to_str().ok());
        self.default_policy =
            told.filter(|policy| matches!(*policy, "allow" | "deny")).map(ToOwned::to_owned).or(self.default_policy.take());
        match parts.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if !status.is_success() => {
                let said: String = String::from_utf8_lossy(&body).chars().take(200).collect();
                Err(failed(format!("{status}: {}", said.trim()))
                    .cure("give a token that may read it, in CONSUL_HTTP_TOKEN or --consul-token-file"))
            }
            _ => serde_json::from_slice(&body).map(Some).map_err(|error| failed(format!("it is no JSON: {error}"))),
        }
    }
}

fn target_of(url: &str) -> Result<Target, Failure> {
    target(url, None)
        .map_err(|failure| Failure::new(failure.what.replace("POSTERN_HTTP", "--from")).cure("write http://HOST:PORT of Consul"))
}

/// A field of an object of Consul's, whose names are found in any case.
pub fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let exact = object.get(name);
    exact
        .or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
        .filter(|value| !value.is_null())
}
