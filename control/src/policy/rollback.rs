//! Back to what permanent intentions and default were at a revision, as an apply of them.

use std::collections::BTreeSet;

use postern_api::http::{Applied, ApplyRequest, RollbackRequest};
use postern_intentions::PairKey;

use super::apply::{Told, Wanted};
use super::history::Then;
use super::{Author, Policy, PolicyError, TRIES, permanent};

impl Policy {
    /// Brings permanent intentions and default back to what they were at a revision, or says what would change. It is a
    /// change as any other: with a revision of its own, and to be rolled back itself.
    ///
    /// # Errors
    /// [`PolicyError::Forgotten`] where the history does not go back so far, and every other [`PolicyError`].
    pub async fn rollback(&self, request: RollbackRequest, author: &Author) -> Result<Applied, PolicyError> {
        super::check_reason(request.reason.as_deref())?;
        for _ in 0..TRIES {
            let (now, unreadable, marker) = self.now().await?;
            super::check_base(request.expected_revision, marker)?;
            if request.revision > self.mirror.revision() {
                let last = self.mirror.revision();
                let what = format!("revision {} is not there yet: the store is at revision {last}", request.revision);
                return Err(PolicyError::Invalid(what));
            }
            let then = self.history.undo(now, marker, request.revision).await?;
            let wanted = Wanted {
                // What cannot be read and was there then already stays as it is.
                keeps: unreadable.difference(&then.touched).cloned().collect(),
                what: "intention.rollback",
                scope: None,
                told: Told::Difference,
                request: ApplyRequest {
                    default: Some(then.default),
                    intentions: then.intentions.into_values().collect(),
                    dry_run: request.dry_run,
                    expected_revision: Some(marker),
                    reason: request.reason.clone(),
                    wait_ms: request.wait_ms,
                    ..ApplyRequest::default()
                },
            };
            match self.apply_wanted(wanted, author, |_| Ok::<(), PolicyError>(()), |_| Ok(())).await {
                // Something else was changed since it was looked at.
                Err(PolicyError::Stale { .. }) => {}
                done => return done,
            }
        }
        Err(PolicyError::Contended)
    }

    /// What is true, the permanent pairs that cannot be read, and the revision of the last change.
    async fn now(&self) -> Result<(Then, BTreeSet<PairKey>, u64), PolicyError> {
        for _ in 0..TRIES {
            let marker = self.current_marker().await?;
            let (file, unreadable) = self.mirror.read(|view| {
                let unreadable = view.not_understood.keys().filter(|key| !key.temporary).cloned().collect();
                (permanent(view), unreadable)
            });
            if self.current_marker().await? == marker {
                let intentions = file.intentions.into_iter().map(|intention| (intention.key(), intention)).collect();
                let default = file.default.unwrap_or_default();
                return Ok((Then { intentions, default, touched: BTreeSet::new() }, unreadable, marker));
            }
        }
        Err(PolicyError::Contended)
    }
}
