//! `check` and `explain`: what the one evaluator says of a call, asked of the control plane or of a file.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::Method;
use postern_api::http::{DecideRequest, Decided, Held};
use postern_api::question::{AskedRequest, CalledService, judge as judge_by_rules};
use postern_intentions::{Entry, EntryContent, Protocol, RuleSet};
use postern_names::ServiceName;
use postern_traffic::ServiceSettings;

use super::file;
use crate::cli::intention::CallArgs;
use crate::client::Client;
use crate::commands::{service, tail};
use crate::outcome::{Answer, Failure, Outcome};
use crate::output::{Output, Tone, plain};
use crate::terminal;

/// Whether the call goes through: the answer is yes or no.
pub async fn check(output: &Output, call: CallArgs) -> Outcome {
    let pair = format!("{} -> {}", call.source, call.destination);
    let decided = judge(call).await?;
    output.show(&decided, |output| verdict(output, &pair, &decided))?;
    tell_notes(&decided);
    Ok(if decided.allowed { Answer::Yes } else { Answer::No })
}

/// Why: every intention that matches, and what became of it.
pub async fn explain(output: &Output, call: CallArgs) -> Outcome {
    let pair = format!("{} -> {}", call.source, call.destination);
    let decided = judge(call).await?;
    output.show(&decided, |output| explanation(output, &pair, &decided))?;
    tell_notes(&decided);
    Ok(Answer::Yes)
}

async fn judge(call: CallArgs) -> Result<Decided, Failure> {
    let request = request(&call);
    match &call.file {
        Some(path) => judge_by_file(&request, path, call.service_config.as_deref()),
        None => Client::find().await?.call(Method::POST, "/v1/decide", Some(&request), Duration::ZERO).await,
    }
}

/// A path or a header makes it an HTTP request; a request without a method is a GET, one without a path asks for `/`.
fn request(call: &CallArgs) -> DecideRequest {
    let is_http = call.method.is_some() || call.path.is_some() || !call.header.is_empty();
    let method = call.method.as_ref().map(|method| method.to_ascii_uppercase());
    DecideRequest {
        source: call.source.clone(),
        destination: call.destination.clone(),
        port: call.port.clone(),
        method: is_http.then(|| method.unwrap_or_else(|| "GET".into())),
        path: is_http.then(|| call.path.clone().unwrap_or_else(|| "/".into())),
        headers: call.header.clone(),
    }
}

fn judge_by_file(request: &DecideRequest, path: &Path, settings: Option<&Path>) -> Result<Decided, Failure> {
    if settings == Some(path) && path == Path::new("-") {
        return Err(Failure::new("--file and --service-config cannot both be stdin").cure("write one of them to a file"));
    }
    let settings = settings.map(|path| settings_in(path, &request.destination)).transpose()?.flatten();
    let file = file::read(path)?;
    let entry = |intention| Entry { revision: 0, content: EntryContent::Understood(Arc::new(intention)) };
    let rules = RuleSet::compile(file.default.unwrap_or_default(), file.intentions.into_iter().map(entry));
    let asked = AskedRequest::of(request).map_err(|error| Failure::new(error.to_string()))?;
    let said = settings.as_ref().and_then(|settings| settings.protocol);
    let protocol = said.unwrap_or(if asked.is_some() { Protocol::Http } else { Protocol::Tcp });
    let called = CalledService { protocol, paths: settings.map(|settings| settings.paths()).unwrap_or_default() };
    Ok(judge_by_rules(&rules, request, asked.as_ref(), called, SystemTime::now()))
}

/// What a file of settings says of a service, if anything.
fn settings_in(path: &Path, service: &ServiceName) -> Result<Option<ServiceSettings>, Failure> {
    let file = service::config::read(path)?;
    Ok(file.services.into_iter().find(|settings| settings.service == *service))
}

fn tell_notes(decided: &Decided) {
    for note in &decided.notes {
        terminal::note(&format!("note: {note}"));
    }
}

fn verdict(output: &Output, pair: &str, decided: &Decided) -> String {
    let word = match (decided.allowed, decided.would_deny) {
        (true, false) => ("allowed".to_owned(), Tone::Good),
        (true, true) => ("allowed by audit, would be denied".to_owned(), Tone::Doubtful),
        (false, _) => ("denied".to_owned(), Tone::Bad),
    };
    let forwarded = decided.forwarded.as_ref().map(|target| format!("forwarded as {target}\n")).unwrap_or_default();
    format!("{pair}: {}, because of {}\n{forwarded}", output.paint(word), decided.because)
}

