use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use tempfile::TempDir;

use super::log::{Log, Waiting};
use super::{AuditEntry, AuditHead, AuditSettings, ChainError, PREFIX, spawn_writer, verify_chain, verify_chain_to};
use crate::store::{MemoryStore, Op, Store, Txn};

const PATIENCE: Duration = Duration::from_secs(30);

fn entry(what: &str) -> AuditEntry {
    AuditEntry {
        at: SystemTime::now(),
        who: "uid 1000".into(),
        from: "socket".into(),
        what: what.into(),
        details: serde_json::json!({"pair": "web -> api"}),
        reason: Some("a test, with \"quotes\"\nand a line break".into()),
    }
}

fn waiting(numbers: std::ops::Range<u64>) -> Vec<Waiting> {
    numbers.map(|n| Waiting { id: format!("id-{n}"), revision: n, entry: entry(&format!("test.{n}")) }).collect()
}

fn small_segments() -> AuditSettings {
    AuditSettings { segment_bytes: 1000, retry: Duration::from_millis(10), ..AuditSettings::default() }
}

fn open(directory: &Path, head: Option<&AuditHead>, waiting: &[Waiting]) -> Log {
    Log::open(directory, &small_segments(), head, waiting, SystemTime::now()).unwrap()
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

fn rewrite(file: &Path, lines: &[String]) {
    fs::write(file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// The ids of all entries in the log, in its order.
fn ids(directory: &Path) -> Vec<String> {
    let lines = segments(directory).into_iter().flat_map(|file| lines(&file));
    let ids = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap()["id"].clone());
    ids.filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

/// A log of 20 entries in several segments.
fn written() -> (TempDir, AuditHead) {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path(), None, &[]);
    for n in 0..20 {
        log.append(&waiting(n..n + 1), SystemTime::now()).unwrap();
    }
    let head = log.head().clone();
    assert!(segments(directory.path()).len() > 3);
    (directory, head)
}

fn place(result: Result<super::ChainReport, ChainError>) -> (String, u64, String) {
    match result {
        Err(ChainError::Broken { file, line, why }) => (file.file_name().unwrap().to_str().unwrap().to_owned(), line, why),
        other => panic!("a break was expected, not {other:?}"),
    }
}

#[test]
fn keys_follow_the_order_of_the_calls_and_never_repeat() {
    let entry = entry("intention.set");
    let later = AuditEntry { at: entry.at + Duration::from_millis(1), ..entry.clone() };
    let keys: Vec<_> = [&entry, &entry, &later].map(AuditEntry::new_key).into_iter().collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    let Op::Put { value, .. } = entry.op() else { panic!("an entry is put") };
    assert_eq!(serde_json::from_slice::<AuditEntry>(&value).unwrap(), entry);
}

#[test]
fn a_log_that_nobody_touched_verifies() {
    let (directory, head) = written();
    let report = verify_chain_to(directory.path(), Some(&head)).unwrap();
    assert_eq!((report.entries, report.first_segment, report.unfinished), (20, 1, false));
    assert_eq!(report.segments, segments(directory.path()).len() as u64);
    assert_eq!(report.last, Some(head));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&segments(directory.path())[0]), 0o600);
    assert_eq!(verify_chain(&directory.path().join("none")).unwrap().segments, 0);
}

#[test]
fn a_changed_line_is_found_by_file_and_line() {
    let (directory, _) = written();
    let file = &segments(directory.path())[1];
    for changed in 0..lines(file).len() {
        let original = lines(file);
        let mut forged = original.clone();
        forged[changed] = forged[changed].replace("\"at\":\"2", "\"at\":\"3");
        assert_ne!(forged, original);
        rewrite(file, &forged);
        let (name, line, _) = place(verify_chain(directory.path()));
        assert_eq!((name.as_str(), line), ("audit-00000002.jsonl", changed as u64 + 1));
        rewrite(file, &original);
    }
    verify_chain(directory.path()).unwrap();
}

#[test]
fn a_missing_line_is_found_by_file_and_line() {
    let (directory, _) = written();
    let file = &segments(directory.path())[1];
    let original = lines(file);
    for missing in 0..original.len() {
        let mut forged = original.clone();
        forged.remove(missing);
        rewrite(file, &forged);
        let (name, line, why) = place(verify_chain(directory.path()));
        let after_the_gap =
            if missing + 1 < original.len() { ("audit-00000002.jsonl", missing as u64 + 1) } else { ("audit-00000003.jsonl", 1) };
        assert_eq!((name.as_str(), line), after_the_gap, "{why}");
        assert!(why.contains("missing"), "{why}");
    }
}

