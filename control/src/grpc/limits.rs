//! How many connections one address may have before it has shown a certificate.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::GrpcSettings;

type Table = Mutex<HashMap<IpAddr, Arc<Semaphore>>>;

/// Connections without a verified certificate. Over the limit of its address a connection is parked unread, its
/// handshake's time not yet running; over the limit of all that are parked it is closed.
pub(super) struct AddressLimits {
    table: Arc<Table>,
    per_address: usize,
    open: Arc<Semaphore>,
    parked: AtomicUsize,
    max_parked: usize,
}

/// The place of one connection without a verified certificate; given back when dropped.
pub(super) struct Admission {
    permit: Option<OwnedSemaphorePermit>,
    _open: OwnedSemaphorePermit,
    table: Arc<Table>,
    block: IpAddr,
}

/// Counts one parked connection.
struct Parked<'a>(&'a AtomicUsize);

impl AddressLimits {
    pub(super) fn new(settings: &GrpcSettings) -> Self {
        Self {
            table: Arc::default(),
            per_address: settings.unauthenticated_per_address.max(1),
            open: Arc::new(Semaphore::new(settings.open_handshakes.max(1))),
            parked: AtomicUsize::new(0),
            max_parked: settings.parked,
        }
    }

    /// A place, once there is one; `None` where too many wait already.
    pub(super) async fn admit(&self, address: IpAddr) -> Option<Admission> {
        let block = block_of(address);
        let places = Arc::clone(self.table.lock().entry(block).or_insert_with(|| Arc::new(Semaphore::new(self.per_address))));
        let at_once = (Arc::clone(&places).try_acquire_owned(), Arc::clone(&self.open).try_acquire_owned());
        if let (Ok(permit), Ok(open)) = at_once {
            return Some(self.admission(permit, open, block));
        }
        let _parked = self.park()?;
        let permit = places.acquire_owned().await.ok()?;
        let open = Arc::clone(&self.open).acquire_owned().await.ok()?;
        Some(self.admission(permit, open, block))
    }

    fn admission(&self, permit: OwnedSemaphorePermit, open: OwnedSemaphorePermit, block: IpAddr) -> Admission {
        Admission { permit: Some(permit), _open: open, table: Arc::clone(&self.table), block }
    }

    fn park(&self) -> Option<Parked<'_>> {
        let parked = self
            .parked
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < self.max_parked).then_some(count + 1));
        parked.is_ok().then(|| Parked(&self.parked))
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        // The permit holds the semaphore too, so it goes first.
        drop(self.permit.take());
        if table.get(&self.block).is_some_and(|places| Arc::strong_count(places) == 1) {
            table.remove(&self.block);
        }
    }
}

/// One IPv4 address; a /64 of IPv6, which one host can use wholly.
fn block_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(per_address: usize, parked: usize) -> AddressLimits {
        AddressLimits::new(&GrpcSettings { unauthenticated_per_address: per_address, parked, ..GrpcSettings::default() })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn over_its_limit_an_address_waits_and_others_do_not() {
        let limits = limits(2, 10);
        let first = limits.admit(address("10.0.0.1")).await.unwrap();
        let _second = limits.admit(address("10.0.0.1")).await.unwrap();
        let third = limits.admit(address("::ffff:10.0.0.1"));
        tokio::pin!(third);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut third).await.is_err());
        assert!(limits.admit(address("10.0.0.2")).await.is_some());
        drop(first);
        assert!(tokio::time::timeout(Duration::from_secs(5), third).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn when_too_many_wait_the_newest_is_turned_away() {
        let limits = limits(1, 0);
        let _first = limits.admit(address("2001:db8::1")).await.unwrap();
        assert!(limits.admit(address("2001:db8::2")).await.is_none(), "the same /64");
        assert!(limits.admit(address("2001:db8:0:1::2")).await.is_some());
    }

    #[tokio::test]
    async fn an_address_without_connections_is_forgotten() {
        let limits = limits(2, 10);
        for _ in 0..3 {
            drop(limits.admit(address("10.0.0.1")).await);
        }
        assert!(limits.table.lock().is_empty());
    }
}
