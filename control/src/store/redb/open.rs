//! Opening the file, making a new one, and saying what is wrong with it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ::redb::{Builder, Database, DatabaseError, Error, ReadableDatabase};

use super::super::error::StoreError;
use super::super::types::{Kv, StoreSettings};
use super::tables::{
    KV, LAST_LEASE, LEASE_KEYS, LEASES, LOG, LOG_BYTES, META, OLDEST, REVISION, SCHEMA, SCHEMA_VERSION, encode_kv,
};

/// Opens the file, or makes it.
pub(super) fn open(path: &Path, settings: &StoreSettings) -> Result<Database, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(StoreError::Corrupt(format!("{} is not a file, so no store; choose another --data-dir", path.display())))
        }
        Ok(_) => open_existing(path, settings),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, settings),
        Err(error) => Err(StoreError::io(format!("cannot open {}", path.display()), &error)),
    }
}

fn builder(settings: &StoreSettings) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(settings.cache_bytes);
    // Without this a file that was changed by others is trusted, and may end the process later.
    builder.set_check_integrity_on_open(true);
    builder
}

pub(super) fn open_existing(path: &Path, settings: &StoreSettings) -> Result<Database, StoreError> {
    let database = builder(settings).open(path).map_err(|error| open_error(path, error))?;
    check_schema(path, &database)?;
    Ok(database)
}

fn check_schema(path: &Path, database: &Database) -> Result<(), StoreError> {
    let translate = |error: Error| match error {
        Error::TableDoesNotExist(_) | Error::TableTypeMismatch { .. } => StoreError::Corrupt(format!(
            "{} is a database, but no store of this program; choose another --data-dir",
            path.display()
        )),
        error => storage_error(path, error),
    };
    let txn = database.begin_read().map_err(|error| translate(error.into()))?;
    let meta = txn.open_table(META).map_err(|error| translate(error.into()))?;
    let found = meta.get(SCHEMA_VERSION).map_err(|error| translate(error.into()))?;
    match found.map(|found| found.value()) {
        Some(SCHEMA) => Ok(()),
        found => Err(StoreError::Schema { path: path.to_owned(), found: found.unwrap_or(0), supported: SCHEMA }),
    }
}

/// Makes a complete new store under another name, then gives it its own: a crash in between leaves no half store.
fn create(path: &Path, settings: &StoreSettings) -> Result<Database, StoreError> {
    let unfinished = unfinished_path(path);
    let database = match create_at(&unfinished, settings) {
        // What a crash left behind; nobody has it locked, or we would have been told.
        Err(StoreError::Corrupt(_)) => {
            fs::remove_file(&unfinished)
                .map_err(|error| StoreError::io(format!("cannot remove {}", unfinished.display()), &error))?;
            create_at(&unfinished, settings)?
        }
        other => other?,
    };
    let named = fs::rename(&unfinished, path).and_then(|()| sync_directory(path));
    named.map_err(|error| StoreError::io(format!("cannot create {}", path.display()), &error))?;
    Ok(database)
}

/// Makes durable which names the directory of `path` has.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn unfinished_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn create_at(path: &Path, settings: &StoreSettings) -> Result<Database, StoreError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| StoreError::io(format!("cannot create {}", path.display()), &error))?;
    let database = builder(settings).create(path).map_err(|error| open_error(path, error))?;
    fill(&database).map_err(|error| storage_error(path, error))?;
    Ok(database)
}

/// Makes a store that holds these records already, and whose history begins with the next change.
pub(super) fn create_with(path: &Path, revision: u64, kvs: &[Kv], settings: &StoreSettings) -> Result<(), StoreError> {
    let database = create_at(path, settings)?;
    let write = || -> Result<(), Error> {
        let txn = database.begin_write()?;
        {
            let mut table = txn.open_table(KV)?;
            for kv in kvs {
                table.insert(&kv.key[..], &encode_kv(kv)[..])?;
            }
            let mut meta = txn.open_table(META)?;
            meta.insert(REVISION, revision)?;
            meta.insert(OLDEST, revision)?;
        }
        txn.commit()?;
        Ok(())
    };
    write().map_err(|error| storage_error(path, error))?;
    sync_directory(path).map_err(|error| StoreError::io(format!("cannot create {}", path.display()), &error))
}

/// Writes what every store has.
pub(super) fn fill(database: &Database) -> Result<(), Error> {
    let txn = database.begin_write()?;
    {
        txn.open_table(KV)?;
        txn.open_table(LOG)?;
        txn.open_table(LEASES)?;
        txn.open_table(LEASE_KEYS)?;
        let mut meta = txn.open_table(META)?;
        let numbers = [(SCHEMA_VERSION, SCHEMA), (REVISION, 1), (OLDEST, 1), (LAST_LEASE, 0), (LOG_BYTES, 0)];
        for (name, number) in numbers {
            meta.insert(name, number)?;
        }
    }
    txn.commit()?;
    Ok(())
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: path.to_owned() },
        DatabaseError::UpgradeRequired(found) => {
            StoreError::Schema { path: path.to_owned(), found: found.into(), supported: SCHEMA }
        }
        other => storage_error(path, other.into()),
    }
}

/// An error of the file `path`, in our words.
pub(super) fn storage_error(path: &Path, error: Error) -> StoreError {
    match error {
        Error::Io(error) if is_damage(&error) => corrupt(path, &error),
        Error::Io(error) => io_error(format!("cannot use {}", path.display()), &error),
        Error::Corrupted(why) => corrupt(path, &why),
        Error::DatabaseAlreadyOpen => StoreError::Locked { path: path.to_owned() },
        Error::DatabaseClosed => StoreError::Closed,
        error @ Error::PreviousIo => StoreError::Io {
            what: format!("cannot use {}", path.display()),
            kind: io::ErrorKind::Other,
            why: format!("{error}; see the first error in the log"),
        },
        other => corrupt(path, &other),
    }
}

/// What the operating system said, with the cure if there is one.
pub(super) fn io_error(what: String, error: &io::Error) -> StoreError {
    let why = match error.kind() {
        io::ErrorKind::StorageFull => {
            format!("{error}; make room on the disk for a second copy of the store: the next change tries again")
        }
        io::ErrorKind::PermissionDenied => format!("{error}; run as the user who owns it, or choose another --data-dir"),
        _ => error.to_string(),
    };
    StoreError::Io { what, kind: error.kind(), why }
}

fn corrupt(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    let path = path.display();
    StoreError::Corrupt(format!(
        "{path} is damaged or no store ({why}); move it away and restore a backup, or choose another --data-dir"
    ))
}

/// Errors of reading that tell of the file, not of the disk.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// An error of a table of an open file.
pub(super) fn read_error(error: Error) -> StoreError {
    match error {
        Error::Io(error) if !is_damage(&error) => StoreError::io("cannot read the store", &error),
        Error::DatabaseClosed => StoreError::Closed,
        other => StoreError::Corrupt(format!("the store is damaged ({other}); restore a backup")),
    }
}
