//! What goes on in another protocol after a 101 (RFC 9110 §7.8), such as WebSocket: bytes both ways until either side ends.

use std::future::poll_fn;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use super::exchange::Exchange;
use super::serve::Active;

/// Both ends of a request that asks for another protocol.
pub(crate) struct Upgrade {
    /// The caller's.
    pub(crate) caller: OnUpgrade,
    /// The service's, from its 101.
    pub(crate) service: OnUpgrade,
}

impl Upgrade {
    /// Copies once both sides have taken the 101, as a task of `tasks`. `exchange` ends with it, and ends it when it is
    /// denied.
    pub(crate) fn carry(self, mut exchange: Box<Exchange>, active: Active, tasks: &TaskTracker) {
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
