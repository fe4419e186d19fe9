//! Whether what a session lives with is there: its node, and its checks, none of them critical.

use std::sync::{Arc, Weak};

use postern_checks::Status;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::keeper::Sessions;
use super::record::SessionRecord;
use crate::mirror::{Change, View};
use crate::registry::Home;
use crate::registry::catalog::Catalog;

/// What a session may not live with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// There is no such node.
    #[error("Missing node registration")]
    Node,
    /// There is no such check on its node.
    #[error("Missing check '{0}' registration")]
    Check(String),
    /// The check is critical.
    #[error("Check '{0}' is in critical state")]
    Critical(String),
}

/// Looks for the node and the checks of a session.
///
/// # Errors
/// [`Missing`]: the first that is not there, or critical.
pub fn look(view: &View, home: &Home, session: &SessionRecord) -> Result<(), Missing> {
    let catalog = Catalog::new(view, home);
    catalog.node(&session.node).ok_or(Missing::Node)?;
    let named: Vec<&String> = session.checks().filter(|id| *id != NODE_CHECK).collect();
    if named.is_empty() {
        return Ok(());
    }
    let checks = catalog.checks_on(&session.node);
    for id in named {
        let status = checks.iter().filter(|check| check.id == *id).map(|check| check.status).max();
        match status {
            None => return Err(Missing::Check(id.clone())),
            Some(Status::Critical) => return Err(Missing::Critical(id.clone())),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The check that every node has: that it is there.
pub const NODE_CHECK: &str = "serfHealth";

/// Ends sessions as soon as what they live with is lost.
pub(super) async fn watch(sessions: Weak<Sessions>, mut changes: Receiver<Arc<Change>>) {
    loop {
        let mut concerns = match changes.recv().await {
            Ok(change) => change.touches_catalog(),
            Err(RecvError::Lagged(_)) => true,
            Err(RecvError::Closed) => return,
        };
        // Changes that came together are looked at together.
        while let Ok(change) = changes.try_recv() {
            concerns |= change.touches_catalog();
        }
        let Some(sessions) = sessions.upgrade() else { return };
        if concerns && let Err(error) = sessions.end_lost().await {
            tracing::error!(%error, "sessions whose node or check is lost cannot be ended; they are looked at again with the next change");
        }
    }
}
