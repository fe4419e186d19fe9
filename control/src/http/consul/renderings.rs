//! Answers that many wait for, each made once and held once.
//!
//! Whoever asks for the same thing, may see the same, and is answered at the same index gets the same bytes. A place is there
//! as long as somebody waits at it, and holds the last answer alone.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::call::{Call, Params};
use super::error::ConsulError;
use crate::acl::Authority;

/// Places that nobody waits at any more and that are kept until they are cleared away.
const FORGOTTEN: usize = 1024;
/// What does not decide what is answered, but when.
const OF_THE_WAIT: [&str; 7] = ["index", "wait", "hash", "token", "stale", "consistent", "cached"];

/// A request as far as its answer depends on it: route, parameters, and what its holder may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    path: String,
    params: Params,
    authority: Authority,
}

/// An answer, and the index that it was made at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendering {
    /// The index.
    pub index: u64,
    /// The body.
    pub body: Bytes,
}

type Cell = OnceCell<Rendering>;

/// The places of all who wait.
#[derive(Debug, Default)]
pub struct Renderings {
    places: Mutex<HashMap<Asked, Weak<Place>>>,
}

/// Where those wait who get the same answer.
#[derive(Debug, Default)]
pub struct Place {
    /// The last answer, or where it is being made, and the index that it was asked for at.
    last: Mutex<Option<(u64, Arc<Cell>)>>,
}

impl Asked {
    /// What a call asks for.
    pub fn of(call: &Call) -> Self {
        Self { path: call.path.clone(), params: call.params().without(&OF_THE_WAIT), authority: call.authority.clone() }
    }
}

impl Hash for Asked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
        self.params.hash(state);
        self.authority.accessor().hash(state);
    }
}

impl Renderings {
    /// The place of those who ask for this. Take it before waiting: it goes with the last who has it.
    pub fn place(&self, asked: Asked) -> Arc<Place> {
        let mut places = self.places.lock();
        if places.len() >= FORGOTTEN {
            places.retain(|_, place| place.strong_count() > 0);
        }
        let known = places.entry(asked).or_default();
        known.upgrade().unwrap_or_else(|| {
            let place = Arc::default();
            *known = Arc::downgrade(&place);
            place
        })
    }
}

impl Place {
    /// The answer at this index or a later one, made by `render` unless somebody made it, or does. What `render` makes may be
    /// of a later index.
    ///
    /// # Errors
    /// Those of `render`; the next one to ask tries again.
    pub async fn get(
        &self,
        index: u64,
        render: impl FnOnce() -> Result<Rendering, ConsulError>,
    ) -> Result<Rendering, ConsulError> {
        let cell = self.cell(index);
        cell.get_or_try_init(async || render()).await.cloned()
    }

    fn cell(&self, index: u64) -> Arc<Cell> {
        let mut last = self.last.lock();
        if let Some((of, cell)) = last.as_ref()
            && *of >= index
        {
            return Arc::clone(cell);
        }
        let cell = Arc::default();
        *last = Some((index, Arc::clone(&cell)));
        cell
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn asked(path: &str, query: &str, authority: &Authority) -> Asked {
        let params = Params::parse(query).without(&OF_THE_WAIT);
        Asked { path: path.into(), params, authority: authority.clone() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_who_wait_for_the_same_share_one_rendering_of_each_change() {
        const WAITING: usize = 1000;
        let (renderings, rendered) = (Arc::new(Renderings::default()), Arc::new(AtomicUsize::new(0)));
        let (change, _) = tokio::sync::watch::channel(0_u64);
        let seen = Arc::new(tokio::sync::Barrier::new(WAITING + 1));
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..WAITING {
            let query = format!("passing&index={number}&wait={number}s");
            let place = renderings.place(asked("/v1/health/service/web", &query, &Authority::operator()));
            let (rendered, seen, mut changed) = (Arc::clone(&rendered), Arc::clone(&seen), change.subscribe());
            waiting.spawn(async move {
                let mut bodies = Vec::new();
                for _ in 0..2 {
                    changed.changed().await.unwrap();
                    let index = *changed.borrow_and_update();
                    let render = || {
                        rendered.fetch_add(1, Ordering::Relaxed);
                        Ok(Rendering { index, body: index.to_string().into() })
                    };
                    bodies.push(place.get(index, render).await.unwrap().body);
                    seen.wait().await;
                }
                bodies
            });
        }
        let count = || rendered.load(Ordering::Relaxed);
        assert_eq!(count(), 0, "nothing is made before it is asked for");
        for (index, rendered) in [(7, 1), (8, 2)] {
            change.send_replace(index);
            seen.wait().await;
            assert_eq!(count(), rendered, "one for each change");
        }
        let bodies = waiting.join_all().await;
        let [first, second] = bodies[0].as_slice() else { panic!() };
        assert!(bodies.iter().all(|own| own[0].as_ptr() == first.as_ptr() && own[1].as_ptr() == second.as_ptr()), "held once");
        assert_eq!((first.as_ref(), second.as_ref()), (&b"7"[..], &b"8"[..]));
        assert!(renderings.places.lock().values().all(|place| place.strong_count() == 0), "a place goes with the last");
    }

    #[test]
    fn who_asks_for_something_else_or_may_see_something_else_has_another_place() {
        let renderings = Renderings::default();
        let of = |path: &str, query: &str, authority: &Authority| renderings.place(asked(path, query, authority));
        let operator = Authority::operator();
        let place = of("/v1/health/service/web", "passing&index=3", &operator);
        assert!(Arc::ptr_eq(&place, &of("/v1/health/service/web", "index=9&passing&wait=1s", &operator)));
        for other in [
            of("/v1/health/service/api", "passing", &operator),
            of("/v1/health/service/web", "", &operator),
            of("/v1/health/service/web", "passing&pretty", &operator),
            of("/v1/health/service/web", "passing", &Authority::anonymous()),
            of("/v1/health/service/web", "passing", &Authority::of_token("a".into(), Arc::default())),
        ] {
            assert!(!Arc::ptr_eq(&place, &other));
        }
    }

    #[tokio::test]
    async fn what_could_not_be_made_is_tried_again() {
        let place = Place::default();
        let failed = place.get(3, || Err(ConsulError::bad_request("x"))).await;
        assert!(failed.is_err());
        let made = |index: u64| move || Ok(Rendering { index, body: Bytes::new() });
        assert_eq!(place.get(3, made(3)).await.unwrap().index, 3);
        assert_eq!(place.get(2, made(2)).await.unwrap().index, 3, "a later one is good as well");
        assert_eq!(place.get(4, made(5)).await.unwrap().index, 5);
    }
}
