//! Whether the log is as it was written.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::AuditHead;
use super::segment::{self, Lines, Link, NOTHING};

/// A log in which every line is where it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainReport {
    /// How many segments there are.
    pub segments: u64,
    /// The number of the oldest; above 1 when older ones have reached their retention.
    pub first_segment: u64,
    /// When the oldest segment began.
    pub since: Option<SystemTime>,
    /// How many entries there are.
    pub entries: u64,
    /// The last line.
    pub last: Option<AuditHead>,
    /// Whether the file ends in the middle of a line: one is being written, or was when the machine stopped. It is not
    /// lost: it is still in the store.
    pub unfinished: bool,
}

/// Why a log is not as it was written, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The disk refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// A line was changed, removed or moved.
    #[error("{} line {line}: {why}; compare with a copy that was taken elsewhere", file.display())]
    Broken {
        /// The segment.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads the whole log, and finds the first line that was changed, removed or moved. Whether lines are missing at its
/// end, or its last line was changed, only [`verify_chain_to`] can tell.
///
/// # Errors
/// [`ChainError::Broken`] names the file and the line.
pub fn verify_chain(directory: &Path) -> Result<ChainReport, ChainError> {
    verify_chain_to(directory, None)
}

/// [`verify_chain`], and the log must have the line that the store remembers ([`AuditHead::load`], read before this).
///
/// # Errors
/// [`ChainError::Broken`] names the file and the line.
pub fn verify_chain_to(directory: &Path, head: Option<&AuditHead>) -> Result<ChainReport, ChainError> {
    let numbers = segment::list(directory).map_err(|source| ChainError::Io { path: directory.to_owned(), source })?;
    let mut check = Check { report: ChainReport::default(), last: None, place: None, head };
    let last = numbers.last().copied();
    for number in numbers {
        check.segment(directory, number, Some(number) == last)?;
    }
    check.end(directory)
}

struct Check<'a> {
    report: ChainReport,
    last: Option<AuditHead>,
    /// Where the last line is.
    place: Option<(PathBuf, u64)>,
    head: Option<&'a AuditHead>,
}

impl Check<'_> {
    fn segment(&mut self, directory: &Path, number: u64, newest: bool) -> Result<(), ChainError> {
        let file = segment::path(directory, number);
        let expected = self.report.first_segment + self.report.segments;
        if self.report.segments == 0 {
            self.report.first_segment = number;
        } else if number != expected {
            return Err(broken(segment::path(directory, expected), 1, "the whole segment is missing"));
        }
        self.report.segments += 1;
        let io = |source| ChainError::Io { path: file.clone(), source };
        let mut lines = Lines::open(&file).map_err(io)?;
        let mut line_number = 0;
        while let Some(line) = lines.next().map_err(io)? {
            line_number += 1;
            self.line(&file, number, line_number, line)?;
        }
        let incomplete = lines.unfinished || line_number == 0;
        if incomplete && !newest {
            return Err(broken(file, line_number + 1, "the line is cut off"));
        }
        self.report.unfinished = incomplete;
        Ok(())
    }

    fn line(&mut self, file: &Path, segment: u64, number: u64, line: &[u8]) -> Result<(), ChainError> {
        let here = |why: &str| Err(broken(file.to_owned(), number, why));
        let Ok(link) = serde_json::from_slice::<Link>(line) else {
            return here("this is no line of the log: it was changed");
        };
        if (number == 1) != link.segment.is_some() {
            return here("a segment begins with its header, and has it once: a line is missing, or was moved");
        }
        if link.segment.is_some_and(|named| named != segment) {
            return here("this is the header of another segment: the file was renamed");
        }
        match (&self.last, &self.place) {
            (Some(last), _) if link.n <= last.n => {
                return here(&format!("line {} of the log stands after line {}: it was moved or doubled", link.n, last.n));
            }
            (Some(last), _) if link.n > last.n + 1 => {
                return here(&format!("lines {} to {} of the log are missing before it", last.n + 1, link.n - 1));
            }
            (Some(last), Some((file, line))) if link.prev != last.hash => {
                let why = "it has not the hash that the next line carries: one of the two was changed";
                return Err(broken(file.clone(), *line, why));
            }
            (None, _) if segment == 1 && (link.n != 1 || link.prev != NOTHING) => {
                return here("the log does not begin with its first line");
            }
            _ => {}
        }
        let hash = segment::hash(line);
        if let Some(head) = self.head
            && head.n == link.n
            && head.hash != hash
        {
            return here("it has not the hash that the store remembers: it was changed");
        }
        if self.report.since.is_none() {
            self.report.since = Some(link.at);
        }
        self.report.entries += u64::from(link.segment.is_none());
        self.last = Some(AuditHead { n: link.n, hash });
        self.place = Some((file.to_owned(), number));
        Ok(())
    }

    fn end(mut self, directory: &Path) -> Result<ChainReport, ChainError> {
        if let Some(head) = self.head {
            let n = self.last.as_ref().map_or(0, |last| last.n);
            if n < head.n {
                let (file, line) = self.place.unwrap_or_else(|| (segment::path(directory, 1), 0));
                let why = format!("lines {} to {} of the log are missing at its end", n + 1, head.n);
                return Err(broken(file, line + 1, &why));
            }
        }
        self.report.last = self.last;
        Ok(self.report)
    }
}

fn broken(file: PathBuf, line: u64, why: &str) -> ChainError {
    ChainError::Broken { file, line, why: why.to_owned() }
}
