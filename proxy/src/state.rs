//! The state directory: what a sidecar must still know after a restart without the control plane.
//!
//! | file | holds |
//! |---|---|
//! | `lock` | locked while in use; the pid and id of the sidecar that holds it |
//! | `svid` | the certificate chain, its key, and the grant that they came with |
//! | `next-key` | the key of a request that may not have been answered yet |
//! | `snapshot` | the resources of both lanes with their positions |
//! | `port` | the inbound port that was used last |
//!
//! The directory is 0700, each file 0600 and replaced whole: written beside, synced, renamed, the directory synced.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use postern_api::{convert, v1};
use postern_ca::{PrivateKey, Svid, TrustBundle};
use postern_names::{InstanceId, ServiceName};
use prost::Message;
use rustls::pki_types::CertificateDer;
use zeroize::{Zeroize, Zeroizing};

const LOCK: &str = "lock";
const SVID: &str = "svid";
const NEXT_KEY: &str = "next-key";
const SNAPSHOT: &str = "snapshot";
const PORT: &str = "port";

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another sidecar has it.
    #[error("{id} already runs here, pid {pid}; give --id (state directory {})", path.display())]
    InUse {
        /// The id of the sidecar that has it.
        id: String,
        /// Its process.
        pid: String,
        /// Which directory.
        path: PathBuf,
    },
    /// A file or the directory cannot be read or written.
    #[error("cannot {action} {}: {source}; check the owner and the space, or give another --state-dir", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something that this version did not write.
    #[error("{} is damaged ({why}); remove it and enrol again with a new token", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// An open state directory, locked until [`StateDir::release`] or for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Held by whoever writes; none once the directory was released.
    lock: Mutex<Option<File>>,
}

/// Who this instance is: what an enrolment gave, renewed ever since.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The instance that enrolled.
    pub instance: InstanceId,
    /// The service that it was enrolled for.
    pub service: ServiceName,
    /// The cluster whose positions count.
    pub cluster_id: String,
    /// The enrolment and all SVIDs renewed from it.
    pub lineage: String,
    /// The certificate chain and its key.
    pub svid: Arc<Svid>,
    /// The roots as they were when the SVID was issued.
    pub bundle: TrustBundle,
}

/// The snapshot as it is kept on disk.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StoredSnapshot {
    /// The cluster that it came from.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    /// The authority lane.
    #[prost(message, optional, tag = "2")]
    pub authority: Option<StoredLane>,
    /// The reachability lane.
    #[prost(message, optional, tag = "3")]
    pub reachability: Option<StoredLane>,
    /// The control plane's time when this was written, milliseconds since the Unix epoch; 0: not told.
    #[prost(uint64, tag = "4")]
    pub server_time_ms: u64,
}

/// One lane of a [`StoredSnapshot`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct StoredLane {
    /// Where it stands.
    #[prost(message, optional, tag = "1")]
    pub position: Option<v1::Position>,
    /// All that it holds, as it was received.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<v1::Resource>,
}

/// Never printed: it holds the key.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredSvid {
    #[prost(string, tag = "1")]
    instance: String,
    #[prost(string, tag = "2")]
    service: String,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    chain: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    bundle: Option<v1::Bundle>,
    #[prost(string, tag = "6")]
    lineage: String,
    #[prost(string, tag = "7")]
    cluster_id: String,
}

