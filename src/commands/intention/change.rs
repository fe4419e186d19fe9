//! Changes of intentions, and on how many sidecars they are in force.

use std::time::Duration;

use hyper::Method;
use postern_api::http::{DefaultRequest, InForce, SetRequest, SetVerb, Written};
use postern_intentions::{DefaultPolicy, Party};

use super::path_of;
use crate::cli::intention::{ChangeArgs, PairArgs, SetArgs};
use crate::client::{Client, encode};
use crate::outcome::{Answer, Failure, Outcome};
use crate::output::Output;
use crate::{duration, terminal, usage};

/// Sets the intention of a pair.
pub async fn set(output: &Output, verb: SetVerb, args: SetArgs) -> Outcome {
    let SetArgs { pair, for_time, change } = args;
    if for_time.is_some_and(|time| time < Duration::from_secs(1)) {
        return Err(Failure::new("--for is shorter than a second").cure("give a time such as 2h"));
    }
    note_doubtful_star(&pair);
    let request = SetRequest {
        verb,
        expires_in_s: for_time.map(|time| time.as_secs()),
        reason: change.reason,
        wait_ms: milliseconds(change.wait),
        dry_run: false,
        expected_revision: None,
    };
    let path = path_of(&pair.source, &pair.destination);
    let written: Written = Client::find().await?.call(Method::PUT, &path, Some(&request), change.wait).await?;
    let what = match &written.intention {
        Some(intention) => format!("{} ({})", intention.pair(), intention.summary()),
        None => format!("{} -> {}", pair.source, pair.destination),
    };
    finish(output, &written, &what, change.wait)
}

/// Removes an intention of a pair.
pub async fn delete(output: &Output, pair: PairArgs, temporary: bool, change: ChangeArgs) -> Outcome {
    note_doubtful_star(&pair);
    let mut path =
        format!("{}?temporary={temporary}&wait_ms={}", path_of(&pair.source, &pair.destination), milliseconds(change.wait));
    if let Some(reason) = &change.reason {
        path.push_str(&format!("&reason={}", encode(reason)));
    }
    let written: Written = Client::find().await?.call(Method::DELETE, &path, None::<&()>, change.wait).await?;
    let kind = if temporary { "the temporary intention " } else { "" };
    finish(output, &written, &format!("{kind}{} -> {} deleted", pair.source, pair.destination), change.wait)
}

/// Changes the default policy.
pub async fn default(output: &Output, policy: DefaultPolicy, change: ChangeArgs) -> Outcome {
    let request = DefaultRequest {
        policy,
        reason: change.reason,
        wait_ms: milliseconds(change.wait),
        dry_run: false,
        expected_revision: None,
    };
    let written: Written = Client::find().await?.call(Method::PUT, "/v1/default-policy", Some(&request), change.wait).await?;
    finish(output, &written, &format!("default: {policy}"), change.wait)
}

fn note_doubtful_star(pair: &PairArgs) {
    for party in [&pair.source, &pair.destination] {
        if let Party::Service(service) = party
            && let Some(note) = usage::doubtful_star(service.as_str())
        {
            terminal::note(&note);
        }
    }
}

/// A wait as the API takes it.
pub fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// Prints what was written; the answer is no when the wait ran out.
fn finish(output: &Output, written: &Written, what: &str, wait: Duration) -> Outcome {
    output.show(written, |_| text(written, what, wait))?;
    Ok(answer(written))
}

/// No when a connected sidecar concerned did not acknowledge in time.
pub fn answer(written: &Written) -> Answer {
    match &written.in_force {
        Some(in_force) if in_force.acknowledged < in_force.concerned => Answer::No,
        _ => Answer::Yes,
    }
}

/// The change, what to know about it, and where it is in force.
pub fn text(written: &Written, what: &str, wait: Duration) -> String {
    let mut text = match written.changed {
        true => format!("{what}, revision {}\n", written.revision),
        false => format!("{what}: nothing changed\n"),
    };
    for note in &written.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    if let Some(in_force) = &written.in_force {
        text.push_str(&in_force_line(in_force, wait));
        text.push('\n');
    }
    text
}

