//! What is asked of the evaluator from outside: by `check` and `explain`, of the control plane and of a file.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use postern_intentions::{Call, Forward, PathSettings, Protocol, Request, RuleSet, VerifiedTokens, explain, judge_request};
use postern_names::PortName;

use crate::http::{DecideRequest, Decided};

/// An HTTP request that somebody asks about. It carries no verified token.
#[derive(Debug)]
pub struct AskedRequest {
    method: String,
    target: String,
    headers: HeaderMap,
    tokens: VerifiedTokens,
}

/// A header that no request can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header {name:?} is not valid: a name is a token such as x-team, and a value holds no control characters")]
pub struct HeaderNotValid {
    /// The name as given, cut to 80 characters.
    pub name: String,
}

impl AskedRequest {
    /// The request that is asked about, where it is not a connection: a method, a path or a header makes it a request. It
    /// is a GET of `/` where it does not say.
    ///
    /// # Errors
    /// [`HeaderNotValid`]
    pub fn of(asked: &DecideRequest) -> Result<Option<Self>, HeaderNotValid> {
        if asked.method.is_none() && asked.path.is_none() && asked.headers.is_empty() {
            return Ok(None);
        }
        let mut headers = HeaderMap::with_capacity(asked.headers.len());
        for (name, value) in &asked.headers {
            let not_valid = || HeaderNotValid { name: name.chars().take(80).collect() };
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| not_valid())?;
            headers.append(header, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| not_valid())?);
        }
        Ok(Some(Self {
            method: asked.method.clone().unwrap_or_else(|| "GET".into()),
            target: asked.path.clone().unwrap_or_else(|| "/".into()),
            headers,
            tokens: VerifiedTokens::none(),
        }))
    }

    fn request(&self) -> Request<'_> {
        let host = self.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        Request {
            method: &self.method,
            target: &self.target,
            host,
            headers: &self.headers,
            tokens: &self.tokens,
            paths: PathSettings::default(),
        }
    }
}

/// The one evaluator's answer, as the API gives it. On a `tcp` destination the connection is judged, not a request.
pub fn judge(
    rules: &RuleSet,
    asked: &DecideRequest,
    request: Option<&AskedRequest>,
    protocol: Protocol,
    now: SystemTime,
) -> Decided {
    let main = PortName::main();
    let request = request.filter(|_| protocol != Protocol::Tcp).map(AskedRequest::request);
    let port = asked.port.as_ref().unwrap_or(&main);
    let (source, destination) = (&asked.source, &asked.destination);
    let call = Call { source, destination, port, protocol, request: request.as_ref() };
    let explanation = explain(rules, &call, now);
    let forwarded = request.and_then(|request| match judge_request(rules, &call, &request, now).forward() {
        Some(Forward::Target(target)) => Some(target.clone()),
        Some(Forward::Untouched) | None => None,
    });
    Decided {
        allowed: explanation.decision.allowed(),
        would_deny: explanation.decision.would_deny,
        because: explanation.decision.because.to_string(),
        protocol,
        explanation,
        forwarded,
        notes: Vec::new(),
    }
}
