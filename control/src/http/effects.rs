//! What a change of intentions would do to the calls that were seen, as the API tells it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_api::http::{Applied, Effect, Effects};
use postern_edges::effects;
use postern_edges::{By, Filter};

use super::edges::{left_out_note, may_see, row};
use super::error::ApiError;
use super::{Api, rfc3339};
use crate::acl::Authority;
use crate::policy::effects::Change;

/// What a dry run would change, with what it would do to the calls that this caller may see: those of the last `since_s`
/// seconds, else all that are kept.
///
/// # Errors
/// Only where the control plane stops.
pub(super) async fn told(
    api: Arc<Api>,
    authority: Authority,
    applied: Applied,
    since_s: Option<u64>,
) -> Result<Applied, ApiError> {
    // Everything that was seen is judged twice: not on a thread that serves connections.
    let judging = tokio::task::spawn_blocking(move || {
        let effects = of(&api, &authority, &applied, since_s);
        Applied { effects: Some(effects), ..applied }
    });
    judging.await.map_err(|error| ApiError::internal(format!("the effects were not found: {error}")))
}

fn of(api: &Api, authority: &Authority, applied: &Applied, since_s: Option<u64>) -> Effects {
    let now = SystemTime::now();
    let begin = since_s.and_then(|seconds| now.checked_sub(Duration::from_secs(seconds))).unwrap_or(SystemTime::UNIX_EPOCH);
    let selection = api.traffic.select(&Filter::default(), begin.max(SystemTime::UNIX_EPOCH), By::Edge);
    // Before the first period nothing is kept, so nothing before it was judged.
    let since = selection.since.max(api.traffic.kept_since().unwrap_or(now));
    let left_out = api.traffic.left_out();
    let mut seen = selection.edges;
    seen.retain(|seen| may_see(authority, &seen.sighting.edge.destination));
    let mut open = api.traffic.open_calls();
    open.retain(|(key, _)| may_see(authority, &key.destination));
    let change = api.mirror.read(|view| Change::of(view, applied, &seen, &open));
    let effects::Effects { newly_denied, newly_allowed, newly_audited } = change.effects(&seen, now);
    let mut notes = change.notes();
    notes.extend(left_out_note(left_out, "what becomes of such calls is not told here"));
    let list = |effects: Vec<effects::Effect>| effects.iter().map(effect).collect();
    Effects {
        since: rfc3339(since),
        edges: seen.len(),
        left_out,
        newly_denied: list(newly_denied),
        newly_allowed: list(newly_allowed),
        newly_audited: list(newly_audited),
        closes: change.closes(&open, now),
        notes,
    }
}

fn effect(effect: &effects::Effect) -> Effect {
    Effect { seen: row(&effect.seen), before: effect.before.because.to_string(), after: effect.after.because.to_string() }
}
