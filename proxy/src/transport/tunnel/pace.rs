//! How many bytes may wait before the network takes them.

use std::time::{Duration, Instant};

use super::MOST_DATA;

/// What waits is worth so much time, as long as the network always finds something to send.
const LEAST_TIME: Duration = Duration::from_millis(4);
/// The longest time that is spent to have it always find something.
const MOST_TIME: Duration = Duration::from_millis(40);
/// The fewest bytes that may wait in the socket.
const LEAST: usize = 8 * 1024;
/// What the kernel may join to a segment that waits, whatever it was told.
const JOINED: usize = 64 * 1024;
/// The most.
const MOST: usize = 256 * 1024;
/// What may wait in the socket as long as it was never full for long. What waits before it is then only bound by its buffer: many
/// streams that send little go out in one write.
const UNMEASURED: usize = JOINED;
/// The most that may wait for the socket: whole records, and not quite a large buffer.
const MOST_BEFORE: usize = 28 * MOST_DATA;
/// A rate is measured over so much time, or more.
const MEASURED: Duration = Duration::from_millis(10);
/// A sender that paused for longer than this was not held up by the network.
const PAUSE: Duration = Duration::from_millis(5);
/// After so many turns in which the socket did not run dry, less may wait.
const CALM: u32 = 16;
/// The fewest bytes of one write of bulk: three segments of an Ethernet, nearly full.
const LEAST_WRITE: usize = 4 * 1024;
/// A rate that was measured for so long counts alone.
const SURE: Duration = Duration::from_millis(40);

/// Measures how fast the network takes bytes, and says how many may wait for it: few milliseconds' worth, for what is sent
/// on another stream waits behind them.
///
/// The rate is only known while the socket is full. If the socket then had nothing left when the sender came again, the
/// sender comes too seldom for so few bytes, and more may wait, or the rate would follow the sender instead of the network.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second.
    rate: Option<u64>,
    /// What waits is worth so much time.
    time: Duration,
    calm: u32,
    full: Option<Full>,
    emptied: Option<Instant>,
    waits: usize,
}

/// A time in which the socket was full without a break.
#[derive(Debug)]
struct Full {
    since: Instant,
    took: u64,
    /// Since the socket was last seen full.
    took_of_turn: usize,
    /// The socket had nothing left at some moment, so the network could have taken more.
    ran_dry: bool,
}

impl Pace {
    pub fn new() -> Self {
        Self { rate: None, time: LEAST_TIME, calm: 0, full: None, emptied: None, waits: UNMEASURED }
    }

    /// The most bytes that may wait in the socket (TCP_NOTSENT_LOWAT).
    pub fn in_socket(&self) -> usize {
        self.waits
    }

    /// The most bytes that may wait for the socket.
    pub fn before_socket(&self) -> usize {
        if self.rate.is_none() || self.waits >= MOST { MOST_BEFORE } else { (self.waits / 4).max(LEAST_WRITE) }
    }

    /// Whether the link is so slow that the kernel must not join what is written to what waits: it would fill up to 64 KiB.
    pub fn is_slow(&self) -> bool {
        self.waits < JOINED
    }

    /// The socket took `bytes` and is full now, or took all that there was. True when [`Pace::in_socket`] changed.
    pub fn took(&mut self, bytes: usize, is_full: bool, now: Instant) -> bool {
        if self.emptied.is_some_and(|since| bytes > 0 && now.saturating_duration_since(since) > PAUSE) {
            self.full = None;
        }
        if bytes > 0 || is_full {
            self.emptied = None;
        }
        let Some(full) = &mut self.full else {
            if is_full {
                self.full = Some(Full { since: now, took: 0, took_of_turn: 0, ran_dry: false });
            }
            return false;
        };
        full.took += bytes as u64;
        full.took_of_turn += bytes;
        if !is_full {
            self.emptied.get_or_insert(now);
            return false;
        }
        if full.took_of_turn == 0 {
            return false;
        }
        // The sender comes when half of it is left, and then writes in quarters.
        let ran_dry = full.took_of_turn >= self.waits - self.waits / 8;
        full.took_of_turn = 0;
        full.ran_dry |= ran_dry;
        let passed = now.saturating_duration_since(full.since);
        self.judge(ran_dry);
        if passed < MEASURED {
            return false;
        }
        if let Some(full) = &mut self.full {
            let rate = u64::try_from(u128::from(full.took) * 1_000_000 / passed.as_micros()).unwrap_or(u64::MAX);
            self.rate = Some(match self.rate {
                None => rate,
                Some(before) if full.ran_dry => before.max(rate),
                Some(before) => {
                    let weight = passed.min(SURE).as_micros() as u64;
                    let all = SURE.as_micros() as u64;
                    (before / all * (all - weight)).saturating_add(rate / all * weight)
                }
            });
            (full.since, full.took, full.ran_dry) = (now, 0, false);
        }
        self.fit()
    }

