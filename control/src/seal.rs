//! Keys at rest: secrets in the store are sealed with a key that is kept elsewhere.
//!
//! Whoever copies the data directory, or reads etcd, gets nothing that opens. A sealed record is bound to its cluster
//! and its name, so it cannot be put in another's place.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use data_encoding::HEXLOWER_PERMISSIVE;
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;
/// The form of what [`SealKey::seal`] makes: version, nonce, ciphertext with tag.
const VERSION: u8 = 1;
const FILE_PREFIX: &str = "postern-seal1 ";
/// No key file is longer; what is longer is some other file.
const MAX_FILE_LEN: u64 = 256;

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is no key file.
    #[error("no seal key at {}: restore the file that this store was made with, or name it with --seal-key-file", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is a key file where a new one was to be made.
    #[error("{} exists; it is never overwritten, since what it sealed could not be opened again", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner can read or write the key file.
    #[error("{} has mode {mode:04o}: others than its owner can use it; run `chmod 600 {}`, and if someone may have read it, make a new store", path.display(), path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no key.
    #[error("{} is not a seal key: {why}", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {what} the seal key {}: {source}", path.display())]
    Io {
        /// The verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its words.
        source: io::Error,
    },
    /// Sealed with another key, for another cluster or record, or changed since.
    #[error(
        "cannot open {record}: it was sealed with another key, or changed since; use the seal key that this store was made with (--seal-key-file)"
    )]
    Refused {
        /// The record's name.
        record: String,
    },
}

/// The key that seals what the store keeps. Prints as `…`, and is wiped from memory when dropped; the library wipes what it
/// made of it.
pub struct SealKey {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    /// Made once: it costs as much as opening a short record.
    cipher: LessSafeKey,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(…)")
    }
}

impl SealKey {
    /// By how many bytes sealing makes something longer: version, nonce and tag.
    pub const OVERHEAD: usize = 1 + NONCE_LEN + 16;

    /// A new key that is lost with the process.
    pub fn in_memory() -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        fill_random(bytes.as_mut());
        Self::of(bytes)
    }

    /// Makes a new key and writes it to `path`, with mode 0600. The directory must exist.
    ///
    /// # Errors
    /// [`SealError::Exists`] if there is a file, [`SealError::Io`] if it cannot be written; nothing is left behind.
    pub fn create_new(path: &Path) -> Result<Self, SealError> {
        let key = Self::in_memory();
        let io = |what| move |source| SealError::Io { what, path: path.to_owned(), source };
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(SealError::Exists { path: path.to_owned() });
            }
            Err(error) => return Err(io("create")(error)),
        };
        let written = key.write(&mut file).and_then(|()| sync_directory(path));
        if let Err(error) = written {
            let _ = std::fs::remove_file(path);
            return Err(io("write")(error));
        }
        Ok(key)
    }

    /// Reads the key from `path`.
    ///
    /// # Errors
    /// [`SealError::Missing`], [`SealError::OpenToOthers`] if its group or others have any permission on it,
    /// [`SealError::NotAKey`], [`SealError::Io`].
    pub fn load(path: &Path) -> Result<Self, SealError> {
        let io = |source| SealError::Io { what: "read", path: path.to_owned(), source };
        let not_a_key = |why| SealError::NotAKey { path: path.to_owned(), why };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SealError::Missing { path: path.to_owned() });
            }
            Err(error) => return Err(io(error)),
        };
        // Asked of the open file: what is checked is what is read.
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(not_a_key("it is not a regular file"));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(SealError::OpenToOthers { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN as usize + 1));
        file.take(MAX_FILE_LEN + 1).read_to_end(&mut text).map_err(io)?;
        Self::parse(&text).map_err(not_a_key)
    }

    fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let hex = text.strip_prefix(FILE_PREFIX.as_bytes()).ok_or("it does not begin with `postern-seal1 `")?;
        let hex = hex.trim_ascii_end();
        if hex.len() != KEY_LEN * 2 {
            return Err("it has not 64 hexadecimal digits");
        }
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        match HEXLOWER_PERMISSIVE.decode_mut(hex, bytes.as_mut()) {
            Ok(_) => Ok(Self::of(bytes)),
            Err(_) => Err("it has other characters than hexadecimal digits"),
        }
    }

    fn write(&self, file: &mut File) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(FILE_PREFIX.len() + KEY_LEN * 2 + 1));
        text.push_str(FILE_PREFIX);
        HEXLOWER_PERMISSIVE.encode_append(self.bytes.as_ref(), &mut text);
        text.push('\n');
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    /// Seals `plain` as the record `record` of the cluster `cluster_id`, with a random nonce (AES-256-GCM).
    pub fn seal(&self, cluster_id: &str, record: impl AsRef<[u8]>, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce);
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = self
            .cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                associated(cluster_id, record.as_ref()),
                &mut sealed[1 + NONCE_LEN..],
            )
            .expect("AES-256-GCM seals whatever fits in memory");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what [`SealKey::seal`] made for the same cluster and record.
    ///
    /// # Errors
    /// [`SealError::Refused`] if it was sealed with another key, for another cluster or record, or changed since.
    pub fn open(&self, cluster_id: &str, record: impl AsRef<[u8]>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let record = record.as_ref();
        let refused = || SealError::Refused { record: String::from_utf8_lossy(record).into_owned() };
        let (version, rest) = sealed.split_first().ok_or_else(refused)?;
        if *version != VERSION {
            return Err(refused());
        }
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(refused)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .cipher
            .open_in_place(Nonce::assume_unique_for_key(*nonce), associated(cluster_id, record), &mut body)
            .map_err(|Unspecified| refused())?
            .len();
        body.truncate(length);
        Ok(body)
    }

    fn of(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes.as_ref()).expect("a key for AES-256 has 32 bytes"));
        Self { bytes, cipher }
    }
}

