//! Circuit breakers: how much is asked at once, at most.
//!
//! A [`Limit`] is a counter with a ceiling, a [`Permit`] one unit of it, given back when it is dropped. Nothing waits here:
//! over the ceiling a caller is refused at once, because a queue in front of an overloaded service only makes it slower.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::settings::CircuitBreakers;

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Connections to one instance.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests in flight to the whole service.
    Requests,
}

/// A circuit breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker open: {limit} {resource} at once is the limit; raise circuit_breakers.{resource} or add instances")]
pub struct Overloaded {
    /// What there is too much of.
    pub resource: Resource,
    /// How much is allowed.
    pub limit: u32,
}

/// How many of something there may be at once. Shared by all workers; changed in place when settings change.
#[derive(Debug)]
pub struct Limit {
    resource: Resource,
    ceiling: AtomicU32,
    used: AtomicU32,
}

/// One of what a [`Limit`] counts, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    limit: Arc<Limit>,
}

/// The breakers of one service. What belongs to one instance, its connections, is with the statistics of the instance.
#[derive(Debug, Clone)]
pub struct Breakers {
    requests: Arc<Limit>,
    pending: Arc<Limit>,
}

impl Limit {
    /// At most `ceiling` at once; 0: none.
    pub fn new(resource: Resource, ceiling: u32) -> Self {
        Self { resource, ceiling: AtomicU32::new(ceiling), used: AtomicU32::new(0) }
    }

    /// One more, if the ceiling allows it.
    ///
    /// # Errors
    /// [`Overloaded`] if there are as many as allowed.
    pub fn acquire(self: &Arc<Self>) -> Result<Permit, Overloaded> {
        let ceiling = self.ceiling.load(Ordering::Relaxed);
        let more = |used: u32| (used < ceiling).then(|| used + 1);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Permit { limit: self.clone() }),
            Err(_) => Err(Overloaded { resource: self.resource, limit: ceiling }),
        }
    }

    /// How many there are now.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Another ceiling from now on. What is above it already goes on.
    pub fn set_ceiling(&self, ceiling: u32) {
        self.ceiling.store(ceiling, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.used.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Breakers {
    /// As the settings of the service say.
    pub fn new(settings: &CircuitBreakers) -> Self {
        Self {
            requests: Arc::new(Limit::new(Resource::Requests, settings.requests)),
            pending: Arc::new(Limit::new(Resource::Pending, settings.pending)),
        }
    }

    /// New settings; what is in flight stays counted.
    pub fn set(&self, settings: &CircuitBreakers) {
        self.requests.set_ceiling(settings.requests);
        self.pending.set_ceiling(settings.pending);
    }

    /// A request to the service, held until its answer has ended. A retry is no further request.
    ///
    /// # Errors
    /// [`Overloaded`]: answered with 503 and `x-postern-overloaded`.
    pub fn request(&self) -> Result<Permit, Overloaded> {
        self.requests.acquire()
    }

    /// A request that has to wait for a connection, held while it waits.
    ///
    /// # Errors
    /// [`Overloaded`]: answered with 503 and `x-postern-overloaded`.
    pub fn pending(&self) -> Result<Permit, Overloaded> {
        self.pending.acquire()
    }

    /// Requests in flight and requests that wait, for metrics.
    pub fn used(&self) -> (u32, u32) {
        (self.requests.used(), self.pending.used())
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Acquire,
        Drop(usize),
        SetCeiling(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Acquire),
            3 => any::<usize>().prop_map(Step::Drop),
            1 => (0_u32..6).prop_map(Step::SetCeiling),
        ]
    }

    proptest! {
        #[test]
        fn a_limit_counts_like_a_list_of_permits(ceiling in 0_u32..6, steps in prop::collection::vec(step(), 0..60)) {
            let limit = Arc::new(Limit::new(Resource::Pending, ceiling));
            let (mut ceiling, mut held) = (ceiling, Vec::new());
            for step in steps {
                match step {
                    Step::Acquire => match limit.acquire() {
                        Ok(permit) => {
                            prop_assert!(held.len() < ceiling as usize);
                            held.push(permit);
                        }
                        Err(refused) => {
                            prop_assert!(held.len() >= ceiling as usize);
                            prop_assert_eq!(refused, Overloaded { resource: Resource::Pending, limit: ceiling });
                        }
                    },
                    Step::Drop(at) if !held.is_empty() => drop(held.swap_remove(at % held.len())),
                    Step::Drop(_) => {}
                    Step::SetCeiling(to) => {
                        ceiling = to;
                        limit.set_ceiling(to);
                    }
                }
                prop_assert_eq!(limit.used() as usize, held.len());
            }
        }
    }

    #[test]
    fn threads_never_hold_more_permits_than_the_ceiling() {
        let limit = Arc::new(Limit::new(Resource::Requests, 3));
        let peak = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let _permit = limit.acquire();
                        peak.fetch_max(limit.used(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(peak.into_inner() <= 3);
        assert_eq!(limit.used(), 0);
    }

    #[test]
    fn requests_and_waiting_requests_have_limits_of_their_own() {
        let breakers = Breakers::new(&CircuitBreakers { connections: 1, pending: 1, requests: 2 });
        let _one = breakers.request().expect("a permit");
        let _two = breakers.request().expect("a permit");
        let _waits = breakers.pending().expect("a permit");
        assert_eq!(breakers.request().unwrap_err().resource, Resource::Requests);
        let refused = breakers.pending().unwrap_err().to_string();
        assert_eq!(
            refused,
            "circuit breaker open: 1 pending at once is the limit; raise circuit_breakers.pending or add instances"
        );
        breakers.set(&CircuitBreakers { connections: 1, pending: 1, requests: 3 });
        assert!(breakers.request().is_ok());
    }
}
