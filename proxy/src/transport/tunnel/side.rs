//! What one end of a tunnel knows of one stream.

use std::collections::VecDeque;
use std::task::Waker;

use crate::transport::buffers::Chunk;

use super::Reason;

/// What this end knows of one stream.
#[derive(Default)]
pub(super) struct Side {
    pub(super) first: Option<Chunk>,
    pub(super) more: VecDeque<Chunk>,
    pub(super) accepted: bool,
    pub(super) peer_finished: bool,
    pub(super) we_finished: bool,
    pub(super) reset: Option<Reason>,
    pub(super) waits_its_turn: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Side {
    pub(super) fn push(&mut self, chunk: Chunk) {
        if self.first.is_none() {
            self.first = Some(chunk);
        } else {
            self.more.push_back(chunk);
        }
    }

    pub(super) fn advance(&mut self, mut taken: usize) {
        while let Some(first) = &mut self.first {
            let step = taken.min(first.rest().len());
            first.advance(step);
            taken -= step;
            if !first.rest().is_empty() {
                return;
            }
            self.first = self.more.pop_front();
        }
        self.more = VecDeque::new();
    }

    pub(super) fn drop_chunks(&mut self) {
        self.first = None;
        self.more = VecDeque::new();
    }

    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}
