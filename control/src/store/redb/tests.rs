use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ::redb::backends::FileBackend;
use ::redb::{Builder, Database, StorageBackend, TableDefinition};
use futures_util::StreamExt;
use futures_util::future::join_all;
use parking_lot::Mutex;

use super::super::{Op, Retention, Store, StoreError, StoreSettings, Txn};
use super::tables::{META, SCHEMA_VERSION};
use super::{RedbStore, open, rescue};

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

/// What the disk does.
#[derive(Debug, Default)]
struct Disk {
    refuses_to_grow: AtomicBool,
    fails_to_sync: AtomicBool,
    refuses_a_copy: AtomicBool,
    /// A failed sync loses what was written since the last one, as after a power cut.
    loses_what_is_not_synced: AtomicBool,
    syncs: AtomicUsize,
}

impl Disk {
    fn set(&self, flag: impl Fn(&Self) -> &AtomicBool, value: bool) {
        flag(self).store(value, Ordering::SeqCst);
    }

    fn refuses(&self, flag: &AtomicBool) -> io::Result<()> {
        if flag.load(Ordering::SeqCst) { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }
}

/// A file on that disk.
#[derive(Debug)]
struct FailingFile {
    path: PathBuf,
    file: FileBackend,
    synced: Mutex<Vec<u8>>,
    disk: Arc<Disk>,
}

impl StorageBackend for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.refuses(&self.disk.refuses_to_grow)?;
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Err(error) = self.disk.refuses(&self.disk.fails_to_sync) {
            if self.disk.loses_what_is_not_synced.load(Ordering::SeqCst) {
                fs::write(&self.path, &*self.synced.lock())?;
            }
            return Err(error);
        }
        self.disk.syncs.fetch_add(1, Ordering::SeqCst);
        self.file.sync_data()?;
        *self.synced.lock() = fs::read(&self.path)?;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}

/// A store in a real file on a disk that can be told to fail.
fn store_on(disk: &Arc<Disk>, path: &Path, reopen_after: Duration) -> RedbStore {
    let settings = StoreSettings { reopen_after, ..settings() };
    let file = fs::File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let file = FileBackend::new(file).unwrap();
    let failing = FailingFile { path: path.to_owned(), file, synced: Mutex::default(), disk: Arc::clone(disk) };
    let database = Builder::new().create_with_backend(failing).unwrap();
    open::fill(&database).unwrap();
    let reopen = {
        let (disk, path, settings) = (Arc::clone(disk), path.to_owned(), settings.clone());
        move || {
            disk.refuses(&disk.refuses_a_copy).map_err(|error| open::io_error("cannot copy".into(), &error))?;
            rescue::rescue(&path, &settings)
        }
    };
    RedbStore::start(path, database, Box::new(reopen), &settings).unwrap()
}

#[tokio::test]
async fn changes_that_wait_together_share_a_sync() {
    let (disk, directory) = (Arc::new(Disk::default()), tempfile::tempdir().unwrap());
    let store = store_on(&disk, &directory.path().join("store.redb"), Duration::ZERO);
    let before = disk.syncs.load(Ordering::SeqCst);
    store.txn(put("alone")).await.unwrap();
    let of_one = disk.syncs.load(Ordering::SeqCst) - before;
    let results = join_all((0..1000).map(|n| store.txn(put(&n.to_string())))).await;
    assert!(results.iter().all(Result::is_ok));
    let of_all = disk.syncs.load(Ordering::SeqCst) - before - of_one;
    assert!(of_one >= 1 && of_all <= 20 * of_one, "{of_all} syncs for 1000 changes, {of_one} for one");
}

