//! Appending to the log.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::segment::{self, EntryLine, HeaderLine, Lines, Link, NOTHING};
use super::{AuditEntry, AuditError, AuditHead, AuditSettings};

/// An entry of the store, on its way into the log.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// What it is known by: its key without the prefix.
    pub id: String,
    /// The revision of the transaction that it tells of.
    pub revision: u64,
    pub entry: AuditEntry,
}

/// How far the clocks of control planes may be apart for a line that was written twice to be recognised.
const SKEW: Duration = Duration::from_secs(3600);

/// The log, open at its end.
pub(super) struct Log {
    directory: PathBuf,
    settings: AuditSettings,
    segment: u64,
    file: File,
    length: u64,
    last: AuditHead,
    /// Of the entries that were waiting when the log was opened, those that it already has.
    written: HashSet<String>,
}

impl Log {
    /// Opens the log at its end. A line that was cut off is removed; its entry is still in the store. If the end is
    /// not what `head` says, the log goes on in a new segment, and [`super::verify_chain`] tells where it was changed.
    pub fn open(
        directory: &Path,
        settings: &AuditSettings,
        head: Option<&AuditHead>,
        waiting: &[Waiting],
        now: SystemTime,
    ) -> Result<Self, AuditError> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("create", directory))?;
        let numbers = segment::list(directory).map_err(failed("read", directory))?;
        let written = find_written(directory, &numbers, waiting)?;
        let (segment, file, length, last) = open_end(directory, &numbers, head, now)?;
        let log = Self { directory: directory.to_owned(), settings: settings.clone(), segment, file, length, last, written };
        log.remove_old(now)?;
        Ok(log)
    }

    /// Where the segments are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The last line.
    pub fn head(&self) -> &AuditHead {
        &self.last
    }

    /// Appends the entries that the log does not have yet. They are durable when this returns.
    pub fn append(&mut self, waiting: &[Waiting], now: SystemTime) -> Result<(), AuditError> {
        let mut text = Vec::new();
        let mut last = self.last.clone();
        for waiting in waiting.iter().filter(|waiting| !self.written.contains(&waiting.id)) {
            let line =
                EntryLine { n: last.n + 1, id: &waiting.id, revision: waiting.revision, entry: &waiting.entry, prev: &last.hash };
            last = push_line(&mut text, last.n + 1, &line).map_err(failed("write", &self.path()))?;
        }
        if text.is_empty() {
            return Ok(());
        }
        let result = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if let Err(error) = result {
            // What may be half there must not be taken for a line later.
            let _ = self.file.set_len(self.length);
            return Err(failed("write", &self.path())(error));
        }
        self.length += text.len() as u64;
        self.last = last;
        if self.length >= self.settings.segment_bytes {
            self.next_segment(now)?;
        }
        Ok(())
    }

    fn next_segment(&mut self, now: SystemTime) -> Result<(), AuditError> {
        let (file, length, last) = begin_segment(&self.directory, self.segment + 1, &self.last, now)?;
        self.segment += 1;
        (self.file, self.length, self.last) = (file, length, last);
        self.remove_old(now)
    }

    /// Removes segments whose successor began longer ago than the retention, the oldest first.
    fn remove_old(&self, now: SystemTime) -> Result<(), AuditError> {
        let Some(oldest) = now.checked_sub(self.settings.retention) else { return Ok(()) };
        let numbers = segment::list(&self.directory).map_err(failed("read", &self.directory))?;
        for pair in numbers.windows(2) {
            let successor = segment::path(&self.directory, pair[1]);
            let began = read_header(&successor).map_err(failed("read", &successor))?;
            if began.is_none_or(|link| link.at >= oldest) {
                return Ok(());
            }
            let path = segment::path(&self.directory, pair[0]);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        segment::path(&self.directory, self.segment)
    }
}

/// What a segment ends with.
enum End {
    At { last: AuditHead, length: u64 },
    Empty,
    Damaged,
}

/// The newest segment, open to append; a new one if there is none, or if its end cannot be gone on from.
fn open_end(
    directory: &Path,
    numbers: &[u64],
    head: Option<&AuditHead>,
    now: SystemTime,
) -> Result<(u64, File, u64, AuditHead), AuditError> {
    let newest = numbers.last().copied().unwrap_or(0);
    let path = segment::path(directory, newest);
    let end = if newest == 0 { End::Empty } else { read_end(directory, newest, head)? };
    let (number, last) = match end {
        End::At { last, length } if head.is_none_or(|head| head.n <= last.n) => {
            let file = open_to_append(&path, length).map_err(failed("open", &path))?;
            return Ok((newest, file, length, last));
        }
        // Made, but never begun: it keeps its number.
        End::Empty => (newest.max(1), last_readable_line(directory, numbers)?),
        End::At { last, .. } => (newest + 1, last),
        End::Damaged => (newest + 1, last_readable_line(directory, numbers)?),
    };
    // What the store remembers is what was written, whatever stands there now.
    let last = head.filter(|head| head.n >= last.n).cloned().unwrap_or(last);
    if number > newest && newest != 0 {
        tracing::error!(segment = %path.display(), "the audit log was changed at its end, and goes on in a new segment; `meshctl doctor` names the line");
    }
    let (file, length, last) = begin_segment(directory, number, &last, now)?;
    Ok((number, file, length, last))
}

