//! What strangers can take from this sidecar, and how connections wait for their turn.
//!
//! A handshake is computed within single polls of its task, so a worker (one thread) computes at most one at a time and
//! nothing waits for a peer while it holds anything but its own place: the limit of 8 needs no permits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use crate::http::limits::HttpLimits;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much of everything one data plane serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The whole time that a TLS handshake may take.
    pub handshake: Duration,
    /// Handshakes that are under way at once.
    pub handshakes: usize,
    /// Connections without a verified certificate at work, for one address (IPv4) or network (IPv6 /64).
    pub unauthenticated_per_address: usize,
    /// Connections over that number that wait, of all addresses together; over it the newest is closed.
    pub parked: usize,
    /// Inbound connections with a verified certificate.
    pub max_connections: usize,
    /// Inbound connections of one peer service.
    pub max_connections_per_peer: usize,
    /// The time to connect to another instance.
    pub dial: Duration,
    /// Instances that are tried for one outbound connection.
    pub dial_attempts: usize,
    /// The time to connect to the service of this host.
    pub local_dial: Duration,
    /// Tunnels to one instance.
    pub tunnels_per_instance: usize,
    /// Tunnels that the instances of one service dial from one address.
    pub tunnels_per_address: usize,
    /// Received bytes that wait for slow readers, of all tunnels; over it no peer is given new credit.
    pub unread: usize,
    /// The same, of the tunnels of one peer service.
    pub unread_per_peer: usize,
    /// A tunnel that had no stream for so long is closed by the end that dialled it.
    pub tunnel_idle: Duration,
    /// Whether calls are counted for the control plane.
    pub counts_calls: bool,
    /// Of HTTP connections and requests.
    pub http: HttpLimits,
}

impl Limits {
    /// The defaults with `max_connections`, and a quarter of it for one peer unless `per_peer` says otherwise.
    pub fn with_max_connections(max_connections: usize, per_peer: Option<usize>) -> Self {
        let max_connections_per_peer = per_peer.unwrap_or(max_connections / 4).max(1);
        Self {
            handshake: Duration::from_secs(5),
            handshakes: 1_024,
            unauthenticated_per_address: 64,
            parked: 1_024,
            max_connections,
            max_connections_per_peer,
            dial: Duration::from_secs(2),
            dial_attempts: 3,
            local_dial: Duration::from_secs(2),
            tunnels_per_instance: 16,
            tunnels_per_address: 128,
            unread: 64 * 1024 * 1024,
            unread_per_peer: 16 * 1024 * 1024,
            tunnel_idle: Duration::from_secs(60),
            counts_calls: true,
            http: HttpLimits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::with_max_connections(10_000, None)
    }
}

/// Where connections without a verified certificate wait and work.
///
/// A connection enters when it is accepted. It is at work from its first byte on, when one of the places of its address
/// is free; one that says nothing takes none of them, so silent connections keep nobody out.
#[derive(Debug)]
pub struct Admission {
    per_address: usize,
    parked_most: usize,
    all_places: Arc<Semaphore>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    addresses: HashMap<Address, AddressLoad>,
    parked: usize,
}

#[derive(Debug)]
struct AddressLoad {
    entered: usize,
    places: Arc<Semaphore>,
}

/// What counts as one address: an IPv6 host owns a whole /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Address {
    V4([u8; 4]),
    V6Network([u16; 4]),
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let segments = v6.segments();
                Self::V6Network([segments[0], segments[1], segments[2], segments[3]])
            }
        }
    }
}

impl Admission {
    /// Makes the places that `limits` grants.
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            per_address: limits.unauthenticated_per_address,
            parked_most: limits.parked,
            all_places: Arc::new(Semaphore::new(limits.handshakes)),
            inner: Mutex::default(),
        })
    }

    /// Lets a new connection in; `None` when its address has its share and no more can be parked.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Visit> {
        let address = Address::from(address);
        let mut inner = self.inner.lock();
        let entered = inner.addresses.get(&address).map_or(0, |load| load.entered);
        let parked = entered >= self.per_address;
        if parked && inner.parked >= self.parked_most {
            return None;
        }
        inner.parked += usize::from(parked);
        let load = inner
            .addresses
            .entry(address)
            .or_insert_with(|| AddressLoad { entered: 0, places: Arc::new(Semaphore::new(self.per_address)) });
        load.entered += 1;
        let places = load.places.clone();
        drop(inner);
        Some(Visit { admission: self.clone(), address, parked, places })
    }

    /// Connections that are parked now.
    pub fn parked(&self) -> usize {
        self.inner.lock().parked
    }
}

/// A connection that was let in; it leaves when this is dropped.
#[derive(Debug)]
pub struct Visit {
    admission: Arc<Admission>,
    address: Address,
    parked: bool,
    places: Arc<Semaphore>,
}

/// A place at work, given back when dropped.
#[derive(Debug)]
pub struct Place {
    _of_address: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Visit {
    /// Waits for a place at work, in the order of asking.
    pub async fn place(&self) -> Option<Place> {
        let of_address = self.places.clone().acquire_owned().await.ok()?;
        let of_all = self.admission.all_places.clone().acquire_owned().await.ok()?;
        Some(Place { _of_address: of_address, _of_all: of_all })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut inner = self.admission.inner.lock();
        inner.parked -= usize::from(self.parked);
        if let Some(load) = inner.addresses.get_mut(&self.address) {
            load.entered -= 1;
            if load.entered == 0 {
                inner.addresses.remove(&self.address);
            }
        }
    }
}

/// Pauses between failed accepts: 5 ms, doubling to 1 s.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);

    /// The pause to make now.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(Self::LONGEST);
        pause
    }

    /// Begins again with the shortest pause.
    pub fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn admission(per_address: usize, parked: usize) -> Arc<Admission> {
        Admission::new(&Limits { unauthenticated_per_address: per_address, parked, ..Limits::default() })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn over_its_share_an_address_is_parked_and_then_refused() {
        let admission = admission(2, 1);
        let _held: Vec<_> = (0..3).map(|_| admission.enter(ip("192.0.2.1")).expect("let in")).collect();
        assert_eq!(admission.parked(), 1);
        assert!(admission.enter(ip("192.0.2.1")).is_none());
        assert!(admission.enter(ip("192.0.2.2")).is_some(), "another address has its own share");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let admission = admission(1, 0);
        let _held = admission.enter(ip("2001:db8::1")).expect("let in");
        assert!(admission.enter(ip("2001:db8::ffff:2")).is_none());
        assert!(admission.enter(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn a_mapped_address_counts_as_ipv4() {
        let admission = admission(1, 0);
        let _held = admission.enter(ip("192.0.2.1")).expect("let in");
        assert!(admission.enter(ip("::ffff:192.0.2.1")).is_none());
    }

    #[test]
    fn one_that_leaves_makes_room() {
        let admission = admission(1, 0);
        drop(admission.enter(ip("192.0.2.1")));
        assert!(admission.inner.lock().addresses.is_empty());
        assert!(admission.enter(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn silent_connections_take_no_place_at_work() {
        let admission = admission(2, 10);
        let _silent: Vec<_> = (0..5).map(|_| admission.enter(ip("192.0.2.1")).expect("let in")).collect();
        let talks = admission.enter(ip("192.0.2.1")).expect("let in");
        let mut place = Box::pin(talks.place());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(place.as_mut().poll(&mut cx), Poll::Ready(Some(_))));
    }

    #[test]
    fn accept_pauses_double_up_to_a_second() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..10).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), 5);
    }
}
