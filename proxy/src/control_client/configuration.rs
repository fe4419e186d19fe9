//! The configuration lane of one stream: what was asked for on it, and what was told.

use std::collections::BTreeMap;

use postern_api::configuration::{ConfigurationKey, MAX_BYTES, Wanted};
use postern_api::convert::decode_exact;
use postern_api::{understanding, v1};

use crate::configuration::{KeyValue, Pushed, ServiceInstance};

/// A message in chunks may not grow past this: more means that the sender is broken.
const GATHERED_LIMIT: usize = 4 * MAX_BYTES;
/// Questions that are not answered yet; more means that the control plane does not answer.
const MAX_OPEN: usize = 1024;

/// What of the lane was asked and told on this stream.
#[derive(Debug, Default)]
pub(super) struct ConfigurationLane {
    number: u64,
    /// Not answered yet, by number.
    asked: BTreeMap<u64, Wanted>,
    gathered: Option<Gathered>,
    pushed: Pushed,
}

#[derive(Debug, Default)]
struct Gathered {
    upserts: Vec<v1::Resource>,
    deletes: Vec<String>,
    bytes: usize,
}

/// What a whole message comes to.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub(super) pushed: Pushed,
    pub(super) ack: v1::Ack,
}

/// Whether a control plane that welcomed so answers a Watch.
pub(super) fn is_pushed_by(welcome: &v1::Welcome) -> bool {
    welcome.understands.iter().any(|what| what == understanding::CONFIGURATION)
}

impl ConfigurationLane {
    /// Whether nothing was asked for on this stream.
    pub(super) fn is_unasked(&self) -> bool {
        self.number == 0
    }

    /// The question for this.
    pub(super) fn ask(&mut self, wanted: Wanted) -> v1::Watch {
        self.number += 1;
        let watch = wanted.to_wire(self.number);
        self.asked.insert(self.number, wanted);
        if self.asked.len() > MAX_OPEN {
            self.asked.pop_first();
        }
        watch
    }

    /// Takes a chunk, and gives what it all comes to when it was the last.
    ///
    /// # Errors
    /// What of the message is not valid.
    pub(super) fn take(&mut self, delta: v1::Delta) -> Result<Option<Told>, &'static str> {
        let gathered = self.gathered.get_or_insert_default();
        gathered.bytes += delta.upserts.iter().map(|resource| resource.key.len() + resource.body.len()).sum::<usize>();
        gathered.bytes += delta.deletes.iter().map(String::len).sum::<usize>();
        if gathered.bytes > GATHERED_LIMIT {
            return Err("its configuration is longer than any may be");
        }
        gathered.upserts.extend(delta.upserts);
        gathered.deletes.extend(delta.deletes);
        if !delta.last {
            return Ok(None);
        }
        let Gathered { upserts, deletes, .. } = self.gathered.take().unwrap_or_default();
        if delta.complete {
            self.pushed = Pushed { answers: std::mem::take(&mut self.pushed.answers), ..Pushed::default() };
        }
        for key in &deletes {
            self.forget(key);
        }
        let nacks: Vec<v1::Nack> = upserts.into_iter().filter_map(|resource| self.hold(resource)).collect();
        if let Some(answered) = self.asked.get(&delta.watch) {
            self.pushed.answers = answered.clone();
        }
        self.asked.retain(|number, _| *number >= delta.watch);
        let ack = v1::Ack { lane: v1::Lane::Configuration.into(), position: delta.to, nacks, ..v1::Ack::default() };
        Ok(Some(Told { pushed: self.pushed.clone(), ack }))
    }

    fn forget(&mut self, key: &str) {
        match key.parse() {
            Ok(ConfigurationKey::Value(key)) => {
                self.pushed.values.remove(&key);
            }
            Ok(ConfigurationKey::Instance(service, id)) => {
                if let Some(instances) = self.pushed.instances.get_mut(&service) {
                    instances.remove(&id);
                }
            }
            Ok(ConfigurationKey::Refused(asked)) => {
                self.pushed.refused.remove(&asked);
            }
            // It was not held either.
            Err(_) => {}
        }
    }

    /// Holds a resource, or gives why it is not understood: it is as if it were not there.
    fn hold(&mut self, resource: v1::Resource) -> Option<v1::Nack> {
        let key = match resource.key.parse::<ConfigurationKey>() {
            Ok(key) => key,
            Err(error) => return Some(v1::Nack { key: resource.key, why: error.to_string() }),
        };
        let held = match key {
            ConfigurationKey::Value(key) => decode_exact::<v1::KvBody>(&resource.body).map(|body| {
                let value = KeyValue { bytes: body.value, flags: body.flags };
                self.pushed.values.insert(key, value);
            }),
            ConfigurationKey::Instance(service, id) => decode_exact::<v1::InstanceBody>(&resource.body).map(|body| {
                self.pushed.instances.entry(service).or_default().insert(id, instance(body));
            }),
            ConfigurationKey::Refused(asked) => decode_exact::<v1::RefusedBody>(&resource.body).map(|body| {
                self.pushed.refused.insert(asked, body.why);
            }),
        };
        let error = held.err()?;
        self.forget(&resource.key);
        Some(v1::Nack { key: resource.key, why: error.to_string() })
    }
}

