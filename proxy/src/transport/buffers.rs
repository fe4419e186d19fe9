//! Buffers that are held only while bytes move.
//!
//! Each worker keeps a few of each size. A buffer is taken when a socket is readable and given back when the last byte of
//! it was written; an idle connection holds none. What was not used for a while is given back to the system.

use std::cell::RefCell;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// One whole TLS record and the beginning of another.
pub(crate) const SMALL: usize = 32 * 1024;
/// What one read or write of a bulk connection moves: 30 records of 16 KiB.
pub(crate) const LARGE: usize = 512 * 1024;
/// Free buffers of a size that a worker keeps.
const KEPT: usize = 8;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { small: Shelf::new(SMALL), large: Shelf::new(LARGE) }) };
}

struct Pool {
    small: Shelf,
    large: Shelf,
}

/// The free buffers of one size.
struct Shelf {
    size: usize,
    free: Vec<Arc<Box<[u8]>>>,
    /// The fewest that were free since the last trim: so many were not needed.
    spare: usize,
}

impl Shelf {
    const fn new(size: usize) -> Self {
        Self { size, free: Vec::new(), spare: 0 }
    }

    fn take(&mut self) -> Arc<Box<[u8]>> {
        let taken = self.free.pop().unwrap_or_else(|| Arc::new(vec![0; self.size].into_boxed_slice()));
        self.spare = self.spare.min(self.free.len());
        taken
    }

    fn give(&mut self, bytes: Arc<Box<[u8]>>) {
        if self.free.len() < KEPT {
            self.free.push(bytes);
        }
    }

    fn trim(&mut self) {
        self.free.truncate(self.free.len() - self.spare);
        self.spare = self.free.len();
    }
}

impl Pool {
    fn shelf(&mut self, size: usize) -> &mut Shelf {
        if size == SMALL { &mut self.small } else { &mut self.large }
    }
}

/// A buffer of which this is the only holder.
#[derive(Debug)]
pub(crate) struct Buffer(Option<Arc<Box<[u8]>>>);

impl Buffer {
    /// Takes a buffer of at least `size` bytes ([`SMALL`] or [`LARGE`]).
    pub(crate) fn take(size: usize) -> Self {
        let size = if size <= SMALL { SMALL } else { LARGE };
        Self(Some(POOL.with_borrow_mut(|pool| pool.shelf(size).take())))
    }

    /// All its bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // Nobody else holds it: it was alone in the pool, and `share` gives it up.
        self.0.as_mut().and_then(Arc::get_mut).map_or(&mut [], |bytes| &mut bytes[..])
    }

    /// Makes it readable by several.
    pub(crate) fn share(mut self) -> Shared {
        Shared(self.0.take())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(self.0.take());
    }
}

/// A buffer with several holders, of whom the last gives it back.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Option<Arc<Box<[u8]>>>);

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |bytes| &bytes[..])
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        give_back(self.0.take());
    }
}

fn give_back(bytes: Option<Arc<Box<[u8]>>>) {
    let Some(mut bytes) = bytes else { return };
    if Arc::get_mut(&mut bytes).is_some() {
        // A thread that is ending has no pool any more; then the bytes are simply freed.
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut() {
                let size = bytes.len();
                pool.shelf(size).give(bytes);
            }
        });
    }
}

/// Gives the buffers of this worker that nobody needed since the last call back to the system.
pub(crate) fn trim() {
    POOL.with_borrow_mut(|pool| {
        pool.small.trim();
        pool.large.trim();
    });
}

/// Bytes on their way: a part of a shared buffer, or bytes of their own.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Bytes,
    range: Range<usize>,
}

#[derive(Debug)]
enum Bytes {
    Shared(Shared),
    Own(Box<[u8]>),
}

impl Chunk {
    /// A part of `buffer`.
    pub(crate) fn of(buffer: &Shared, range: Range<usize>) -> Self {
        Self { bytes: Bytes::Shared(buffer.clone()), range }
    }

    /// A copy of `bytes`.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        Self { bytes: Bytes::Own(bytes.into()), range: 0..bytes.len() }
    }

    /// What is left of it.
    pub(crate) fn rest(&self) -> &[u8] {
        let all: &[u8] = match &self.bytes {
            Bytes::Shared(shared) => shared,
            Bytes::Own(own) => own,
        };
        all.get(self.range.clone()).unwrap_or_default()
    }

    /// Forgets its first `n` bytes.
    pub(crate) fn advance(&mut self, n: usize) {
        self.range.start = (self.range.start + n).min(self.range.end);
    }

    /// Lets go of a shared buffer: bytes that wait should not keep half a megabyte.
    pub(crate) fn detach(&mut self) {
        if matches!(self.bytes, Bytes::Shared(_)) {
            *self = Self::copied(self.rest());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(size: usize) -> usize {
        POOL.with_borrow_mut(|pool| pool.shelf(size).free.len())
    }

    #[test]
    fn the_last_holder_gives_a_buffer_back() {
        let shared = Buffer::take(LARGE).share();
        let chunk = Chunk::of(&shared, 3..7);
        drop(shared);
        assert_eq!(free(LARGE), 0);
        drop(chunk);
        assert_eq!(free(LARGE), 1);
        let again = Buffer::take(LARGE);
        assert_eq!(free(LARGE), 0);
        drop(again);
        assert_eq!(free(LARGE), 1);
    }

    #[test]
    fn a_detached_chunk_has_the_same_bytes_and_holds_no_buffer() {
        let mut buffer = Buffer::take(SMALL);
        buffer.bytes()[..5].copy_from_slice(b"hello");
        let mut chunk = Chunk::of(&buffer.share(), 0..5);
        chunk.advance(1);
        chunk.detach();
        assert_eq!(free(SMALL), 1);
        assert_eq!(chunk.rest(), b"ello");
    }

    #[test]
    fn what_nobody_needs_is_given_back_to_the_system() {
        let held: Vec<Buffer> = (0..3).map(|_| Buffer::take(SMALL)).collect();
        drop(held);
        trim();
        assert_eq!(free(SMALL), 3, "they were in use since the last time");
        trim();
        assert_eq!(free(SMALL), 0);
    }
}
