//! How much the peer may send on one stream.

use std::time::{Duration, Instant};

/// A reader that left the peer without credit for longer than this does not keep up.
const BEHIND: Duration = Duration::from_secs(1);
/// What a reader takes is counted for as long as a round trip takes, within these bounds: below the one a larger window
/// only makes transfers larger, above the other nothing is known of how the reader will go on.
const ROUND: [Duration; 2] = [Duration::from_millis(2), BEHIND];
/// Credit is granted a quarter of the window at a time, but not less than this, nor more than half of the window.
const GRANT: u32 = 32 * 1024;

/// The receiving side of one stream's credit. What the peer may still send and what is unread are together at most the
/// largest window that it had.
///
/// A stream moves at most one window a round trip. So the window becomes twice what the reader took within a round trip,
/// if that is more than it is: it grows as long as it is what holds the peer up. It doubles also when the peer used all
/// its credit and the reader then took everything within a second. It halves for each second that a reader stays behind.
#[derive(Debug)]
pub(super) struct Window {
    size: u32,
    granted: u32,
    unread: u32,
    exhausted: Option<Instant>,
    /// When the present round trip began.
    round: Option<Instant>,
    /// What the reader took since.
    taken: u32,
}

impl Window {
    /// `granted` is what the peer may send without being told.
    pub fn new(granted: u32, size: u32) -> Self {
        Self { size, granted, unread: 0, exhausted: None, round: None, taken: 0 }
    }

    /// The part of the window that is over `bytes`.
    pub fn over(&self, bytes: u32) -> u32 {
        self.size.saturating_sub(bytes)
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
        self.taken = self.taken.saturating_add(taken);
        taken
    }

    /// Fits the size of the window to its reader, and to the round trip as far as that is known. True when it would have
    /// to know the round trip better: the reader took so much that the window may be what holds the peer up.
    pub fn adapt(&mut self, least: u32, most: u32, round_trip: Option<Duration>, now: Instant) -> bool {
        if let Some(exhausted) = self.exhausted {
            let is_behind = now.saturating_duration_since(exhausted) > BEHIND;
            if self.unread == 0 {
                self.exhausted = None;
                if !is_behind {
                    self.size = self.size.max(self.size.saturating_mul(2).min(most));
                }
            } else if is_behind {
                self.exhausted = Some(now);
                self.size = (self.size / 2).max(least);
            }
        }
        let may_grow = self.size < most;
        let may_be_small = may_grow && self.taken >= self.size / 2;
        let [shortest, longest] = ROUND;
        let round = round_trip.unwrap_or(longest).clamp(shortest, longest);
        let Some(begun) = self.round else {
            (self.round, self.taken) = (Some(now), 0);
            return may_be_small;
        };
        let passed = now.saturating_duration_since(begun);
        if passed >= round {
            if round_trip.is_some() && may_grow {
                let of_one = u128::from(self.taken) * round.as_micros() / passed.as_micros();
                let twice = u32::try_from(of_one.saturating_mul(2)).unwrap_or(u32::MAX);
                self.size = self.size.max(twice.min(most));
            }
            (self.round, self.taken) = (Some(now), 0);
        }
        may_be_small
    }

    /// What could be granted now.
    fn room(&self) -> u32 {
        self.size.saturating_sub(self.granted.saturating_add(self.unread))
    }

    /// Whether enough could be granted to be worth a frame.
    pub fn is_worth_a_frame(&self) -> bool {
        self.room() >= (self.size / 4).max(GRANT).min(self.size / 2)
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
        window.adapt(64 * KIB, 1024 * KIB, None, taken_at);
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
            window.adapt(64 * KIB, 1024 * KIB, None, now);
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
            window.adapt(64 * KIB, 1024 * KIB, None, now + (BEHIND + Duration::from_millis(1)) * second);
        }
        assert_eq!(window.grant(), 0, "more is unread than the window holds now");
        window.consume(usize::MAX);
        assert_eq!(window.grant(), 64 * KIB);
    }

    /// A peer that sends all that it may at once, to a reader that takes it `round_trip` later: what the window becomes.
    fn after_round_trips(round_trip: Duration, known: Option<Duration>, rounds: u32) -> Vec<u32> {
        let mut now = Instant::now();
        let mut window = Window::new(64 * KIB, 64 * KIB);
        let mut sizes = Vec::new();
        for _ in 0..rounds {
            // One byte short, so that the peer is never seen without credit.
            window.receive(window.granted() - 1, now);
            window.consume(usize::MAX);
            window.adapt(64 * KIB, 1024 * KIB, known, now);
            window.grant();
            sizes.push(window.size / KIB);
            now += round_trip;
        }
        sizes
    }

    #[test]
    fn a_window_that_holds_the_peer_up_grows_with_every_round_trip_although_it_is_never_seen_empty() {
        let round_trip = Duration::from_millis(20);
        assert_eq!(after_round_trips(round_trip, Some(round_trip), 8), [64, 127, 255, 511, 1023, 1024, 1024, 1024]);
    }

    #[test]
    fn a_window_that_holds_more_than_two_round_trips_does_not_grow() {
        let round_trip = Duration::from_millis(20);
        assert_eq!(after_round_trips(4 * round_trip, Some(round_trip), 8), [64; 8]);
    }

    #[test]
    fn without_a_round_trip_a_window_asks_for_one_and_does_not_grow() {
        let mut window = Window::new(64 * KIB, 64 * KIB);
        let now = Instant::now();
        window.receive(32 * KIB - 1, now);
        window.consume(usize::MAX);
        assert!(!window.adapt(64 * KIB, 1024 * KIB, None, now), "so little may be all that there is");
        window.receive(32 * KIB, now);
        window.consume(usize::MAX);
        assert!(window.adapt(64 * KIB, 1024 * KIB, None, now));
        assert_eq!(after_round_trips(Duration::from_millis(20), None, 8), [64; 8]);
    }

    #[test]
    fn a_slow_reader_gets_no_window_for_what_it_does_not_take() {
        let (round_trip, mut now) = (Duration::from_millis(20), Instant::now());
        let mut window = Window::new(64 * KIB, 64 * KIB);
        for _ in 0..1_000 {
            window.receive(window.granted().saturating_sub(1), now);
            window.consume(10 * 1024);
            window.adapt(64 * KIB, 1024 * KIB, Some(round_trip), now);
            window.grant();
            now += round_trip;
        }
        assert_eq!(window.size, 64 * KIB);
    }

    #[test]
    fn a_round_trip_that_a_peer_makes_long_counts_as_a_second() {
        let (mut now, forever) = (Instant::now(), Duration::from_secs(3_600));
        let mut window = Window::new(64 * KIB, 64 * KIB);
        for _ in 0..100 {
            window.receive(20 * KIB, now);
            window.consume(usize::MAX);
            window.adapt(64 * KIB, 1024 * KIB, Some(forever), now);
            window.grant();
            now += BEHIND;
        }
        assert_eq!(window.size, 64 * KIB, "40 KiB are twice what the reader takes in a second");
    }
}
