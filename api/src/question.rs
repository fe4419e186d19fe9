//! What is asked of the evaluator from outside: by `check` and `explain`, of the control plane and of a file.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use postern_intentions::{
    Action, Because, Call, Forward, PathSettings, Protocol, Remedy, Request, Rule, RuleSet, VerifiedTokens, explain, file,
    judge_request, remedy,
};
use postern_names::PortName;

use crate::http::{DecideRequest, Decided};

/// What decides how a call to a service is judged, beside the intentions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CalledService {
    /// What it speaks.
    pub protocol: Protocol,
    /// What its settings say of unusual paths.
    pub paths: PathSettings,
}

/// An HTTP request that somebody asks about. It carries no verified token.
#[derive(Debug)]
pub struct AskedRequest {
    method: String,
    target: String,
    headers: HeaderMap,
    tokens: VerifiedTokens,
}

/// A header that no request can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header {name:?} is not valid: a name is a token such as x-team, and a value holds no control characters")]
pub struct HeaderNotValid {
    /// The name as given, cut to 80 characters.
    pub name: String,
}

impl AskedRequest {
    /// The request that is asked about, where it is not a connection: a method, a path or a header makes it a request. It
    /// is a GET of `/` where it does not say.
    ///
    /// # Errors
    /// [`HeaderNotValid`]
    pub fn of(asked: &DecideRequest) -> Result<Option<Self>, HeaderNotValid> {
        if asked.method.is_none() && asked.path.is_none() && asked.headers.is_empty() {
            return Ok(None);
        }
        let mut headers = HeaderMap::with_capacity(asked.headers.len());
        for (name, value) in &asked.headers {
            let not_valid = || HeaderNotValid { name: name.chars().take(80).collect() };
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| not_valid())?;
            headers.append(header, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| not_valid())?);
        }
        Ok(Some(Self {
            method: asked.method.clone().unwrap_or_else(|| "GET".into()),
            target: asked.path.clone().unwrap_or_else(|| "/".into()),
            headers,
            tokens: VerifiedTokens::none(),
        }))
    }

    fn request(&self, paths: PathSettings) -> Request<'_> {
        let host = self.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        Request { method: &self.method, target: &self.target, host, headers: &self.headers, tokens: &self.tokens, paths }
    }
}

/// The one evaluator's answer, as the API gives it. On a `tcp` destination the connection is judged, not a request.
pub fn judge(
    rules: &RuleSet,
    asked: &DecideRequest,
    request: Option<&AskedRequest>,
    called: CalledService,
    now: SystemTime,
) -> Decided {
    let CalledService { protocol, paths } = called;
    let main = PortName::main();
    let request = request.filter(|_| protocol != Protocol::Tcp).map(|request| request.request(paths));
    let port = asked.port.as_ref().unwrap_or(&main);
    let (source, destination) = (&asked.source, &asked.destination);
    let call = Call { source, destination, port, protocol, request: request.as_ref() };
    let explanation = explain(rules, &call, now);
    let forwarded = request.and_then(|request| match judge_request(rules, &call, &request, now).forward() {
        Some(Forward::Target(target)) => Some(target.clone()),
        Some(Forward::Untouched) | None => None,
    });
    let is_of_requests = matches!(explanation.decision.because, Because::PerRequest { .. });
    let notes = is_of_requests.then(|| "each request is judged by itself; ask about one with --method and --path".to_owned());
    let remedy = remedy(rules, &call, now);
    Decided {
        allowed: explanation.decision.allowed(),
        would_deny: explanation.decision.would_deny,
        because: explanation.decision.because.to_string(),
        protocol,
        explanation,
        forwarded,
        suggestion: remedy.as_ref().map(|remedy| command(remedy, asked)),
        suggestion_why: remedy.as_ref().map(|remedy| remedy.why.clone()),
        suggested: remedy.and_then(|remedy| remedy.intention),
        held: None,
        recent: Vec::new(),
        notes: notes.into_iter().collect(),
    }
}

