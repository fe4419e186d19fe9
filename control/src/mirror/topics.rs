//! Who waits for a change of what: one list of waiters a topic, woken by the change and by nothing else.
//!
//! A waiter costs an entry in the list of its topic while it waits, and nothing while nothing changes. It must look for
//! itself what the change was: waking says only that there may be something new.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::select_all;
use parking_lot::Mutex;
use postern_names::ServiceName;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::{ANONYMOUS, Change};
use crate::records::RecordKey;

/// How many waiters there may be; whoever comes then is answered at once.
const MAX_WAITERS: usize = 20_000;

/// What can be waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A key of the key-value store.
    Key(Bytes),
    /// All its keys that begin so.
    KeysUnder(Bytes),
    /// Any session.
    Sessions,
    /// Any user event.
    Events,
    /// The instances of a service, and what is known of them.
    Service(ServiceName),
    /// Which services there are, and any instance.
    Catalog,
    /// Any intention, or the default.
    Intentions,
    /// Settings of services and providers of tokens.
    Settings,
    /// Policies, roles, and what everybody may.
    Access,
}

/// All waiters.
#[derive(Debug, Default)]
pub struct Topics {
    lists: Arc<Mutex<Lists>>,
}

#[derive(Debug, Default)]
struct Lists {
    by_topic: BTreeMap<Topic, List>,
    waiters: usize,
}

#[derive(Debug)]
struct List {
    waiters: usize,
    wake: Arc<Notify>,
}

/// A place in the lists of some topics. It is woken by every change since it was taken or since it last waited.
pub struct Waiting {
    lists: Weak<Mutex<Lists>>,
    topics: Vec<(Topic, Arc<Notify>)>,
    pending: Vec<std::pin::Pin<Box<OwnedNotified>>>,
}

impl Topics {
    /// Takes a place in the lists of `topics`; `None` where too many wait already. Take it before reading what the topics
    /// are about, so that no change falls between.
    pub fn wait_for(&self, topics: &[Topic]) -> Option<Waiting> {
        let mut lists = self.lists.lock();
        if lists.waiters >= MAX_WAITERS {
            return None;
        }
        lists.waiters += 1;
        let mut taken = Vec::with_capacity(topics.len());
        for topic in topics {
            let fresh = || List { waiters: 0, wake: Arc::new(Notify::new()) };
            let list = lists.by_topic.entry(topic.clone()).or_insert_with(fresh);
            list.waiters += 1;
            taken.push((topic.clone(), Arc::clone(&list.wake)));
        }
        drop(lists);
        let mut waiting = Waiting { lists: Arc::downgrade(&self.lists), topics: taken, pending: Vec::new() };
        waiting.arm();
        Some(waiting)
    }

    /// Wakes whoever waits for this topic.
    pub fn wake(&self, topic: &Topic) {
        if let Some(list) = self.lists.lock().by_topic.get(topic) {
            list.wake.notify_waiters();
        }
    }

    /// Wakes whoever waits for something that the change touched.
    pub(super) fn changed(&self, change: &Change) {
        if change.everything {
            return self.wake_all();
        }
        if change.touches_catalog() {
            self.wake(&Topic::Catalog);
        }
        for key in &change.keys {
            match key {
                RecordKey::Kv(key) => self.wake_key(key),
                RecordKey::Session(_) => self.wake(&Topic::Sessions),
                RecordKey::Default | RecordKey::Intention(_) => self.wake(&Topic::Intentions),
                RecordKey::AccessPolicy(_) | RecordKey::AccessRole(_) => self.wake(&Topic::Access),
                RecordKey::AccessToken(hash) if hash == ANONYMOUS => self.wake(&Topic::Access),
                RecordKey::Settings(_) | RecordKey::Provider(_) | RecordKey::Jwks(_) => self.wake(&Topic::Settings),
                _ => {}
            }
        }
        for service in &change.services {
            self.wake(&Topic::Service(service.clone()));
        }
    }

    /// Wakes whoever waits for this key or for what it begins with.
    fn wake_key(&self, key: &Bytes) {
        let lists = self.lists.lock();
        if lists.by_topic.is_empty() {
            return;
        }
        if let Some(list) = lists.by_topic.get(&Topic::Key(key.clone())) {
            list.wake.notify_waiters();
        }
        // The prefixes of a key that are waited for, the longest first: each is the greatest at or below what is left.
        let mut rest = key.clone();
        while let Some((Topic::KeysUnder(prefix), list)) =
            lists.by_topic.range(Topic::KeysUnder(Bytes::new())..=Topic::KeysUnder(rest.clone())).next_back()
        {
            let common = rest.iter().zip(prefix).take_while(|(a, b)| a == b).count();
            if common < prefix.len() {
                rest.truncate(common);
                continue;
            }
            list.wake.notify_waiters();
            let Some(shorter) = prefix.len().checked_sub(1) else { return };
            rest.truncate(shorter);
        }
    }