fn instance(body: v1::InstanceBody) -> ServiceInstance {
    ServiceInstance {
        id: body.id,
        address: body.address,
        port: u16::try_from(body.port).unwrap_or(0),
        tags: body.tags,
        meta: body.meta.into_iter().map(|label| (label.key, label.value)).collect(),
        has_sidecar: body.has_sidecar,
    }
}

#[cfg(test)]
mod tests {
    use postern_api::configuration::Asked;
    use prost::Message;

    use super::*;

    fn value(key: &str, value: &str) -> v1::Resource {
        let body = v1::KvBody { value: value.to_owned().into(), flags: 0 };
        v1::Resource { key: format!("kv/{key}"), revision: 1, body: body.encode_to_vec().into() }
    }

    fn delta(watch: u64, upserts: Vec<v1::Resource>) -> v1::Delta {
        v1::Delta { lane: v1::Lane::Configuration.into(), watch, upserts, last: true, ..v1::Delta::default() }
    }

    fn keys(keys: &[&str]) -> Wanted {
        Wanted { keys: keys.iter().map(ToString::to_string).collect(), ..Wanted::default() }
    }

    fn held(told: &Told) -> Vec<(&str, &[u8])> {
        told.pushed.values.iter().map(|(key, value)| (key.as_str(), &value.bytes[..])).collect()
    }

    #[test]
    fn an_answer_says_which_question_it_is_for() {
        let mut lane = ConfigurationLane::default();
        lane.ask(keys(&["a"]));
        lane.ask(keys(&["a", "b"]));
        let first = lane.take(delta(1, vec![value("a", "1")])).unwrap().unwrap();
        assert_eq!(first.pushed.answers, keys(&["a"]));
        let second = lane.take(delta(2, Vec::new())).unwrap().unwrap();
        assert_eq!(second.pushed.answers, keys(&["a", "b"]));
        assert_eq!(held(&second), [("a", b"1".as_slice())], "b is not there");
    }

    #[test]
    fn chunks_count_when_the_last_has_come_and_a_complete_message_forgets() {
        let mut lane = ConfigurationLane::default();
        lane.ask(keys(&["a", "b", "c"]));
        lane.take(delta(1, vec![value("c", "0")])).unwrap();
        let first = v1::Delta { last: false, complete: true, ..delta(1, vec![value("a", "1")]) };
        assert_eq!(lane.take(first).unwrap(), None);
        let last = v1::Delta { complete: true, ..delta(1, vec![value("b", "2")]) };
        let told = lane.take(last).unwrap().unwrap();
        assert_eq!(held(&told), [("a", b"1".as_slice()), ("b", b"2")]);
        let gone = v1::Delta { deletes: vec!["kv/a".into()], ..delta(1, Vec::new()) };
        assert_eq!(held(&lane.take(gone).unwrap().unwrap()), [("b", b"2".as_slice())]);
    }

    #[test]
    fn what_is_not_understood_is_not_there_and_named() {
        let mut lane = ConfigurationLane::default();
        lane.ask(keys(&["a"]));
        lane.take(delta(1, vec![value("a", "1")])).unwrap();
        let later = v1::Resource { key: "kv/a".into(), revision: 2, body: vec![0].into() };
        let unknown = v1::Resource { key: "moon/a".into(), ..later.clone() };
        let told = lane.take(delta(1, vec![later, unknown])).unwrap().unwrap();
        assert!(held(&told).is_empty());
        assert_eq!(told.ack.nacks.iter().map(|nack| nack.key.as_str()).collect::<Vec<_>>(), ["kv/a", "moon/a"]);
    }

    #[test]
    fn a_refusal_comes_and_goes() {
        let mut lane = ConfigurationLane::default();
        lane.ask(keys(&["a"]));
        let body = v1::RefusedBody { why: "no".into() }.encode_to_vec().into();
        let refused = v1::Resource { key: "refused/key/a".into(), revision: 1, body };
        let told = lane.take(delta(1, vec![refused])).unwrap().unwrap();
        assert_eq!(told.pushed.refused[&Asked::Key("a".into())], "no");
        let gone = v1::Delta { deletes: vec!["refused/key/a".into()], ..delta(1, Vec::new()) };
        assert!(lane.take(gone).unwrap().unwrap().pushed.refused.is_empty());
    }

    #[test]
    fn more_than_any_answer_may_hold_is_refused() {
        let mut lane = ConfigurationLane::default();
        let huge = |_| v1::Delta { last: false, ..delta(1, vec![value("a", &"x".repeat(1 << 20))]) };
        assert!((0..16).map(huge).try_for_each(|delta| lane.take(delta).map(|_| ())).is_err());
    }
}