/// What does it, for a shell. Names of services need no quotes there.
fn command(remedy: &Remedy, asked: &DecideRequest) -> String {
    let DecideRequest { source, destination, .. } = asked;
    let end = remedy.ends_temporary.then(|| format!("meshctl intention delete {source} {destination} --temporary"));
    let set = remedy.intention.as_ref().map(|intention| match &intention.rule {
        Rule::Action(Action::Allow) => format!("meshctl intention allow {source} {destination}"),
        Rule::Action(Action::Deny) | Rule::Permissions { .. } => {
            let text = file::render(&file::IntentionFile { default: None, intentions: vec![intention.clone()] });
            format!("meshctl intention apply --merge --yes -f - <<'END-OF-INTENTIONS'\n{}\nEND-OF-INTENTIONS", text.trim_end())
        }
    });
    [end, set].into_iter().flatten().collect::<Vec<_>>().join(" &&\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use postern_intentions::{DefaultPolicy, DoubleSlash, EncodedSlash, Entry, EntryContent, file};

    use super::*;

    fn rules(permissions: &str) -> RuleSet {
        let text = format!("intentions: [{{source: web, destination: api, permissions: {permissions}}}]");
        let read = file::parse(&text, "test.yaml").unwrap();
        let entry = |intention| Entry { revision: 7, content: EntryContent::Understood(Arc::new(intention)) };
        RuleSet::compile(DefaultPolicy::Deny, read.intentions.into_iter().map(entry))
    }

    fn asked(method: Option<&str>, path: Option<&str>, headers: &[(&str, &str)]) -> DecideRequest {
        DecideRequest {
            source: "web".parse().unwrap(),
            destination: "api".parse().unwrap(),
            port: None,
            method: method.map(Into::into),
            path: path.map(Into::into),
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    fn answer(rules: &RuleSet, asked: &DecideRequest, protocol: Protocol) -> Decided {
        answer_of(rules, asked, CalledService { protocol, ..CalledService::default() })
    }

    fn answer_of(rules: &RuleSet, asked: &DecideRequest, called: CalledService) -> Decided {
        judge(rules, asked, AskedRequest::of(asked).unwrap().as_ref(), called, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_path_is_judged_as_the_settings_of_the_service_say() {
        let rules = rules("[{action: deny, path_prefix: /admin}, {action: allow, path_prefix: /}]");
        let of = |encoded_slash, double_slash| PathSettings { encoded_slash, double_slash };
        let shipped = PathSettings::default();
        let keep = of(EncodedSlash::Keep, DoubleSlash::Keep);
        for (paths, path, allowed, forwarded) in [
            (shipped, "/queues/%2F/x", false, None),
            (of(EncodedSlash::Keep, DoubleSlash::Collapse), "/queues/%2F/x", true, None),
            (of(EncodedSlash::Keep, DoubleSlash::Collapse), "/admin%2fx", false, None),
            (shipped, "/a//b", true, Some("/a/b")),
            (of(EncodedSlash::Refuse, DoubleSlash::Keep), "/a//b", true, None),
            (of(EncodedSlash::Refuse, DoubleSlash::Keep), "//admin/x", false, None),
            (keep, "/a//%2F", true, None),
        ] {
            let called = CalledService { protocol: Protocol::Http, paths };
            let decided = answer_of(&rules, &asked(None, Some(path), &[]), called);
            assert_eq!((decided.allowed, decided.forwarded.as_deref()), (allowed, forwarded), "{path} {paths:?}: {decided:?}");
        }
    }

    #[test]
    fn a_request_is_judged_with_its_query_and_headers_and_what_is_forwarded_is_told() {
        let rules = rules(
            "[{action: allow, methods: [GET], path_prefix: /v1/, headers: [{name: x-team, exact: green}], query: [{name: page, exact: '2'}]}]",
        );
        let green = [("X-Team", "green")];
        let decided = answer(&rules, &asked(None, Some("/x/../v1/a?page=2"), &green), Protocol::Http);
        assert_eq!((decided.allowed, decided.forwarded.as_deref()), (true, Some("/v1/a?page=2")));
        let as_it_is = answer(&rules, &asked(None, Some("/v1/a?page=2"), &green), Protocol::Grpc);
        assert_eq!((as_it_is.allowed, as_it_is.forwarded), (true, None));

        for denied in [
            asked(Some("POST"), Some("/v1/a?page=2"), &green),
            asked(None, Some("/v1/a?page=3"), &green),
            asked(None, Some("/v1/a?page=2"), &[]),
            asked(None, None, &green),
        ] {
            let decided = answer(&rules, &denied, Protocol::Http);
            assert_eq!(decided.because, "intention web -> api (otherwise: no permission matches)", "{denied:?}");
            assert_eq!(decided.explanation.readings.len(), 1, "{denied:?}");
        }
    }

    #[test]
    fn an_explanation_tells_of_each_permission_why_it_does_not_match() {
        let rules = rules("[{action: deny, methods: [PUT], path_exact: /a}, {action: allow, path_prefix: /pub/, ports: [main]}]");
        let decided = answer(&rules, &asked(None, Some("/pub/..;/a"), &[]), Protocol::Http);
        let told: Vec<String> = decided
            .explanation
            .readings
            .iter()
            .flat_map(|reading| {
                let told = reading.permissions.iter().map(|one| format!("{}: {}: {}", reading.path, one.says, one.outcome));
                told.collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(
            told,
            [
                "/pub/..;/a: deny, PUT, path_exact /a: method GET is not PUT",
                "/pub/..;/a: allow, path_prefix /pub/, ports main: matches",
                "/a: deny, PUT, path_exact /a: method GET is not PUT",
                "/a: allow, path_prefix /pub/, ports main: path /a is not path_prefix /pub/",
            ]
        );
    }

    #[test]
    fn a_connection_whose_requests_are_judged_is_answered_with_a_note() {
        let decided = answer(&rules("[{action: allow}]"), &asked(None, None, &[]), Protocol::Http);
        assert!(decided.allowed && decided.notes[0].contains("--path"), "{decided:?}");
        let tcp = answer(&rules("[{action: allow}]"), &asked(None, Some("/"), &[]), Protocol::Tcp);
        assert!(!tcp.allowed && tcp.because.ends_with("api is tcp"), "{tcp:?}");
    }

    #[test]
    fn a_header_that_no_request_can_have_is_refused_by_name() {
        for (name, value) in [("", "a"), ("x y", "a"), ("x", "a\nb")] {
            let error = AskedRequest::of(&asked(None, None, &[(name, value)])).unwrap_err();
            assert_eq!(error.name, name);
        }
    }
}
