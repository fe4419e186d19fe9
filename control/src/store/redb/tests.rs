use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redb::backends::InMemoryBackend;
use ::redb::{Builder, Database, StorageBackend, TableDefinition};
use futures_util::StreamExt;
use futures_util::future::join_all;

use super::super::{Op, Retention, Store, StoreError, StoreSettings, Txn};
use super::tables::{META, SCHEMA_VERSION};
use super::{RedbStore, open};

fn put(key: &str) -> Txn {
    Txn::new().then(Op::put(key.to_owned(), "value"))
}

fn settings() -> StoreSettings {
    StoreSettings::default()
}

async fn oldest(store: &RedbStore) -> u64 {
    match store.watch(b"", 1).next().await.unwrap() {
        Err(StoreError::Compacted { oldest }) => oldest,
        other => other.unwrap().revision,
    }
}

#[tokio::test]
async fn a_store_remembers_everything_when_it_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = RedbStore::open(&path, &settings()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    store.txn(put("a")).await.unwrap();
    store.txn(put("a")).await.unwrap();
    let before = store.range(b"", 0).await.unwrap();
    drop(store);
    let store = RedbStore::open(&path, &settings()).unwrap();
    assert_eq!((store.range(b"", 0).await.unwrap(), store.revision()), (before, 3));
    assert_eq!(store.watch(b"", 2).take(2).count().await, 2);
}

#[test]
fn a_store_that_is_open_is_refused_a_second_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let _store = RedbStore::open(&path, &settings()).unwrap();
    assert_eq!(RedbStore::open(&path, &settings()).unwrap_err(), StoreError::Locked { path });
}

#[test]
fn what_is_no_store_is_refused_with_its_name_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let foreign = |path: &Path| {
        let database = Database::create(path).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(TableDefinition::<u64, u64>::new("other")).unwrap();
        txn.commit().unwrap();
    };
    for content in [&b"hello"[..], &[0; 4096], &[0xA5; 100_000]] {
        fs::write(&path, content).unwrap();
        let error = RedbStore::open(&path, &settings()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
        assert!(error.to_string().contains("store.redb"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    fs::remove_file(&path).unwrap();
    foreign(&path);
    let error = RedbStore::open(&path, &settings()).unwrap_err();
    assert!(error.to_string().contains("no store of this program"), "{error}");
    let error = RedbStore::open(directory.path(), &settings()).unwrap_err();
    assert!(error.to_string().contains("not a file"), "{error}");
    let error = RedbStore::open(directory.path().join("none/store.redb"), &settings()).unwrap_err();
    assert!(matches!(error, StoreError::Io { kind: io::ErrorKind::NotFound, .. }), "{error:?}");
}

#[test]
fn an_empty_file_is_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    fs::write(&path, "").unwrap();
    let error = RedbStore::open(&path, &settings()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_reads_as_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = RedbStore::open(&path, &settings()).unwrap();
    let writes = (0..300).map(|n| store.txn(put(&format!("key/{n}"))));
    assert!(join_all(writes).await.iter().all(Result::is_ok));
    let expected = store.range(b"", 0).await.unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        let mut damaged = whole.clone();
        for byte in damaged.iter_mut().skip(at).take(64) {
            *byte ^= 0x55;
        }
        fs::write(&path, &damaged).unwrap();
        match RedbStore::open(&path, &settings()) {
            Ok(store) => assert_eq!(store.range(b"", 0).await.unwrap(), expected, "damaged at {at}"),
            Err(StoreError::Corrupt(_) | StoreError::Schema { .. }) => refused += 1,
            Err(other) => panic!("damaged at {at}: {other:?}"),
        }
    }
    assert!(refused > 0);
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(RedbStore::open(&path, &settings()), Err(StoreError::Corrupt(_))));
}

#[test]
fn a_store_of_another_schema_is_refused_with_both_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    drop(RedbStore::open(&path, &settings()).unwrap());
    let database = Database::open(&path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(META).unwrap().insert(SCHEMA_VERSION, 2).unwrap();
    txn.commit().unwrap();
    drop(database);
    let error = RedbStore::open(&path, &settings()).unwrap_err();
    assert_eq!(error, StoreError::Schema { path, found: 2, supported: 1 });
}

#[tokio::test]
async fn a_crash_while_a_store_is_made_leaves_nothing_in_the_way() {
    for left_behind in [&b""[..], b"half", &[0; 8192]] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let unfinished = directory.path().join("store.redb.new");
        fs::write(&unfinished, left_behind).unwrap();
        let store = RedbStore::open(&path, &settings()).unwrap();
        store.txn(put("k")).await.unwrap();
        assert!(!unfinished.exists());
    }
}

#[tokio::test]
async fn history_beyond_the_retention_is_forgotten() {
    let cases = [
        (Retention { revisions: 10, ..Retention::default() }, 42),
        (Retention { bytes: 0, ..Retention::default() }, 51),
        (Retention { age: Duration::ZERO, ..Retention::default() }, 51),
        (Retention::default(), 2),
    ];
    for (retention, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let settings = StoreSettings { retention: retention.clone(), ..settings() };
        let store = RedbStore::open(directory.path().join("store.redb"), &settings).unwrap();
        for n in 0..50 {
            store.txn(put(&format!("{n:03}"))).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        store.compact_by_retention().await.unwrap();
        assert_eq!(oldest(&store).await, expected, "{retention:?}");
        assert_eq!(store.range(b"", 0).await.unwrap().kvs.len(), 50);
        store.txn(put("more")).await.unwrap();
        assert_eq!(store.watch(b"", 52).next().await.unwrap().unwrap().revision, 52);
    }
}

#[tokio::test]
async fn history_is_forgotten_from_time_to_time_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { revisions: 1, ..Retention::default() };
    let settings = StoreSettings { retention, compact_every: Duration::from_millis(5), ..settings() };
    let store = RedbStore::open(directory.path().join("store.redb"), &settings).unwrap();
    for n in 0..5 {
        store.txn(put(&n.to_string())).await.unwrap();
    }
    let forgotten = async {
        while oldest(&store).await != 6 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), forgotten).await.unwrap();
}

/// A disk that can be told to fail.
#[derive(Debug)]
struct Disk {
    memory: InMemoryBackend,
    broken: Arc<AtomicBool>,
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.memory.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn what_the_disk_did_not_take_is_neither_acknowledged_nor_published() {
    let broken = Arc::new(AtomicBool::new(false));
    let disk = Disk { memory: InMemoryBackend::new(), broken: Arc::clone(&broken) };
    let database = Builder::new().create_with_backend(disk).unwrap();
    open::fill(&database).unwrap();
    let store = RedbStore::start(Path::new("disk"), database, &settings()).unwrap();
    store.txn(put("kept")).await.unwrap();
    let mut watch = store.watch(b"", 2);
    watch.next().await.unwrap().unwrap();
    broken.store(true, Ordering::SeqCst);
    let lost = join_all((0..10).map(|n| store.txn(put(&n.to_string())))).await;
    for result in lost {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::Io { kind: io::ErrorKind::StorageFull, .. }), "{error:?}");
        assert!(error.to_string().contains("make room"), "{error}");
    }
    assert_eq!(store.revision(), 2);
    broken.store(false, Ordering::SeqCst);
    let later = store.txn(put("later")).await.unwrap_err();
    let first = matches!(later, StoreError::Io { kind: io::ErrorKind::StorageFull, .. });
    assert!(first, "nobody knows what the disk holds until it is opened again, and the reason is told: {later:?}");
    drop(store);
    assert_eq!(watch.next().await, Some(Err(StoreError::Closed)));
}
