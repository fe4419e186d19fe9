//! Configuration that one sidecar asked for with `Watch`: the keys that its service may read, and the healthy instances of
//! services.
//!
//! Topics of the mirror wake the stream when something that it watches changed; what is new to the sidecar is found by
//! comparing what there is with what was sent. Nothing is looked at in between.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use postern_api::configuration::{Asked, ConfigurationKey, MAX_BYTES, MAX_VALUES, Wanted};
use postern_api::v1;
use postern_checks::Status;
use postern_names::ServiceName;
use prost::Message;
use tokio::time::Instant;

use super::lanes::{Content, Lane};
use crate::acl::{Access, Resource, service_may};
use crate::kv::{KeyValues, StoredEntry};
use crate::mirror::{Topic, Topics, View, Waiting};
use crate::registry::Home;
use crate::registry::catalog::{Catalog, Entry};

/// What one sidecar watches, and what it was sent of that.
pub(super) struct Configuration {
    /// The number of the last Watch; 0: there was none.
    number: u64,
    /// What it asks for, or why it is told nothing of that.
    wanted: Result<Wanted, String>,
    /// `None` while there is nothing to wait for, or no place to wait.
    waiting: Option<Waiting>,
    lane: Lane,
    /// What the sidecar holds once it has acknowledged: the key, and what distinguishes states of it.
    sent: BTreeMap<ConfigurationKey, u64>,
    /// Something was sent on this stream.
    has_begun: bool,
    /// The last Watch that was answered.
    answered: u64,
}

/// A message of which the values are still sealed.
pub(super) struct Draft {
    watch: u64,
    complete: bool,
    facts: Vec<(ConfigurationKey, State)>,
    deletes: Vec<String>,
}

/// What a resource says.
#[derive(Debug, Clone, PartialEq)]
enum Fact {
    Value(StoredEntry),
    /// Encoded.
    Instance(Vec<u8>),
    Refused(String),
}

impl Fact {
    /// What it counts for; a sealed value is a few bytes longer than the value.
    fn bytes(&self) -> usize {
        match self {
            Self::Value(stored) => stored.sealed.len(),
            Self::Instance(body) => body.len(),
            Self::Refused(why) => why.len(),
        }
    }
}

/// What a key holds at one revision.
#[derive(Debug, Clone, PartialEq)]
struct State {
    /// Distinguishes states of the same key.
    mark: u64,
    /// What is told as the revision of its last change.
    revision: u64,
    fact: Fact,
}

/// All that a sidecar is to hold.
type Facts = BTreeMap<ConfigurationKey, State>;

impl Default for Configuration {
    fn default() -> Self {
        Self {
            number: 0,
            wanted: Ok(Wanted::default()),
            waiting: None,
            lane: Lane::idle(),
            sent: BTreeMap::new(),
            has_begun: false,
            answered: 0,
        }
    }
}

impl Configuration {
    /// Watches this from here on, in place of what was watched before.
    ///
    /// # Errors
    /// Why the sidecar breaks the rules of the stream.
    pub(super) fn watch(&mut self, watch: v1::Watch, topics: &Topics) -> Result<(), String> {
        if watch.number <= self.number {
            return Err(format!("Watch {} after Watch {}", watch.number, self.number));
        }
        self.number = watch.number;
        self.wanted = Wanted::from_wire(watch).map_err(|error| error.to_string());
        self.waiting = None;
        self.wait_again(topics);
        Ok(())
    }

    /// Takes a place among those who wait, where it has none, and looks at everything: what changed before is not known.
    pub(super) fn wait_again(&mut self, topics: &Topics) {
        if self.number == 0 || self.waiting.is_some() {
            return;
        }
        if let Ok(wanted) = &self.wanted {
            self.waiting = topics.wait_for(&topics_of(wanted));
        }
        self.lane.mark_everything(Instant::now());
    }

    /// Ready when something of it changed, which is then marked.
    pub(super) async fn changed(&mut self) {
        match &mut self.waiting {
            Some(waiting) => waiting.changed().await,
            None => std::future::pending().await,
        }
        self.lane.mark_everything(Instant::now());
    }

    /// What to send next: nothing while a message is in flight, or where nothing is new.
    pub(super) fn take(&mut self, view: &View, home: &Home, service: &ServiceName) -> Option<Draft> {
        if self.lane.is_settled() || self.lane.is_in_flight() {
            return None;
        }
        let facts = self.facts(view, home, service);
        let is_answer = self.answered != self.number;
        let deletes: Vec<String> = self.sent.keys().filter(|key| !facts.contains_key(key)).map(ToString::to_string).collect();
        let is_new = |(key, state): &(&ConfigurationKey, &State)| self.sent.get(key) != Some(&state.mark);
        let new: Vec<_> = facts.iter().filter(is_new).map(|(key, state)| (key.clone(), state.clone())).collect();
        if new.is_empty() && deletes.is_empty() && !is_answer {
            self.lane.forget_pending();
            return None;
        }
        self.lane.take(view.revision, Instant::now())?;
        self.sent = facts.into_iter().map(|(key, state)| (key, state.mark)).collect();
        self.answered = self.number;
        let complete = !std::mem::replace(&mut self.has_begun, true);
        Some(Draft { watch: self.number, complete, facts: new, deletes })
    }