/// The verdict, what was considered, what the sidecars hold, and what would let the call through.
fn explanation(output: &Output, pair: &str, decided: &Decided) -> String {
    let mut sections = vec![verdict(output, pair, decided), candidates(output, decided)];
    sections.extend(readings(output, decided));
    sections.extend(decided.held.as_ref().map(|held| held_text(output, held)));
    sections.extend(recent(output, decided));
    sections.extend(suggestion(decided));
    sections.join("\n")
}

fn recent(output: &Output, decided: &Decided) -> Option<String> {
    let lines = tail::lines(output, &decided.recent);
    (!lines.is_empty()).then(|| format!("last decisions seen on this edge:\n{lines}"))
}

fn candidates(output: &Output, decided: &Decided) -> String {
    if decided.explanation.candidates.is_empty() {
        return "no intention matches\n".into();
    }
    let rows = decided.explanation.candidates.iter().map(|candidate| {
        vec![
            plain(&candidate.pair),
            plain(&candidate.says),
            plain(candidate.precedence),
            plain(candidate.revision),
            outcome(&candidate.outcome, "governs"),
        ]
    });
    output.table(&["intention", "says", "precedence", "revision", "outcome"], rows.collect())
}

fn readings(output: &Output, decided: &Decided) -> Vec<String> {
    let reading = |reading: &postern_intentions::ReadingExplanation| {
        let permissions = reading.permissions.iter().enumerate();
        let rows = permissions
            .map(|(index, permission)| vec![plain(index), plain(&permission.says), outcome(&permission.outcome, "matches")]);
        let table = output.table(&["permission", "says", "outcome"], rows.collect());
        format!("path {}: {}\n{table}", reading.path, reading.action)
    };
    decided.explanation.readings.iter().map(reading).collect()
}

/// How many sidecars enforce it, and each with what it holds.
fn held_text(output: &Output, held: &Held) -> String {
    let mut text = match held.sidecars {
        0 => "no sidecar of the destination is connected\n".to_owned(),
        all => format!("{} of {all} connected sidecars of the destination enforce this\n", held.agree),
    };
    let rows = held.by.iter().map(|one| {
        let tone = if one.agrees { Tone::Good } else { Tone::Doubtful };
        let state = one.why.clone().unwrap_or_else(|| "enforces this".to_owned());
        let age =
            one.age_s.map_or_else(|| "-".to_owned(), |age| humantime::format_duration(Duration::from_secs(age)).to_string());
        vec![plain(&one.instance), plain(one.revision), plain(age), (state, tone)]
    });
    if !held.by.is_empty() {
        text.push_str(&output.table(&["sidecar", "revision", "acknowledged ago", "state"], rows.collect()));
    }
    for gone in &held.not_connected {
        text.push_str(&format!("{} is not connected since {}, and enforces what it held then\n", gone.instance, gone.since));
    }
    text
}

/// The least that would let it through, to be pasted.
fn suggestion(decided: &Decided) -> Option<String> {
    let command = decided.suggestion.as_ref()?;
    let why = decided.suggestion_why.as_deref().unwrap_or_default();
    Some(format!("to let it through ({why}):\n\n{command}\n"))
}

fn outcome(outcome: &str, decisive: &str) -> (String, Tone) {
    (outcome.to_owned(), if outcome == decisive { Tone::Good } else { Tone::Plain })
}

#[cfg(test)]
mod tests {
    use postern_api::http::HeldBy;

    use super::*;

    const FILE: &str = "default: deny\nintentions:\n  - {source: \"*\", destination: api, action: deny}\n  - {source: web, destination: api, action: allow}\n";

