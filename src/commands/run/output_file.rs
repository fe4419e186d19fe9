//! Writes what was rendered: whole or not at all, and only where it is something else.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The mode of a file that did not exist: what is rendered may be secret.
const MODE: u32 = 0o600;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It holds something else than before, on disk.
    Yes,
    /// It held that already.
    No,
}

/// Has `path` hold `bytes`. A crash at any point leaves the old or the new ones; a reader sees no part of them. A file that
/// exists keeps its mode, and a symbolic link its target.
///
/// # Errors
/// What the system says; the file is as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<Replaced> {
    let target = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path)?,
        target => target?,
    };
    let mode = match fs::metadata(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => MODE,
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_file() => return Err(io::Error::other("it is there and is no regular file")),
        Ok(metadata) => {
            if metadata.len() == bytes.len() as u64 && fs::read(&target)? == bytes {
                return Ok(Replaced::No);
            }
            metadata.permissions().mode() & 0o7777
        }
    };
    let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::Error::other("it names no file"));
    };
    let beside = directory.join(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
    let written = write(&beside, bytes, mode).and_then(|()| fs::rename(&beside, &target));
    if let Err(error) = written {
        // What is left of it is of no use to anybody.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    File::open(directory)?.sync_all()?;
    Ok(Replaced::Yes)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_for_its_owner_and_an_old_one_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("out.conf");
        assert_eq!(replace(&file, b"one").unwrap(), Replaced::Yes);
        assert_eq!((fs::read(&file).unwrap(), mode(&file)), (b"one".to_vec(), 0o600));
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(replace(&file, b"two").unwrap(), Replaced::Yes);
        assert_eq!((fs::read(&file).unwrap(), mode(&file)), (b"two".to_vec(), 0o644));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn the_same_content_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("out.conf");
        replace(&file, b"one").unwrap();
        let inode = fs::metadata(&file).unwrap().ino();
        assert_eq!(replace(&file, b"one").unwrap(), Replaced::No);
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("out.conf"), directory.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(replace(&directory.path().join("nowhere/out.conf"), b"x").is_err());
        assert!(replace(directory.path(), b"x").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
