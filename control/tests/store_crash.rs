//! What was acknowledged survives kill -9, and nothing is half there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use postern_control::store::{Op, RedbStore, Retention, Store, StoreError, StoreSettings, Txn};

const ROUNDS: usize = 20;
const WRITERS: u64 = 8;
/// Where the child finds the store.
const PATH: &str = "POSTERN_STORE_CRASH_PATH";

fn settings() -> StoreSettings {
    // Compaction must be hit by the kills too.
    let retention = Retention { revisions: 200, ..Retention::default() };
    StoreSettings { retention, compact_every: Duration::from_millis(20), ..StoreSettings::default() }
}

fn numbered(half: char, number: u64) -> String {
    format!("{half}/{number:012}")
}

/// The child: writes pairs of keys, and prints each number and its revision once the store has said that it is durable.
#[test]
#[ignore = "run by nothing_acknowledged_is_lost_and_nothing_is_half_written, which kills it"]
fn write_until_killed() {
    let path = std::env::var_os(PATH).expect("the parent names the store");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(RedbStore::open(Path::new(&path), &settings()).unwrap());
        let written = store.range(b"a/", 0).await.unwrap().kvs.len() as u64;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    // Numbers need not be dense, only new.
                    for number in (0..).map(|turn| written * 1000 + turn * WRITERS + writer) {
                        let value = vec![b'x'; (number % 700) as usize];
                        let txn = Txn::new()
                            .then(Op::put(numbered('a', number), value.clone()))
                            .then(Op::put(numbered('b', number), value));
                        let result = store.txn(txn).await.unwrap();
                        let mut out = std::io::stdout().lock();
                        writeln!(out, "acknowledged {number} {} end", result.revision).unwrap();
                        out.flush().unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

fn start_child(path: &Path) -> (Child, Receiver<(u64, u64)>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "write_until_killed", "--nocapture", "--test-threads=1"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, acknowledged) = mpsc::channel();
    thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            // The last line may be cut off by the kill, and then is no acknowledgement.
            let words: Vec<_> = line.split(' ').skip_while(|word| *word != "acknowledged").collect();
            if let [_, number, revision, "end"] = words[..] {
                let _ = sender.send((number.parse().unwrap(), revision.parse().unwrap()));
            }
        }
    });
    (child, acknowledged)
}

/// Everything that comes until the time is over.
fn gather(acknowledged: &Receiver<(u64, u64)>, into: &mut BTreeMap<u64, u64>, until: Instant) {
    loop {
        match acknowledged.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((number, revision)) => {
                into.insert(number, revision);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let before = acknowledged.len();
        let (mut child, lines) = start_child(&path);
        let first = lines.recv_timeout(Duration::from_secs(60)).expect("the child writes");
        acknowledged.insert(first.0, first.1);
        let pause = Duration::from_micros(rand::random_range(0..150_000));
        gather(&lines, &mut acknowledged, Instant::now() + pause);
        child.kill().unwrap();
        child.wait().unwrap();
        // The pipe is empty and closed when the channel is.
        gather(&lines, &mut acknowledged, Instant::now() + Duration::from_secs(60));
        assert!(acknowledged.len() > before);
        runtime.block_on(check(&path, &acknowledged, round));
    }
}

async fn check(path: &Path, acknowledged: &BTreeMap<u64, u64>, round: usize) {
    // Not the child's settings: what the child has left must not be compacted before it is looked at.
    let store = RedbStore::open(path, &StoreSettings::default()).unwrap();
    let of = |half: &'static str| {
        let range = store.range(half.as_bytes(), 0);
        async move {
            let kvs = range.await.unwrap().kvs;
            kvs.into_iter().map(|kv| (kv.key.slice(2..), (kv.mod_revision, kv.value))).collect::<BTreeMap<_, _>>()
        }
    };
    let (a, b) = (of("a/").await, of("b/").await);
    assert_eq!(a, b, "round {round}: both keys of a transaction are there, or none, with one revision");
    for (number, revision) in acknowledged {
        let stored = a.get(format!("{number:012}").as_bytes());
        assert_eq!(stored.map(|(at, _)| *at), Some(*revision), "round {round}: {number} was acknowledged");
    }
    check_history(&store, &a.values().map(|(at, value)| (*at, value.len())).collect(), round).await;
}

/// The log has every revision from the oldest kept to the newest, each with both keys.
async fn check_history(store: &RedbStore, pairs: &BTreeMap<u64, usize>, round: usize) {
    let newest = store.revision();
    assert_eq!(pairs.keys().max().copied(), Some(newest), "round {round}: the newest revision is the newest pair");
    let oldest = match store.watch(b"", 1).next().await.unwrap() {
        Err(StoreError::Compacted { oldest }) => oldest,
        other => other.unwrap().revision,
    };
    let mut watch = store.watch(b"", oldest);
    for revision in oldest..=newest {
        let batch = watch.next().await.unwrap().unwrap();
        let values: Vec<_> = batch.events.iter().map(|event| event.value.as_ref().map_or(0, |value| value.len())).collect();
        assert_eq!((batch.revision, values), (revision, vec![pairs[&revision]; 2]), "round {round}");
    }
}

#[test]
fn a_store_that_another_process_has_open_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let (mut child, lines) = start_child(&path);
    lines.recv_timeout(Duration::from_secs(60)).expect("the child writes");
    let refused = RedbStore::open(&path, &settings());
    child.kill().unwrap();
    child.wait().unwrap();
    let error = refused.unwrap_err();
    assert_eq!(error, StoreError::Locked { path: path.clone() });
    assert!(error.to_string().contains("another control plane"), "{error}");
    RedbStore::open(&path, &settings()).unwrap();
}
