//! Segments and lines: how the log looks on disk.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::AuditEntry;

/// What the first line of all carries for the line before it.
pub(super) const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The first line of a segment.
#[derive(Serialize)]
pub(super) struct HeaderLine<'a> {
    pub n: u64,
    pub segment: u64,
    #[serde(with = "super::rfc3339")]
    pub at: SystemTime,
    pub prev: &'a str,
}

/// Any other line.
#[derive(Serialize)]
pub(super) struct EntryLine<'a> {
    pub n: u64,
    pub id: &'a str,
    pub revision: u64,
    #[serde(flatten)]
    pub entry: &'a AuditEntry,
    pub prev: &'a str,
}

/// What links a line to the one before it.
#[derive(Deserialize)]
pub(super) struct Link {
    pub n: u64,
    pub segment: Option<u64>,
    pub id: Option<String>,
    #[serde(with = "super::rfc3339")]
    pub at: SystemTime,
    pub prev: String,
}

pub(super) fn hash(line: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, line).as_ref())
}

/// The file of a segment.
pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("audit-{number:08}.jsonl"))
}

fn number(name: &str) -> Option<u64> {
    name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok()
}

/// The numbers of the segments in the directory, in order. None if there is no directory.
pub(super) fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        numbers.extend(entry?.file_name().to_str().and_then(number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The lines of a segment, without their newlines.
pub(super) struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
    /// Bytes of all complete lines so far.
    pub complete: u64,
    /// Whether the file ends in the middle of a line.
    pub unfinished: bool,
}

impl Lines {
    pub fn open(path: &Path) -> io::Result<Self> {
        let reader = BufReader::with_capacity(1 << 16, File::open(path)?);
        Ok(Self { reader, line: Vec::new(), complete: 0, unfinished: false })
    }

    /// The next complete line.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let length = self.reader.read_until(b'\n', &mut self.line)?;
        if length == 0 {
            return Ok(None);
        }
        if self.line.pop() != Some(b'\n') {
            self.unfinished = true;
            return Ok(None);
        }
        self.complete += length as u64;
        Ok(Some(&self.line))
    }
}
