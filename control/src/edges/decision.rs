//! One call, as a sidecar tells it and as it is shown.

use std::time::SystemTime;

use postern_api::http::SeenDecision;
use postern_api::seen::{self, MOST_PATH_BYTES, NotTaken};
use postern_api::v1;
use postern_edges::MOST_BECAUSE_BYTES;

use super::Teller;
use crate::http::rfc3339;

/// Bytes of a method.
const MOST_METHOD_BYTES: usize = 32;

/// What a sidecar tells of a call, at `now`.
///
/// # Errors
/// [`NotTaken`] for names and words that are none.
pub(super) fn from_wire(teller: &Teller, wire: &v1::SeenDecision, now: SystemTime) -> Result<SeenDecision, NotTaken> {
    let (source, destination) = seen::ends(&teller.service, &wire.peer, wire.outbound)?;
    let verdict = seen::verdict(&wire.verdict, wire.outbound)?;
    let text = |text: &str, most: usize| (!text.is_empty()).then(|| seen::printable(text, most));
    Ok(SeenDecision {
        at: rfc3339(seen::before(now, wire.ago_ms)),
        source,
        destination,
        instance: teller.instance.clone(),
        port: seen::port(&wire.port)?,
        protocol: seen::protocol(&wire.protocol)?,
        verdict,
        because: seen::printable(&wire.because, MOST_BECAUSE_BYTES),
        method: text(&wire.method, MOST_METHOD_BYTES),
        path: text(&seen::path_to_keep(&wire.path), MOST_PATH_BYTES),
        status: u16::try_from(wire.status).ok().filter(|status| *status != 0),
        count: wire.count.max(1),
    })
}
