//! When each session ends unless it is renewed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

/// The ends of sessions with a time to live. Not stored.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_id: HashMap<String, Instant>,
    in_order: BTreeSet<(Instant, String)>,
}

impl Deadlines {
    /// Begins or renews the time of a session.
    pub fn set(&mut self, id: &str, ttl: Duration, now: Instant) {
        self.forget(id);
        let end = now + ttl;
        self.by_id.insert(id.to_owned(), end);
        self.in_order.insert((end, id.to_owned()));
    }

    /// Begins the time of a session anew, if it did not end. Says whether.
    pub fn renew(&mut self, id: &str, ttl: Duration, now: Instant) -> bool {
        if self.by_id.get(id).is_none_or(|end| *end <= now) {
            return false;
        }
        self.set(id, ttl, now);
        true
    }

    /// The session has ended otherwise.
    pub fn forget(&mut self, id: &str) {
        if let Some(end) = self.by_id.remove(id) {
            self.in_order.remove(&(end, id.to_owned()));
        }
    }

    /// When the first one ends.
    pub fn first(&self) -> Option<Instant> {
        self.in_order.first().map(|(end, _)| *end)
    }

    /// Takes out those that have ended.
    pub fn ended(&mut self, now: Instant) -> Vec<String> {
        let mut ended = Vec::new();
        while let Some((end, _)) = self.in_order.first()
            && *end <= now
        {
            let Some((_, id)) = self.in_order.pop_first() else { break };
            self.by_id.remove(&id);
            ended.push(id);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn a_session_ends_after_its_time_and_not_before() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.set("a", TTL, start);
        deadlines.set("b", TTL * 2, start);
        assert_eq!(deadlines.first(), Some(start + TTL));
        assert!(deadlines.ended(start + TTL - Duration::from_millis(1)).is_empty());
        assert!(deadlines.renew("a", TTL, start + Duration::from_secs(9)));
        assert!(deadlines.ended(start + TTL).is_empty());
        assert_eq!(deadlines.ended(start + Duration::from_secs(19)), ["a"]);
        assert!(!deadlines.renew("a", TTL, start + Duration::from_secs(19)), "what ended stays ended");
        assert!(!deadlines.renew("b", TTL, start + TTL * 2), "even before it was looked at");
        deadlines.forget("b");
        assert_eq!(deadlines.first(), None);
    }
}
