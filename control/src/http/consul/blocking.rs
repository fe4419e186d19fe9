//! Blocking queries: an answer when there is something newer than what the caller has, or when its patience ends.
//!
//! A query that waits holds a place in the list of its topics (`mirror::topics`) and its connection, and does nothing
//! until one of its topics changes. It ends with the client, whose connection takes it along, and with the control plane.

use std::future::Future;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::Serialize;

use super::super::Api;
use super::answer::{Answer, json};
use super::call::Call;
use super::error::ConsulError;
use super::renderings::{Asked, Rendering};
use crate::mirror::{Topic, View};

/// How long a query that finds no place to wait is held all the same.
const CROWDED: Duration = Duration::from_secs(1);

/// Asks the view until its answer has a newer index than the call, at most for the call's `wait`. Gives the last answer
/// and its index.
///
/// `ask` gives the index of what is asked: it must be above 0, must not go down, and must rise with each change that the
/// answer shows. `topics` are woken by every change that could raise it.
pub async fn by_index<T>(api: &Api, call: &Call, topics: &[Topic], mut ask: impl FnMut(&View) -> (u64, T)) -> (u64, T) {
    let mut newest = None;
    wait(api, call, topics, |view| {
        let (index, value) = ask(view);
        // Whoever waits holds no answer that is out of date when the wait ends.
        newest = (index > call.index).then_some((index, value));
        index
    })
    .await;
    match newest {
        Some(newest) => newest,
        None => api.mirror.read(ask),
    }
}

/// As [`by_index`], for an answer that does not change while this control plane runs: whoever waits for something newer waits
/// for as long as they said. Gives the index of such answers.
pub async fn for_nothing_new(api: &Api, call: &Call) -> u64 {
    by_index(api, call, &[], |_| (1, ())).await.0
}

/// As [`by_index`], for answers that many wait for: one rendering serves all who asked for the same and may see the same.
/// `render` is asked once a change for all of them, and what it gives is held once.
///
/// # Errors
/// Those of `render`.
pub async fn shared<T: Serialize>(
    api: &Api,
    call: &Call,
    topics: &[Topic],
    index_of: impl Fn(&View) -> u64,
    render: impl Fn(&View) -> Result<T, ConsulError>,
) -> Result<Answer, ConsulError> {
    let place = api.renderings.place(Asked::of(call));
    let index = wait(api, call, topics, &index_of).await;
    let rendering = place.get(index, || {
        let (index, value) = api.mirror.read(|view| (index_of(view), render(view)));
        Ok(Rendering { index, body: json(call, &value?)?.into() })
    });
    let rendering = rendering.await?;
    Ok(Answer::bytes(call, "application/json", rendering.body.clone()).at(rendering.index))
}

/// Waits until there is a newer index than the call's, at most for its `wait`; gives the last one.
async fn wait(api: &Api, call: &Call, topics: &[Topic], mut index_of: impl FnMut(&View) -> u64) -> u64 {
    if call.index == 0 {
        return api.mirror.read(&mut index_of);
    }
    let waiting = api.mirror.topics().wait_for(topics);
    let mut index = api.mirror.read(&mut index_of);
    let Some(mut waiting) = waiting else {
        // Too many wait already: it may ask again, but not at once.
        crowded(api).await;
        return api.mirror.read(&mut index_of);
    };
    if call.index > index.max(api.mirror.revision()) {
        // From before a restore, and ahead of everything: whoever shows it begins anew.
        return index;
    }
    let mut patience = std::pin::pin!(end_of_patience(api, call));
    while index <= call.index {
        tokio::select! {
            biased;
            () = &mut patience => break,
            () = waiting.changed() => index = api.mirror.read(&mut index_of),
        }
    }
    index
}

/// Asks until the content has another hash than the call says, at most for the call's `wait`.
///
/// # Errors
/// 500 where the value cannot be JSON; none of ours is one such.
pub async fn by_hash<T: Serialize>(
    api: &Api,
    call: &Call,
    topics: &[Topic],
    mut ask: impl FnMut(&View) -> T,
) -> Result<Answer, ConsulError> {
    let waiting = if call.hash.is_none() { None } else { api.mirror.topics().wait_for(topics) };
    if call.hash.is_some() && waiting.is_none() {
        crowded(api).await;
    }
    if let Some(mut waiting) = waiting {
        let mut patience = std::pin::pin!(end_of_patience(api, call));
        // What is out of date when the wait ends is not held.
        while call.hash == Some(Hashed::of(api.mirror.read(&mut ask))?.hash) {
            tokio::select! {
                biased;
                () = &mut patience => break,
                () = waiting.changed() => {}
            }
        }
    }
    let content = Hashed::of(api.mirror.read(&mut ask))?;
    let mut value = serde_json::to_value(&content.value).map_err(ConsulError::internal)?;
    // Some answers have the hash in them, too.
    if let Some(place) = value.get_mut("ContentHash") {
        *place = content.hash.clone().into();
    }
    Ok(Answer::json(call, &value)?.hashed(&content.hash))
}

struct Hashed<T> {
    value: T,
    hash: String,
}

impl<T: Serialize> Hashed<T> {
    fn of(value: T) -> Result<Self, ConsulError> {
        let json = serde_json::to_vec(&value).map_err(ConsulError::internal)?;
        let digest = digest(&SHA256, &json);
        let hash = HEXLOWER.encode(digest.as_ref().get(..16).unwrap_or_default());
        Ok(Self { value, hash })
    }
}

/// What stands for a wait where there is no place to wait.
async fn crowded(api: &Api) {
    tokio::select! {
        () = tokio::time::sleep(CROWDED) => {}
        () = api.stop.cancelled() => {}
    }
}

fn end_of_patience<'a>(api: &'a Api, call: &Call) -> impl Future<Output = ()> + 'a {
    let wait = call.wait;
    async move {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = api.stop.cancelled() => {}
        }
    }
}
