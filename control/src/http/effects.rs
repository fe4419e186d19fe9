//! What a change of intentions would do to the calls that were seen, as the API tells it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_api::http::{Applied, Effect, Effects};
use postern_edges::effects;
use postern_edges::{By, Filter};

use super::edges::{may_see, row};
use super::error::ApiError;
use super::{Api, rfc3339};
use crate::acl::Authority;
use crate::policy::effects::Change;

/// As far as is looked back.
const DAY: Duration = Duration::from_secs(86_400);

/// What a dry run would change, with what it would do to the calls that this caller may see.
///
/// # Errors
/// Only where the control plane stops.
pub(super) async fn told(api: Arc<Api>, authority: Authority, applied: Applied) -> Result<Applied, ApiError> {
    // Everything that was seen is judged twice: not on a thread that serves connections.
    let judging = tokio::task::spawn_blocking(move || {
        let effects = of(&api, &authority, &applied);
        Applied { effects: Some(effects), ..applied }
    });
    judging.await.map_err(|error| ApiError::internal(format!("the effects were not found: {error}")))
}

fn of(api: &Api, authority: &Authority, applied: &Applied) -> Effects {
    let now = SystemTime::now();
    let selection = api.traffic.select(&Filter::default(), now - DAY, By::Edge);
    let mut seen = selection.edges;
    seen.retain(|seen| may_see(authority, &seen.sighting.edge.destination));
    let mut open = api.traffic.open_calls();
    open.retain(|(key, _)| may_see(authority, &key.destination));
    let change = api.mirror.read(|view| Change::of(view, applied, &seen, &open));
    let effects::Effects { newly_denied, newly_allowed, newly_audited } = change.effects(&seen, now);
    let list = |effects: Vec<effects::Effect>| effects.iter().map(effect).collect();
    Effects {
        since: rfc3339(selection.since),
        edges: seen.len(),
        newly_denied: list(newly_denied),
        newly_allowed: list(newly_allowed),
        newly_audited: list(newly_audited),
        closes: change.closes(&open, now),
        notes: change.notes(),
    }
}

fn effect(effect: &effects::Effect) -> Effect {
    Effect { seen: row(&effect.seen), before: effect.before.because.to_string(), after: effect.after.because.to_string() }
}
