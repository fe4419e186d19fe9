//! What was changed in intentions and default, and the way back.

use std::time::Duration;

use hyper::Method;
use postern_api::http::{Applied, Change, RollbackRequest};
use postern_intentions::Party;
use postern_intentions::plan::Plan;

use super::watch::Watch;
use super::{change, file};
use crate::cli::intention::{HistoryArgs, RollbackArgs};
use crate::client::{Client, encode};
use crate::commands::done;
use crate::outcome::{Answer, Outcome};
use crate::output::Output;

/// Lines that are shown of a change, unless it alone is asked for.
const LINES: usize = 20;

/// Changes, newest first.
pub async fn history(output: &Output, args: HistoryArgs) -> Outcome {
    let HistoryArgs { source, destination, limit, before } = args;
    let mut path = format!("/v1/history?limit={limit}");
    let side = |name: &str, party: Option<Party>| party.map(|party| format!("&{name}={}", encode(&party.to_string())));
    path.extend(side("source", source));
    path.extend(side("destination", destination));
    path.extend(before.map(|revision| format!("&before={revision}")));
    let changes: Vec<Change> = Client::find().await?.get(&path).await?;
    let lines = if limit == 1 { usize::MAX } else { LINES };
    output.show(&changes, |_| match changes.as_slice() {
        [] => "no changes are kept\n".into(),
        changes => changes.iter().map(|change| text(change, lines)).collect::<Vec<_>>().join("\n"),
    })?;
    done()
}

/// A change: its revision, when, who and why, and the difference as `plan` prints it.
fn text(change: &Change, most: usize) -> String {
    let Change { revision, who, from, what, .. } = change;
    let mut text = format!("revision {revision}  {}  {who} from {from}  {what}\n", when(&change.at));
    if let Some(reason) = &change.reason {
        text.push_str(&format!("  reason: {}\n", reason.replace('\n', " ")));
    }
    let plan = Plan {
        added: change.added.clone(),
        changed: change.changed.clone(),
        removed: change.removed.clone(),
        default: change.default,
    };
    let unreadable = change.unreadable.iter().map(|pair| format!("~ {pair} (could not be read before)"));
    let lines: Vec<String> = plan.to_string().lines().map(str::to_owned).chain(unreadable).collect();
    for line in lines.iter().take(most) {
        text.push_str(&format!("  {line}\n"));
    }
    let more = lines.len().saturating_sub(most) + change.left_out;
    if more > 0 {
        text.push_str(&format!(
            "  and {more} more; `meshctl intention history --before {} --limit 1` shows more\n",
            revision + 1
        ));
    }
    text
}

/// `2026-03-01 12:00:00 UTC`
fn when(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..19)) {
        (Some(date), Some(time)) => format!("{date} {time} UTC"),
        _ => rfc3339.to_owned(),
    }
}

/// Shows what going back changes, asks, and goes.
pub async fn rollback(output: &Output, args: RollbackArgs) -> Outcome {
    let RollbackArgs { revision, yes, if_revision, watch, change } = args;
    let mut request =
        RollbackRequest { revision, reason: change.reason, dry_run: true, expected_revision: if_revision, wait_ms: 0 };
    let mut client = Client::find().await?;
    let planned = send(&mut client, &request, Duration::ZERO).await?;
    if file::plan_of(&planned).is_empty() {
        output.show(&planned, |_| format!("nothing to change: it is as it was at revision {revision}\n"))?;
        return done();
    }
    if !yes && !file::asked(output, &planned, false, &format!("Go back to revision {revision}?"))? {
        return Ok(Answer::No);
    }
    request.dry_run = false;
    request.expected_revision = Some(planned.base_revision);
    request.wait_ms = change::milliseconds(change.wait);
    let watch = Watch::begin(&mut client, watch).await?;
    let applied = send(&mut client, &request, change.wait).await?;
    output.show(&applied, |_| file::applied_text(&applied, yes, change.wait))?;
    file::finish(&mut client, watch, &applied).await
}

async fn send(client: &mut Client, request: &RollbackRequest, wait: Duration) -> Result<Applied, crate::outcome::Failure> {
    client.call(Method::POST, "/v1/rollback", Some(request), wait + file::LARGE_PATIENCE).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_intentions::{Action, DefaultPolicy, Intention};

    fn change() -> Change {
        let intention = |action| Intention::new("web".parse().unwrap(), "api".parse().unwrap(), action);
        Change {
            revision: 42,
            at: "2026-03-01T12:00:00.25Z".into(),
            who: "uid:0".into(),
            from: "unix".into(),
            what: "intention.apply".into(),
            reason: Some("an\nincident".into()),
            added: vec![Intention::new("web".parse().unwrap(), "db".parse().unwrap(), Action::Allow)],
            changed: vec![(intention(Action::Allow), intention(Action::Deny))],
            removed: Vec::new(),
            default: Some((DefaultPolicy::Allow, DefaultPolicy::Deny)),
            unreadable: Vec::new(),
            left_out: 0,
        }
    }

    #[test]
    fn a_change_is_told_with_its_difference() {
        assert_eq!(
            text(&change(), 20),
            "revision 42  2026-03-01 12:00:00 UTC  uid:0 from unix  intention.apply\n  reason: an incident\n  \
             ~ default (allow => deny)\n  + web -> db (allow)\n  ~ web -> api (allow => deny)\n"
        );
    }

    #[test]
    fn a_long_change_is_cut_and_says_by_how_much() {
        let long = Change { left_out: 5, ..change() };
        let text = text(&long, 2);
        assert!(text.ends_with("  and 6 more; `meshctl intention history --before 43 --limit 1` shows more\n"), "{text}");
        assert!(!text.contains("web -> api"), "{text}");
    }
}
