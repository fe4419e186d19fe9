//! What a change denies, watched for a while after it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use postern_api::http::{EdgeRow, Edges, Written};
use tokio::time::Instant;

use super::effects::call;
use crate::client::Client;
use crate::outcome::{Answer, Failure};
use crate::terminal;

/// As long as a change is watched where somebody looks at it.
const ON_A_TERMINAL: Duration = Duration::from_secs(30);
/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// Denials of the last minute, by request.
const DENIED: &str = "/v1/edges?verdict=deny&since_s=60";
/// What the counts of [`Denials::lately`] are about.
const LATELY: Duration = Duration::from_secs(30);
/// What a sidecar tells it tells at once for so long.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Denials beyond twice those before that may be chance.
const CHANCE: f64 = 3.0;
/// Denials that are told one by one.
const MOST: usize = 20;

/// Who is denied what, and by which intention.
type Denied = (String, String);

/// How often something was denied.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Denials {
    /// In the hour, or both where one begins.
    count: u64,
    /// In the last 30 seconds.
    lately: u64,
    /// The last of them; nothing where that cannot be read.
    last: Option<SystemTime>,
}

/// The denials before a change.
pub struct Watch {
    period: Duration,
    before: BTreeMap<Denied, Denials>,
    began: Instant,
}

impl Watch {
    /// Begins before the change. Without a period it is 30 s where somebody looks, and nothing elsewhere.
    ///
    /// # Errors
    /// The control plane does not answer.
    pub async fn begin(client: &mut Client, period: Option<Duration>) -> Result<Self, Failure> {
        let shown = if std::io::stderr().is_terminal() { ON_A_TERMINAL } else { Duration::ZERO };
        let period = period.unwrap_or(shown);
        let before = if period.is_zero() { BTreeMap::new() } else { denied(client).await? };
        Ok(Self { period, before, began: Instant::now() })
    }