    /// The message in flight was acknowledged; whether there was one of that revision.
    pub(super) fn acknowledge(&mut self, revision: u64) -> bool {
        self.lane.acknowledge(revision).is_some()
    }

    fn facts(&self, view: &View, home: &Home, service: &ServiceName) -> Facts {
        let refused = |why: String| Facts::from([(ConfigurationKey::Refused(Asked::Everything), State::refused(why))]);
        match &self.wanted {
            Ok(wanted) => gather(view, home, service, wanted).unwrap_or_else(refused),
            Err(why) => refused(why.clone()),
        }
    }
}

impl State {
    fn refused(why: String) -> Self {
        Self { mark: hash_of(why.as_bytes()), revision: 0, fact: Fact::Refused(why) }
    }
}

impl Draft {
    /// The Watch that it answers.
    pub(super) fn watch(&self) -> u64 {
        self.watch
    }

    /// Opens the values.
    pub(super) fn into_content(self, keys: &KeyValues) -> Content {
        let upserts = self.facts.into_iter().map(|(key, state)| resource(keys, &key, state)).collect();
        Content { complete: self.complete, upserts, deletes: self.deletes }
    }
}

fn resource(keys: &KeyValues, key: &ConfigurationKey, State { revision, fact, .. }: State) -> v1::Resource {
    let body = match (key, fact) {
        (ConfigurationKey::Value(name), Fact::Value(stored)) => match keys.open(name.as_bytes(), &stored) {
            Ok(value) => v1::KvBody { value: value.into(), flags: stored.flags }.encode_to_vec(),
            Err(error) => {
                tracing::error!(%error, "a value that a sidecar watches cannot be opened");
                // An empty flag and value would be taken for the value: a body that nobody understands is not.
                vec![0]
            }
        },
        (_, Fact::Value(_)) => vec![0],
        (_, Fact::Instance(body)) => body,
        (_, Fact::Refused(why)) => v1::RefusedBody { why }.encode_to_vec(),
    };
    v1::Resource { key: key.to_string(), revision, body: body.into() }
}

/// What is waited for; a change of access may allow or refuse any of it.
fn topics_of(wanted: &Wanted) -> Vec<Topic> {
    let keys = wanted.keys.iter().map(|key| Topic::Key(key.clone().into()));
    let prefixes = wanted.prefixes.iter().map(|prefix| Topic::KeysUnder(prefix.clone().into()));
    let services = wanted.services.iter().cloned().map(Topic::Service);
    keys.chain(prefixes).chain(services).chain([Topic::Access]).collect()
}

/// Everything that a service asks for and may know.
///
/// # Errors
/// Why it is too much.
fn gather(view: &View, home: &Home, service: &ServiceName, wanted: &Wanted) -> Result<Facts, String> {
    let mut gathered = Gathered { view, home, service, facts: Facts::new(), bytes: 0, values: 0 };
    for key in &wanted.keys {
        gathered.key(key)?;
    }
    for prefix in &wanted.prefixes {
        gathered.prefix(prefix)?;
    }
    for service in &wanted.services {
        gathered.instances(service)?;
    }
    Ok(gathered.facts)
}

struct Gathered<'a> {
    view: &'a View,
    home: &'a Home,
    service: &'a ServiceName,
    facts: Facts,
    bytes: usize,
    values: usize,
}

