//! The data directory: ours alone, and one control plane at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::ControlError;

/// A data directory that this process has locked until it is dropped.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory (0700) where there is none, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, ControlError> {
        let refuse = |why: String| ControlError::DataDir { path: path.to_owned(), why };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| refuse(format!("{error}; give --data-dir")))?;
        let metadata = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|error| {
                refuse(format!("others can use it, and that cannot be changed: {error}; run `chmod 700` on it"))
            })?;
        }
        let lock = lock(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn store(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    /// A snapshot that waits to be restored.
    pub(super) fn pending_snapshot(&self) -> PathBuf {
        self.path.join("snapshot.pending")
    }

    /// The store before the last restore.
    pub(super) fn store_before(&self) -> PathBuf {
        self.path.join("store.redb.before-restore")
    }

    pub(super) fn audit(&self) -> PathBuf {
        self.path.join("audit")
    }

    pub(super) fn http_socket(&self) -> PathBuf {
        self.path.join("http.sock")
    }

    pub(super) fn operator_token(&self) -> PathBuf {
        self.path.join("operator.token")
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // A client that finds no socket takes the port; one that finds a dead socket would say so.
        let _ = std::fs::remove_file(self.http_socket());
    }
}

fn lock(directory: &Path) -> Result<File, ControlError> {
    let path = directory.join("control.lock");
    let refuse = |error: std::io::Error| ControlError::DataDir { path: path.clone(), why: error.to_string() };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(refuse)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Without its number the message only says less.
            let _ = file.read_to_string(&mut text);
            return Err(ControlError::Running { path: directory.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(refuse(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(refuse)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_private_and_locked() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())) && error.contains("--data-dir"), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
    }
}
