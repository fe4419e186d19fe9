//! Whether one stream takes the tunnel for itself.

use std::time::{Duration, Instant};

const HALF_SECOND: u32 = 500;
const QUIET: Duration = Duration::from_secs(1);

/// A transfer is bulk, whatever the link carries, when it goes on for so many of the last 1,000 milliseconds,
const LONG: u32 = 250;
/// moves so many bytes in them,
const MUCH: u32 = 128 * 1024;
/// and so many for each time that its direction changes: a conversation is not a transfer.
const A_TURN: u32 = 16 * 1024;
/// Bytes that come further apart than so many milliseconds belong to two transfers.
const PAUSE: u32 = 50;

/// The way of bytes on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Way {
    #[default]
    In,
    Out,
}

/// What one stream moved in the present half second and in the one before. Two halves are at most one second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    half: u32,
    present: Half,
    before: Half,
    /// The last bytes.
    last: u32,
    way: Way,
}

#[derive(Debug, Clone, Copy, Default)]
struct Half {
    bytes: u32,
    turns: u32,
    /// Milliseconds between bytes that belong together.
    moving: u32,
}

impl Half {
    fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            turns: self.turns.saturating_add(other.turns),
            moving: self.moving + other.moving,
        }
    }

    /// Whether it is a transfer that the link, and not the sender, makes long.
    fn is_long_transfer(self) -> bool {
        self.moving >= LONG && self.bytes >= MUCH && self.bytes / A_TURN >= self.turns
    }
}

impl Moved {
    fn add(&mut self, way: Way, bytes: usize, millisecond: u32) -> Half {
        let half = millisecond / HALF_SECOND;
        if half != self.half {
            self.before = if half == self.half.wrapping_add(1) { self.present } else { Half::default() };
            self.present = Half::default();
            self.half = half;
        }
        let passed = millisecond.wrapping_sub(self.last);
        if passed <= PAUSE {
            self.present.moving += passed;
        }
        if way != self.way {
            self.present.turns = self.present.turns.saturating_add(1);
        }
        (self.way, self.last) = (way, millisecond);
        self.present.bytes = self.present.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.present.and(self.before)
    }
}

/// Tells when any stream of the tunnel moved more than a bound within a second, or is at a long transfer.
#[derive(Debug)]
pub(super) struct Busyness {
    bound: u32,
    begun: Instant,
    now: Instant,
    millisecond: u32,
    last: Option<Instant>,
}

impl Busyness {
    pub fn new(bound: u32, now: Instant) -> Self {
        Self { bound, begun: now, now, millisecond: 0, last: None }
    }

    /// Once a turn, so that no frame needs to know the time.
    pub fn advance(&mut self, now: Instant) {
        self.now = now;
        self.millisecond = now.saturating_duration_since(self.begun).as_millis() as u32;
    }

    pub fn count(&mut self, moved: &mut Moved, way: Way, bytes: usize) {
        let within_a_second = moved.add(way, bytes, self.millisecond);
        if within_a_second.bytes > self.bound || within_a_second.is_long_transfer() {
            self.last = Some(self.now);
        }
    }

    /// Until no stream was over the bound for a second.
    pub fn is_busy(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) < QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a tunnel is busy after three seconds of this, every so many milliseconds.
    fn is_busy(every: u64, moves: &[(Way, usize)]) -> bool {
        let begun = Instant::now();
        let mut busyness = Busyness::new(4 * 1024 * 1024, begun);
        let mut moved = Moved::default();
        for turn in 0..3_000 / every {
            busyness.advance(begun + Duration::from_millis(turn * every));
            moves.iter().for_each(|(way, bytes)| busyness.count(&mut moved, *way, *bytes));
        }
        busyness.is_busy(begun + Duration::from_secs(3))
    }

    #[test]
    fn a_transfer_over_a_slow_link_is_bulk() {
        assert!(is_busy(2, &[(Way::In, 1_448)]), "724 kB a second");
        assert!(is_busy(40, &[(Way::Out, 16_384)]), "410 kB a second");
    }

    #[test]
    fn a_transfer_whose_reader_says_now_and_then_how_far_it_is_is_bulk() {
        assert!(is_busy(33, &[(Way::In, 32_768), (Way::Out, 13)]));
    }

    #[test]
    fn a_conversation_is_not_bulk() {
        assert!(!is_busy(10, &[(Way::Out, 200), (Way::In, 10_000)]), "1 MB a second in short answers");
        assert!(!is_busy(1, &[(Way::Out, 200), (Way::In, 1_500)]), "1.5 MB a second in very short answers");
    }

    #[test]
    fn answers_that_are_long_and_quickly_there_are_not_bulk() {
        assert!(!is_busy(100, &[(Way::Out, 200), (Way::In, 65_536), (Way::In, 65_536)]), "1.3 MB a second");
    }

    #[test]
    fn a_trickle_is_not_bulk() {
        assert!(!is_busy(10, &[(Way::In, 1_000)]));
    }
}
