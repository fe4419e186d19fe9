//! The load: what is asked of a pair, and what the pair used for it. The load's own CPU time does not count.

mod aged;
mod bulk;
mod fresh;
mod h2load;
mod idle;
mod requests;
mod schedule;
mod wrk;

pub use aged::age;
pub use bulk::{Direction, bulk};
pub use fresh::{Ending, fresh_connections};
pub use h2load::{Asked, h2load};
pub use idle::{idle_after_burst, idle_connections};
pub use requests::requests;
pub use schedule::{Latency, at_fixed_rate};
pub use wrk::wrk;

use std::time::Duration;

/// Work that was done, and what it took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Requests, connections, or bytes.
    pub units: f64,
    /// User and system time of the pair.
    pub cpu: Duration,
    /// From beginning to end.
    pub wall: Duration,
}

impl Cost {
    /// Microseconds of CPU time a unit.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.units
    }

    /// Units a second.
    pub fn rate(&self) -> f64 {
        self.units / self.wall.as_secs_f64()
    }
}
