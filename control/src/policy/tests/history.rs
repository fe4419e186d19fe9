//! What the history tells, and that a rollback brings back what it tells.

use postern_api::http::{Applied, Change as Told, DefaultRequest, RollbackRequest};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::records::history::{HistoryRecord, parts_prefix, record_key};

impl House {
    async fn history(&self, filter: Filter) -> Vec<Told> {
        let filter = Filter { limit: if filter.limit == 0 { 10_000 } else { filter.limit }, ..filter };
        self.policy.history().list(&filter, |_| true).await.unwrap()
    }

    async fn rollback(&self, revision: u64) -> Result<Applied, PolicyError> {
        let request = RollbackRequest { revision, reason: None, dry_run: false, expected_revision: None, wait_ms: 0 };
        self.policy.rollback(request, &author()).await
    }

    async fn set(&self, source: &str, destination: &str, verb: SetVerb, expires_in_s: Option<u64>) -> u64 {
        let request = SetRequest {
            verb,
            expires_in_s,
            reason: Some("a reason".into()),
            wait_ms: 0,
            dry_run: false,
            expected_revision: None,
        };
        self.policy.set(source.parse().unwrap(), destination.parse().unwrap(), request, &author()).await.unwrap().revision
    }

    async fn set_default(&self, policy: DefaultPolicy) -> u64 {
        let request = DefaultRequest { policy, reason: None, wait_ms: 0, dry_run: false, expected_revision: None };
        self.policy.set_default(request, &author()).await.unwrap().revision
    }

    fn now(&self) -> (Vec<Intention>, DefaultPolicy) {
        self.mirror.read(|view| (permanent(view).intentions, view.default.0))
    }

    /// Records and parts that the store holds.
    async fn held(&self) -> (usize, usize) {
        let (records, parts) =
            (self.store.range(b"history/", 0).await.unwrap(), self.store.range(b"history-part/", 0).await.unwrap());
        (records.kvs.len(), parts.kvs.len())
    }
}

/// One thing that somebody does.
#[derive(Debug, Clone)]
enum Step {
    Set(usize, usize, u8, bool),
    Delete(usize, usize),
    Default(DefaultPolicy),
    Apply(Vec<(usize, usize, Action)>, bool),
    /// Of so many intentions that it is a change set.
    ApplyMany(std::ops::Range<usize>, Action),
    /// To what was true after this step, counted from the first.
    Rollback(usize),
}

const NAMES: [&str; 4] = ["*", "a", "b", "c"];

fn name(index: usize) -> Party {
    NAMES[index % NAMES.len()].parse().unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    let action = || prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    let default = prop_oneof![Just(DefaultPolicy::Deny), Just(DefaultPolicy::Allow), Just(DefaultPolicy::Audit)];
    prop_oneof![
        5 => (0..4_usize, 0..4_usize, 0..3_u8, prop::bool::weighted(0.2)).prop_map(|(s, d, verb, temporary)| Step::Set(s, d, verb, temporary)),
        3 => (0..4_usize, 0..4_usize).prop_map(|(s, d)| Step::Delete(s, d)),
        1 => default.prop_map(Step::Default),
        3 => (prop::collection::vec((0..4_usize, 0..4_usize, action()), 0..6), any::<bool>()).prop_map(|(pairs, merge)| Step::Apply(pairs, merge)),
        1 => (0..3_usize, 1..4_usize, action()).prop_map(|(from, many, action)| Step::ApplyMany(from * 100..from * 100 + many * 100, action)),
        2 => any::<prop::sample::Index>().prop_map(|index| Step::Rollback(index.index(1_000))),
    ]
}

/// What a plain reader remembers: at each revision, all that was true.
#[derive(Default)]
struct Model(Vec<(u64, (Vec<Intention>, DefaultPolicy))>);

impl Model {
    fn at(&self, revision: u64) -> &(Vec<Intention>, DefaultPolicy) {
        &self.0.iter().rev().find(|(of, _)| *of <= revision).unwrap().1
    }
}