impl Gathered<'_> {
    fn key(&mut self, key: &str) -> Result<(), String> {
        let resource = Resource::Key(key.as_bytes());
        if !service_may(self.view, self.service, Access::Read, resource) {
            return self.refuse(Asked::Key(key.to_owned()), "the key", key, "key");
        }
        match self.view.kv.get(key.as_bytes()) {
            Some(entry) => self.value(key, entry.modify_index, &entry.stored),
            None => Ok(()),
        }
    }

    fn prefix(&mut self, prefix: &str) -> Result<(), String> {
        let resource = Resource::KeyPrefix(prefix.as_bytes());
        if !service_may(self.view, self.service, Access::Read, resource) {
            return self.refuse(Asked::Prefix(prefix.to_owned()), "all keys below", prefix, "key_prefix");
        }
        let view = self.view;
        for (key, entry) in view.kv.under(prefix.as_bytes()) {
            // A key that is no text has no place in a template.
            if let Ok(key) = std::str::from_utf8(key) {
                self.value(key, entry.modify_index, &entry.stored)?;
            }
        }
        Ok(())
    }

    fn instances(&mut self, of: &ServiceName) -> Result<(), String> {
        if !service_may(self.view, self.service, Access::Read, Resource::Service(of.as_str())) {
            return self.refuse(Asked::Service(of.clone()), "the instances of", of.as_str(), "service");
        }
        for (id, revision, body) in healthy_instances(self.view, self.home, of) {
            let encoded = body.encode_to_vec();
            // The address of its node may change without its own record.
            let mark = hash_of(&encoded);
            let state = State { mark, revision, fact: Fact::Instance(encoded) };
            self.add(ConfigurationKey::Instance(of.clone(), id), state)?;
        }
        Ok(())
    }

    fn value(&mut self, key: &str, revision: u64, stored: &StoredEntry) -> Result<(), String> {
        let state = State { mark: revision, revision, fact: Fact::Value(stored.clone()) };
        self.add(ConfigurationKey::Value(key.to_owned()), state)
    }

    fn refuse(&mut self, asked: Asked, what: &str, name: &str, rule: &str) -> Result<(), String> {
        let why = refusal(self.service, what, name, rule);
        self.facts.insert(ConfigurationKey::Refused(asked), State::refused(why));
        Ok(())
    }

    fn add(&mut self, key: ConfigurationKey, state: State) -> Result<(), String> {
        let length = key.to_string().len() + state.fact.bytes();
        if self.facts.insert(key, state).is_some() {
            return Ok(());
        }
        self.values += 1;
        self.bytes += length;
        if self.values > MAX_VALUES {
            return Err(format!("what is asked for is more than {MAX_VALUES} values and instances; ask for a longer prefix"));
        }
        if self.bytes > MAX_BYTES {
            return Err(format!("what is asked for is longer than {} MiB in all; ask for a longer prefix", MAX_BYTES >> 20));
        }
        Ok(())
    }
}

/// What the sidecar's owner reads: what, why, and the cure.
fn refusal(service: &ServiceName, what: &str, name: &str, rule: &str) -> String {
    let shown: String = name.chars().take(200).collect();
    format!(
        "{service} may not read {what} {shown:?}: no role of this service grants it; make a policy with `meshctl acl policy \
         set NAME --rules '{rule} {shown:?} {{ policy = \"read\" }}'`, and give it to the service with `meshctl acl role set \
         NAME --policy NAME --service {service}`"
    )
}

/// The instances of a service of which no check is critical and that can be reached: the id, the revision of the record,
/// and what is told.
fn healthy_instances(view: &View, home: &Home, service: &ServiceName) -> Vec<(String, u64, v1::InstanceBody)> {
    let catalog = Catalog::new(view, home);
    let entries = catalog.entries_of(service).into_iter().filter(|entry| catalog.status_of(entry) != Status::Critical);
    entries.filter_map(|entry| instance(&catalog, entry)).collect()
}