#[test]
fn reordered_lines_are_found_by_file_and_line() {
    let (directory, _) = written();
    let file = &segments(directory.path())[1];
    let mut forged = lines(file);
    forged.swap(1, 2);
    rewrite(file, &forged);
    let (name, line, _) = place(verify_chain(directory.path()));
    assert_eq!((name.as_str(), line), ("audit-00000002.jsonl", 2));
}

#[test]
fn a_doubled_line_is_found() {
    let (directory, _) = written();
    let file = &segments(directory.path())[1];
    let mut forged = lines(file);
    forged.insert(2, forged[1].clone());
    rewrite(file, &forged);
    let (_, line, why) = place(verify_chain(directory.path()));
    assert_eq!(line, 3);
    assert!(why.contains("doubled"), "{why}");
}

#[test]
fn a_missing_or_renamed_segment_is_found() {
    let (directory, _) = written();
    let files = segments(directory.path());
    let content = fs::read(&files[1]).unwrap();
    fs::remove_file(&files[1]).unwrap();
    assert_eq!(place(verify_chain(directory.path())).0, "audit-00000002.jsonl");
    fs::copy(&files[2], &files[1]).unwrap();
    assert_eq!(place(verify_chain(directory.path())).0, "audit-00000002.jsonl");
    fs::write(&files[1], content).unwrap();
    verify_chain(directory.path()).unwrap();
}

#[test]
fn a_changed_or_missing_end_shows_against_the_store() {
    let (directory, head) = written();
    let file = segments(directory.path()).pop().unwrap();
    let original = lines(&file);
    let mut forged = original.clone();
    let last = forged.len() - 1;
    forged[last] = forged[last].replace("\"at\":\"2", "\"at\":\"3");
    rewrite(&file, &forged);
    verify_chain(directory.path()).unwrap();
    let (_, line, _) = place(verify_chain_to(directory.path(), Some(&head)));
    assert_eq!(line, last as u64 + 1);
    fs::remove_file(&file).unwrap();
    let (_, _, why) = place(verify_chain_to(directory.path(), Some(&head)));
    assert!(why.contains("missing at its end"), "{why}");
}

#[test]
fn a_line_that_a_crash_cut_off_is_written_again_whole() {
    let directory = tempfile::tempdir().unwrap();
    let all = waiting(0..2);
    open(directory.path(), None, &[]).append(&all, SystemTime::now()).unwrap();
    let file = &segments(directory.path())[0];
    let whole = fs::read(file).unwrap();
    for keep in 0..whole.len() {
        fs::write(file, &whole[..keep]).unwrap();
        assert!(verify_chain(directory.path()).is_ok(), "cut at {keep}: being written is no forgery");
        open(directory.path(), None, &all).append(&all, SystemTime::now()).unwrap();
        let report = verify_chain(directory.path()).unwrap();
        assert_eq!((report.entries, report.unfinished), (2, false), "cut at {keep}");
        assert_eq!(ids(directory.path()), ["id-0", "id-1"]);
        for later in &segments(directory.path())[1..] {
            fs::remove_file(later).unwrap();
        }
    }
}

#[test]
fn an_entry_that_is_in_the_log_already_is_not_written_twice() {
    let directory = tempfile::tempdir().unwrap();
    let all = waiting(0..30);
    open(directory.path(), None, &[]).append(&all[..20], SystemTime::now()).unwrap();
    // The process ended before the 20 were removed from the store.
    open(directory.path(), None, &all).append(&all, SystemTime::now()).unwrap();
    let expected: Vec<_> = (0..30).map(|n| format!("id-{n}")).collect();
    assert_eq!(ids(directory.path()), expected);
    verify_chain(directory.path()).unwrap();
}

#[test]
fn a_log_that_was_changed_goes_on_and_still_shows_where() {
    let (directory, head) = written();
    let file = segments(directory.path()).pop().unwrap();
    let mut forged = lines(&file);
    let last = forged.len() - 1;
    forged[last] = forged[last].replace("\"at\":\"2", "\"at\":\"3");
    rewrite(&file, &forged);
    let mut log = open(directory.path(), Some(&head), &[]);
    log.append(&waiting(100..102), SystemTime::now()).unwrap();
    let (name, line, _) = place(verify_chain(directory.path()));
    assert_eq!((name.as_str(), line), (file.file_name().unwrap().to_str().unwrap(), last as u64 + 1));
    assert!(ids(directory.path()).contains(&"id-101".to_owned()));
}