fn fill_random(bytes: &mut [u8]) {
    rand::fill(bytes).expect("the library ends the process rather than give no random bytes");
}

/// What a sealed record is bound to. The length keeps (`ab`, `c`) apart from (`a`, `bc`).
fn associated(cluster_id: &str, record: &[u8]) -> Aad<Vec<u8>> {
    let mut bytes = Vec::with_capacity(8 + cluster_id.len() + record.len());
    bytes.extend_from_slice(&(cluster_id.len() as u64).to_be_bytes());
    bytes.extend_from_slice(cluster_id.as_bytes());
    bytes.extend_from_slice(record);
    Aad::from(bytes)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_sealed_opens_with_the_same_key_cluster_and_record() {
        let key = SealKey::in_memory();
        let sealed = key.seal("cluster", "authority/root", b"secret");
        assert_eq!(key.open("cluster", "authority/root", &sealed).unwrap().as_slice(), b"secret");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(key.open("c", "empty", &key.seal("c", "empty", b"")).unwrap().as_slice(), b"");
    }

    #[test]
    fn nothing_else_opens_it() {
        let key = SealKey::in_memory();
        let sealed = key.seal("cluster", "record", b"secret");
        assert!(SealKey::in_memory().open("cluster", "record", &sealed).is_err(), "another key");
        assert!(key.open("other", "record", &sealed).is_err(), "another cluster");
        assert!(key.open("cluster", "other", &sealed).is_err(), "another record");
        assert!(key.open("clusterr", "ecord", &sealed).is_err(), "the border moved");
        for length in 0..sealed.len() {
            assert!(key.open("cluster", "record", &sealed[..length]).is_err(), "cut to {length}");
        }
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(key.open("cluster", "record", &changed).is_err(), "byte {index} changed");
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_the_same_way() {
        let key = SealKey::in_memory();
        assert_ne!(key.seal("c", "r", b"x"), key.seal("c", "r", b"x"));
    }

    #[test]
    fn a_key_file_is_for_its_owner_only_and_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        let made = SealKey::create_new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let sealed = made.seal("c", "r", b"secret");
        assert_eq!(SealKey::load(&path).unwrap().open("c", "r", &sealed).unwrap().as_slice(), b"secret");
    }

    #[test]
    fn a_key_file_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        SealKey::create_new(&path).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(matches!(SealKey::create_new(&path), Err(SealError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_key_file_that_others_can_use_is_refused_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        SealKey::create_new(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = SealKey::load(&path).unwrap_err();
            assert!(matches!(error, SealError::OpenToOthers { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        SealKey::load(&path).unwrap();
    }

    #[test]
    fn a_missing_or_foreign_key_file_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        assert!(matches!(SealKey::load(&path), Err(SealError::Missing { .. })));
        let long = format!("{FILE_PREFIX}{}", "ab".repeat(200));
        for content in ["", "postern-seal1 ", "hello", "postern-seal1 zz", long.as_str()] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = SealKey::load(&path).unwrap_err();
            assert!(matches!(error, SealError::NotAKey { .. }), "{content:?}: {error}");
            assert!(error.to_string().contains("seal.key"), "{error}");
        }
    }

    #[test]
    fn a_key_prints_nothing_of_itself() {
        assert_eq!(format!("{:?}", SealKey::of(Zeroizing::new([0xAB; KEY_LEN]))), "SealKey(…)");
    }
}
