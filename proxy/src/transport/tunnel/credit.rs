//! How much the peer may send on one stream.

use std::time::{Duration, Instant};

/// A reader that left the peer without credit for longer than this does not keep up.
const BEHIND: Duration = Duration::from_secs(1);

/// The receiving side of one stream's credit. What the peer may still send and what is unread are together at most the
/// largest window that it had.
///
/// The window doubles when the peer used all its credit and the reader then took everything within a second: only then
/// was the window what held them up. It halves for each second that a reader stays behind.
#[derive(Debug)]
pub(super) struct Window {
    size: u32,
    granted: u32,
    unread: u32,
    exhausted: Option<Instant>,
}

impl Window {
    /// `granted` is what the peer may send without being told.
    pub fn new(granted: u32, size: u32) -> Self {
        Self { size, granted, unread: 0, exhausted: None }
    }

    /// What the peer may still send.
    pub fn granted(&self) -> u32 {
        self.granted
    }

    /// What came and was not consumed.
    pub fn unread(&self) -> u32 {
        self.unread
    }

    /// `bytes` came; the caller has checked that they are granted.
    pub fn receive(&mut self, bytes: u32, now: Instant) {
        debug_assert!(bytes <= self.granted);
        self.granted = self.granted.saturating_sub(bytes);
        self.unread = self.unread.saturating_add(bytes);
        if self.granted == 0 && self.exhausted.is_none() {
            self.exhausted = Some(now);
        }
    }

    /// The reader took up to `bytes`; says how many were there to take.
    pub fn consume(&mut self, bytes: usize) -> u32 {
        let taken = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.unread);
        self.unread -= taken;
        taken
    }

    /// Fits the size of the window to its reader.
    pub fn adapt(&mut self, least: u32, most: u32, now: Instant) {
        let Some(exhausted) = self.exhausted else { return };
        let is_behind = now.saturating_duration_since(exhausted) > BEHIND;
        if self.unread == 0 {
            self.exhausted = None;
            if !is_behind {
                self.size = self.size.saturating_mul(2).min(most);
            }
        } else if is_behind {
            self.exhausted = Some(now);
            self.size = (self.size / 2).max(least);
        }
    }

    /// What could be granted now.
    fn room(&self) -> u32 {
        self.size.saturating_sub(self.granted.saturating_add(self.unread))
    }

    /// Whether enough could be granted to be worth a frame.
    pub fn is_worth_a_frame(&self) -> bool {
        self.room() >= self.size / 2
    }

    /// Grants all that can be; says how much that is.
    pub fn grant(&mut self) -> u32 {
        let room = self.room();
        self.granted += room;
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1024;

    fn round(window: &mut Window, at: Instant, taken_at: Instant) -> u32 {
        window.receive(window.granted(), at);
        window.consume(usize::MAX);
        window.adapt(64 * KIB, 1024 * KIB, taken_at);
        window.grant()
    }

    #[test]
    fn a_window_grows_while_its_reader_keeps_up() {
        let now = Instant::now();
        let mut window = Window::new(64 * KIB, 64 * KIB);
        let grants: Vec<u32> = (0..6).map(|_| round(&mut window, now, now) / KIB).collect();
        assert_eq!(grants, [128, 256, 512, 1024, 1024, 1024]);
    }

    #[test]
    fn a_window_does_not_grow_for_a_reader_that_was_behind() {
        let now = Instant::now();
        let mut window = Window::new(64 * KIB, 64 * KIB);
        assert_eq!(round(&mut window, now, now + BEHIND * 2), 64 * KIB);
    }

    #[test]
    fn a_window_does_not_grow_while_the_peer_has_credit_left() {
        let now = Instant::now();
        let mut window = Window::new(64 * KIB, 64 * KIB);
        for _ in 0..100 {
            window.receive(40 * KIB, now);
            window.consume(usize::MAX);
            window.adapt(64 * KIB, 1024 * KIB, now);
            assert_eq!(window.grant(), 40 * KIB);
        }
    }

    #[test]
    fn a_window_shrinks_while_its_reader_is_behind() {
        let now = Instant::now();
        let mut window = Window::new(1024 * KIB, 1024 * KIB);
        window.receive(1024 * KIB, now);
        for second in 1..=10 {
            window.consume(10 * 1024);
            window.adapt(64 * KIB, 1024 * KIB, now + (BEHIND + Duration::from_millis(1)) * second);
        }
        assert_eq!(window.grant(), 0, "more is unread than the window holds now");
        window.consume(usize::MAX);
        assert_eq!(window.grant(), 64 * KIB);
    }
}
