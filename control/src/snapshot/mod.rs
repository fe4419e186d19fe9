//! Snapshots of the store: saved while the control plane runs, restored into it.
//!
//! A snapshot is everything of one revision, but the audit log. The keys and values in it are sealed as they are in the
//! store; the seal key is not in it. Restoring one raises the epoch, so that sidecars take the older state. What has been
//! issued, spent and revoked since stays so: a restore brings no revoked SVID and no spent token back.
//!
//! | module | what it holds |
//! |---|---|
//! | `file` | the form of a snapshot, with its checksum |
//! | `restore` | a store made from a snapshot and from what stays |

mod file;
mod restore;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Notify;

pub use self::file::{Damage, Header, Snapshot, decode, encode};
pub(crate) use self::restore::{Places, put_in_place, take_back};
use crate::identity::opens;
use crate::mirror::Mirror;
use crate::policy::Author;
use crate::seal::SealKey;
use crate::store::{Kv, Store, StoreError};

/// Bytes of a snapshot.
pub const LONGEST: usize = 512 << 20;

/// What is no part of a snapshot: the log cannot be rewritten.
const NOT_SAVED: [&[u8]; 2] = [b"audit/", b"audit-head"];

/// Why a snapshot was not restored. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is not what was saved.
    #[error("{0}")]
    Damaged(#[from] Damage),
    /// It is of another mesh.
    #[error(
        "this snapshot is of mesh {theirs} ({trust_domain}), and this is mesh {ours}: its sidecars would have to enrol anew; to replace this mesh by that one, give --replace-mesh"
    )]
    OtherMesh {
        /// The cluster id in the snapshot.
        theirs: String,
        /// Its trust domain.
        trust_domain: String,
        /// Ours.
        ours: String,
    },
    /// Our seal key does not open it.
    #[error(
        "the seal key of this control plane does not open this snapshot ({0}); start with the key that it was sealed with (--seal-key-file)"
    )]
    Sealed(String),
    /// Another one is being restored.
    #[error("another snapshot is being restored; try again when that is done")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk refused.
    #[error("the snapshot cannot be written beside the store: {0}")]
    Disk(std::io::Error),
}

/// What was accepted, and is put in place as soon as requests under way have ended.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// What it is.
    pub header: Header,
    /// The epoch from then on.
    pub epoch: u64,
}

/// Saves and restores.
pub struct Snapshots {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    seal: Arc<SealKey>,
    pending: PathBuf,
    wanted: Notify,
    turn: tokio::sync::Mutex<bool>,
}

impl Snapshots {
    /// Of this store. `pending` is where a snapshot waits to be restored.
    pub fn new(store: Arc<dyn Store>, mirror: Arc<Mirror>, seal: Arc<SealKey>, pending: PathBuf) -> Self {
        Self { store, mirror, seal, pending, wanted: Notify::new(), turn: tokio::sync::Mutex::new(false) }
    }

    /// Everything, as of one revision.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn save(&self, now: SystemTime) -> Result<Vec<u8>, StoreError> {
        let range = self.store.range(b"", 0).await?;
        let is_saved = |kv: &Kv| !NOT_SAVED.iter().any(|prefix| kv.key.starts_with(prefix));
        let kvs: Vec<Kv> = range.kvs.into_iter().filter(is_saved).collect();
        let cluster = self.mirror.read(|view| view.cluster.clone());
        let header = Header::new(&cluster, range.revision, &kvs, now);
        encode(&header, &kvs).map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Checks a snapshot whole, keeps it beside the store, and has it put in place.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing has changed then.
    pub async fn restore(&self, bytes: &[u8], replaces_mesh: bool, author: &Author) -> Result<Accepted, SnapshotError> {
        let mut is_accepted = self.turn.lock().await;
        if *is_accepted {
            return Err(SnapshotError::Busy);
        }
        let snapshot = decode(bytes)?;
        let ours = self.mirror.read(|view| view.cluster.clone());
        let theirs = snapshot.cluster()?;
        if theirs.cluster_id != ours.cluster_id && !replaces_mesh {
            return Err(SnapshotError::OtherMesh {
                theirs: theirs.cluster_id,
                trust_domain: theirs.trust_domain.to_string(),
                ours: ours.cluster_id,
            });
        }
        opens(&snapshot.kvs, &theirs.cluster_id, &self.seal).map_err(SnapshotError::Sealed)?;
        let epoch = ours.epoch.max(theirs.epoch) + 1;
        restore::keep(&self.pending, bytes).map_err(SnapshotError::Disk)?;
        tracing::warn!(
            who = author.who,
            from = author.from,
            cluster = theirs.cluster_id,
            revision = snapshot.header.revision,
            epoch,
            "a snapshot is restored: the control plane starts anew on it"
        );
        *is_accepted = true;
        self.wanted.notify_one();
        Ok(Accepted { header: snapshot.header, epoch })
    }

    /// Waits until a snapshot was accepted.
    pub async fn accepted(&self) {
        self.wanted.notified().await;
    }
}