#[test]
fn lines_that_were_cut_from_the_end_stay_missing() {
    let (directory, head) = written();
    fs::remove_file(segments(directory.path()).pop().unwrap()).unwrap();
    let mut log = open(directory.path(), Some(&head), &[]);
    log.append(&waiting(100..101), SystemTime::now()).unwrap();
    let (_, _, why) = place(verify_chain(directory.path()));
    assert!(why.contains("missing"), "{why}");
}

#[test]
fn segments_are_removed_after_their_retention_and_the_rest_verifies() {
    let (directory, head) = written();
    let before = segments(directory.path()).len();
    let settings = AuditSettings { retention: Duration::from_secs(3600), ..small_segments() };
    let later = |seconds| SystemTime::now() + Duration::from_secs(seconds);
    Log::open(directory.path(), &settings, Some(&head), &[], later(3500)).unwrap();
    assert_eq!(segments(directory.path()).len(), before);
    Log::open(directory.path(), &settings, Some(&head), &[], later(3700)).unwrap();
    assert_eq!(segments(directory.path()).len(), 1);
    let report = verify_chain_to(directory.path(), Some(&head)).unwrap();
    assert_eq!(report.first_segment, before as u64);
}

async fn empty(store: &dyn Store) {
    let emptied = async {
        let mut changes = store.watch(PREFIX.as_bytes(), store.revision());
        while !store.range(PREFIX.as_bytes(), 0).await.unwrap().kvs.is_empty() {
            changes.next().await.unwrap().unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, emptied).await.expect("entries are moved");
}

#[tokio::test]
async fn entries_move_from_the_store_to_the_log_in_the_order_of_their_transactions() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let directory = tempfile::tempdir().unwrap();
    let add = |n: u64| Txn::new().then(entry(&format!("test.{n}")).op());
    for n in 0..300 {
        store.txn(add(n)).await.unwrap();
    }
    let writer = spawn_writer(Arc::clone(&store), directory.path().join("audit"), small_segments());
    empty(&*store).await;
    for n in 300..310 {
        store.txn(add(n)).await.unwrap();
    }
    empty(&*store).await;
    writer.stop().await;
    let directory = directory.path().join("audit");
    let head = AuditHead::load(&*store).await.unwrap();
    assert_eq!(verify_chain_to(&directory, head.as_ref()).unwrap().entries, 310);
    let all = segments(&directory).into_iter().flat_map(|file| lines(&file));
    let whats: Vec<_> = all
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap()["what"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(whats, (0..310).map(|n| format!("test.{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn entries_that_were_logged_before_a_crash_and_not_removed_are_only_removed() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let directory = tempfile::tempdir().unwrap();
    for n in 0..5 {
        store.txn(Txn::new().then(entry(&format!("test.{n}")).op())).await.unwrap();
    }
    let kvs = store.range(PREFIX.as_bytes(), 0).await.unwrap().kvs;
    let logged: Vec<_> = kvs[..3]
        .iter()
        .map(|kv| Waiting {
            id: String::from_utf8(kv.key[PREFIX.len()..].to_vec()).unwrap(),
            revision: kv.mod_revision,
            entry: serde_json::from_slice(&kv.value).unwrap(),
        })
        .collect();
    open(directory.path(), None, &[]).append(&logged, SystemTime::now()).unwrap();
    let writer = spawn_writer(Arc::clone(&store), directory.path().to_owned(), small_segments());
    empty(&*store).await;
    writer.stop().await;
    let expected: Vec<_> = kvs.iter().map(|kv| String::from_utf8(kv.key[PREFIX.len()..].to_vec()).unwrap()).collect();
    assert_eq!(ids(directory.path()), expected);
    verify_chain(directory.path()).unwrap();
}

#[tokio::test]
async fn entries_wait_in_the_store_while_the_log_cannot_be_written() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("audit");
    fs::write(&directory, "a file where the directory should be").unwrap();
    store.txn(Txn::new().then(entry("test").op())).await.unwrap();
    let writer = spawn_writer(Arc::clone(&store), directory.clone(), small_segments());
    let mut status = writer.status();
    let failing = status.wait_for(|status| status.failing.is_some());
    tokio::time::timeout(PATIENCE, failing).await.expect("the failure shows").unwrap();
    assert_eq!(store.range(PREFIX.as_bytes(), 0).await.unwrap().kvs.len(), 1);
    fs::remove_file(&directory).unwrap();
    let healed = status.wait_for(|status| status.failing.is_none());
    tokio::time::timeout(PATIENCE, healed).await.expect("it goes on").unwrap();
    empty(&*store).await;
    assert_eq!(verify_chain(&directory).unwrap().entries, 1);
}
