//! Judging requests: what the evaluator is asked, and asked again when something has changed.

use std::fmt;
use std::time::SystemTime;

use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use postern_intentions::{Call, Decision, PathSettings, Request, RequestDecision, VerifiedTokens, judge_request};
use postern_names::ServiceName;

use crate::connections::Judgeable;
use crate::snapshot::Snapshot;

/// All of a request that a decision can depend on, for as long as the request is under way.
pub struct JudgedRequest {
    method: Method,
    target: Target,
    host: Option<HeaderValue>,
    headers: HeaderMap,
    tokens: VerifiedTokens,
    paths: PathSettings,
}

/// The request target as it was received.
enum Target {
    /// Shared with the head of the request.
    Origin(PathAndQuery),
    /// Any other form (RFC 9112 §3.2).
    Other(String),
}

impl JudgedRequest {
    /// Of a request as it was received.
    pub(crate) fn of(head: &Parts, tokens: VerifiedTokens, paths: PathSettings) -> Self {
        let host = head.headers.get(HOST).cloned();
        Self { method: head.method.clone(), target: target_of(head), host, headers: head.headers.clone(), tokens, paths }
    }

    /// Its method.
    pub(crate) fn method(&self) -> &str {
        self.method.as_str()
    }

    /// Its target, as it was received.
    pub(crate) fn target(&self) -> &str {
        match &self.target {
            Target::Origin(target) => target.as_str(),
            Target::Other(target) => target,
        }
    }

    /// Whether it may go on, and in which form.
    pub(crate) fn judge(
        &self,
        judgeable: &Judgeable,
        own: &ServiceName,
        snapshot: &Snapshot,
        now: SystemTime,
    ) -> RequestDecision {
        let call = Call {
            source: &judgeable.service,
            destination: own,
            port: &judgeable.port,
            protocol: snapshot.protocol,
            request: None,
        };
        let request = Request {
            method: self.method.as_str(),
            target: self.target(),
            host: self.host.as_ref().and_then(|host| host.to_str().ok()),
            headers: &self.headers,
            tokens: &self.tokens,
            paths: self.paths,
        };
        judge_request(&snapshot.rules, &call, &request, now)
    }

    /// Whether it may go on.
    pub(crate) fn decide(&self, judgeable: &Judgeable, own: &ServiceName, snapshot: &Snapshot, now: SystemTime) -> Decision {
        self.judge(judgeable, own, snapshot, now).decision
    }
}

/// HTTP/2 has no absolute form: what it says of scheme and authority is judged apart.
fn target_of(head: &Parts) -> Target {
    match head.uri.path_and_query() {
        Some(target) if head.version == http::Version::HTTP_2 || head.uri.scheme().is_none() => Target::Origin(target.clone()),
        _ => Target::Other(head.uri.to_string()),
    }
}

impl fmt::Debug for JudgedRequest {
    /// Headers may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JudgedRequest").field("method", &self.method).finish_non_exhaustive()
    }
}
