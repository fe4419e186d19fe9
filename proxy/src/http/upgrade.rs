//! What goes on in another protocol after a 101 (RFC 9110 §7.8), such as WebSocket: bytes both ways until either side ends.

use std::future::poll_fn;

use http::header;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use super::answer::{Answer, Refusal};
use super::body::Body;
use super::exchange::Exchange;
use super::headers;
use super::serve::{Active, Activity};

/// The caller's end of a request, where it may ask for another protocol: HTTP/2 has no such thing.
pub(crate) fn asked_for(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    let may_ask = request.version() == Version::HTTP_11 && request.headers().contains_key(header::UPGRADE);
    may_ask.then(|| hyper::upgrade::on(request))
}

/// What the caller is answered where the service answered 101; with it both go on in the other protocol. `caller` is the end
/// of a caller whose wish for it was passed on.
pub(crate) fn switch(
    mut answer: Response<Incoming>,
    caller: Option<OnUpgrade>,
    activity: &Activity,
    mut exchange: Box<Exchange>,
    active: Active,
    tasks: &TaskTracker,
) -> Answer {
    let Some(caller) = caller else {
        return exchange.refused(Refusal::BadGateway, "the service answered 101, which nobody asked for");
    };
    if let Err(premature) = activity.goes_on_in_another_protocol() {
        return exchange.refused(Refusal::BadRequest, &premature.to_string());
    }
    let service = hyper::upgrade::on(&mut answer);
    let (mut head, _) = answer.into_parts();
    headers::strip_identity(&mut head.headers);
    exchange.answers(head.status, &head.headers);
    Upgrade { caller, service }.carry(exchange, active, tasks);
    Response::from_parts(head, Body::empty())
}

/// Both ends of a request that asks for another protocol.
struct Upgrade {
    /// The caller's.
    caller: OnUpgrade,
    /// The service's, from its 101.
    service: OnUpgrade,
}

impl Upgrade {
    /// Copies once both sides have taken the 101, as a task of `tasks`. `exchange` ends with it, and ends it when it is
    /// denied.
    fn carry(self, mut exchange: Box<Exchange>, active: Active, tasks: &TaskTracker) {
        tasks.spawn(async move {
            let _active = active;
            let both = async {
                let (caller, service) = tokio::try_join!(self.caller, self.service)?;
                Ok::<_, hyper::Error>(copy(caller, service).await)
            };
            tokio::select! {
                biased;
                // What has been copied is not counted by the byte here: the connections under it count.
                _ = poll_fn(|cx| exchange.poll_closed(cx)) => {}
                copied = both => match copied {
                    Ok(true) => exchange.is_complete(),
                    Ok(false) => exchange.fails("upgraded_broken_off"),
                    Err(_) => exchange.fails("upgrade_failed"),
                },
            }
        });
    }
}

/// Whether both ends said that they were done.
async fn copy(caller: Upgraded, service: Upgraded) -> bool {
    let (mut caller, mut service) = (TokioIo::new(caller), TokioIo::new(service));
    tokio::io::copy_bidirectional(&mut caller, &mut service).await.is_ok()
}