#[tokio::test]
async fn what_the_disk_did_not_take_is_neither_acknowledged_nor_published() {
    let (disk, directory) = (Arc::new(Disk::default()), tempfile::tempdir().unwrap());
    let store = store_on(&disk, &directory.path().join("store.redb"), Duration::from_secs(3600));
    store.txn(put("kept")).await.unwrap();
    let mut watch = store.watch(b"", 2);
    watch.next().await.unwrap().unwrap();
    disk.set(|disk| &disk.fails_to_sync, true);
    let lost = join_all((0..10).map(|n| store.txn(put(&n.to_string())))).await;
    for result in lost {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::Io { kind: io::ErrorKind::StorageFull, .. }), "{error:?}");
        assert!(error.to_string().contains("make room"), "{error}");
    }
    assert_eq!(store.revision(), 2);
    disk.set(|disk| &disk.fails_to_sync, false);
    let later = store.txn(put("later")).await.unwrap_err();
    let first = matches!(later, StoreError::Io { kind: io::ErrorKind::StorageFull, .. });
    assert!(first, "nobody knows what the disk holds until it is opened again, and the reason is told: {later:?}");
    assert_eq!(store.failing(), Some(later));
    drop(store);
    assert_eq!(watch.next().await, Some(Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_store_goes_on_from_what_is_durable_once_the_disk_works_again() {
    for (fails_to_sync, loses) in [(true, true), (true, false), (false, false)] {
        let (disk, directory) = (Arc::new(Disk::default()), tempfile::tempdir().unwrap());
        let path = directory.path().join("store.redb");
        let store = store_on(&disk, &path, Duration::ZERO);
        store.txn(put("kept")).await.unwrap();
        let lease = store.grant(Duration::from_secs(60)).await.unwrap();
        let watch = store.watch(b"", 2);
        disk.set(|disk| &disk.loses_what_is_not_synced, loses);
        disk.set(|disk| &disk.fails_to_sync, fails_to_sync);
        disk.set(|disk| &disk.refuses_to_grow, !fails_to_sync);
        disk.set(|disk| &disk.refuses_a_copy, true);
        let large = Txn::new().then(Op::put("refused", vec![7; 1_000_000]));
        let mut refused = Ok(());
        // Until the file has to grow.
        for _ in 0..64 {
            refused = store.txn(large.clone()).await.map(|_| ());
            if refused.is_err() {
                break;
            }
        }
        refused.unwrap_err();
        let durable = store.revision();
        let again = store.txn(put("again")).await.unwrap_err();
        assert_eq!(store.failing(), Some(again), "the reason is known while it lasts");
        disk.set(|disk| &disk.refuses_a_copy, false);
        disk.set(|disk| &disk.fails_to_sync, false);
        let recovered = store.txn(put("recovered")).await.unwrap();
        assert!(recovered.revision > durable);
        assert_eq!(store.failing(), None);
        store.keep_alive(lease).await.unwrap();
        // The group that failed happened wholly or not at all, and whoever watches misses nothing either way.
        let seen: Vec<_> = watch.take((recovered.revision - 1) as usize).map(|batch| batch.unwrap().revision).collect().await;
        assert_eq!(seen, (2..=recovered.revision).collect::<Vec<_>>());
        assert!(!rescue::copy_path(&path).exists());
        let before = store.range(b"", 0).await.unwrap();
        assert!(["kept", "recovered"].iter().all(|key| before.kvs.iter().any(|kv| &kv.key[..] == key.as_bytes())));
        drop(store);
        let store = RedbStore::open(&path, &settings()).unwrap();
        assert_eq!(store.range(b"", 0).await.unwrap(), before);
    }
}

#[tokio::test]
async fn a_store_that_lost_what_it_acknowledged_takes_no_more_changes() {
    let (disk, directory) = (Arc::new(Disk::default()), tempfile::tempdir().unwrap());
    let path = directory.path().join("store.redb");
    let store = store_on(&disk, &path, Duration::ZERO);
    let early = fs::read(&path).unwrap();
    store.txn(put("acknowledged")).await.unwrap();
    disk.set(|disk| &disk.fails_to_sync, true);
    store.txn(put("refused")).await.unwrap_err();
    fs::write(&path, early).unwrap();
    disk.set(|disk| &disk.fails_to_sync, false);
    let error = store.txn(put("later")).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    assert!(error.to_string().contains("lost what it had acknowledged") || error.to_string().contains("damaged"), "{error}");
}
