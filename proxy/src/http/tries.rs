//! The tries of one request: an instance, its answer or its failure, and perhaps another instance.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use postern_intentions::Protocol;
use postern_names::{InstanceId, ServiceName};
use postern_traffic::{CallProtocol, Destination, Outcome, Repeatable};
use smallvec::SmallVec;
use tokio::time::{Instant, sleep_until};

use super::answer::{Language, Refusal};
use super::authority::{address, authority_of};
use super::body::{Body, Sent};
use super::exchange::{Decider, Exchange};
use super::expect::expecting;
use super::headers::Said;
use super::instances::Unreached;
use super::outbound::CallerConnection;
use super::pool::{Cause, Failure, Version};
use super::replay::Replay;
use crate::metrics::Judged;
use crate::upstreams::{Called, Compiled};

/// The default of `timeouts.request`, which does not count for gRPC: a call without a deadline has none.
const DEFAULT_REQUEST: Duration = Duration::from_secs(15);

/// Where a request goes.
pub(super) struct Way<'w> {
    pub(super) upstreams: &'w Compiled,
    pub(super) service: &'w ServiceName,
    pub(super) called: &'w Called,
    pub(super) destination: &'w Destination<'w>,
    pub(super) hash: Option<u64>,
}

/// A request as it is sent.
pub(super) struct Request {
    /// What is sent first; `None` once it was.
    first: Option<http::Request<Body>>,
    /// What is needed to send it again.
    again: Option<(Parts, Option<Replay>)>,
    sent: Arc<Sent>,
    version: Version,
    wants_upgrade: bool,
    /// The deadline that a gRPC call brings.
    deadline: Option<Duration>,
    language: Language,
}

impl Request {
    /// # Errors
    /// Why it cannot be sent.
    pub(super) fn new(
        mut head: Parts,
        said: Said,
        body: Incoming,
        destination: &Destination<'_>,
        service: &ServiceName,
        protocol: Protocol,
        language: Language,
    ) -> Result<Self, &'static str> {
        let version = Version::of(protocol);
        let target = destination.rewrite.clone().or_else(|| head.uri.path_and_query().cloned());
        let host = authority_of(&head);
        let deadline = (language == Language::Grpc).then(|| grpc_timeout(&head.headers)).flatten();
        if said.trailers {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let wants_upgrade = said.upgrade.is_some() && version == Version::Http1;
        if let (true, Some(protocol)) = (wants_upgrade, said.upgrade) {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, protocol);
        }
        destination.request_headers.apply(&mut head.headers);
        address(&mut head, version, target.unwrap_or(PathAndQuery::from_static("/")), host, service)?;
        let keeps = (destination.retries.keeps_requests() || destination.mirror.is_some()) && !wants_upgrade;
        let again = keeps.then(|| copy(&head));
        let (body, sent, replay) = if keeps && !http_body::Body::is_end_stream(&body) {
            let (replay, sent) = Replay::of(body);
            let first = replay.another_try().ok_or("the request cannot be kept")?;
            (Body::tried(first), sent, Some(replay))
        } else {
            let (body, sent) = Body::sent(body);
            (body, sent, None)
        };
        Ok(Self {
            first: Some(http::Request::from_parts(head, body)),
            again: again.map(|head| (head, replay)),
            sent,
            version,
            wants_upgrade,
            deadline,
            language,
        })
    }

    /// How far its body is.
    pub(super) fn sent(&self) -> Arc<Sent> {
        self.sent.clone()
    }

    /// Whether it asks for another protocol.
    pub(super) fn wants_upgrade(&self) -> bool {
        self.wants_upgrade
    }

    /// The whole of it, for a mirror; `None` when it is long or still on its way.
    pub(super) fn copy(&self) -> Option<http::Request<Body>> {
        let (head, replay) = self.again.as_ref()?;
        let body = match replay {
            None => Body::empty(),
            Some(replay) => Body::own(replay.whole()?),
        };
        Some(http::Request::from_parts(copy(head), body))
    }

    /// The next request to send; `None` when it cannot be sent again.
    fn next(&mut self) -> Option<http::Request<Body>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let (head, replay) = self.again.as_ref()?;
        let body = match replay {
            None => Body::empty(),
            Some(replay) => Body::tried(replay.another_try()?),
        };
        Some(http::Request::from_parts(copy(head), body))
    }
}

/// All of a head that is sent.
pub(super) fn copy(head: &Parts) -> Parts {
    let mut copied = http::Request::new(()).into_parts().0;
    copied.method = head.method.clone();
    copied.uri = head.uri.clone();
    copied.version = head.version;
    copied.headers = head.headers.clone();
    copied
}

