//! The apply of a file: the store is made equal to it in one revision, however much that changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use postern_api::http::{Applied, ApplyRequest, Written};
use postern_intentions::file::IntentionFile;
use postern_intentions::plan::{self, Plan};
use postern_intentions::{Intention, PairKey, Party, Shadowed, never_matched, shadowed};
use serde_json::json;

use super::{
    Author, Changed, Committed, Draft, MAX_CHANGES, Pairs, Policy, PolicyError, TRIES, check_base, check_reason, default_op,
    entry, json_of, notes, pair, permanent, understanding,
};
use crate::mirror::{Mirror, View};
use crate::records::change_set::{ChangeSetRecord, POINTER, StagedChange};
use crate::records::{self, IntentionRecord};
use crate::store::{MAX_TXN_BYTES, Op};

/// Bytes of the changes of a plain transaction: the audit log is told of them in the same one, twice where something was
/// there before.
pub(super) const MAX_BYTES: usize = MAX_TXN_BYTES / 4;

/// What to make of the store.
pub(super) struct Wanted {
    /// What it is to say, and how that is done.
    pub request: ApplyRequest,
    /// What the history calls it.
    pub what: &'static str,
    /// Pairs that cannot be read and stay all the same.
    pub keeps: BTreeSet<PairKey>,
    /// The only destination that is looked at; none: all.
    pub scope: Option<Party>,
    /// What is told of it.
    pub told: Told,
}

/// What is told of what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The difference, and what of it has no effect: somebody wrote it.
    Everything,
    /// The difference alone.
    Difference,
}

/// What an apply touches.
pub struct Touched<'a> {
    plan: &'a Plan,
    wanted: &'a [Intention],
    unreadable: &'a [PairKey],
}

impl<'a> Touched<'a> {
    /// The destinations of the intentions that come or change, and those of intentions that stay as the request has them.
    pub fn of_request(&self) -> (BTreeSet<&'a Party>, BTreeSet<&'a Party>) {
        let set = self.plan.added.iter().chain(self.plan.changed.iter().map(|(_, after)| after));
        let set: BTreeSet<PairKey> = set.map(Intention::key).collect();
        let (set, kept): (Vec<_>, Vec<_>) = self.wanted.iter().partition(|intention| set.contains(&intention.key()));
        let destinations = |of: Vec<&'a Intention>| of.into_iter().map(|intention| &intention.destination).collect();
        (destinations(set), destinations(kept))
    }

    /// The destinations of the intentions that go, since the request does not have them.
    pub fn left_out(&self) -> BTreeSet<&'a Party> {
        let removed = self.plan.removed.iter().map(|intention| &intention.destination);
        removed.chain(self.unreadable.iter().map(|key| &key.destination)).collect()
    }

    /// Whether the default becomes another.
    pub fn default(&self) -> bool {
        self.plan.default.is_some()
    }
}

/// What an apply would do, and what to know about it.
struct Planned {
    plan: Plan,
    /// Permanent intentions that cannot be read and that the apply takes out. Those that it sets anew are replaced.
    unreadable: Vec<PairKey>,
    /// Those that it sets anew.
    replaced: BTreeSet<PairKey>,
    base_revision: u64,
    notes: Vec<String>,
    not_understood_by: Vec<String>,
    shadowed: Vec<Shadowed>,
    never_matched: Vec<String>,
    /// All changes of pairs, as a change set holds them.
    changes: Vec<StagedChange>,
}

