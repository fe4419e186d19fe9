//! The link: holds each packet for its delay, loses some, and carries no more than its rate.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::settings::Link;

/// The entry of one way.
struct Entry {
    link: Link,
    random: SmallRng,
    /// When the last packet is through.
    busy_until: Instant,
}

/// Carries packets both ways until it is killed.
pub fn run(link: Link) -> anyhow::Result<()> {
    let left: File = io::stdin().as_fd().try_clone_to_owned()?.into();
    let right: File = io::stdout().as_fd().try_clone_to_owned()?.into();
    let ways = [(left.try_clone()?, right.try_clone()?, 1), (right, left, 2)].map(|(from, to, seed)| {
        let entry = Entry { link, random: SmallRng::seed_from_u64(seed), busy_until: Instant::now() };
        let (hold, held) = mpsc::channel();
        std::thread::spawn(move || take_in(from, entry, &hold));
        std::thread::spawn(move || deliver(to, &held))
    });
    for way in ways {
        let _ = way.join();
    }
    Ok(())
}

fn take_in(mut from: File, mut entry: Entry, hold: &mpsc::Sender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length) = from.read(&mut buffer) {
        if let Some(due) = entry.due(length, Instant::now())
            && hold.send((due, buffer[..length].to_vec())).is_err()
        {
            return;
        }
    }
}

#[allow(clippy::disallowed_methods)] // a thread of its own, whose work is to be late
fn deliver(mut to: File, held: &mpsc::Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, packet)) = held.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A device that takes no more loses the packet, as a link would.
        let _ = to.write(&packet);
    }
}

impl Entry {
    /// When a packet comes out at the other end, if it does.
    fn due(&mut self, length: usize, now: Instant) -> Option<Instant> {
        let begins = self.busy_until.max(now);
        let is_full = begins - now > Duration::from_secs_f64(self.link.queue / 1e3);
        if is_full || self.random.random_bool(self.link.loss / 100.0) {
            return None;
        }
        let takes = if self.link.rate > 0.0 { length as f64 / (self.link.rate * 1e6) } else { 0.0 };
        self.busy_until = begins + Duration::from_secs_f64(takes);
        Some(self.busy_until + Duration::from_secs_f64(self.link.delay / 1e3))
    }
}
