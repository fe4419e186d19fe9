//! Going on after the disk failed.
//!
//! After a failed write or fsync nobody knows which pages of the file are on the disk: Linux marks pages that it could not
//! write as clean, so the same file can read well and still be lost with the next power cut, and a second fsync proves
//! nothing. So the file is never used again. What can be read of it is copied to a new file; the copy's every page is
//! checked, made durable, and only then takes the old one's name. What the copy holds is at least everything that was
//! acknowledged, and of the group that failed all or nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ::redb::Database;

use super::super::error::StoreError;
use super::super::types::StoreSettings;
use super::open;

/// Where the copy is made. What a crash leaves there is overwritten by the next rescue.
pub(super) fn copy_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".rescue");
    name.into()
}

/// Replaces the closed file `path` by a durable copy of what it holds, and opens that.
pub(super) fn rescue(path: &Path, settings: &StoreSettings) -> Result<Database, StoreError> {
    let copy = copy_path(path);
    let rescued = replace(path, &copy, settings);
    if rescued.is_err() {
        // Half a copy only takes room that is needed.
        let _ = fs::remove_file(&copy);
    }
    rescued
}

fn replace(path: &Path, copy: &Path, settings: &StoreSettings) -> Result<Database, StoreError> {
    let failed = |what: &str, error: &std::io::Error| open::io_error(format!("cannot {what} {}", path.display()), error);
    let old = File::options().read(true).write(true).open(path).map_err(|error| failed("read", &error))?;
    // Held until the copy has the name, so that no other process opens the file that is given up.
    old.try_lock().map_err(|_| StoreError::Locked { path: path.to_owned() })?;
    fs::copy(path, copy).map_err(|error| failed("copy", &error))?;
    // Opening checks every page and goes back to the last whole commit.
    let database = open::open_existing(copy, settings)?;
    File::open(copy).and_then(|file| file.sync_all()).map_err(|error| failed("write the copy of", &error))?;
    fs::rename(copy, path).map_err(|error| failed("replace", &error))?;
    open::sync_directory(path).map_err(|error| failed("replace", &error))?;
    Ok(database)
}
