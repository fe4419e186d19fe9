//! Where one HTTP/1.1 request ends and the next begins, judged before anything else sees the bytes.
//!
//! Request smuggling lives on messages that two readers delimit differently. hyper takes some of them and quietly makes
//! one reading of them (two lengths, LF for CRLF, a length beside chunks). [`Framing`] stands before it and lets pass only
//! what has one reading: whole heads, bodies by their length, chunks by their sizes. It changes no byte. [`Guarded`] puts
//! it around a socket.
//!
//! The rules are those of RFC 9112, without what it tolerates for old peers. Beyond it: `Transfer-Encoding` is `chunked`
//! in just this spelling, `Content-Length` stands there once, `Content_Length` is refused, a chunk size has no space
//! after it, and a client sends nothing after a request for `Upgrade` until it is answered.

mod bytes;
mod chunk;
mod error;
mod guarded;
mod head;

use std::time::Duration;

use memchr::memchr;

pub use error::FramingError;
pub use guarded::{Guard, Guarded};
use head::{BodyLength, Head};

/// How large a request may be outside its body, and how slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a head, from the request line to the empty line.
    pub head: usize,
    /// Most fields in a head, and in trailers.
    pub fields: usize,
    /// Most bytes of extensions of one chunk.
    pub chunk_extension: usize,
    /// Most bytes of extensions of all chunks of a body. hyper takes 16 KiB.
    pub chunk_extensions: usize,
    /// Most bytes of trailers. hyper takes 16 KiB.
    pub trailers: usize,
    /// Most time from the first byte of a head to its last. [`Guarded`] keeps it.
    pub head_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 64 * 1024,
            fields: 128,
            chunk_extension: 1024,
            chunk_extensions: 8 * 1024,
            trailers: 8 * 1024,
            head_time: Duration::from_secs(5),
        }
    }
}

/// Reads the framing of the requests of one connection. It does no I/O and keeps no bytes.
#[derive(Debug)]
pub struct Framing {
    limits: Limits,
    expects: Part,
    /// Where the line that is not whole yet begins, in the bytes held back.
    line: usize,
    /// Up to where those bytes hold no further LF.
    searched: usize,
    head: Head,
    trailers: usize,
    extensions: usize,
    upgrade: Upgrade,
    refused: Option<FramingError>,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Body(u64),
    ChunkHeader,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// Another protocol: nothing is judged.
    Transparent,
}

/// Where a request for another protocol stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// The last request did not ask for one, or is not whole.
    NotAsked,
    /// The last request asked for one, is whole, and nothing followed.
    Asked,
    /// Something followed.
    Premature,
}

