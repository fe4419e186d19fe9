//! User events: short messages that are fired by anyone who may and seen by whoever waits for them. The last ones are
//! kept in memory, and are forgotten at a restart.

use std::collections::VecDeque;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;

/// How many events are remembered.
const MAX_EVENTS: usize = 256;
/// How many bytes an event may carry.
pub const MAX_PAYLOAD: usize = 4096;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserEvent {
    /// A UUID.
    pub id: String,
    /// What it is about.
    pub name: String,
    /// What it carries.
    pub payload: Bytes,
    /// For which nodes it is meant, as a regular expression of whoever listens; empty: all.
    pub node_filter: String,
    /// For which services.
    pub service_filter: String,
    /// For which tags of them.
    pub tag_filter: String,
    /// Its place among all events; rises with each.
    pub index: u64,
}

/// The last events.
#[derive(Debug)]
pub struct Events {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: VecDeque<UserEvent>,
    index: u64,
}

impl Events {
    /// No events yet. Indexes go on from the clock, so that they rise over restarts too.
    pub fn new(now: SystemTime) -> Self {
        let index = postern_api::convert::millis(now).max(1);
        Self { state: Mutex::new(State { last: VecDeque::new(), index }) }
    }

    /// Takes an event in and gives it its place.
    pub fn fire(&self, mut event: UserEvent) -> UserEvent {
        let mut state = self.state.lock();
        state.index += 1;
        event.index = state.index;
        state.last.push_back(event.clone());
        if state.last.len() > MAX_EVENTS {
            state.last.pop_front();
        }
        event
    }

    /// The events of a name (empty: all), the oldest first, and the index to wait from.
    pub fn list(&self, name: &str) -> (u64, Vec<UserEvent>) {
        let state = self.state.lock();
        let events: Vec<UserEvent> = state.last.iter().filter(|event| name.is_empty() || event.name == name).cloned().collect();
        let oldest = state.last.front().map_or(state.index, |event| event.index - 1);
        // Where none of the name is remembered, nothing newer than what was forgotten is known.
        (events.last().map_or(oldest, |event| event.index), events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str) -> UserEvent {
        UserEvent {
            id: String::new(),
            name: name.into(),
            payload: Bytes::new(),
            node_filter: String::new(),
            service_filter: String::new(),
            tag_filter: String::new(),
            index: 0,
        }
    }

    #[test]
    fn the_last_events_are_remembered_and_the_index_of_a_name_never_goes_down() {
        let events = Events::new(SystemTime::now());
        let start = events.list("a").0;
        let first = events.fire(event("a")).index;
        assert!(first > start);
        let mut last = first;
        for _ in 0..MAX_EVENTS * 2 {
            events.fire(event("b"));
            let (index, _) = events.list("a");
            assert!(index >= last, "{index} after {last}");
            last = index;
        }
        assert!(events.list("a").1.is_empty());
        assert_eq!(events.list("").1.len(), MAX_EVENTS);
        assert!(events.fire(event("a")).index > last);
    }
}