impl StateDir {
    /// Opens the directory, making it where it is missing, and locks it for the sidecar `id`.
    ///
    /// # Errors
    /// [`StateError::InUse`] where another sidecar has it; [`StateError::Io`].
    pub fn open(path: &Path, id: &InstanceId) -> Result<Self, StateError> {
        let io = |action| move |source| StateError::Io { action, path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("make the state directory"))?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io("keep other users out of"))?;
        let lock = lock(path, id)?;
        Ok(Self { path: path.to_owned(), lock: Mutex::new(Some(lock)) })
    }

    /// Whether an instance was enrolled with this state, without locking it.
    pub fn is_enrolled(path: &Path) -> bool {
        path.join(SVID).exists()
    }

    /// Where the admin socket goes.
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who this instance is; `None` before it has enrolled.
    ///
    /// # Errors
    /// [`StateError`] where the file cannot be read or understood.
    pub fn enrolment(&self) -> Result<Option<Enrolment>, StateError> {
        let Some(bytes) = self.read(SVID)? else { return Ok(None) };
        let damaged = |why: String| StateError::Damaged { path: self.path.join(SVID), why };
        let mut stored = StoredSvid::decode(bytes.as_slice()).map_err(|error| damaged(error.to_string()))?;
        let enrolment = enrolment_of(&stored).map_err(damaged);
        stored.key.zeroize();
        enrolment.map(Some)
    }

    /// Keeps who this instance is, and forgets the key of the request that made it so.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn keep_enrolment(&self, enrolment: &Enrolment) -> Result<(), StateError> {
        let mut stored = StoredSvid {
            instance: enrolment.instance.to_string(),
            service: enrolment.service.to_string(),
            key: enrolment.svid.key().to_pkcs8().to_vec(),
            chain: enrolment.svid.chain().iter().map(|certificate| certificate.to_vec()).collect(),
            bundle: Some(convert::bundle_to_wire(&enrolment.bundle)),
            lineage: enrolment.lineage.clone(),
            cluster_id: enrolment.cluster_id.clone(),
        };
        let bytes = Zeroizing::new(stored.encode_to_vec());
        stored.key.zeroize();
        self.write(SVID, &bytes)?;
        self.forget_next_key()
    }

    /// The key of a request that may not have been answered: asking again with it burns nothing.
    ///
    /// # Errors
    /// [`StateError`] where it cannot be read.
    pub fn next_key(&self) -> Result<Option<PrivateKey>, StateError> {
        let Some(bytes) = self.read(NEXT_KEY)? else { return Ok(None) };
        let damaged = |why: String| StateError::Damaged { path: self.path.join(NEXT_KEY), why };
        PrivateKey::from_pkcs8(&bytes).map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Keeps the key of a request that is about to be sent.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn keep_next_key(&self, key: &PrivateKey) -> Result<(), StateError> {
        self.write(NEXT_KEY, &key.to_pkcs8())
    }

    fn forget_next_key(&self) -> Result<(), StateError> {
        let path = self.path.join(NEXT_KEY);
        let lock = self.lock.lock();
        if lock.is_none() {
            return Ok(());
        }
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StateError::Io { action: "remove", path, source }),
            _ => Ok(()),
        }
    }

    /// The last good snapshot; `None` before the first.
    ///
    /// # Errors
    /// [`StateError`] where the file cannot be read or understood.
    pub fn snapshot(&self) -> Result<Option<StoredSnapshot>, StateError> {
        let Some(bytes) = self.read(SNAPSHOT)? else { return Ok(None) };
        let damaged = |error: prost::DecodeError| StateError::Damaged { path: self.path.join(SNAPSHOT), why: error.to_string() };
        StoredSnapshot::decode(bytes.as_slice()).map(Some).map_err(damaged)
    }

    /// Keeps a snapshot in the place of the one before.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn keep_snapshot(&self, snapshot: &StoredSnapshot) -> Result<(), StateError> {
        self.write(SNAPSHOT, &snapshot.encode_to_vec())
    }

    /// The inbound port that was used last.
    pub fn port(&self) -> Option<u16> {
        let bytes = self.read(PORT).ok()??;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }

    /// Keeps the inbound port.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn keep_port(&self, port: u16) -> Result<(), StateError> {
        self.write(PORT, format!("{port}\n").as_bytes())
    }

    /// Lets another process have the directory, once what is being written now is on disk; nothing is written after it.
    /// Waits for the disk.
    pub fn release(&self) {
        drop(self.lock.lock().take());
    }

    fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io { action: "read", path, source }),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        let lock = self.lock.lock();
        if lock.is_none() {
            let source = io::Error::other("the sidecar has ended");
            return Err(StateError::Io { action: "write", path, source });
        }
        replace(&self.path, name, bytes).map_err(|source| StateError::Io { action: "write", path, source })
    }
}

/// The new bytes are on disk under `name` when this returns; a crash at any point leaves the old or the new ones, whole.
fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = directory.join(format!(".{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, directory.join(name))?;
    File::open(directory)?.sync_all()
}

fn lock(directory: &Path, id: &InstanceId) -> Result<File, StateError> {
    let path = directory.join(LOCK);
    let io = |action| {
        let path = path.clone();
        move |source| StateError::Io { action, path, source }
    };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(&mut file, directory)),
        Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
    }
    file.set_len(0).map_err(io("write"))?;
    writeln!(file, "{} {id}", std::process::id()).map_err(io("write"))?;
    Ok(file)
}

fn in_use(file: &mut File, directory: &Path) -> StateError {
    let mut text = String::new();
    // What cannot be read leaves the message without names; the lock itself is what counts.
    let _ = file.take(4_096).read_to_string(&mut text);
    let mut words = text.split_whitespace();
    let pid = words.next().unwrap_or("unknown").to_owned();
    let id = words.next().unwrap_or("a sidecar").to_owned();
    StateError::InUse { id, pid, path: directory.to_owned() }
}

fn enrolment_of(stored: &StoredSvid) -> Result<Enrolment, String> {
    let key = PrivateKey::from_pkcs8(&stored.key).map_err(|error| error.to_string())?;
    let chain = stored.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let svid = Svid::new(chain, key).map_err(|error| error.to_string())?;
    let bundle = stored.bundle.as_ref().ok_or("it has no trust bundle")?;
    Ok(Enrolment {
        instance: stored.instance.parse().map_err(|error| format!("{error}"))?,
        service: stored.service.parse().map_err(|error| format!("{error}"))?,
        cluster_id: stored.cluster_id.clone(),
        lineage: stored.lineage.clone(),
        svid: Arc::new(svid),
        bundle: convert::bundle_from_wire(bundle).map_err(|error| error.to_string())?,
    })
}
