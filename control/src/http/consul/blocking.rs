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
use super::answer::Answer;
use super::call::Call;
use super::error::ConsulError;
use crate::mirror::{Topic, View};

/// How long a query that finds no place to wait is held all the same.
const CROWDED: Duration = Duration::from_secs(1);

/// Asks the view until its answer has a newer index than the call, at most for the call's `wait`. Gives the last answer
/// and its index.
///
/// `ask` gives the index of what is asked: it must be above 0, must not go down, and must rise with each change that the
/// answer shows. `topics` are woken by every change that could raise it.
pub async fn by_index<T>(api: &Api, call: &Call, topics: &[Topic], mut ask: impl FnMut(&View) -> (u64, T)) -> (u64, T) {
    if call.index == 0 {
        return api.mirror.read(&mut ask);
    }
    let waiting = api.mirror.topics().wait_for(topics);
    let (mut index, mut value) = api.mirror.read(&mut ask);
    let Some(mut waiting) = waiting else {
        // Too many wait already: it may ask again, but not at once.
        crowded(api).await;
        return api.mirror.read(&mut ask);
    };
    if call.index > index.max(api.mirror.revision()) {
        // From before a restore, and ahead of everything: whoever shows it begins anew.
        return (index, value);
    }
    let mut patience = std::pin::pin!(end_of_patience(api, call));
    while index <= call.index {
        tokio::select! {
            biased;
            () = &mut patience => break,
            () = waiting.changed() => (index, value) = api.mirror.read(&mut ask),
        }
    }
    (index, value)
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
    let mut content = Hashed::of(api.mirror.read(&mut ask))?;
    if let Some(mut waiting) = waiting {
        let mut patience = std::pin::pin!(end_of_patience(api, call));
        while call.hash.as_deref() == Some(&content.hash) {
            tokio::select! {
                biased;
                () = &mut patience => break,
                () = waiting.changed() => content = Hashed::of(api.mirror.read(&mut ask))?,
            }
        }
    }
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