/// `grpc-timeout` (gRPC over HTTP/2, «Timeout»): at most eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What a try without an answer to pass on means.
struct Failed {
    /// `None`: it is final, and says nothing of the instance.
    outcome: Option<Outcome>,
    refusal: Refusal,
    because: String,
}

/// Sends a request until an answer can be passed on or there is nothing more to try.
pub(super) struct Tries<'t> {
    caller: &'t CallerConnection,
    way: &'t Way<'t>,
    tried: SmallVec<[InstanceId; 2]>,
    deadline: Option<Deadline>,
}

/// From the whole request to the head of its answer.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    lasts: Duration,
}

impl<'t> Tries<'t> {
    pub(super) fn new(caller: &'t CallerConnection, way: &'t Way<'t>) -> Self {
        Self { caller, way, tried: SmallVec::new(), deadline: None }
    }

    /// # Errors
    /// What the caller is told when there is no answer.
    pub(super) async fn send(
        mut self,
        request: &mut Request,
        exchange: &mut Exchange,
    ) -> Result<Response<Incoming>, (Refusal, String)> {
        self.deadline = self.deadline(request, exchange.begun());
        let mut tries = 0;
        let mut _retry = None;
        loop {
            let Some(next) = request.next() else {
                return Err((Refusal::BadGateway, "the request cannot be sent again".to_owned()));
            };
            tries += 1;
            let failed = match self.once(next, request, exchange).await {
                Ok(answer) => {
                    let outcome = outcome_of(&answer, request.language);
                    let Some(permit) = self.may_retry(tries, outcome, request, exchange) else { return Ok(answer) };
                    exchange.try_ended(outcome);
                    _retry = Some(permit);
                    drop(answer);
                    None
                }
                Err(failed) => {
                    let Some(outcome) = failed.outcome else {
                        if failed.refusal == Refusal::Denied {
                            exchange.judged(Judged::Deny, Decider::Words(failed.because.as_str().into()));
                        }
                        return Err((failed.refusal, failed.because));
                    };
                    exchange.try_ended(outcome);
                    match self.may_retry(tries, outcome, request, exchange) {
                        Some(permit) => _retry = Some(permit),
                        None => return Err((failed.refusal, failed.because)),
                    }
                    Some(failed)
                }
            };
            let pause = self.way.destination.retries.pause(tries, &mut rand::rng());
            if let Some(deadline) = self.deadline
                && Instant::now() + pause >= deadline.at
            {
                let failed = failed.map_or_else(|| "no time is left to try again".to_owned(), |failed| failed.because);
                return Err((Refusal::TimedOut, failed));
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn deadline(&self, request: &Request, begun: Instant) -> Option<Deadline> {
        let set = self.way.destination.timeouts.request.duration();
        let of_settings = match request.language {
            Language::Grpc if set == DEFAULT_REQUEST => None,
            _ => Some(set).filter(|set| !set.is_zero()),
        };
        let lasts = of_settings.into_iter().chain(request.deadline).min()?;
        Some(Deadline { at: begun + lasts, lasts })
    }

    fn may_retry(
        &self,
        tries: u32,
        outcome: Outcome,
        request: &Request,
        exchange: &Exchange,
    ) -> Option<postern_traffic::RetryPermit> {
        let (head, _) = match (&request.first, &request.again) {
            // Nothing of it was sent.
            (Some(first), _) => (first.method().as_str(), ()),
            (None, Some((head, replay))) if replay.as_ref().is_none_or(Replay::can_repeat) => (head.method.as_str(), ()),
            (None, _) => return None,
        };
        let protocol = if request.language == Language::Grpc { CallProtocol::Grpc } else { CallProtocol::Http };
        if !self.way.destination.retries.retries(Repeatable { method: head, protocol, tries }, outcome) {
            return None;
        }
        exchange.request()?.retry()
    }

    /// One try on one instance.
    async fn once(
        &mut self,
        next: http::Request<Body>,
        request: &mut Request,
        exchange: &mut Exchange,
    ) -> Result<Response<Incoming>, Failed> {
        let Way { upstreams, service, called, destination, hash } = self.way;
        let upstream = &self.caller.outbound.upstream;
        let port = destination.port.unwrap_or(&upstream.port);
        let picked = match upstreams.pick(service, &called.service, destination.subset, port, *hash, &self.tried) {
            Ok(picked) => picked,
            Err(none) => {
                request.first = Some(next);
                return Err(unreached(none.to_string()));
            }
        };
        let instance = picked.endpoint.instance.clone();
        let instances = &self.caller.http().instances;
        let pool = match instances.pool(picked.service, port, picked.endpoint, picked.open.stats(), request.version) {
            Ok(pool) => pool,
            Err(error) => {
                request.first = Some(next);
                return Err(unreached(error.to_string()));
            }
        };
        let next = expecting(next, request.version);
        exchange.reached(instance.clone());
        exchange.open_on(picked.open);
        self.tried.push(instance.clone());
        let sent = tokio::select! {
            biased;
            sent = pool.send(next, Some(&called.service.breakers)) => sent,
            () = self.over(request) => {
                let because = format!("{instance} did not answer in time");
                return Err(Failed { outcome: Some(Outcome::PerTryTimeout), refusal: Refusal::TimedOut, because });
            }
        };
        match sent {
            Ok((answer, lease)) => {
                exchange.carried_by(lease);
                Ok(answer)
            }
            Err(Failure::Connect(Unreached::Overloaded(overloaded), unsent) | Failure::Overloaded(overloaded, unsent)) => {
                request.first = Some(*unsent);
                Err(Failed { outcome: Some(Outcome::Overloaded), refusal: Refusal::Overloaded, because: overloaded.to_string() })
            }
            Err(Failure::Connect(error, unsent)) => {
                request.first = Some(*unsent);
                Err(unreached(error_text(&instance, &error)))
            }
            Err(Failure::Unsent(error, unsent)) => {
                request.first = Some(*unsent);
                Err(unreached(format!("{instance}: {error}")))
            }
            Err(Failure::Sent(error)) => Err(self.sent_and_failed(&instance, &error)),
        }
    }

    fn sent_and_failed(&self, instance: &InstanceId, error: &hyper::Error) -> Failed {
        let failed = |outcome, refusal, because| Failed { outcome: Some(outcome), refusal, because };
        match Cause::of(error) {
            Cause::NotLookedAt => unreached(format!("{instance}: {error}")),
            // It says nothing of the instance, and there is nothing to send again.
            Cause::Caller => {
                Failed { outcome: None, refusal: Refusal::BadRequest, because: "the body of the request broke off".to_owned() }
            }
            Cause::Denied => {
                Failed { outcome: None, refusal: Refusal::Denied, because: self.caller.denied_because(self.way.service) }
            }
            Cause::Connection => failed(
                Outcome::Reset { before_answer: true },
                Refusal::BadGateway,
                format!("{instance} broke off before it answered: {error}"),
            ),
        }
    }

    /// Waits until the try, or all tries together, have taken too long.
    async fn over(&self, request: &Request) {
        let per_try = self.way.destination.timeouts.per_try.duration();
        let of_try = (!per_try.is_zero()).then(|| Deadline { at: Instant::now() + per_try, lasts: per_try });
        let Some(mut first) = self.deadline.into_iter().chain(of_try).min_by_key(|deadline| deadline.at) else {
            return std::future::pending().await;
        };
        loop {
            sleep_until(first.at).await;
            // It counts from the whole request: one that is still on its way has all of the time before it. What a gRPC call
            // says itself counts from its beginning.
            if request.sent.is_over() || request.deadline == Some(first.lasts) {
                return;
            }
            first.at = Instant::now() + first.lasts;
        }
    }
}

fn unreached(because: String) -> Failed {
    Failed { outcome: Some(Outcome::ConnectFailure), refusal: Refusal::Unavailable, because }
}

fn error_text(instance: &InstanceId, error: &Unreached) -> String {
    match error {
        Unreached::Dial { .. } => error.to_string(),
        error => format!("{instance}: {error}"),
    }
}

fn outcome_of(answer: &Response<Incoming>, language: Language) -> Outcome {
    let grpc = (language == Language::Grpc).then(|| answer.headers().get("grpc-status")).flatten();
    match grpc.and_then(|status| status.to_str().ok()?.parse().ok()) {
        Some(status) => Outcome::GrpcStatus(status),
        None => Outcome::Status(answer.status().as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_of_a_call_is_read_in_every_unit() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("value"));
            grpc_timeout(&headers)
        };
        assert_eq!(read("1H"), Some(Duration::from_secs(3_600)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999u"), Some(Duration::from_micros(99_999_999)));
        for bad in ["", "5", "S", "-1S", "123456789S", "1s", "1 S", "1.5S"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
