//! The last half minute: windows of five seconds, the oldest of which is forgotten.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::{Edge, Histogram, Tally};

/// How long a window is.
pub const WINDOW: Duration = Duration::from_secs(5);
/// Windows that are counted together.
const WINDOWS: u64 = 6;
/// What [`Window`]s of all that is recent are about.
pub const RECENT: Duration = Duration::from_secs(WINDOW.as_secs() * WINDOWS);

/// Counts of a short time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// Connections, or HTTP requests.
    pub count: u64,
    /// Of those, what went through and failed.
    pub errors: u64,
    /// How long requests took.
    pub latency: Histogram,
}

impl Window {
    /// Adds another.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.errors = self.errors.saturating_add(other.errors);
        self.latency.merge(&other.latency);
    }

    /// Calls a second, of what is [`RECENT`].
    pub fn rate(&self) -> f64 {
        self.count as f64 / RECENT.as_secs_f64()
    }
}

/// The windows, by edge. At most one more than are counted.
#[derive(Debug, Default)]
pub(super) struct Recent {
    windows: VecDeque<(u64, BTreeMap<Arc<Edge>, Window>)>,
}

impl Recent {
    /// Counts what was told at `now`; what was seen before the windows is not recent.
    pub(super) fn record(&mut self, edge: &Arc<Edge>, tally: &Tally, now: SystemTime) {
        self.forget(now);
        if tally.last_seen + RECENT <= now {
            return;
        }
        let at = number_of(now);
        if self.windows.back().is_none_or(|(last, _)| *last < at) {
            self.windows.push_back((at, BTreeMap::new()));
        }
        let Some((_, newest)) = self.windows.back_mut() else { return };
        newest.entry(Arc::clone(edge)).or_default().merge(&Window {
            count: tally.count,
            errors: tally.errors,
            latency: tally.latency.clone(),
        });
    }

    /// Lets go of what is no longer recent, or is of a time that is yet to come since the clock was set back.
    pub(super) fn forget(&mut self, now: SystemTime) {
        let at = number_of(now);
        self.windows.retain(|(number, _)| *number + WINDOWS > at && *number <= at);
    }

    /// What is recent of an edge.
    pub(super) fn of(&self, edge: &Edge, now: SystemTime) -> Window {
        let at = number_of(now);
        let counted = self.windows.iter().filter(|(number, _)| *number + WINDOWS > at && *number <= at);
        let mut sum = Window::default();
        counted.filter_map(|(_, windows)| windows.get(edge)).for_each(|window| sum.merge(window));
        sum
    }

    /// Edges that were called lately.
    pub(super) fn edges(&self) -> impl Iterator<Item = &Arc<Edge>> {
        self.windows.iter().flat_map(|(_, windows)| windows.keys())
    }
}

fn number_of(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / WINDOW.as_secs()
}
