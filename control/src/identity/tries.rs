//! Failed enrolments of one address: guessing is slow, and honest enrolments are free.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const WINDOW: Duration = Duration::from_secs(60);
/// Above so many addresses those whose minute is over are forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// Counts failures of each address within a minute that begins with the first of them.
#[derive(Debug)]
pub(super) struct FailedTries {
    limit: u32,
    addresses: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl FailedTries {
    pub fn new(limit: u32) -> Self {
        Self { limit, addresses: Mutex::default() }
    }

    /// Whether an address may try again.
    pub fn may_try(&self, address: IpAddr, now: Instant) -> bool {
        match self.addresses.lock().get(&network_of(address)) {
            Some((since, failures)) => now.duration_since(*since) >= WINDOW || *failures < self.limit,
            None => true,
        }
    }

    /// Counts a failure; false if it is one too many, as of tries that came at once.
    pub fn failed(&self, address: IpAddr, now: Instant) -> bool {
        let mut addresses = self.addresses.lock();
        if addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        let (since, failures) = addresses.entry(network_of(address)).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *failures) = (now, 0);
        }
        *failures = failures.saturating_add(1);
        *failures <= self.limit
    }
}

/// One IPv6 host has a /64 of addresses.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_try_of_a_minute_waits_for_the_next() {
        let (tries, start) = (FailedTries::new(10), Instant::now());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..10 {
            assert!(tries.may_try(address, start));
            assert!(tries.failed(address, start));
        }
        assert!(!tries.failed(address, start), "one that was let in at the same time");
        assert!(!tries.may_try(address, start + Duration::from_secs(59)));
        assert!(tries.may_try("192.0.2.2".parse().unwrap(), start), "another address is free");
        assert!(tries.may_try(address, start + WINDOW));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let (tries, now) = (FailedTries::new(1), Instant::now());
        tries.failed("2001:db8::1".parse().unwrap(), now);
        assert!(!tries.may_try("2001:db8::ffff:2".parse().unwrap(), now));
        assert!(tries.may_try("2001:db8:0:1::1".parse().unwrap(), now));
        tries.failed("::ffff:192.0.2.1".parse().unwrap(), now);
        assert!(!tries.may_try("192.0.2.1".parse().unwrap(), now));
    }
}
