//! `meshctl tail`: calls as they are decided.

use std::time::Duration;

use postern_api::http::SeenDecision;
use postern_names::PortName;
use tokio::time::Instant;

use super::{done, seen};
use crate::cli::Format;
use crate::cli::seen::TailArgs;
use crate::client::{Client, Event, Events};
use crate::outcome::{Failure, Outcome};
use crate::output::Output;
use crate::terminal;

/// Pauses before a stream that broke is opened again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// As good as never.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Follows until somebody ends it, or its time or its number of lines is over.
pub async fn tail(args: TailArgs) -> Outcome {
    let ends_at = Instant::now() + args.for_time.unwrap_or(FOR_EVER).min(FOR_EVER);
    tokio::select! {
        outcome = follow(&args) => outcome,
        () = tokio::time::sleep_until(ends_at) => done(),
        _ = tokio::signal::ctrl_c() => done(),
    }
}

async fn follow(args: &TailArgs) -> Outcome {
    let output = Output::new(args.output.output);
    let verdicts: Vec<&str> = args.verdict.iter().map(|verdict| verdict.as_str()).collect();
    let path = format!("/v1/live?{}", seen::query(&args.which, &verdicts, &[("what", "decisions")]));
    let mut left = args.max.unwrap_or(u64::MAX);
    // What cannot be followed at first is told at once.
    let (mesh, mut events) = open(&path).await?;
    terminal::note("following; Ctrl-C ends it");
    loop {
        let ended = loop {
            match events.next().await {
                Ok(Some(event)) => {
                    if print(&output, &event)? {
                        left -= 1;
                    }
                    if left == 0 {
                        return done();
                    }
                }
                Ok(None) => break "the control plane ended the stream".to_owned(),
                Err(failure) => break failure.to_string(),
            }
        };
        terminal::note(&format!("{ended}; connecting again"));
        events = open_again(&path, &mesh).await;
        terminal::note("following again; decisions of the meantime are not shown");
    }
}

/// The cluster id of the mesh that is followed, and its events.
async fn open(path: &str) -> Result<(String, Events), Failure> {
    let client = Client::find().await?;
    let mesh = client.mesh().cluster_id.clone();
    Ok((mesh, client.events(path).await?))
}

/// The same mesh again: where its control plane is away, another one may be found.
async fn open_again(path: &str, mesh: &str) -> Events {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        match open(path).await {
            Ok((found, events)) if found == mesh => return events,
            _ => pause = (pause * 2).min(LAST_PAUSE),
        }
    }
}

/// Prints an event; whether it was a decision.
fn print(output: &Output, event: &Event) -> Result<bool, Failure> {
    match event.name.as_str() {
        "decision" => {}
        "lagged" => {
            terminal::note("some decisions were left out: there are more than can be shown");
            return Ok(false);
        }
        _ => return Ok(false),
    }
    let decision: SeenDecision = serde_json::from_str(&event.data).map_err(|error| {
        Failure::new(format!("a decision cannot be read: {error}")).cure("use the version of the control plane")
    })?;
    match output.format() {
        Format::Table => terminal::print(&(line(output, &decision) + "\n"))?,
        Format::Json => terminal::print(&(event.data.clone() + "\n"))?,
        Format::Yaml => {
            let text = serde_yaml::to_string(&decision).map_err(|error| Failure::new(format!("cannot write YAML: {error}")))?;
            terminal::print(&format!("---\n{text}"))?;
        }
    }
    Ok(true)
}

/// `2026-03-01T12:00:00.123Z deny    web -> api GET /v1/x 403, because of default (deny), told by api-1`
fn line(output: &Output, decision: &SeenDecision) -> String {
    let (word, tone) = seen::verdict(decision.verdict);
    let word = output.paint((format!("{word:<6}"), tone));
    let port = if decision.port == PortName::main() { String::new() } else { format!(":{}", decision.port) };
    let mut request = String::new();
    for part in [&decision.method, &decision.path, &decision.status.map(|status| status.to_string())].into_iter().flatten() {
        request.push(' ');
        request.push_str(part);
    }
    let times = if decision.count > 1 { format!(" ({} times)", decision.count) } else { String::new() };
    format!(
        "{at} {word} {source} -> {destination}{port}{request}{times}, because of {because}, told by {instance}",
        at = decision.at,
        source = decision.source,
        destination = decision.destination,
        because = decision.because,
        instance = decision.instance,
    )
}

/// Decisions one below the other, for other commands.
pub fn lines(output: &Output, decisions: &[SeenDecision]) -> String {
    decisions.iter().map(|decision| line(output, decision) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use postern_edges::Verdict;
    use postern_intentions::Protocol;

    use super::*;

    #[test]
    fn a_decision_is_one_line() {
        let mut decision = SeenDecision {
            at: "2026-03-01T12:00:00.123Z".into(),
            source: "web".parse().unwrap(),
            destination: "api".parse().unwrap(),
            instance: "api-1".parse().unwrap(),
            port: PortName::main(),
            protocol: Protocol::Http,
            verdict: Verdict::Deny,
            because: "default (deny)".into(),
            method: Some("GET".into()),
            path: Some("/v1/x".into()),
            status: Some(403),
            count: 1,
        };
        let output = Output::new(Format::Table);
        assert_eq!(
            line(&output, &decision),
            "2026-03-01T12:00:00.123Z deny   web -> api GET /v1/x 403, because of default (deny), told by api-1"
        );
        decision = SeenDecision { method: None, path: None, status: None, count: 7, port: "admin".parse().unwrap(), ..decision };
        assert!(line(&output, &decision).contains("web -> api:admin (7 times), because of"));
    }
}
