//! Layers of a graph: whoever calls stands before what it calls, as far as there are no circles.

use std::collections::{BTreeMap, BTreeSet};

use postern_names::ServiceName;

/// What a service calls.
type Calls<'a> = BTreeMap<&'a ServiceName, BTreeSet<&'a ServiceName>>;

/// The layer of each service: the longest way to it from one that nobody calls. Calls that close a circle count for
/// nothing.
pub fn layers(calls: &[(ServiceName, ServiceName)], others: Vec<ServiceName>) -> BTreeMap<ServiceName, usize> {
    let mut by_caller: Calls<'_> = BTreeMap::new();
    for (source, destination) in calls {
        by_caller.entry(source).or_default().insert(destination);
        by_caller.entry(destination).or_default();
    }
    let order = without_circles(&mut by_caller);
    let mut layers: BTreeMap<ServiceName, usize> = by_caller.keys().map(|name| ((*name).clone(), 0)).collect();
    for name in order {
        let next = layers.get(name).map_or(0, |layer| layer + 1);
        for called in by_caller.get(name).into_iter().flatten() {
            if let Some(layer) = layers.get_mut(*called) {
                *layer = next.max(*layer);
            }
        }
    }
    for name in others {
        layers.entry(name).or_insert(0);
    }
    layers
}

/// Takes out the calls that lead back, and gives an order in which every caller is before what it calls. Those that nobody
/// calls are begun with.
fn without_circles<'a>(calls: &mut Calls<'a>) -> Vec<&'a ServiceName> {
    let called: BTreeSet<&ServiceName> = calls.values().flatten().copied().collect();
    let (first, rest): (Vec<&ServiceName>, Vec<&ServiceName>) = calls.keys().copied().partition(|name| !called.contains(name));
    let mut ended: Vec<&ServiceName> = Vec::new();
    let mut known: BTreeSet<&ServiceName> = BTreeSet::new();
    for begin in first.into_iter().chain(rest) {
        if !known.insert(begin) {
            continue;
        }
        // The way to where we are, with what is still to be looked at from each place.
        let mut way = vec![(begin, to_visit(calls, begin))];
        while let Some((name, left)) = way.last_mut() {
            let name = *name;
            let Some(next) = left.pop() else {
                ended.push(name);
                way.pop();
                continue;
            };
            if way.iter().any(|(on_way, _)| *on_way == next) {
                calls.entry(name).or_default().remove(next);
            } else if known.insert(next) {
                way.push((next, to_visit(calls, next)));
            }
        }
    }
    ended.reverse();
    ended
}

fn to_visit<'a>(calls: &Calls<'a>, name: &ServiceName) -> Vec<&'a ServiceName> {
    calls.get(name).map(|called| called.iter().rev().copied().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(calls: &[(&str, &str)]) -> Vec<(String, usize)> {
        let calls: Vec<_> = calls.iter().map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).collect();
        layers(&calls, vec!["z".parse().unwrap()]).into_iter().map(|(name, layer)| (name.to_string(), layer)).collect()
    }

    #[test]
    fn the_longest_way_counts_and_circles_end() {
        let layers = of(&[("a", "b"), ("b", "c"), ("a", "c"), ("c", "a"), ("d", "d")]);
        let expected = [("a", 0), ("b", 1), ("c", 2), ("d", 0), ("z", 0)];
        assert_eq!(layers, expected.map(|(name, layer)| (name.to_owned(), layer)));
    }

    proptest! {
        #[test]
        fn without_circles_every_caller_is_before_what_it_calls(calls in prop::collection::vec((0u8..12, 1u8..12), 0..40)) {
            // A call leads to a higher number: there are no circles.
            let name = |number: u8| -> ServiceName { format!("s{number}").parse().unwrap() };
            let calls: Vec<_> = calls.into_iter().map(|(a, more)| (name(a), name(a + more))).collect();
            let layers = layers(&calls, Vec::new());
            for (source, destination) in &calls {
                prop_assert!(layers[source] < layers[destination]);
            }
            for (name, layer) in &layers {
                let before = calls.iter().filter(|(_, destination)| destination == name).map(|(source, _)| layers[source] + 1).max();
                prop_assert_eq!(*layer, before.unwrap_or(0));
            }
        }

        #[test]
        fn with_circles_it_ends_and_all_are_there(calls in prop::collection::vec((0u8..12, 0u8..12), 0..40)) {
            let name = |number: u8| -> ServiceName { format!("s{number}").parse().unwrap() };
            let calls: Vec<_> = calls.into_iter().map(|(a, b)| (name(a), name(b))).collect();
            let layers = layers(&calls, Vec::new());
            prop_assert!(calls.iter().all(|(a, b)| layers.contains_key(a) && layers.contains_key(b)));
            prop_assert!(layers.values().all(|layer| *layer < 12));
        }
    }
}
