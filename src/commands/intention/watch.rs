//! What a change denies, watched for a while after it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::Duration;

use postern_api::http::{EdgeRow, Edges, Written};
use tokio::time::Instant;

use crate::client::Client;
use crate::outcome::{Answer, Failure};
use crate::terminal;

/// As long as a change is watched where somebody looks at it.
const ON_A_TERMINAL: Duration = Duration::from_secs(30);
/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// Denials of the last 30 seconds, by pair.
const DENIED: &str = "/v1/edges?verdict=deny&by=pair&since_s=60";

/// Who is denied what, and by which intention.
type Pair = (String, String, String);

/// The denials before a change.
pub struct Watch {
    period: Duration,
    before: BTreeSet<Pair>,
}

impl Watch {
    /// Begins before the change. Without a period it is 30 s where somebody looks, and nothing elsewhere.
    ///
    /// # Errors
    /// The control plane does not answer.
    pub async fn begin(client: &mut Client, period: Option<Duration>) -> Result<Self, Failure> {
        let shown = if std::io::stderr().is_terminal() { ON_A_TERMINAL } else { Duration::ZERO };
        let period = period.unwrap_or(shown);
        let before = if period.is_zero() { BTreeSet::new() } else { denied(client).await?.into_keys().collect() };
        Ok(Self { period, before })
    }

    /// Watches what came of the change, tells each new denial once, and the command that takes it back. The answer is no
    /// where there was one.
    ///
    /// # Errors
    /// The control plane does not answer.
    pub async fn follow(self, client: &mut Client, written: Option<&Written>, undo: &str) -> Result<Answer, Failure> {
        let concerns_nobody =
            written.is_none_or(|written| written.in_force.as_ref().is_some_and(|in_force| in_force.concerned == 0));
        if self.period.is_zero() || concerns_nobody {
            return Ok(Answer::Yes);
        }
        terminal::note(&format!("watching for new denials for {}", crate::duration::text(self.period)));
        let until = Instant::now() + self.period;
        let mut told: BTreeSet<Pair> = BTreeSet::new();
        loop {
            let fresh: Vec<(Pair, u64)> =
                denied(client).await?.into_iter().filter(|(pair, _)| self.is_new(pair, &told)).collect();
            for (pair, count) in &fresh {
                terminal::note(&line(pair, *count));
            }
            if !fresh.is_empty() {
                terminal::note(&format!("to take the change back: {undo}"));
            }
            told.extend(fresh.into_iter().map(|(pair, _)| pair));
            let now = Instant::now();
            if now >= until {
                break;
            }
            tokio::time::sleep_until(until.min(now + EVERY)).await;
        }
        if told.is_empty() {
            terminal::note("no new denials");
            return Ok(Answer::Yes);
        }
        Ok(Answer::No)
    }

    fn is_new(&self, pair: &Pair, told: &BTreeSet<Pair>) -> bool {
        !self.before.contains(pair) && !told.contains(pair)
    }
}

async fn denied(client: &mut Client) -> Result<BTreeMap<Pair, u64>, Failure> {
    let edges: Edges = client.get(DENIED).await?;
    Ok(lately(&edges.edges))
}

/// Those that were denied in the last 30 seconds.
fn lately(rows: &[EdgeRow]) -> BTreeMap<Pair, u64> {
    let mut denied = BTreeMap::new();
    for row in rows.iter().filter(|row| row.recent.count > 0) {
        let edge = &row.edge;
        let pair = (edge.source.to_string(), edge.destination.to_string(), edge.because.to_string());
        *denied.entry(pair).or_insert(0) += row.recent.count;
    }
    denied
}

fn line((source, destination, because): &Pair, count: u64) -> String {
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    format!("denied since the change, {times} so far: {source} -> {destination}, because of {because}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_told_with_what_decided() {
        let pair = ("web".into(), "api".into(), "default (deny)".into());
        assert_eq!(line(&pair, 1), "denied since the change, once so far: web -> api, because of default (deny)");
        assert_eq!(line(&pair, 3), "denied since the change, 3 times so far: web -> api, because of default (deny)");
    }

    #[test]
    fn what_was_denied_before_is_not_new_and_nothing_is_told_twice() {
        let pair = |name: &str| -> Pair { (name.into(), "api".into(), "default (deny)".into()) };
        let watch = Watch { period: EVERY, before: [pair("before")].into() };
        let told = [pair("told")].into();
        assert!(
            watch.is_new(&pair("web"), &told) && !watch.is_new(&pair("before"), &told) && !watch.is_new(&pair("told"), &told)
        );
    }
}