impl Policy {
    /// Makes the store equal to the request, or says what would change.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn apply(&self, request: ApplyRequest, author: &Author) -> Result<Applied, PolicyError> {
        self.apply_if(request, author, |_| Ok(())).await
    }

    /// The same for somebody who may not change everything: `may` is asked about what this touches, before anything of it
    /// is told or done.
    ///
    /// # Errors
    /// What `may` says, and every [`PolicyError`].
    pub async fn apply_if<E: From<PolicyError>>(
        &self,
        request: ApplyRequest,
        author: &Author,
        may: impl Fn(&Touched<'_>) -> Result<(), E>,
    ) -> Result<Applied, E> {
        check_reason(request.reason.as_deref())?;
        let wanted = Wanted { request, what: "intention.apply", keeps: BTreeSet::new(), scope: None, told: Told::Everything };
        self.apply_wanted(wanted, author, |_| Ok(()), may).await
    }

    /// Makes the permanent intentions of one destination equal to those of the request; others are not looked at. `check`
    /// may refuse by what there is; it is asked again where another change came between.
    ///
    /// # Errors
    /// What `check` says, and every [`PolicyError`].
    pub async fn replace<E: From<PolicyError>>(
        &self,
        destination: Party,
        intentions: Vec<Intention>,
        author: &Author,
        check: impl Fn(&View) -> Result<(), E>,
    ) -> Result<Applied, E> {
        let request = ApplyRequest { intentions, ..ApplyRequest::default() };
        let wanted =
            Wanted { request, what: "intention.apply", keeps: BTreeSet::new(), scope: Some(destination), told: Told::Difference };
        self.apply_wanted(wanted, author, check, |_| Ok(())).await
    }

    pub(super) async fn apply_wanted<E: From<PolicyError>>(
        &self,
        wanted: Wanted,
        author: &Author,
        check: impl Fn(&View) -> Result<(), E>,
        may: impl Fn(&Touched<'_>) -> Result<(), E>,
    ) -> Result<Applied, E> {
        let wanted = Arc::new(wanted);
        let request = &wanted.request;
        for _ in 0..TRIES {
            if !request.dry_run {
                self.staging.move_all().await?;
            }
            let marker = self.current_marker().await?;
            check_base(request.expected_revision, marker)?;
            if !request.dry_run && self.mirror.read(|view| view.change_sets.in_force().is_some()) {
                continue;
            }
            self.mirror.read(&check)?;
            let planned = self.plan(&wanted, author).await?;
            may(&planned.touched(request))?;
            if request.dry_run || planned.is_empty() {
                return Ok(planned.applied(None));
            }
            if let Some(committed) = self.write(marker, &planned, &wanted, author).await? {
                let Planned { notes, .. } = &planned;
                let concerned = destinations_of(&planned.plan, &planned.unreadable);
                let written = self.written(committed, true, None, notes.clone(), &concerned, request.wait_ms).await;
                return Ok(planned.applied(Some(written)));
            }
        }
        Err(PolicyError::Contended.into())
    }

    /// A hundred thousand intentions take their time: not on a thread that serves connections.
    async fn plan(&self, wanted: &Arc<Wanted>, author: &Author) -> Result<Planned, PolicyError> {
        let (mirror, wanted, author) = (Arc::clone(&self.mirror), Arc::clone(wanted), author.clone());
        let sidecars = self.sidecars.list();
        let planning = tokio::task::spawn_blocking(move || {
            let request = &wanted.request;
            check_wanted(request)?;
            let mut planned = plan_of(&mirror, &wanted);
            planned.not_understood_by = understanding::missing_on(&planned.plan, &request.intentions, &sidecars);
            if !request.dry_run {
                planned.changes = changes_of(&planned, request, &author)?;
            }
            Ok(planned)
        });
        match planning.await {
            Ok(planned) => planned,
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => Err(PolicyError::Store(crate::store::StoreError::Closed)),
        }
    }

    /// `None`: another change came between.
    async fn write(
        &self,
        marker: u64,
        planned: &Planned,
        wanted: &Wanted,
        author: &Author,
    ) -> Result<Option<Committed>, PolicyError> {
        let bytes: usize = planned.changes.iter().map(StagedChange::size).sum();
        if planned.changes.len() > MAX_CHANGES || bytes > MAX_BYTES {
            return self.write_staged(marker, planned, wanted, bytes, author).await;
        }
        let mut ops: Vec<Op> = planned.changes.iter().map(op_of).collect();
        ops.extend(default_change(&planned.plan)?);
        let Plan { added, changed, removed, default } = &planned.plan;
        let details = json!({ "added": added, "changed": changed, "removed": removed, "default": default });
        let audit = entry(author, wanted.what, details, wanted.request.reason.clone());
        let changed = Changed { default: *default, pairs: Pairs::These(planned.changes.clone()) };
        self.commit(marker, Draft { compares: Vec::new(), ops, audit, changed }).await
    }

    /// Stages the changes in chunks; then one transaction makes all of them true, or none where anything changed since the
    /// plan was made.
    async fn write_staged(
        &self,
        marker: u64,
        planned: &Planned,
        wanted: &Wanted,
        bytes: usize,
        author: &Author,
    ) -> Result<Option<Committed>, PolicyError> {
        let request = &wanted.request;
        let Some(staged) = self.staging.write(planned.changes.clone()).await? else { return Ok(None) };
        let record = ChangeSetRecord {
            id: staged.id.clone(),
            chunks: staged.chunks,
            at: SystemTime::now(),
            who: author.who.clone(),
            from: author.from.clone(),
            reason: request.reason.clone(),
            base: Some(marker),
        };
        let mut ops = vec![Op::put(POINTER, records::encode(&record)?)];
        ops.extend(default_change(&planned.plan)?);
        let Plan { added, changed, removed, default } = &planned.plan;
        // The pairs do not fit; each part tells of its own when it is moved.
        let details = json!({
            "change_set": staged.id, "parts": staged.chunks, "default": default,
            "added": added.len(), "changed": changed.len(), "removed": removed.len() + planned.unreadable.len(),
        });
        let audit = entry(author, wanted.what, details, request.reason.clone());
        let changed = Changed { default: *default, pairs: Pairs::OfSet(staged.id.clone(), staged.chunks, bytes) };
        let committed = self.commit(marker, Draft { compares: staged.compares(), ops, audit, changed }).await?;
        if committed.is_some() {
            self.move_in_the_background();
        } else {
            self.staging.discard(&staged.id).await?;
        }
        Ok(committed)
    }

    fn move_in_the_background(&self) {
        let staging = self.staging.clone();
        let moving = tokio::spawn(async move {
            if let Err(error) = staging.move_all().await {
                tracing::warn!(%error, "a large change of intentions is in force, but was not moved to its place; trying again later");
            }
        });
        if let Some(before) = self.mover.lock().replace(moving) {
            // It had nothing left to do: a set is made true only when no other is in force.
            before.abort();
        }
    }
}

impl Planned {
    fn is_empty(&self) -> bool {
        self.plan.is_empty() && self.unreadable.is_empty()
    }

    fn touched<'a>(&'a self, request: &'a ApplyRequest) -> Touched<'a> {
        Touched { plan: &self.plan, wanted: &request.intentions, unreadable: &self.unreadable }
    }

    fn applied(self, written: Option<Written>) -> Applied {
        let Plan { added, changed, removed, default } = self.plan;
        let Self { base_revision, not_understood_by, shadowed, never_matched, .. } = self;
        Applied {
            added,
            changed,
            removed,
            default,
            base_revision,
            not_understood_by,
            shadowed,
            never_matched,
            effects: None,
            written,
        }
    }
}

fn check_wanted(request: &ApplyRequest) -> Result<(), PolicyError> {
    let mut pairs = BTreeSet::new();
    for intention in &request.intentions {
        intention.validate()?;
        if intention.is_temporary() {
            let pair = intention.pair();
            return Err(PolicyError::Invalid(format!("{pair} has expires_at; an apply holds permanent intentions only")));
        }
        if !pairs.insert(intention.key()) {
            return Err(PolicyError::Invalid(format!("{} is there twice; a pair has one permanent intention", intention.pair())));
        }
    }
    Ok(())
}

fn plan_of(mirror: &Mirror, wanted: &Wanted) -> Planned {
    let Wanted { request, keeps, scope, told, .. } = wanted;
    let wanted_file = IntentionFile { default: request.default, intentions: request.intentions.clone() };
    // Only what needs the view is done under its lock: changes wait for it.
    let (current, unreadable, replaced, base_revision, services) = mirror.read(|view| {
        let current = match scope {
            None => permanent(view),
            Some(destination) => IntentionFile { default: None, intentions: permanent_of(view, destination) },
        };
        let mut unreadable = unreadable_to_remove(view, request, keeps);
        unreadable.retain(|key| scope.as_ref().is_none_or(|destination| key.destination == *destination));
        let replaced = request.intentions.iter().map(Intention::key).filter(|key| view.not_understood.contains_key(key));
        let replaced = replaced.collect();
        (current, unreadable, replaced, view.revision, notes::known_services(view))
    });
    let plan = plan::difference(&current, &wanted_file, request.merge);
    let notes = mirror.read(|view| notes::of_plan(view, &plan, SystemTime::now()));
    let (shadowed, never_matched) = match told {
        Told::Everything => {
            let wanted = &request.intentions;
            (shadowed(wanted, &plan::merged(&current, &wanted_file, request.merge), &services), never_matched(wanted, &services))
        }
        Told::Difference => (Vec::new(), Vec::new()),
    };
    Planned {
        plan,
        unreadable,
        replaced,
        base_revision,
        notes,
        not_understood_by: Vec::new(),
        shadowed,
        never_matched,
        changes: Vec::new(),
    }
}

/// The permanent intentions of one destination.
pub fn permanent_of(view: &View, destination: &Party) -> Vec<Intention> {
    let pairs = view.pairs_to(destination).filter(|pair| !pair.temporary);
    pairs.filter_map(|pair| view.intentions.get(pair)).map(|(record, _)| record.intention.clone()).collect()
}

fn unreadable_to_remove(view: &View, request: &ApplyRequest, keeps: &BTreeSet<PairKey>) -> Vec<PairKey> {
    if request.merge || view.not_understood.is_empty() {
        return Vec::new();
    }
    let wanted: BTreeSet<PairKey> = request.intentions.iter().map(Intention::key).collect();
    let goes = |key: &&PairKey| !key.temporary && !wanted.contains(*key) && !keeps.contains(*key);
    view.not_understood.keys().filter(goes).cloned().collect()
}

/// Every change of a pair, by key, so that chunks hold neighbours.
fn changes_of(planned: &Planned, request: &ApplyRequest, author: &Author) -> Result<Vec<StagedChange>, PolicyError> {
    let Planned { plan, unreadable, replaced, .. } = planned;
    let now = SystemTime::now();
    let put = |before: Option<&Intention>, after: &Intention| -> Result<StagedChange, PolicyError> {
        let record = IntentionRecord {
            intention: after.clone(),
            created_at: now,
            created_by: author.who.clone(),
            reason: request.reason.clone(),
            changed_in: None,
        };
        let value = Some(records::encode(&record)?);
        let key = after.key();
        let before = match before {
            Some(before) => json_of(before),
            None if replaced.contains(&key) => json_of(&pair(&key)),
            None => Bytes::new(),
        };
        Ok(StagedChange { key: records::intention_key(&key), value, before })
    };
    let added = plan.added.iter().map(|after| put(None, after));
    let changed = plan.changed.iter().map(|(before, after)| put(Some(before), after));
    let mut changes = added.chain(changed).collect::<Result<Vec<_>, _>>()?;
    let removed = plan.removed.iter().map(|before| (before.key(), json_of(before)));
    let unreadable = unreadable.iter().map(|key| (key.clone(), json_of(&pair(key))));
    let gone =
        removed.chain(unreadable).map(|(key, before)| StagedChange { key: records::intention_key(&key), value: None, before });
    changes.extend(gone);
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(changes)
}

fn op_of(change: &StagedChange) -> Op {
    match &change.value {
        Some(value) => Op::put(change.key.clone(), value.clone()),
        None => Op::delete(change.key.clone()),
    }
}

fn default_change(plan: &Plan) -> Result<Option<Op>, serde_json::Error> {
    plan.default.map(|(_, policy)| default_op(policy)).transpose()
}

fn destinations_of(plan: &Plan, unreadable: &[PairKey]) -> Vec<Party> {
    if plan.default.is_some() {
        return vec![Party::Any];
    }
    let changed = plan.added.iter().chain(plan.changed.iter().map(|(_, after)| after)).chain(&plan.removed);
    let all = changed.map(|intention| &intention.destination).chain(unreadable.iter().map(|key| &key.destination));
    let distinct: BTreeSet<&Party> = all.collect();
    distinct.into_iter().cloned().collect()
}
