//! Copies of requests, sent to see what another version does with them. What they answer is read and dropped.

use http_body_util::BodyExt;
use postern_traffic::settings::Mirror;
use tokio::time::{Duration, timeout};

use super::authority::speak;
use super::body::Body;
use super::outbound::CallerConnection;
use super::pool::Version;
use crate::upstreams::Compiled;

/// A copy may take so long, answer included.
const LONGEST: Duration = Duration::from_secs(30);
/// Copies under way at once, of one sidecar; over it none is sent.
pub(crate) const MOST: usize = 256;

/// Sends a copy, as a task of its own. `None`: the request was too long, or still on its way.
pub(super) fn send(caller: &CallerConnection, upstreams: &Compiled, mirror: &Mirror, copy: Option<http::Request<Body>>) {
    let Some(mut copy) = copy else {
        tracing::debug!(service = %mirror.service, "a request is too long to be mirrored");
        return;
    };
    let Ok(place) = caller.http().mirrors.clone().try_acquire_owned() else { return };
    let Some(called) = upstreams.get(&mirror.service) else { return };
    let port = &caller.outbound.upstream.port;
    let Ok(picked) = upstreams.pick(&mirror.service, &called.service, mirror.subset.as_deref(), port, None, &[]) else { return };
    let version = Version::of(called.protocol);
    let instances = &caller.http().instances;
    let Ok(pool) = instances.pool(picked.service, port, picked.endpoint, picked.open.stats(), version) else { return };
    if speak(&mut copy, version, &mirror.service).is_err() {
        return;
    }
    let breakers = called.service.breakers.clone();
    caller.http().server.tasks.spawn(async move {
        let _held = (place, picked.open);
        let answered = async {
            if let Ok((answer, lease)) = pool.send(copy, Some(&breakers)).await {
                // All of it, so that the connection can be used again.
                let mut body = answer.into_body();
                while let Some(Ok(_)) = body.frame().await {}
                lease.give_back();
            }
        };
        if timeout(LONGEST, answered).await.is_err() {
            tracing::debug!("a mirrored request was not answered in time");
        }
    });
}
