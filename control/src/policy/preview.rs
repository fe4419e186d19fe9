//! What a change of one pair or of the default would do, said before it is done.

use std::time::SystemTime;

use postern_api::http::{Applied, ApplyRequest, DefaultRequest, SetRequest};
use postern_intentions::plan::Plan;
use postern_intentions::{Intention, PairKey, Party, never_matched};

use super::{
    Author, Policy, PolicyError, check_base, check_reason, expiry, intention_for, not_found, notes, pair, understanding,
};
use crate::mirror::View;

impl Policy {
    /// What [`Policy::set`] would change.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn plan_set(
        &self,
        source: Party,
        destination: Party,
        request: SetRequest,
        author: &Author,
    ) -> Result<Applied, PolicyError> {
        let SetRequest { verb, expires_in_s, reason, expected_revision, .. } = request;
        check_reason(reason.as_deref())?;
        let expires_at = expiry(expires_in_s, SystemTime::now())?;
        check_base(expected_revision, self.current_marker().await?)?;
        let wanted = self.mirror.read(|view| intention_for(view, &source, &destination, verb, expires_at));
        if !wanted.is_temporary() {
            // The permanent one is what an apply would set.
            return self.apply(merge_of(wanted), author).await;
        }
        wanted.validate()?;
        let sidecars = self.sidecars.list();
        Ok(self.mirror.read(|view| {
            let key = wanted.key();
            let now = SystemTime::now();
            let stored = view.intentions.get(&key).map(|(record, _)| &record.intention).filter(|stored| stored.is_live(now));
            let plan = match stored {
                Some(before) => Plan { changed: vec![(before.clone(), wanted.clone())], ..Plan::default() },
                None => Plan { added: vec![wanted.clone()], ..Plan::default() },
            };
            let set = [wanted];
            let not_understood_by = understanding::missing_on(&plan, &set, &sidecars);
            let never_matched = never_matched(&set, &notes::known_services(view));
            Applied { not_understood_by, never_matched, ..applied(plan, view) }
        }))
    }

    /// What [`Policy::delete`] would change.
    ///
    /// # Errors
    /// [`PolicyError::NotFound`] where there is no such intention, and every other [`PolicyError`].
    pub async fn plan_delete(&self, key: &PairKey, expected_revision: Option<u64>) -> Result<Applied, PolicyError> {
        check_base(expected_revision, self.current_marker().await?)?;
        self.mirror.read(|view| match view.intentions.get(key) {
            Some((record, _)) => Ok(applied(Plan { removed: vec![record.intention.clone()], ..Plan::default() }, view)),
            None if view.not_understood.contains_key(key) => Err(PolicyError::Invalid(format!(
                "what {} says cannot be read here, nor what comes without it; it can be deleted without a dry run",
                pair(key)
            ))),
            None => Err(not_found(key)),
        })
    }

    /// What [`Policy::set_default`] would change.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn plan_default(&self, request: &DefaultRequest) -> Result<Applied, PolicyError> {
        check_reason(request.reason.as_deref())?;
        check_base(request.expected_revision, self.current_marker().await?)?;
        Ok(self.mirror.read(|view| {
            let before = view.default.0;
            let default = (before != request.policy).then_some((before, request.policy));
            applied(Plan { default, ..Plan::default() }, view)
        }))
    }
}

/// The apply that sets this intention alone, as a dry run.
fn merge_of(intention: Intention) -> ApplyRequest {
    ApplyRequest { intentions: vec![intention], merge: true, dry_run: true, ..ApplyRequest::default() }
}

fn applied(plan: Plan, view: &View) -> Applied {
    let Plan { added, changed, removed, default } = plan;
    Applied {
        added,
        changed,
        removed,
        default,
        base_revision: view.revision,
        not_understood_by: Vec::new(),
        shadowed: Vec::new(),
        never_matched: Vec::new(),
        effects: None,
        written: None,
    }
}
