//! Talks to the control plane's HTTP API: finds it, makes sure that it is Postern before a token leaves this process,
//! and turns its errors into ours.

mod connection;
mod events;
mod find;

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, SERVER};
use hyper::{Method, Request, Response, StatusCode};
use postern_api::http::{ErrorBody, MeshInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::credential::Secret;
use crate::outcome::Failure;
use connection::Sender;
pub use connection::Target;
pub use events::{Event, Events};
pub use find::{Finder, target};

/// The longest answer that is read.
const ANSWER_LIMIT: usize = 513 << 20;
/// How long an answer may take beyond what it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane that has shown that it is one.
pub struct Client {
    target: Target,
    credential: Option<Secret>,
    sender: Sender,
    mesh: MeshInfo,
}

/// Who answered instead of Postern.
struct Stranger(String);

impl Client {
    /// Finds the control plane of this user and greets it.
    pub async fn find() -> Result<Self, Failure> {
        Finder::new(&crate::data_dir::process_environment)?.connect().await
    }

    /// Asks over a connection to `target` which mesh it is. The credential is held back until it has answered as Postern.
    async fn greet(target: Target, sender: Sender, credential: Option<Secret>) -> Result<Self, Failure> {
        let mut client = Self { target, credential: None, sender, mesh: no_mesh()? };
        client.mesh = client.introduce().await?;
        client.credential = credential;
        Ok(client)
    }

    /// Which mesh this is.
    pub fn mesh(&self) -> &MeshInfo {
        &self.mesh
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        self.target.to_string()
    }

    async fn introduce(&mut self) -> Result<MeshInfo, Failure> {
        let answer = self.exchange(Method::GET, "/v1/mesh", None, PATIENCE).await?;
        let announced = answer.headers.get(SERVER).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        if announced.starts_with("postern/")
            && answer.status.is_success()
            && let Ok(mesh) = serde_json::from_slice::<MeshInfo>(&answer.body)
            && mesh.product == "postern"
        {
            return Ok(mesh);
        }
        let Stranger(name) = self.name_the_stranger(&answer, &announced).await;
        Err(Failure::new(format!("{} is not Postern: this is {name}; no token was sent to it", self.target))
            .cure("set POSTERN_HTTP to the address of `meshctl control --http`"))
    }

    /// Consul, Nomad and Vault are found on the ports and paths that Postern is asked on.
    async fn name_the_stranger(&mut self, first: &Reply, announced: &str) -> Stranger {
        let mut answers = vec![(first.headers.clone(), first.body.clone())];
        if let Ok(agent) = self.exchange(Method::GET, "/v1/agent/self", None, Duration::from_secs(5)).await {
            answers.push((agent.headers, agent.body));
        }
        for (headers, body) in &answers {
            let has_header = |prefix: &str| headers.keys().any(|name| name.as_str().starts_with(prefix));
            let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
            let has_key = |key: &str| json.as_ref().is_some_and(|json| json.get(key).is_some());
            if has_header("x-consul-") || (has_key("Config") && has_key("Member")) {
                return Stranger("Consul".into());
            }
            if has_header("x-nomad-") || (has_key("config") && has_key("member")) {
                return Stranger("Nomad".into());
            }
            if has_header("x-vault-") {
                return Stranger("Vault".into());
            }
        }
        match announced {
            "" => Stranger(format!("a server that answers {} to /v1/mesh", first.status)),
            name => Stranger(format!("a server that calls itself {:?}", name.chars().take(60).collect::<String>())),
        }
    }

    /// Asks for a document.
    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None::<&()>, Duration::ZERO).await
    }

    /// Asks for a document that may not be there.
    pub async fn get_if_there<T: DeserializeOwned>(&mut self, path: &str) -> Result<Option<T>, Failure> {
        let answer = self.exchange(Method::GET, path, None, PATIENCE).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => self.document(&answer).map(Some),
        }
    }

    /// Deletes something that may not be there.
    pub async fn delete_if_there<T: DeserializeOwned>(&mut self, path: &str) -> Result<Option<T>, Failure> {
        let answer = self.exchange(Method::DELETE, path, None, PATIENCE).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => self.document(&answer).map(Some),
        }
    }

    /// Sends a request whose answer says nothing; whether the thing that it is about was there.
    pub async fn send<B: Serialize>(&mut self, method: Method, path: &str, body: Option<&B>) -> Result<bool, Failure> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| Failure::new(format!("cannot write the request: {error}")))?;
        let answer = self.exchange(method, path, body, PATIENCE).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(self.refusal(&answer)),
        }
    }

    /// Asks for a text.
    pub async fn get_text(&mut self, path: &str) -> Result<String, Failure> {
        let answer = self.exchange(Method::GET, path, None, PATIENCE).await?;
        if !answer.status.is_success() {
            return Err(self.refusal(&answer));
        }
        String::from_utf8(answer.body.to_vec())
            .map_err(|_| Failure::new(format!("{} answered {path} with bytes that are no text", self.target)))
    }

    /// Sends a request and reads its answer; `wait` is how long the request itself asks to wait.
    pub async fn call<B: Serialize, T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&B>,
        wait: Duration,
    ) -> Result<T, Failure> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| Failure::new(format!("cannot write the request: {error}")))?;
        let answer = self.exchange(method, path, body, wait + PATIENCE).await?;
        self.document(&answer)
    }

    /// Sends a request with a body of bytes and gives the answer as it is, whatever its status; `wait` is how long the
    /// request itself asks to wait.
    pub async fn ask(&mut self, method: Method, path: &str, body: Option<Vec<u8>>, wait: Duration) -> Result<Reply, Failure> {
        self.exchange(method, path, body, wait + PATIENCE).await
    }

    /// Asks for a stream of events. The connection is theirs from then on.
    pub async fn events(mut self, path: &str) -> Result<Events, Failure> {
        let answer = tokio::time::timeout(PATIENCE, self.respond(Method::GET, path, None)).await;
        let answer = answer.map_err(|_| Failure::new(format!("no answer from the control plane at {}", self.target)))??;
        let (parts, body) = answer.into_parts();
        if !parts.status.is_success() {
            let body = Limited::new(body, 1 << 20).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(self.refusal(&Reply { status: parts.status, headers: parts.headers, body }));
        }
        Ok(Events::new(self.sender, body))
    }

    /// The document in an answer that is no refusal.
    pub fn document<T: DeserializeOwned>(&self, answer: &Reply) -> Result<T, Failure> {
        if !answer.status.is_success() {
            return Err(self.refusal(answer));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            Failure::new(format!("cannot read the answer of {}: {error}", self.target)).cure(format!(
                "it is version {}, this is {}; use the same",
                self.mesh.version,
                env!("CARGO_PKG_VERSION")
            ))
        })
    }

    /// What an answer says that is a refusal.
    pub fn refusal(&self, answer: &Reply) -> Failure {
        let told = serde_json::from_slice::<ErrorBody>(&answer.body).ok().map(Failure::from);
        let plain = || plain_text(answer).unwrap_or_else(|| format!("{} answered {}", self.target, answer.status));
        let failure = told.unwrap_or_else(|| Failure::new(plain()));
        if failure.cure.is_none() && answer.status == StatusCode::UNAUTHORIZED {
            return failure.cure("give the operator token in POSTERN_TOKEN or POSTERN_TOKEN_FILE; it is in operator.token in the data directory of the control plane");
        }
        failure
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<Reply, Failure> {
        let place = self.target.to_string();
        let lost = |why: String| Failure::new(format!("no answer from the control plane at {place}: {why}"));
        let exchange = async {
            let (parts, body) = self.respond(method, path, body).await?.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| lost(error.to_string()))?.to_bytes();
            Ok(Reply { status: parts.status, headers: parts.headers, body })
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(result) => result,
            Err(_) => Err(lost(format!("it took longer than {}", crate::duration::text(patience)))),
        }
    }

    /// Sends a request and gives the answer as soon as it begins.
    async fn respond(&mut self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response<Incoming>, Failure> {
        let place = self.target.to_string();
        let lost = |why: String| Failure::new(format!("no answer from the control plane at {place}: {why}"));
        if self.sender.is_closed() || self.sender.ready().await.is_err() {
            self.sender = self.target.connect().await.map_err(|error| match self.target.cure(&error) {
                Some(cure) => lost(error.to_string()).cure(cure),
                None => lost(error.to_string()),
            })?;
        }
        let is_plain = matches!(self.target, Target::Http { .. });
        let request = self.request(method, path, body)?;
        self.sender.send_request(request).await.map_err(|error| match error.is_parse() && is_plain {
            true => lost(format!("it does not speak plain HTTP ({error})")).cure("if it is HTTPS, write https://"),
            false => lost(error.to_string()),
        })
    }

    fn request(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.target.authority());
        if let Some(credential) = &self.credential {
            request = request.header(AUTHORIZATION, format!("Bearer {}", credential.reveal()));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| Failure::new(format!("cannot make a request for {path}: {error}")))
    }
}

/// An answer as it came.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: hyper::HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The words of a refusal that is plain text, as those of Consul's API are.
fn plain_text(answer: &Reply) -> Option<String> {
    let kind = answer.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let text = std::str::from_utf8(&answer.body).ok()?.trim();
    (kind.starts_with("text/plain") && !text.is_empty()).then(|| text.chars().take(1000).collect())
}

/// What stands for the mesh until it has introduced itself.
fn no_mesh() -> Result<MeshInfo, Failure> {
    let valid = |error: postern_names::NameError| Failure::new(error.to_string());
    Ok(MeshInfo {
        product: String::new(),
        version: String::new(),
        cluster_id: String::new(),
        trust_domain: "unknown".parse().map_err(valid)?,
        datacenter: "unknown".parse().map_err(valid)?,
        epoch: 0,
        server_time_ms: 0,
    })
}

/// Writes a value into a query or a path, so that no byte of it is read as syntax (RFC 3986 §2.3).
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