/// Follows the chain of one segment to its end.
fn read_end(directory: &Path, number: u64, head: Option<&AuditHead>) -> Result<End, AuditError> {
    let path = segment::path(directory, number);
    let mut lines = Lines::open(&path).map_err(failed("read", &path))?;
    let mut last: Option<AuditHead> = None;
    while let Some(line) = lines.next().map_err(failed("read", &path))? {
        let Ok(link) = serde_json::from_slice::<Link>(line) else { return Ok(End::Damaged) };
        let follows = match &last {
            Some(last) => link.n == last.n + 1 && link.prev == last.hash,
            None => link.segment == Some(number),
        };
        let hash = segment::hash(line);
        if !follows || head.is_some_and(|head| head.n == link.n && head.hash != hash) {
            return Ok(End::Damaged);
        }
        last = Some(AuditHead { n: link.n, hash });
    }
    Ok(match last {
        Some(last) => End::At { last, length: lines.complete },
        None => End::Empty,
    })
}

/// The last line that is one, of all segments; what stands before the first if there is none.
fn last_readable_line(directory: &Path, numbers: &[u64]) -> Result<AuditHead, AuditError> {
    for number in numbers.iter().rev() {
        let path = segment::path(directory, *number);
        let mut lines = Lines::open(&path).map_err(failed("read", &path))?;
        let mut last = None;
        while let Some(line) = lines.next().map_err(failed("read", &path))? {
            if let Ok(link) = serde_json::from_slice::<Link>(line) {
                last = Some(AuditHead { n: link.n, hash: segment::hash(line) });
            }
        }
        if let Some(last) = last {
            return Ok(last);
        }
    }
    Ok(AuditHead { n: 0, hash: NOTHING.to_owned() })
}

fn read_header(path: &Path) -> io::Result<Option<Link>> {
    let mut lines = Lines::open(path)?;
    Ok(lines.next()?.and_then(|line| serde_json::from_slice(line).ok()))
}

/// Which of the waiting entries are in the log: those that were written before a crash and not yet removed from the
/// store. Only segments that reach into the time of the oldest are read.
fn find_written(directory: &Path, numbers: &[u64], waiting: &[Waiting]) -> Result<HashSet<String>, AuditError> {
    let mut written = HashSet::new();
    let Some(oldest) = waiting.iter().map(|waiting| waiting.entry.at).min() else { return Ok(written) };
    let ids: HashSet<&str> = waiting.iter().map(|waiting| waiting.id.as_str()).collect();
    for number in numbers.iter().rev() {
        let path = segment::path(directory, *number);
        let mut lines = Lines::open(&path).map_err(failed("read", &path))?;
        let mut began = None;
        while let Some(line) = lines.next().map_err(failed("read", &path))? {
            let Ok(link) = serde_json::from_slice::<Link>(line) else { continue };
            began.get_or_insert(link.at);
            written.extend(link.id.filter(|id| ids.contains(id.as_str())));
        }
        if began.is_some_and(|began| began + SKEW < oldest) {
            break;
        }
    }
    Ok(written)
}

fn begin_segment(directory: &Path, number: u64, last: &AuditHead, now: SystemTime) -> Result<(File, u64, AuditHead), AuditError> {
    let path = segment::path(directory, number);
    let header = HeaderLine { n: last.n + 1, segment: number, at: now, prev: &last.hash };
    let mut text = Vec::new();
    let begun = push_line(&mut text, last.n + 1, &header).and_then(|head| {
        let mut file = open_to_append(&path, 0)?;
        file.write_all(&text)?;
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        Ok((file, text.len() as u64, head))
    });
    begun.map_err(failed("write", &path))
}

/// Opens a file to append after `length` bytes, of which nothing is trusted to be durable before it is synced.
fn open_to_append(path: &Path, length: u64) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_len(length)?;
    file.sync_all()?;
    Ok(file)
}

fn push_line(text: &mut Vec<u8>, n: u64, line: &impl serde::Serialize) -> io::Result<AuditHead> {
    let line = serde_json::to_vec(line)?;
    let hash = segment::hash(&line);
    text.extend_from_slice(&line);
    text.push(b'\n');
    Ok(AuditHead { n, hash })
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> AuditError + use<'a> {
    move |source| AuditError::Io { what, path: path.to_owned(), source }
}