    fn call(source: &str, destination: &str) -> CallArgs {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), FILE).unwrap();
        let (_, path) = file.keep().unwrap();
        CallArgs {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            port: None,
            method: None,
            path: None,
            header: vec![],
            file: Some(path),
            service_config: None,
        }
    }

    async fn judged(source: &str, destination: &str) -> Decided {
        let call = call(source, destination);
        let path = call.file.clone().unwrap();
        let decided = judge(call).await.unwrap();
        std::fs::remove_file(path).unwrap();
        decided
    }

    #[tokio::test]
    async fn a_file_is_judged_without_a_control_plane() {
        assert!(judged("web", "api").await.allowed);
        let denied = judged("db", "api").await;
        assert!(!denied.allowed && denied.because.contains("* -> api"), "{}", denied.because);
        assert!(!judged("web", "db").await.allowed);
    }

    #[tokio::test]
    async fn a_request_is_judged_by_the_permissions_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let permissions = "[{action: deny, path_prefix: /admin}, {action: allow, methods: [GET]}]";
        std::fs::write(file.path(), format!("intentions: [{{source: web, destination: api, permissions: {permissions}}}]"))
            .unwrap();
        let ask = |method: &str, path: &str| CallArgs {
            source: "web".parse().unwrap(),
            destination: "api".parse().unwrap(),
            port: None,
            method: Some(method.into()),
            path: Some(path.into()),
            header: vec![],
            file: Some(file.path().into()),
            service_config: None,
        };
        for (method, path, allowed) in
            [("get", "/a", true), ("post", "/a", false), ("get", "/x/..;/admin", false), ("get", "/a%2Fb", false)]
        {
            assert_eq!(judge(ask(method, path)).await.unwrap().allowed, allowed, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn paths_are_judged_as_a_file_of_settings_says() {
        let file = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            file
        };
        let intentions = file("intentions: [{source: web, destination: api, permissions: [{action: allow, path_prefix: /}]}]");
        let ask = |path: &str, settings: Option<&Path>| CallArgs {
            source: "web".parse().unwrap(),
            destination: "api".parse().unwrap(),
            port: None,
            method: None,
            path: Some(path.into()),
            header: vec![],
            file: Some(intentions.path().into()),
            service_config: settings.map(Into::into),
        };
        let keep = file("services: [{service: web}, {service: api, encoded_slash: keep, double_slash: keep}]");
        let other = file("services: [{service: web, encoded_slash: keep, double_slash: keep}]");
        for (settings, path, allowed, forwarded) in [
            (None, "/a%2Fb", false, None),
            (Some(other.path()), "/a%2Fb", false, None),
            (Some(keep.path()), "/a%2Fb", true, None),
            (None, "/a//b", true, Some("/a/b")),
            (Some(other.path()), "/a//b", true, Some("/a/b")),
            (Some(keep.path()), "/a//b", true, None),
        ] {
            let decided = judge(ask(path, settings)).await.unwrap();
            assert_eq!((decided.allowed, decided.forwarded.as_deref()), (allowed, forwarded), "{path} {settings:?}");
        }

        let tcp = file("services: [{service: api, protocol: tcp}]");
        let decided = judge(ask("/", Some(tcp.path()))).await.unwrap();
        assert!(!decided.allowed && decided.because.ends_with("api is tcp"), "{decided:?}");
        let wrong = file("services: [{service: api, encoded_slash: sometimes}]");
        let refused = judge(ask("/", Some(wrong.path()))).await.unwrap_err();
        assert!(refused.what.contains(&wrong.path().display().to_string()), "{}", refused.what);
    }

    #[tokio::test]
    async fn every_candidate_is_explained() {
        let decided = judged("web", "api").await;
        assert_eq!(decided.explanation.candidates.len(), 2);
        assert_eq!(decided.explanation.candidates[0].outcome, "governs");
    }

    #[tokio::test]
    async fn a_denial_is_explained_with_the_command_that_ends_it() {
        let output = Output::new(crate::cli::Format::Table);
        let text = explanation(&output, "db -> api", &judged("db", "api").await);
        let expected = "to let it through (intention * -> api (deny) decides; db -> api goes before it):\n\nmeshctl intention allow db api\n";
        assert!(text.ends_with(expected), "{text}");
        assert!(!explanation(&output, "web -> api", &judged("web", "api").await).contains("to let it through"));
    }

    #[test]
    fn what_the_sidecars_hold_is_told_one_by_one() {
        let one = |instance: &str, why: Option<&str>| HeldBy {
            instance: instance.parse().unwrap(),
            revision: 41,
            age_s: Some(90),
            agrees: why.is_none(),
            why: why.map(Into::into),
        };
        let held = Held {
            sidecars: 2,
            agree: 1,
            behind: vec!["api-2".parse().unwrap()],
            by: vec![one("api-1", None), one("api-2", Some("it has not acknowledged the last change yet"))],
            not_connected: Vec::new(),
        };
        let text = held_text(&Output::new(crate::cli::Format::Table), &held);
        assert!(text.starts_with("1 of 2 connected sidecars of the destination enforce this\n"), "{text}");
        assert!(text.contains("api-2    41        1m 30s") && text.contains("it has not acknowledged"), "{text}");
    }

    #[test]
    fn a_path_makes_a_get_request() {
        let mut args = CallArgs {
            source: "web".parse().unwrap(),
            destination: "api".parse().unwrap(),
            port: None,
            method: None,
            path: Some("/v1".into()),
            header: vec![],
            file: None,
            service_config: None,
        };
        assert_eq!(request(&args).method.as_deref(), Some("GET"));
        args.path = None;
        assert_eq!(request(&args).method, None);
        args.method = Some("post".into());
        assert_eq!((request(&args).method.as_deref(), request(&args).path.as_deref()), (Some("POST"), Some("/")));
    }
}
