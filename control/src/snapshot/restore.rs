//! A store made from a snapshot and from what stays.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;

use super::file::decode;
use super::{NOT_SAVED, SnapshotError};
use crate::audit::AuditEntry;
use crate::records::{self, ClusterRecord};
use crate::store::{Kv, Op, RedbStore, Store, StoreSettings};

/// What stays as it is when a mesh goes back to an earlier state of itself: what was issued, spent and revoked, who the
/// authority and the operator are, which instances run, and what was seen of calls.
const STAYS: [&str; 9] =
    ["authority/", "edges/", "instance/", "issuance/", "lineage/", "operator/", "revoked/", "token/", "acl/token/"];

/// Files of a data directory.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The store.
    pub store: PathBuf,
    /// The snapshot that waits.
    pub pending: PathBuf,
    /// The store before the restore.
    pub before: PathBuf,
}

/// Keeps an accepted snapshot until the store is closed.
pub(super) fn keep(pending: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(pending)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Puts the pending snapshot in the place of the store, which nobody has open. The store before is kept beside it.
pub(crate) async fn put_in_place(places: &Places) -> Result<(), SnapshotError> {
    let bytes = fs::read(&places.pending).map_err(SnapshotError::Disk)?;
    let snapshot = decode(&bytes)?;
    let theirs = snapshot.cluster()?;
    let current = contents(&places.store).await?;
    let ours = cluster_of(&current.kvs)?;
    let is_same = ours.cluster_id == theirs.cluster_id;
    let stays = |kv: &Kv| {
        let is_log = NOT_SAVED.iter().any(|prefix| kv.key.starts_with(prefix));
        is_log || (is_same && STAYS.iter().any(|prefix| kv.key.starts_with(prefix.as_bytes())))
    };
    let mut kvs: Vec<Kv> = snapshot.kvs.into_iter().filter(|kv| !stays(kv)).collect();
    kvs.extend(current.kvs.into_iter().filter(stays));
    kvs.sort_by(|a, b| a.key.cmp(&b.key));
    let revision = snapshot.header.revision;
    for kv in &mut kvs {
        // What stays may be younger than the snapshot; nothing is younger than its store.
        kv.mod_revision = kv.mod_revision.min(revision);
        kv.create_revision = kv.create_revision.min(revision);
        kv.lease = None;
    }
    let made = places.store.with_extension("restored");
    remove_if_there(&made).map_err(SnapshotError::Disk)?;
    RedbStore::create_with(&made, revision, &kvs, &StoreSettings::default())?;
    finish(&made, ClusterRecord { epoch: ours.epoch.max(theirs.epoch) + 1, ..theirs }, &snapshot.header.saved_at, revision)
        .await?;
    exchange(places, &made).map_err(SnapshotError::Disk)
}

/// The store before the restore again.
pub(crate) fn take_back(places: &Places) -> io::Result<()> {
    fs::rename(&places.before, &places.store)?;
    sync_directory(&places.store)
}

/// The first change of the restored store: its epoch, and a line in the log.
async fn finish(made: &Path, cluster: ClusterRecord, saved_at: &str, revision: u64) -> Result<(), SnapshotError> {
    let store = RedbStore::open(made, &StoreSettings::default())?;
    let entry = AuditEntry {
        at: SystemTime::now(),
        who: "control-plane".into(),
        from: "local".into(),
        what: "snapshot.restore".into(),
        details: json!({ "cluster_id": cluster.cluster_id, "saved_at": saved_at, "revision": revision, "epoch": cluster.epoch }),
        reason: None,
    };
    let record = records::encode(&cluster).map_err(|error| SnapshotError::Disk(io::Error::other(error)))?;
    let txn = crate::store::Txn::new().then(Op::put(records::cluster_key(), record)).then(entry.op());
    let written = store.txn(txn).await;
    close(store).await;
    written?;
    Ok(())
}

/// At every moment there is one whole store under its name.
fn exchange(places: &Places, made: &Path) -> io::Result<()> {
    remove_if_there(&places.before)?;
    fs::hard_link(&places.store, &places.before)?;
    fs::rename(made, &places.store)?;
    sync_directory(&places.store)?;
    remove_if_there(&places.pending)
}

async fn contents(path: &Path) -> Result<crate::store::Range, SnapshotError> {
    let store = RedbStore::open(path, &StoreSettings::default())?;
    let contents = store.range(b"", 0).await;
    close(store).await;
    Ok(contents?)
}

async fn close(store: RedbStore) {
    // It waits for a thread; not on the runtime.
    let _ = tokio::task::spawn_blocking(move || store.close()).await;
}

fn cluster_of(kvs: &[Kv]) -> Result<ClusterRecord, SnapshotError> {
    let key = records::cluster_key();
    let kv = kvs.iter().find(|kv| kv.key == key);
    let record = kv.map(|kv| records::decode(&key, &kv.value).map_err(io::Error::other));
    record.unwrap_or_else(|| Err(io::Error::other("the store does not say of which mesh it is"))).map_err(SnapshotError::Disk)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