async fn take(house: &House, model: &Model, step: &Step) -> Result<(), TestCaseError> {
    match step {
        Step::Set(source, destination, verb, temporary) => {
            let verb = [SetVerb::Allow, SetVerb::Deny, SetVerb::Audit][usize::from(*verb)];
            let expires = temporary.then_some(3600);
            house.set(&name(*source).to_string(), &name(*destination).to_string(), verb, expires).await;
        }
        Step::Delete(source, destination) => {
            let key = PairKey { source: name(*source), destination: name(*destination), temporary: false };
            match house.policy.delete(key, Deletion::default(), &author()).await {
                Ok(_) | Err(PolicyError::NotFound { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Step::Default(policy) => {
            house.set_default(*policy).await;
        }
        Step::Apply(pairs, merge) => {
            let by_pair: BTreeMap<PairKey, Intention> = pairs
                .iter()
                .map(|(source, destination, action)| Intention::new(name(*source), name(*destination), *action))
                .map(|intention| (intention.key(), intention))
                .collect();
            let wanted = ApplyRequest { merge: *merge, ..request(by_pair.into_values().collect()) };
            house.policy.apply(wanted, &author()).await.unwrap();
        }
        Step::ApplyMany(range, action) => {
            house.apply(intentions(range.clone(), *action)).await.unwrap();
        }
        Step::Rollback(index) => {
            let revision = model.0[index % model.0.len()].0;
            house.rollback(revision).await.unwrap();
            prop_assert_eq!(&house.now(), model.at(revision), "rolled back to {}", revision);
        }
    }
    Ok(())
}

#[test]
fn a_rollback_to_any_kept_revision_gives_what_was_true_then() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() });
    let steps = prop::collection::vec(step(), 1..25);
    let result = runner.run(&steps, |steps| {
        runtime.block_on(async {
            let house = House::new().await;
            let mut model = Model(vec![(house.mirror.revision(), house.now())]);
            for step in &steps {
                take(&house, &model, step).await?;
                // Moving a change set makes revisions that change nothing.
                model.0.push((house.mirror.read(|view| view.policy_revision).max(model.0.last().unwrap().0), house.now()));
            }
            for (revision, then) in &model.0 {
                house.rollback(*revision).await.unwrap();
                // Of several steps at one revision, the last one is meant.
                let then = model.0.iter().rev().find(|(of, _)| of == revision).map_or(then, |(_, then)| then);
                prop_assert_eq!(&house.now(), then, "at last to {}", revision);
            }
            let told = house.history(Filter::default()).await;
            prop_assert!(told.windows(2).all(|pair| pair[0].revision > pair[1].revision), "newest first");
            Ok(())
        })
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn each_change_is_told_with_who_when_why_and_the_difference() {
    let house = House::new().await;
    let set = house.set("web", "api", SetVerb::Allow, None).await;
    let again = house.set("web", "api", SetVerb::Deny, None).await;
    let default = house.set_default(DefaultPolicy::Audit).await;
    let temporary = house.set("web", "db", SetVerb::Allow, Some(60)).await;
    let key = PairKey { source: "web".parse().unwrap(), destination: "api".parse().unwrap(), temporary: false };
    let deletion = Deletion { reason: Some("not needed".into()), ..Deletion::default() };
    let deleted = house.policy.delete(key, deletion, &author()).await.unwrap().revision;
    house.set_default(DefaultPolicy::Audit).await;
    assert_eq!(house.policy.sweep(SystemTime::now() + Duration::from_secs(3600)).await.unwrap(), 1);

    let told = house.history(Filter::default()).await;
    let summary: Vec<_> =
        told.iter().map(|one| (one.what.as_str(), one.added.len(), one.changed.len(), one.removed.len(), one.default)).collect();
    assert_eq!(
        summary,
        [
            ("intention.expire", 0, 0, 1, None),
            ("intention.delete", 0, 0, 1, None),
            ("intention.set", 1, 0, 0, None),
            ("default.set", 0, 0, 0, Some((DefaultPolicy::Deny, DefaultPolicy::Audit))),
            ("intention.set", 0, 1, 0, None),
            ("intention.set", 1, 0, 0, None),
        ],
        "a change that changes nothing is none"
    );
    let revisions: Vec<u64> = told.iter().skip(1).map(|one| one.revision).collect();
    assert_eq!(revisions, [deleted, temporary, default, again, set]);
    assert_eq!((told[0].who.as_str(), told[1].who.as_str(), told[1].from.as_str()), ("control-plane", "uid:0", "unix"));
    assert_eq!((told[1].reason.as_deref(), told[2].reason.as_deref()), (Some("not needed"), Some("a reason")));
    assert_eq!((told[4].changed[0].0.summary(), told[4].changed[0].1.summary()), ("allow".into(), "deny".into()));
    assert!(told[2].added[0].is_temporary(), "{:?}", told[2]);

    let of_db = Filter { destination: Some("db".parse().unwrap()), ..Filter::default() };
    let found: Vec<u64> = house.history(of_db).await.iter().skip(1).map(|one| one.revision).collect();
    assert_eq!(found, [temporary]);
    let older = Filter { before: Some(default), limit: 1, ..Filter::default() };
    assert_eq!(house.history(older).await.iter().map(|one| one.revision).collect::<Vec<_>>(), [again]);
    let hidden =
        house.policy.history().list(&Filter { limit: 10, ..Filter::default() }, |to| to.to_string() != "api").await.unwrap();
    let told: Vec<&str> = hidden.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(told, ["intention.expire", "intention.set", "default.set"], "what may not be read is left out");
}

#[tokio::test]
async fn a_large_change_is_told_and_undone_before_it_is_moved_and_after() {
    let house = House::new().await;
    let first = house.apply(intentions(0..2_000, Action::Allow)).await.unwrap().written.unwrap().revision;
    house.until_moved().await;
    house.apply(intentions(1_000..3_000, Action::Deny)).await.unwrap();
    // As after a crash just behind the pointer: nothing was moved.
    house.policy.mover.lock().take().unwrap().abort();
    let counts = |told: &Told| (told.added.len(), told.changed.len(), told.removed.len(), told.left_out);
    assert_eq!(counts(&house.history(Filter::default()).await[0]), (1_000, 1_000, 1_000, 0));
    house.policy.staging.move_all().await.unwrap();
    assert_eq!(counts(&house.history(Filter::default()).await[0]), (1_000, 1_000, 1_000, 0));

    house.rollback(first).await.unwrap();
    assert_eq!(house.stored(), intentions(0..2_000, Action::Allow));
    house.until_moved().await;
    let told = house.history(Filter::default()).await;
    assert_eq!((told[0].what.as_str(), told.len()), ("intention.rollback", 3));
    assert_eq!(counts(&told[0]), (1_000, 1_000, 1_000, 0));
    house.rollback(told[1].revision).await.unwrap();
    assert_eq!(house.stored(), intentions(1_000..3_000, Action::Deny), "a rollback is a change as any other");
}

#[tokio::test]
async fn an_answer_is_bounded_and_says_what_it_leaves_out() {
    let house = House::new().await;
    house.apply(intentions(0..12_000, Action::Allow)).await.unwrap();
    let told = house.history(Filter::default()).await;
    assert_eq!((told[0].added.len(), told[0].left_out), (10_000, 2_000));
}

#[tokio::test]
async fn a_revision_that_is_not_kept_is_refused_with_the_oldest_that_is() {
    let house = House::new().await;
    let mut revisions = Vec::new();
    for n in 0..super::super::history::MOST + 100 {
        let verb = if n % 2 == 0 { SetVerb::Allow } else { SetVerb::Deny };
        revisions.push(house.set("web", "api", verb, None).await);
    }
    house.policy.sweep(SystemTime::now()).await.unwrap();
    let held = super::super::history::MOST;
    assert_eq!(house.held().await, (held, held));
    let oldest = revisions[revisions.len() - held - 1];
    match house.rollback(oldest - 1).await {
        Err(PolicyError::Forgotten { oldest: told, .. }) => assert_eq!(told, oldest),
        other => panic!("{other:?}"),
    }
    house.rollback(oldest).await.unwrap();
    assert_eq!(house.stored()[0].summary(), "deny", "the oldest that there is a way back to");
    match house.rollback(house.mirror.revision() + 5).await {
        Err(PolicyError::Invalid(why)) => assert!(why.contains("not there yet"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_old_or_too_much_is_forgotten_with_all_its_parts() {
    let house = House::new().await;
    house.apply(intentions(0..500, Action::Allow)).await.unwrap();
    house.until_moved().await;
    house.set("web", "api", SetVerb::Allow, None).await;
    let (records, parts) = house.held().await;
    assert!(records == 2 && parts > 3, "{records} {parts}");
    // As if the first were larger than all that is kept.
    let kv = house.store.get(&record_key(0)).await.unwrap().unwrap();
    let record: HistoryRecord = records::decode(&kv.key, &kv.value).unwrap();
    let large = HistoryRecord { bytes: 1 << 40, ..record };
    house.store.txn(Txn::new().then(Op::put(record_key(0), records::encode(&large).unwrap()))).await.unwrap();
    house.policy.sweep(SystemTime::now()).await.unwrap();
    assert_eq!(house.held().await, (1, 1), "{:?}", parts_prefix(0));
    house.policy.sweep(SystemTime::now() + Duration::from_secs(91 * 24 * 3600)).await.unwrap();
    assert_eq!(house.held().await, (0, 0));
}

#[tokio::test]
async fn a_change_that_no_history_tells_of_ends_the_way_back() {
    let house = House::new().await;
    let first = house.set("web", "api", SetVerb::Allow, None).await;
    // As a control plane without a history makes one.
    house.store.txn(Txn::new().then(Op::put(MARKER, Bytes::new()))).await.unwrap();
    let untold = house.store.revision();
    house.set("web", "db", SetVerb::Allow, None).await;
    match house.rollback(first).await {
        Err(PolicyError::Forgotten { oldest, .. }) => assert_eq!(oldest, untold),
        other => panic!("{other:?}"),
    }
    house.rollback(untold).await.unwrap();
    assert_eq!(house.stored().len(), 1);
}

#[tokio::test]
async fn a_rollback_says_what_it_would_do_and_refuses_what_others_changed() {
    let house = House::new().await;
    let first = house.set("web", "api", SetVerb::Allow, None).await;
    let second = house.set("web", "api", SetVerb::Deny, None).await;
    house.set("web", "db", SetVerb::Allow, Some(3600)).await;
    let request = RollbackRequest { revision: first, reason: None, dry_run: true, expected_revision: None, wait_ms: 0 };
    let planned = house.policy.rollback(request.clone(), &author()).await.unwrap();
    assert_eq!((planned.changed.len(), planned.removed.len(), planned.written.is_none()), (1, 0, true));
    assert_eq!(house.stored()[0].summary(), "deny", "nothing was changed");
    let stale = RollbackRequest { dry_run: false, expected_revision: Some(second), ..request.clone() };
    assert!(matches!(house.policy.rollback(stale, &author()).await, Err(PolicyError::Stale { .. })));
    let long = RollbackRequest { dry_run: false, reason: Some("x".repeat(1025)), ..request };
    assert!(matches!(house.policy.rollback(long, &author()).await, Err(PolicyError::Invalid(_))));
    house.rollback(first).await.unwrap();
    let temporary = house.mirror.read(|view| view.intentions.keys().filter(|key| key.temporary).count());
    assert_eq!(temporary, 1, "temporary intentions are left alone");
}

#[tokio::test]
async fn an_intention_that_cannot_be_read_is_not_lost_by_a_rollback() {
    let house = House::new().await;
    let newer = Op::put("intention/p/web/cache", "{\"intention\":{\"colour\":\"red\"}}");
    house.store.txn(Txn::new().then(newer)).await.unwrap();
    let first = house.set("web", "api", SetVerb::Allow, None).await;
    house.set("web", "api", SetVerb::Deny, None).await;
    house.rollback(first).await.unwrap();
    let unreadable = |house: &House| house.mirror.read(|view| view.not_understood.len());
    assert_eq!(unreadable(&house), 1, "it was there then, and stays");
    let replaced = house.set("web", "cache", SetVerb::Allow, None).await;
    assert_eq!(house.history(Filter::default()).await[0].unreadable, ["web -> cache"]);
    match house.rollback(replaced - 1).await {
        Err(PolicyError::Invalid(why)) => assert!(why.contains("web -> cache"), "{why}"),
        other => panic!("{other:?}"),
    }
    let newer = Op::put("intention/p/web/queue", "{\"intention\":{\"colour\":\"red\"}}");
    house.store.txn(Txn::new().then(newer)).await.unwrap();
    house.mirror.reached(house.store.revision()).await;
    let queue = Intention::new("web".parse().unwrap(), "queue".parse().unwrap(), Action::Allow);
    house.policy.apply(ApplyRequest { merge: true, ..request(vec![queue]) }, &author()).await.unwrap();
    assert_eq!(house.history(Filter::default()).await[0].unreadable, ["web -> queue"]);
}
