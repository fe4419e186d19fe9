//! The last decisions of each pair, for whoever asks why.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use postern_api::http::SeenDecision;
use postern_names::ServiceName;

/// Decisions of a pair.
pub(super) const OF_PAIR: usize = 10;
/// Pairs; the one of which nothing was told for the longest time gives way.
const PAIRS: usize = 2_000;

type Pair = (ServiceName, ServiceName);

/// The last decisions, by pair.
#[derive(Debug, Default)]
pub(super) struct Lately {
    pairs: HashMap<Pair, (u64, VecDeque<Arc<SeenDecision>>)>,
    /// Pairs by when they were told last.
    order: BTreeMap<u64, Pair>,
    next: u64,
}

impl Lately {
    pub(super) fn add(&mut self, decision: Arc<SeenDecision>) {
        let pair = (decision.source.clone(), decision.destination.clone());
        self.next += 1;
        let (at, decisions) = self.pairs.entry(pair.clone()).or_default();
        self.order.remove(at);
        *at = self.next;
        self.order.insert(self.next, pair);
        decisions.push_front(decision);
        decisions.truncate(OF_PAIR);
        while self.pairs.len() > PAIRS {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.pairs.remove(&oldest);
        }
    }

    /// The newest first.
    pub(super) fn of(&self, source: &ServiceName, destination: &ServiceName) -> Vec<Arc<SeenDecision>> {
        let pair = (source.clone(), destination.clone());
        self.pairs.get(&pair).map(|(_, decisions)| decisions.iter().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use postern_edges::Verdict;
    use postern_intentions::Protocol;
    use postern_names::PortName;

    use super::*;

    fn decision(source: &str, count: u32) -> Arc<SeenDecision> {
        Arc::new(SeenDecision {
            at: String::new(),
            source: source.parse().unwrap(),
            destination: "api".parse().unwrap(),
            instance: "api-1".parse().unwrap(),
            port: PortName::main(),
            protocol: Protocol::Tcp,
            verdict: Verdict::Deny,
            because: "default (deny)".into(),
            method: None,
            path: None,
            status: None,
            count,
        })
    }

    #[test]
    fn the_newest_of_each_pair_are_kept_and_the_quietest_pair_gives_way() {
        let mut lately = Lately::default();
        for count in 1..=20 {
            lately.add(decision("web", count));
        }
        let counts = |lately: &Lately, source: &str| -> Vec<u32> {
            lately.of(&source.parse().unwrap(), &"api".parse().unwrap()).iter().map(|decision| decision.count).collect()
        };
        assert_eq!(counts(&lately, "web"), (11..=20).rev().collect::<Vec<_>>());
        for number in 0..PAIRS - 1 {
            lately.add(decision(&format!("s{number}"), 1));
        }
        lately.add(decision("web", 21));
        lately.add(decision("late", 1));
        assert_eq!((counts(&lately, "web")[0], counts(&lately, "s0").len(), counts(&lately, "late").len()), (21, 0, 1));
        assert_eq!((lately.pairs.len(), lately.order.len()), (PAIRS, PAIRS));
    }
}