impl Framing {
    /// At the beginning of a connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            expects: Part::Head,
            line: 0,
            searched: 0,
            head: Head::default(),
            trailers: 0,
            extensions: 0,
            upgrade: Upgrade::NotAsked,
            refused: None,
        }
    }

    /// Judges `bytes` and says how many of them, from the first, may be passed on. What it does not pass stays with the
    /// caller, who gives it again, at the beginning of `bytes`, when more has come. Only parts that are not whole are
    /// held back: at most [`Limits::head`] bytes.
    ///
    /// What passes and what is refused depends on the bytes alone, not on how they were split. Work is linear in them.
    ///
    /// # Errors
    /// The reason why the connection must end. What was good before it is passed by the call before; from then on every
    /// call gives the same error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let mut passed = 0;
        while passed < bytes.len() {
            match self.advance(&bytes[passed..]) {
                Ok(0) => break,
                Ok(good) => passed += good,
                Err(error) => {
                    self.refused = Some(error);
                    return if passed == 0 { Err(error) } else { Ok(passed) };
                }
            }
        }
        Ok(passed)
    }

    /// Why the connection must end, if it must.
    pub fn refusal(&self) -> Option<FramingError> {
        self.refused
    }

    /// Whether a request that asks for another protocol awaits its answer.
    pub fn upgrade(&self) -> Upgrade {
        self.upgrade
    }

    /// Lets everything pass from now on: the request that asked for another protocol was answered with 101. To be called
    /// before that answer is written. Until then what follows the request is judged as the next request, so a service
    /// that stays with HTTP has nothing smuggled past the rules.
    ///
    /// # Errors
    /// [`FramingError::PrematureUpgrade`] when that request is not whole, did not ask, or something followed it: a client
    /// has to wait for the answer (RFC 6455 §4.1), and one that did not may have meant HTTP.
    pub fn become_transparent(&mut self) -> Result<(), FramingError> {
        if self.upgrade != Upgrade::Asked || self.expects != Part::Head {
            return Err(FramingError::PrematureUpgrade);
        }
        self.expects = Part::Transparent;
        Ok(())
    }

    /// Whether these bytes, which were held back, are the beginning of a head. One empty line before it is not.
    pub fn is_within_head(&self, held: &[u8]) -> bool {
        self.expects == Part::Head && !held.is_empty() && !b"\r\n".starts_with(held)
    }

    /// Whether the next byte begins a head or goes on with one.
    pub fn is_between_requests(&self) -> bool {
        self.expects == Part::Head
    }

    /// Whether everything passes.
    pub fn is_transparent(&self) -> bool {
        self.expects == Part::Transparent
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        match self.expects {
            Part::Head => self.judge_head(bytes),
            Part::Body(left) => Ok(self.pass(left, bytes.len())),
            Part::ChunkHeader => self.judge_chunk_header(bytes),
            Part::ChunkData(left) => Ok(self.pass_chunk(left, bytes.len())),
            Part::ChunkEnd => self.judge_chunk_end(bytes),
            Part::Trailers => self.judge_trailers(bytes),
            Part::Transparent => Ok(bytes.len()),
        }
    }

    fn judge_head(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        if self.upgrade == Upgrade::Asked {
            self.upgrade = Upgrade::Premature;
        }
        if !bytes::is_token_byte(bytes[0]) && bytes[0] != b'\r' && bytes[0] != b'\n' {
            return Err(FramingError::RequestLine);
        }
        let limit = self.limits.head;
        while let Some(line) = self.next_line(bytes, limit, FramingError::HeadTooLarge { limit })? {
            if self.head.has_request_line() {
                if line.is_empty() {
                    return self.end_head();
                }
                self.head.field(line, self.limits.fields)?;
            } else if !line.is_empty() {
                self.head.request_line(line)?;
            } else if self.line > 2 {
                // One empty line is an old client's CRLF after a body (RFC 9112 §2.2), more are not.
                return Err(FramingError::RequestLine);
            }
        }
        Ok(0)
    }

    fn end_head(&mut self) -> Result<usize, FramingError> {
        match self.head.end()? {
            BodyLength::Known(0) => self.end_message(),
            BodyLength::Known(length) => self.begin_body(Part::Body(length)),
            BodyLength::Chunked => self.begin_body(Part::ChunkHeader),
        }
        Ok(self.take_lines())
    }

    fn begin_body(&mut self, part: Part) {
        self.upgrade = Upgrade::NotAsked;
        self.expects = part;
    }

    fn end_message(&mut self) {
        self.upgrade = if self.head.asks_for_upgrade() { Upgrade::Asked } else { Upgrade::NotAsked };
        self.expects = Part::Head;
        self.head = Head::default();
        (self.trailers, self.extensions) = (0, 0);
    }

    fn pass(&mut self, left: u64, arrived: usize) -> usize {
        let (left, passed) = subtract(left, arrived);
        self.expects = Part::Body(left);
        if left == 0 {
            self.end_message();
        }
        passed
    }

    fn pass_chunk(&mut self, left: u64, arrived: usize) -> usize {
        let (left, passed) = subtract(left, arrived);
        self.expects = if left == 0 { Part::ChunkEnd } else { Part::ChunkData(left) };
        passed
    }

    fn judge_chunk_header(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        let limit = chunk::MOST_SIZE_DIGITS + self.limits.chunk_extension + 2;
        let Some(line) = self.next_line(bytes, limit, FramingError::ChunkExtension)? else { return Ok(0) };
        let (size, extension) = chunk::header(line)?;
        self.extensions += extension;
        if extension > self.limits.chunk_extension || self.extensions > self.limits.chunk_extensions {
            return Err(FramingError::ChunkExtension);
        }
        self.expects = if size == 0 { Part::Trailers } else { Part::ChunkData(size) };
        Ok(self.take_lines())
    }

    fn judge_chunk_end(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        match bytes {
            [b'\r'] => Ok(0),
            [b'\r', b'\n', ..] => {
                self.expects = Part::ChunkHeader;
                Ok(2)
            }
            _ => Err(FramingError::ChunkEnd),
        }
    }

    fn judge_trailers(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        let limit = self.limits.trailers;
        while let Some(line) = self.next_line(bytes, limit, FramingError::TrailersTooLarge { limit })? {
            if line.is_empty() {
                self.end_message();
                return Ok(self.take_lines());
            }
            self.trailers += 1;
            if self.trailers > self.limits.fields {
                return Err(FramingError::TooManyFields { limit: self.limits.fields });
            }
            chunk::trailer(line)?;
        }
        Ok(0)
    }

    /// The next whole line of a part that must end within `limit` bytes, without its CRLF.
    fn next_line<'b>(
        &mut self,
        bytes: &'b [u8],
        limit: usize,
        over_limit: FramingError,
    ) -> Result<Option<&'b [u8]>, FramingError> {
        let within = &bytes[..bytes.len().min(limit)];
        let Some(found) = memchr(b'\n', &within[self.searched..]) else {
            self.searched = within.len();
            return if bytes.len() < limit { Ok(None) } else { Err(over_limit) };
        };
        let end = self.searched + found;
        let Some((b'\r', line)) = within[self.line..end].split_last() else { return Err(FramingError::BareLineFeed) };
        (self.line, self.searched) = (end + 1, end + 1);
        Ok(Some(line))
    }

    /// The length of the lines of a part that is whole.
    fn take_lines(&mut self) -> usize {
        self.searched = 0;
        std::mem::take(&mut self.line)
    }
}

/// What is left of a length after what has arrived, and how much of that belongs to it.
fn subtract(left: u64, arrived: usize) -> (u64, usize) {
    let taken = usize::try_from(left).map_or(arrived, |left| left.min(arrived));
    (left - taken as u64, taken)
}