    fn wake_all(&self) {
        for list in self.lists.lock().by_topic.values() {
            list.wake.notify_waiters();
        }
    }
}

impl Waiting {
    /// Ready after a change of one of the topics.
    pub async fn changed(&mut self) {
        if self.pending.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.pending.iter_mut()).await;
        self.arm();
    }

    fn arm(&mut self) {
        self.pending.clear();
        for (_, wake) in &self.topics {
            let mut notified = Box::pin(Arc::clone(wake).notified_owned());
            notified.as_mut().enable();
            self.pending.push(notified);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(lists) = self.lists.upgrade() else { return };
        let mut lists = lists.lock();
        lists.waiters = lists.waiters.saturating_sub(1);
        for (topic, _) in &self.topics {
            let Some(list) = lists.by_topic.get_mut(topic) else { continue };
            list.waiters = list.waiters.saturating_sub(1);
            if list.waiters == 0 {
                lists.by_topic.remove(topic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_woken(waiting: &mut Waiting) -> bool {
        tokio::time::timeout(Duration::from_millis(20), waiting.changed()).await.is_ok()
    }

    fn change(keys: Vec<RecordKey>) -> Change {
        Change { keys, ..Change::default() }
    }

    fn service(name: &str) -> ServiceName {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_waiter_is_woken_by_its_topic_only() {
        let topics = Topics::default();
        let mut waiting = topics.wait_for(&[Topic::Service(service("web")), Topic::Intentions]).unwrap();
        topics.changed(&Change { services: vec![service("api")], ..Change::default() });
        assert!(!is_woken(&mut waiting).await);
        topics.changed(&Change { services: vec![service("web")], ..Change::default() });
        assert!(is_woken(&mut waiting).await);
        assert!(!is_woken(&mut waiting).await, "once for each change");
        topics.changed(&change(vec![RecordKey::Default]));
        assert!(is_woken(&mut waiting).await);
        topics.changed(&Change { everything: true, ..Change::default() });
        assert!(is_woken(&mut waiting).await);
    }

    #[tokio::test]
    async fn a_change_before_the_wait_is_not_lost() {
        let topics = Topics::default();
        let mut waiting = topics.wait_for(&[Topic::Catalog]).unwrap();
        topics.wake(&Topic::Catalog);
        assert!(is_woken(&mut waiting).await);
    }

    #[tokio::test]
    async fn a_key_wakes_those_who_wait_for_it_or_for_a_prefix_of_it() {
        let topics = Topics::default();
        let prefixes = ["", "a", "app", "app/", "app/db", "app/db/x", "app0", "b", "app/c", "app/d"];
        for key in ["app/db", "app/db/", "app", "", "b/c", "zzz", "app/da", "ap"] {
            let mut waiting: Vec<_> = prefixes
                .iter()
                .map(|prefix| (*prefix, topics.wait_for(&[Topic::KeysUnder((*prefix).into())]).unwrap()))
                .collect();
            let mut exact = topics.wait_for(&[Topic::Key(key.to_owned().into())]).unwrap();
            let mut other = topics.wait_for(&[Topic::Key("app/other".into()), Topic::Sessions]).unwrap();
            topics.changed(&change(vec![RecordKey::Kv(key.to_owned().into())]));
            for (prefix, waiting) in &mut waiting {
                assert_eq!(is_woken(waiting).await, key.starts_with(*prefix), "{prefix:?} of {key:?}");
            }
            assert!(is_woken(&mut exact).await);
            assert!(!is_woken(&mut other).await);
        }
    }

    #[tokio::test]
    async fn a_list_goes_with_its_last_waiter() {
        let topics = Topics::default();
        let first = topics.wait_for(&[Topic::Catalog]).unwrap();
        let second = topics.wait_for(&[Topic::Catalog]).unwrap();
        drop(first);
        assert_eq!(topics.lists.lock().by_topic.len(), 1);
        drop(second);
        assert!(topics.lists.lock().by_topic.is_empty());
        assert_eq!(topics.lists.lock().waiters, 0);
    }
}
