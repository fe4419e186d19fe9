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
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

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
    #[error("cannot open {record}: it was sealed with another key, or changed since; use the seal key that this store was made with (--seal-key-file)")]
    Refused {
        /// The record's name.
        record: String,
    },
    /// The cryptographic library refused, which it does not with valid arguments.
    #[error("the cryptographic library refused: {0}")]
    Crypto(&'static str),
}

/// The key that seals what the store keeps. Prints as `…`, and is wiped from memory when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SealKey([u8; KEY_LEN]);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(…)")
    }
}

impl SealKey {
    /// A new key that is lost with the process.
    ///
    /// # Errors
    /// [`SealError::Crypto`] if the system gives no random bytes.
    pub fn in_memory() -> Result<Self, SealError> {
        let mut key = Self([0; KEY_LEN]);
        rand::fill(&mut key.0).map_err(|Unspecified| SealError::Crypto("no random bytes"))?;
        Ok(key)
    }

    /// Makes a new key and writes it to `path`, with mode 0600. The directory must exist.
    ///
    /// # Errors
    /// [`SealError::Exists`] if there is a file, [`SealError::Io`] if it cannot be written; nothing is left behind.
    pub fn create_new(path: &Path) -> Result<Self, SealError> {
        let key = Self::in_memory()?;
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
        let mut key = Self([0; KEY_LEN]);
        match HEXLOWER_PERMISSIVE.decode_mut(hex, &mut key.0) {
            Ok(_) => Ok(key),
            Err(_) => Err("it has other characters than hexadecimal digits"),
        }
    }

    fn write(&self, file: &mut File) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(FILE_PREFIX.len() + KEY_LEN * 2 + 1));
        text.push_str(FILE_PREFIX);
        HEXLOWER_PERMISSIVE.encode_append(&self.0, &mut text);
        text.push('\n');
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    /// Seals `plain` as the record `record` of the cluster `cluster_id`, with a random nonce (AES-256-GCM).
    ///
    /// # Errors
    /// [`SealError::Crypto`] if the system gives no random bytes.
    pub fn seal(&self, cluster_id: &str, record: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|Unspecified| SealError::Crypto("no random bytes"))?;
        let mut body = Zeroizing::new(Vec::with_capacity(plain.len() + AES_256_GCM.tag_len()));
        body.extend_from_slice(plain);
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), associated(cluster_id, record), &mut *body)
            .map_err(|Unspecified| SealError::Crypto("sealing failed"))?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what [`SealKey::seal`] made for the same cluster and record.
    ///
    /// # Errors
    /// [`SealError::Refused`] if it was sealed with another key, for another cluster or record, or changed since.
    pub fn open(&self, cluster_id: &str, record: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let refused = || SealError::Refused { record: record.to_owned() };
        let (version, rest) = sealed.split_first().ok_or_else(refused)?;
        if *version != VERSION {
            return Err(refused());
        }
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(refused)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .cipher()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), associated(cluster_id, record), &mut body)
            .map_err(|Unspecified| refused())?
            .len();
        body.truncate(length);
        Ok(body)
    }

    fn cipher(&self) -> Result<LessSafeKey, SealError> {
        UnboundKey::new(&AES_256_GCM, &self.0)
            .map(LessSafeKey::new)
            .map_err(|Unspecified| SealError::Crypto("the key was not taken"))
    }
}

/// What a sealed record is bound to. The length keeps (`ab`, `c`) apart from (`a`, `bc`).
fn associated(cluster_id: &str, record: &str) -> Aad<Vec<u8>> {
    let mut bytes = Vec::with_capacity(8 + cluster_id.len() + record.len());
    bytes.extend_from_slice(&(cluster_id.len() as u64).to_be_bytes());
    bytes.extend_from_slice(cluster_id.as_bytes());
    bytes.extend_from_slice(record.as_bytes());
    Aad::from(bytes)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