    /// Watches what came of the change, tells each new denial once, and the command that takes it back. The answer is no
    /// where there was one.
    ///
    /// # Errors
    /// The control plane does not answer.
    pub async fn follow(self, client: &mut Client, written: Option<&Written>, undo: &str) -> Result<Answer, Failure> {
        let concerns_nobody =
            written.is_none_or(|written| written.in_force.as_ref().is_some_and(|in_force| in_force.concerned == 0));
        let Some(written) = written.filter(|_| !self.period.is_zero() && !concerns_nobody) else { return Ok(Answer::Yes) };
        let changed_at = SystemTime::UNIX_EPOCH + Duration::from_micros(written.committed_at_us);
        terminal::note(&format!("watching for new denials for {}", crate::duration::text(self.period)));
        let until = Instant::now() + self.period;
        let mut told: BTreeSet<Denied> = BTreeSet::new();
        loop {
            let now_denied = denied(client).await?;
            let elapsed = self.began.elapsed();
            let fresh: Vec<(Denied, u64)> = now_denied
                .into_iter()
                .filter(|(what, _)| !told.contains(what))
                .filter_map(|(what, now)| self.new_denials(&what, now, changed_at, elapsed).map(|count| (what, count)))
                .collect();
            for (what, count) in fresh.iter().take(MOST.saturating_sub(told.len())) {
                terminal::note(&line(what, *count));
            }
            if told.len() <= MOST && told.len() + fresh.len() > MOST {
                terminal::note("and more: meshctl tail --verdict deny");
            }
            if !fresh.is_empty() {
                terminal::note(&format!("to take the change back: {undo}"));
            }
            told.extend(fresh.into_iter().map(|(what, _)| what));
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

    /// How many denials there were since the change; nothing where there are none, or hardly more than before it.
    fn new_denials(&self, what: &Denied, now: Denials, changed_at: SystemTime, elapsed: Duration) -> Option<u64> {
        if now.last.is_some_and(|last| last < changed_at) {
            return None;
        }
        let Some(before) = self.before.get(what) else { return (now.lately > 0).then_some(now.lately) };
        // Where an hour ended the counts begin anew.
        let since = now.count.checked_sub(before.count).unwrap_or(now.count);
        let a_second = before.lately as f64 / LATELY.as_secs_f64();
        let expected = 2.0 * a_second * (elapsed + TOLD_EVERY).as_secs_f64();
        let chance = if before.lately == 0 { 0.0 } else { CHANCE };
        (since as f64 > expected + chance).then_some(since)
    }
}

async fn denied(client: &mut Client) -> Result<BTreeMap<Denied, Denials>, Failure> {
    let edges: Edges = client.get(DENIED).await?;
    Ok(denials(&edges.edges))
}

fn denials(rows: &[EdgeRow]) -> BTreeMap<Denied, Denials> {
    let mut denied: BTreeMap<Denied, Denials> = BTreeMap::new();
    for row in rows {
        let what = (call(&row.edge), row.edge.because.to_string());
        let last = humantime::parse_rfc3339_weak(&row.last_seen).ok();
        let sum = denied.entry(what).or_insert(Denials { count: 0, lately: 0, last });
        sum.count = sum.count.saturating_add(row.count);
        sum.lately = sum.lately.saturating_add(row.recent.count);
        sum.last = sum.last.max(last);
    }
    denied
}

fn line((call, because): &Denied, count: u64) -> String {
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    format!("denied since the change, {times} so far: {call}, because of {because}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(call: &str) -> Denied {
        (call.into(), "intention web -> api (otherwise: no permission matches)".into())
    }

    fn watch(before: &[(&str, u64, u64)]) -> Watch {
        let denials = |(call, count, lately): &(&str, u64, u64)| (what(call), of(*count, *lately, 0));
        Watch { period: EVERY, before: before.iter().map(denials).collect(), began: Instant::now() }
    }

    /// The last was so many seconds after the change.
    fn of(count: u64, lately: u64, last_s: u64) -> Denials {
        Denials { count, lately, last: Some(changed_at() + Duration::from_secs(last_s)) }
    }

    fn changed_at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn told(watch: &Watch, call: &str, now: Denials, elapsed_s: u64) -> Option<u64> {
        watch.new_denials(&what(call), now, changed_at(), Duration::from_secs(elapsed_s))
    }

    #[test]
    fn a_denial_is_told_with_what_decided() {
        let denied = ("web -> api GET /".into(), "default (deny)".into());
        assert_eq!(line(&denied, 1), "denied since the change, once so far: web -> api GET /, because of default (deny)");
        assert_eq!(line(&denied, 3), "denied since the change, 3 times so far: web -> api GET /, because of default (deny)");
    }

    #[test]
    fn a_stray_denial_before_hides_no_burst_after() {
        // Another request of the pair was denied.
        assert_eq!(told(&watch(&[("web -> api GET /stray", 1, 1)]), "web -> api GET /orders", of(40, 40, 3), 5), Some(40));
        // The same one was, once.
        assert_eq!(told(&watch(&[("web -> api GET /orders", 1, 1)]), "web -> api GET /orders", of(41, 41, 3), 5), Some(40));
        assert_eq!(told(&watch(&[("web -> api GET /orders", 1, 1)]), "web -> api GET /orders", of(2, 2, 3), 5), None);
    }

    #[test]
    fn what_goes_on_as_before_or_was_before_is_not_new() {
        let steady = watch(&[("scan -> api GET /x", 1_000, 300)]);
        assert_eq!(told(&steady, "scan -> api GET /x", of(1_050, 300, 4), 5), None);
        assert_eq!(told(&steady, "scan -> api GET /x", of(1_300, 300, 29), 30), None);
        assert_eq!(told(&steady, "scan -> api GET /x", of(2_000, 900, 29), 30), Some(1_000), "it rose");
        assert_eq!(told(&steady, "scan -> api GET /x", of(1_000, 300, 0), 30), None);
        // Told after the change, and of before it.
        let late = Denials { last: Some(changed_at() - Duration::from_secs(1)), ..of(2, 2, 0) };
        assert_eq!(told(&watch(&[]), "web -> api GET /", late, 5), None);
        // An hour ends.
        assert_eq!(told(&steady, "scan -> api GET /x", of(900, 900, 4), 5), Some(900));
    }
}