    fn judge(&mut self, ran_dry: bool) {
        if ran_dry {
            self.calm = 0;
            self.time = (self.time * 2).min(MOST_TIME);
        } else {
            self.calm += 1;
            if self.calm >= CALM {
                self.calm = 0;
                self.time = (self.time - self.time / 8).max(LEAST_TIME);
            }
        }
    }

    fn fit(&mut self) -> bool {
        let Some(rate) = self.rate else { return false };
        let worth = u128::from(rate) * self.time.as_micros() / 1_000_000;
        let waits = usize::try_from(worth).unwrap_or(usize::MAX).clamp(LEAST, MOST);
        // A system call tells the socket; a little more or less is not worth one.
        let is_news = waits > self.waits + self.waits / 4 || waits < self.waits - self.waits / 4;
        if is_news {
            self.waits = waits;
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A socket that sends so many bytes a millisecond, and a sender that comes when less than half of what may wait in it
    /// is left, `late` milliseconds later, for two seconds. What may wait then, and the share of the rate that was sent.
    fn after(rate: usize, late: u32) -> (usize, f64) {
        let (mut pace, mut now) = (Pace::new(), Instant::now());
        let (mut waits, mut sent, mut wakes_in) = (0_usize, 0, None);
        for _ in 0..2_000 {
            now += MS;
            sent += waits.min(rate);
            waits -= waits.min(rate);
            if waits * 2 < pace.in_socket() && wakes_in.is_none() {
                wakes_in = Some(late);
            }
            match wakes_in {
                Some(0) => {
                    wakes_in = None;
                    // Buffer after buffer, until a segment would begin above the bound.
                    loop {
                        let buffer = pace.before_socket();
                        let joined = if pace.is_slow() { buffer } else { pace.in_socket() + JOINED - waits };
                        let took = if waits < pace.in_socket() { joined.min(buffer) } else { 0 };
                        waits += took;
                        pace.took(took, took < buffer, now);
                        if took < buffer {
                            break;
                        }
                    }
                }
                Some(left) => wakes_in = Some(left - 1),
                None => {}
            }
        }
        (pace.in_socket(), sent as f64 / (rate * 2_000) as f64)
    }

    #[test]
    fn little_waits_on_a_slow_link_and_much_on_a_fast_one() {
        for (rate, least, most) in [(100, 8, 16), (1_000, 8, 24), (10_000, 20, 80), (50_000, 128, 256), (1_000_000, 256, 256)] {
            let (waits, _) = after(rate, 0);
            assert!((least * 1024..=most * 1024).contains(&waits), "{waits} bytes at {rate} a millisecond");
        }
    }

    #[test]
    fn a_sender_that_comes_late_still_fills_the_link() {
        for rate in [1_000, 5_000, 20_000] {
            for late in [0, 1, 2, 5, 10] {
                let (_, share) = after(rate, late);
                assert!(share > 0.9 || rate * late as usize > MOST / 2, "{share} of {rate} a millisecond, {late} ms late");
            }
        }
    }

    #[test]
    fn a_sender_that_has_nothing_to_send_says_nothing_of_the_link() {
        let (mut pace, mut now) = (Pace::new(), Instant::now());
        for _ in 0..1_000 {
            pace.took(100_000, true, now);
            now += MS;
            pace.took(20_000, false, now);
            now += 100 * MS;
        }
        assert_eq!(pace.in_socket(), UNMEASURED);
    }
}