fn instance(catalog: &Catalog<'_>, entry: Entry) -> Option<(String, u64, v1::InstanceBody)> {
    let id = if entry.has_sidecar { entry.id.clone() } else { format!("{}/{}", entry.node, entry.id) };
    let of_node = || catalog.node(&entry.node).map(|node| node.address).unwrap_or_default();
    let address = if entry.address.is_empty() { of_node() } else { entry.address };
    let body = v1::InstanceBody {
        id: entry.id,
        address,
        port: entry.port.into(),
        tags: entry.tags,
        meta: entry.meta.into_iter().map(|(key, value)| v1::Label { key, value }).collect(),
        has_sidecar: entry.has_sidecar,
    };
    (!body.address.is_empty()).then_some((id, entry.modify, body))
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;
    use crate::records::ClusterRecord;

    /// Whether a message is complete, what is new in it, and what it deletes.
    type Sent = (bool, Vec<String>, Vec<String>);

    fn view() -> View {
        View::empty(ClusterRecord {
            cluster_id: "c".into(),
            trust_domain: "test.postern".parse().unwrap(),
            datacenter: "dc1".parse().unwrap(),
            epoch: 1,
            created_at: SystemTime::UNIX_EPOCH,
        })
    }

    fn put(view: &mut View, key: &str, bytes: usize, revision: u64) {
        let sealed = Bytes::from(vec![0; bytes]);
        let stored = StoredEntry { flags: 0, lock_index: 0, not_before: 0, session: None, sealed };
        view.kv.put(key.to_owned().into(), Some(&stored.encode()), revision, revision);
        view.revision = revision;
    }

    fn delete(view: &mut View, key: &str, revision: u64) {
        view.kv.put(key.to_owned().into(), None, revision, 0);
        view.revision = revision;
    }

    /// Everybody may read keys below `app/`.
    fn allow(view: &mut View) {
        view.access.let_everybody("key_prefix \"app/\" { policy = \"read\" }");
    }

    fn keys(keys: &[&str], prefixes: &[&str]) -> v1::Watch {
        let own = |texts: &[&str]| -> BTreeSet<String> { texts.iter().map(ToString::to_string).collect() };
        Wanted { keys: own(keys), prefixes: own(prefixes), ..Wanted::default() }.to_wire(1)
    }

    fn next(configuration: &mut Configuration, view: &View) -> Option<Sent> {
        configuration.lane.mark_everything(Instant::now());
        let draft = configuration.take(view, &Home { node: "n".into(), address: "a".into() }, &"web".parse().unwrap())?;
        let new = draft.facts.iter().map(|(key, _)| key.to_string()).collect();
        Some((draft.complete, new, draft.deletes))
    }

    fn begin(view: &View, watch: v1::Watch) -> (Configuration, Option<Sent>) {
        let mut configuration = Configuration::default();
        configuration.watch(watch, &Topics::default()).unwrap();
        let first = next(&mut configuration, view);
        (configuration, first)
    }

    fn sent(complete: bool, new: &[&str], deletes: &[&str]) -> Option<Sent> {
        let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Some((complete, own(new), own(deletes)))
    }

    #[tokio::test]
    async fn what_is_new_is_sent_and_nothing_else() {
        let mut view = view();
        allow(&mut view);
        put(&mut view, "app/a", 1, 2);
        put(&mut view, "app/b", 1, 3);
        put(&mut view, "other", 1, 4);
        let (mut configuration, first) = begin(&view, keys(&["app/a", "app/none"], &["app/"]));
        assert_eq!(first, sent(true, &["kv/app/a", "kv/app/b"], &[]));
        put(&mut view, "app/a", 1, 5);
        assert_eq!(next(&mut configuration, &view), None, "one message in flight");
        assert!(!configuration.acknowledge(3) && configuration.acknowledge(4));
        assert_eq!(next(&mut configuration, &view), sent(false, &["kv/app/a"], &[]));
        assert!(configuration.acknowledge(5));
        put(&mut view, "other", 1, 6);
        assert_eq!(next(&mut configuration, &view), None, "nothing of it is watched");
        delete(&mut view, "app/b", 7);
        assert_eq!(next(&mut configuration, &view), sent(false, &[], &["kv/app/b"]));
    }

    #[tokio::test]
    async fn a_watch_is_answered_even_when_nothing_is_new() {
        let mut view = view();
        allow(&mut view);
        put(&mut view, "app/a", 1, 2);
        let (mut configuration, _) = begin(&view, keys(&["app/a"], &[]));
        configuration.acknowledge(2);
        let again = v1::Watch { number: 2, ..keys(&["app/a", "app/none"], &[]) };
        configuration.watch(again.clone(), &Topics::default()).unwrap();
        assert_eq!(next(&mut configuration, &view), sent(false, &[], &[]));
        assert!(configuration.watch(again, &Topics::default()).is_err(), "numbers go up");
    }

    #[tokio::test]
    async fn what_a_service_may_not_read_is_refused_until_it_may() {
        let mut view = view();
        put(&mut view, "app/a", 1, 2);
        let (mut configuration, first) = begin(&view, keys(&["app/a"], &["app/"]));
        assert_eq!(first, sent(true, &["refused/key/app/a", "refused/prefix/app/"], &[]));
        configuration.acknowledge(2);
        allow(&mut view);
        assert_eq!(next(&mut configuration, &view), sent(false, &["kv/app/a"], &["refused/key/app/a", "refused/prefix/app/"]));
    }

    #[tokio::test]
    async fn too_much_is_refused_as_a_whole_and_told_again_when_it_is_less() {
        let mut view = view();
        allow(&mut view);
        let at_most = MAX_VALUES as u64;
        for n in 0..at_most {
            put(&mut view, &format!("app/{n}"), 1, 2 + n);
        }
        let (mut configuration, first) = begin(&view, keys(&[], &["app/"]));
        assert_eq!(first.unwrap().1.len(), MAX_VALUES);
        let revision = view.revision;
        configuration.acknowledge(revision);
        put(&mut view, "app/more", 1, revision + 1);
        let refused = next(&mut configuration, &view).unwrap();
        assert_eq!((refused.1, refused.2.len()), (vec!["refused/watch".to_owned()], MAX_VALUES));
        configuration.acknowledge(revision + 1);
        delete(&mut view, "app/more", revision + 2);
        assert_eq!(next(&mut configuration, &view).unwrap().1.len(), MAX_VALUES);

        put(&mut view, "app/long", MAX_BYTES, revision + 3);
        assert_eq!(begin(&view, keys(&["app/long"], &[])).1, sent(true, &["refused/watch"], &[]));
    }
}