/// «in force on 12 of 12 in 8 ms; not connected: db-3 (since 14:02 UTC)»
pub fn in_force_line(in_force: &InForce, wait: Duration) -> String {
    let counts = format!("in force on {} of {}", in_force.acknowledged, in_force.concerned);
    let mut parts = vec![match in_force.concerned {
        0 => format!("{counts}: no connected sidecar is concerned"),
        _ if in_force.acknowledged < in_force.concerned => format!("{counts} after {}", duration::text(wait)),
        _ => format!("{counts} in {} ms", took(in_force.took_ms)),
    }];
    parts.extend(closed(in_force));
    if !in_force.waiting_for.is_empty() {
        let names: Vec<&str> = in_force.waiting_for.iter().map(|id| id.as_str()).collect();
        parts.push(format!("waiting for: {}", names.join(", ")));
    }
    if !in_force.not_connected.is_empty() {
        let names: Vec<String> =
            in_force.not_connected.iter().map(|gone| format!("{} (since {})", gone.instance, clock(&gone.since))).collect();
        parts.push(format!("not connected: {}", names.join(", ")));
    }
    parts.join("; ")
}

/// «closed 3 connections, ended 1 request»
fn closed(in_force: &InForce) -> Option<String> {
    let of = |verb: &str, count: u64, noun: &str| {
        let plural = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("{verb} {count} {noun}{plural}"))
    };
    let parts = [of("closed", in_force.closed, "connection"), of("ended", in_force.ended_requests, "request")];
    let said: Vec<String> = parts.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(", "))
}

fn took(milliseconds: f64) -> String {
    if milliseconds < 1.0 { format!("{milliseconds:.1}") } else { format!("{milliseconds:.0}") }
}

/// `14:02 UTC` for a time of the last day, else with its date.
fn clock(rfc3339: &str) -> String {
    let Ok(time) = humantime::parse_rfc3339_weak(rfc3339) else { return rfc3339.to_owned() };
    let today = time.elapsed().is_ok_and(|age| age < Duration::from_secs(86_400));
    match (today, rfc3339.get(..10), rfc3339.get(11..16)) {
        (true, _, Some(minute)) => format!("{minute} UTC"),
        (false, Some(date), Some(minute)) => format!("{date} {minute} UTC"),
        _ => rfc3339.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_api::http::NotConnected;
    use std::time::SystemTime;

    fn in_force(concerned: usize, acknowledged: usize) -> InForce {
        InForce { concerned, acknowledged, took_ms: 8.2, ..InForce::default() }
    }

    #[test]
    fn the_line_says_where_a_change_is_in_force() {
        let wait = Duration::from_secs(5);
        assert_eq!(in_force_line(&in_force(12, 12), wait), "in force on 12 of 12 in 8 ms");
        let cut = InForce { closed: 3, ended_requests: 1, ..in_force(2, 2) };
        assert_eq!(in_force_line(&cut, wait), "in force on 2 of 2 in 8 ms; closed 3 connections, ended 1 request");
        let mut late = in_force(12, 11);
        late.waiting_for.push("api-2".parse().unwrap());
        assert_eq!(in_force_line(&late, wait), "in force on 11 of 12 after 5s; waiting for: api-2");
    }

    #[test]
    fn those_that_are_away_are_named_with_the_time() {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let mut line = in_force(1, 1);
        line.not_connected.push(NotConnected { instance: "db-3".parse().unwrap(), since: now.clone() });
        line.not_connected.push(NotConnected { instance: "db-4".parse().unwrap(), since: "2020-01-02T14:02:03Z".into() });
        let text = in_force_line(&line, Duration::ZERO);
        assert_eq!(
            text,
            format!(
                "in force on 1 of 1 in 8 ms; not connected: db-3 (since {} UTC), db-4 (since 2020-01-02 14:02 UTC)",
                &now[11..16]
            )
        );
    }

    #[test]
    fn a_wait_that_ran_out_answers_no() {
        let mut written = Written {
            revision: 1,
            changed: true,
            committed_at_us: 0,
            intention: None,
            notes: vec![],
            in_force: Some(in_force(2, 1)),
        };
        assert_eq!(answer(&written), Answer::No);
        written.in_force = Some(in_force(2, 2));
        assert_eq!(answer(&written), Answer::Yes);
        written.in_force = None;
        assert_eq!(answer(&written), Answer::Yes);
    }
}
