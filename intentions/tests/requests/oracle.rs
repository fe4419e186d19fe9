//! The evaluator against one that is as plain as the specification: lists, strings and no haste.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use postern_intentions::{
    Action, Because, Call, ClaimCriterion, ClaimMatch, DefaultPolicy, DoubleSlash, EncodedSlash, Entry, EntryContent, Forward,
    HeaderCriterion, Intention, JwtCriterion, Mode, Party, PathCriterion, PathSettings, Permission, Protocol, QueryCriterion,
    Request, Rule, RuleSet, TextMatch, VerifiedTokens, decide, explain, judge_request,
};
use postern_names::{PortName, ServiceName};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::now;

/// A question in plain values.
#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, &'static [u8])>,
    claims: Option<&'static str>,
    port: &'static str,
    protocol: Protocol,
    paths: PathSettings,
    seconds: u64,
}

/// The verdict, whether it would be denied, and every reason that may be told.
#[derive(Debug, PartialEq)]
struct Expected {
    allowed: bool,
    would_deny: bool,
    because: Vec<Because>,
    forwarded: Option<String>,
}

// The path.

fn percent(byte: u8) -> String {
    format!("%{byte:02X}")
}

/// Two hexadecimal digits at the start.
fn hex(text: &str) -> Option<u8> {
    let digits = text.get(..2)?;
    digits.chars().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).unwrap())
}

/// Step 2 and the escapes of step 3, character by character. Nothing: 400.
fn canonical(path: &str, slash: EncodedSlash) -> Option<String> {
    let mut written = String::new();
    let mut rest = path;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '%' => {
                let byte = hex(rest)?;
                rest = &rest[2..];
                let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                match byte {
                    0 | b'\\' => return None,
                    b'/' if slash == EncodedSlash::Refuse => return None,
                    _ if is_unreserved => written.push(char::from(byte)),
                    _ => written += &percent(byte),
                }
            }
            ' ' | '\\' | '\0'..='\x1f' | '\x7f' => return None,
            _ if !character.is_ascii() => written.extend(character.to_string().bytes().map(percent)),
            _ => written.push(character),
        }
    }
    Some(written)
}

fn collapse(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

/// Takes out one dot segment at a time. Nothing: it climbs above `/`.
fn resolve(path: &str) -> Option<String> {
    let mut segments: Vec<String> = path[1..].split('/').map(str::to_owned).collect();
    while let Some(at) = segments.iter().position(|segment| segment == "." || segment == "..") {
        let is_last = at + 1 == segments.len();
        if segments[at] == "." {
            segments.remove(at);
        } else {
            segments.remove(at);
            segments.remove(at.checked_sub(1)?);
        }
        if is_last {
            segments.push(String::new());
        }
    }
    Some(format!("/{}", segments.join("/")))
}

fn without_parameters(path: &str) -> String {
    path.split('/').map(|segment| segment.split(';').next().unwrap()).collect::<Vec<_>>().join("/")
}

/// Escapes of what can be seen, but for `%`, `/`, `?`, `#` and `\`, as the character.
fn with_visible(path: &str) -> String {
    let seen = (b'!'..=b'~').filter(|byte| !b"%/?#\\".contains(byte));
    seen.fold(path.to_owned(), |path, byte| path.replace(&percent(byte), &char::from(byte).to_string()))
}

/// What is forwarded, and everything that it may be read as. Nothing: 400.
fn readings(path: &str, paths: PathSettings) -> Option<(String, BTreeSet<String>)> {
    if path == "*" {
        return Some(("*".into(), BTreeSet::from(["*".into()])));
    }
    let received = canonical(path, paths.encoded_slash)?;
    let forwarded = match paths.double_slash {
        DoubleSlash::Collapse => resolve(&collapse(&received))?,
        DoubleSlash::Keep => resolve(&received)?,
    };
    let mut all = BTreeSet::from([forwarded.clone()]);
    let mut to_view = vec![received, forwarded.clone()];
    while let Some(path) = to_view.pop() {
        let views = [without_parameters(&path), with_visible(&path), path.replace("%2F", "/"), collapse(&path)];
        for view in views.iter().filter(|view| **view != path) {
            for reading in [resolve(view)?, resolve(&collapse(view))?] {
                if all.insert(reading.clone()) {
                    to_view.push(reading);
                }
            }
        }
    }
    Some((forwarded, all))
}

/// The path and the query of a target. Nothing: 400.
fn target_of(asked: &Asked) -> Option<(String, Option<String>)> {
    if asked.method == "CONNECT" {
        return None;
    }
    let target = asked.target.split('#').next().unwrap();
    let target = match target.to_ascii_lowercase().strip_prefix("http://api.example") {
        Some(rest) => {
            let rest = &target[target.len() - rest.len()..];
            match rest.chars().next() {
                None if asked.method == "OPTIONS" => "*".to_owned(),
                None => "/".to_owned(),
                Some('?') => format!("/{rest}"),
                Some('/') => rest.to_owned(),
                Some(_) => return None,
            }
        }
        None => target.to_owned(),
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target, None),
    };
    let is_star = path == "*" && query.is_none() && asked.method == "OPTIONS";
    (path.starts_with('/') || is_star).then_some((path, query))
}

// The criteria.

/// The regular expressions that are tried, and what they mean.
type Meaning = fn(&str) -> bool;
const REGEXES: [(&str, Meaning); 4] = [
    ("[ab]+", |text| !text.is_empty() && text.chars().all(|c| c == 'a' || c == 'b')),
    ("a|ab", |text| text == "a" || text == "ab"),
    ("/[^;]*", |text| text.starts_with('/') && !text.contains(';')),
    ("/pub(/.*)?", |text| text == "/pub" || text.starts_with("/pub/")),
];

fn regex(pattern: &str, text: &str) -> bool {
    REGEXES.iter().find(|(known, _)| *known == pattern).unwrap().1(text)
}

fn text_matches(matches: &TextMatch, value: &str) -> bool {
    match matches {
        TextMatch::Present => true,
        TextMatch::Exact(text) => value == text,
        TextMatch::Prefix(text) => value.starts_with(text.as_str()),
        TextMatch::Suffix(text) => value.ends_with(text.as_str()),
        TextMatch::Contains(text) => value.contains(text.as_str()),
        TextMatch::Regex(pattern) => regex(pattern, value),
    }
}

/// All for an allow, any for a deny; what is not understood counts against the caller.
fn values_match(action: Action, values: &[Option<String>], matches: &TextMatch, invert: bool) -> bool {
    let one = |value: &Option<String>| match value {
        Some(value) => text_matches(matches, value) ^ invert,
        None => action == Action::Deny,
    };
    match (values, action) {
        ([], _) => invert,
        (_, Action::Allow) => values.iter().all(one),
        (_, Action::Deny) => values.iter().any(one),
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '+' => bytes.push(b' '),
            '%' => {
                bytes.push(hex(rest)?);
                rest = &rest[2..];
            }
            _ => bytes.extend(character.to_string().bytes()),
        }
    }
    String::from_utf8(bytes).ok()
}

fn parameters(query: Option<&str>, name: &str) -> Vec<Option<String>> {
    let mut values = Vec::new();
    for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
        let (given, value) = pair.split_once('=').unwrap_or((pair, ""));
        match decode(given) {
            None => values.push(None),
            Some(given) if given == name => values.push(decode(value)),
            Some(_) => {}
        }
    }
    values
}

fn header_values(asked: &Asked, name: &str) -> Vec<Option<String>> {
    let values = asked.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
    values.map(|(_, value)| String::from_utf8(value.to_vec()).ok()).collect()
}

fn path_matches(criterion: &PathCriterion, path: &str) -> bool {
    let spellings = |text: &str| {
        let canonical = canonical(text, EncodedSlash::Keep).unwrap();
        let visible = with_visible(&canonical);
        [collapse(&canonical), collapse(&visible), canonical, visible]
    };
    match criterion {
        PathCriterion::Exact(text) => spellings(text).iter().any(|text| text == path),
        PathCriterion::Prefix(text) => spellings(text).iter().any(|text| match text.strip_suffix('/') {
            Some(_) => path.starts_with(text.as_str()),
            None => path == text || path.starts_with(&format!("{text}/")),
        }),
        PathCriterion::Regex(pattern) => regex(pattern, path),
    }
}

fn claim_matches(claim: &ClaimCriterion, token: &serde_json::Value) -> bool {
    let value = claim.path.split('.').fold(token, |value, name| &value[name]);
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    match &claim.matches {
        ClaimMatch::Equals(wanted) => text(value).as_ref() == Some(wanted),
        ClaimMatch::Contains(wanted) => {
            value.as_array().is_some_and(|all| all.iter().any(|one| text(one).as_ref() == Some(wanted)))
        }
    }
}

fn permission_matches(permission: &Permission, asked: &Asked, path: &str, query: Option<&str>) -> bool {
    let Permission { action, methods, path: path_criterion, headers, query: queries, ports, jwt } = permission;
    let given = |method: &String| match action {
        Action::Allow => *method == asked.method,
        Action::Deny => *method == asked.method.to_ascii_uppercase(),
    };
    (methods.is_empty() || methods.iter().any(given))
        && (ports.is_empty() || ports.iter().any(|port| port.as_str() == asked.port))
        && path_criterion.iter().all(|criterion| path_matches(criterion, path))
        && headers.iter().all(|one| values_match(*action, &header_values(asked, &one.name), &one.matches, one.invert))
        && queries.iter().all(|one| values_match(*action, &parameters(query, &one.name), &one.matches, false))
        && jwt.iter().all(|one| match asked.claims {
            Some(claims) if one.provider == "corp" => {
                let token = serde_json::from_str(claims).unwrap();
                one.claims.iter().all(|claim| claim_matches(claim, &token))
            }
            _ => false,
        })
}

// The decision.

fn at(seconds: u64) -> SystemTime {
    now() + Duration::from_secs(seconds)
}

/// The one that governs: the highest precedence of what is live, the temporary one of a pair first.
fn governing(intentions: &[Intention], seconds: u64) -> Option<(&Intention, u64)> {
    let live = intentions.iter().zip(1..).filter(|(one, _)| {
        let is_of_the_call = |party: &Party, name: &str| *party == Party::Any || party.to_string() == name;
        one.is_live(at(seconds)) && is_of_the_call(&one.source, "web") && is_of_the_call(&one.destination, "api")
    });
    live.max_by_key(|(one, _)| (one.precedence(), one.is_temporary()))
}

fn plainly(default: DefaultPolicy, intentions: &[Intention], asked: &Asked) -> Expected {
    let untouched = Some(asked.target.clone());
    let told = |denies: bool, mode: Mode, because: Vec<Because>, forwarded: Option<String>| {
        let allowed = !denies || mode == Mode::Audit;
        Expected { allowed, would_deny: denies && allowed, because, forwarded: forwarded.filter(|_| allowed) }
    };
    let Some((intention, revision)) = governing(intentions, asked.seconds) else {
        let mode = if default == DefaultPolicy::Audit { Mode::Audit } else { Mode::Enforce };
        return told(default != DefaultPolicy::Allow, mode, vec![Because::Default(default)], untouched);
    };
    let (source, destination, mode) = (intention.source.clone(), intention.destination.clone(), intention.mode);
    let by = |action, permission| Because::Intention {
        source: source.clone(),
        destination: destination.clone(),
        revision,
        action,
        mode,
        temporary_until: intention.expires_at,
        permission,
    };
    let (permissions, otherwise) = match &intention.rule {
        Rule::Action(action) => return told(*action == Action::Deny, mode, vec![by(*action, None)], untouched),
        Rule::Permissions { permissions, otherwise } => (permissions, *otherwise),
    };
    if asked.protocol == Protocol::Tcp {
        let because = Because::PermissionsOnTcp { source: source.clone(), destination: destination.clone(), revision };
        return told(true, mode, vec![because], untouched);
    }
    let path_and_query = target_of(asked).and_then(|(path, query)| Some((readings(&path, asked.paths)?, query)));
    let Some(((forwarded, readings), query)) = path_and_query else {
        // The reason is checked by the table of spellings.
        return told(true, mode, Vec::new(), untouched);
    };
    let of_reading = |path: &String| {
        let first = permissions.iter().position(|one| permission_matches(one, asked, path, query.as_deref()));
        match first {
            Some(index) => (permissions[index].action, by(permissions[index].action, Some(index))),
            None => (otherwise, Because::Otherwise { source: source.clone(), destination: destination.clone(), revision }),
        }
    };
    let denied: Vec<_> = readings.iter().map(of_reading).filter(|(action, _)| *action == Action::Deny).collect();
    let first = of_reading(&forwarded);
    let because = match (first.0, denied.is_empty()) {
        (Action::Allow, false) => denied.iter().map(|(_, because)| because.clone()).collect(),
        _ => vec![first.1],
    };
    let target = query.map_or(forwarded.clone(), |query| format!("{forwarded}?{query}"));
    told(!denied.is_empty(), mode, because, Some(target))
}

// What is tried.

fn action() -> impl Strategy<Value = Action> {
    select(vec![Action::Allow, Action::Deny])
}

fn text_match(of_query: bool) -> impl Strategy<Value = TextMatch> {
    let text = || select(vec!["a", "b", "ab"]).prop_map(str::to_owned);
    let common = prop_oneof![
        Just(TextMatch::Present),
        text().prop_map(TextMatch::Exact),
        select(vec!["[ab]+", "a|ab"]).prop_map(|pattern| TextMatch::Regex(pattern.into())),
    ];
    if of_query {
        common.boxed()
    } else {
        let more = prop_oneof![
            text().prop_map(TextMatch::Prefix),
            text().prop_map(TextMatch::Suffix),
            text().prop_map(TextMatch::Contains)
        ];
        prop_oneof![common, more].boxed()
    }
}

fn path_criterion() -> impl Strategy<Value = PathCriterion> {
    let path = || {
        let paths = ["/", "/pub", "/pub/", "/pub/secret", "/a", "/a:b", "/a%3ab", "/pub//a", "/%70ub/a;x", "/pub/%2F", "/%C3%A4"];
        select(paths.to_vec()).prop_map(str::to_owned)
    };
    prop_oneof![
        1 => path().prop_map(PathCriterion::Exact),
        3 => path().prop_map(PathCriterion::Prefix),
        1 => select(vec!["/[^;]*", "/pub(/.*)?"]).prop_map(|pattern| PathCriterion::Regex(pattern.into())),
    ]
}

fn jwt() -> impl Strategy<Value = JwtCriterion> {
    let claim = (select(vec!["sub", "realm.roles", "n", "realm.n"]), select(vec!["a", "7", "true"]), any::<bool>()).prop_map(
        |(path, text, contains)| ClaimCriterion {
            path: path.into(),
            matches: if contains { ClaimMatch::Contains(text.into()) } else { ClaimMatch::Equals(text.into()) },
        },
    );
    (select(vec!["corp", "corp", "other"]), vec(claim, 0..3))
        .prop_map(|(provider, claims)| JwtCriterion { provider: provider.into(), claims })
}

/// Criteria that are seldom there, so that permissions often match.
fn permission() -> impl Strategy<Value = Permission> {
    let seldom = |most: usize| prop_oneof![3 => Just(0), 1 => 0..=most];
    let header = (select(vec!["x", "y"]), text_match(false), any::<bool>()).prop_map(|(name, matches, invert)| HeaderCriterion {
        name: name.into(),
        matches,
        invert,
    });
    let query =
        (select(vec!["q", "p"]), text_match(true)).prop_map(|(name, matches)| QueryCriterion { name: name.into(), matches });
    let port = select(vec!["main", "admin"]).prop_map(|port| port.parse::<PortName>().unwrap());
    let some = (seldom(2), vec(header, 2), seldom(2), vec(query, 2), seldom(1), vec(port, 1), seldom(1), vec(jwt(), 1));
    let methods = prop_oneof![2 => Just(vec![]), 1 => vec(select(vec!["GET", "POST"]).prop_map(str::to_owned), 1..3)];
    (action(), methods, option::weighted(0.7, path_criterion()), some).prop_map(|(action, methods, path, some)| {
        let (headers, mut header, queries, mut query, ports, mut port, tokens, mut jwt) = some;
        header.truncate(headers);
        query.truncate(queries);
        port.truncate(ports);
        jwt.truncate(tokens);
        Permission { action, methods, path, headers: header, query, ports: port, jwt }
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let permissions =
        (vec(permission(), 1..5), action()).prop_map(|(permissions, otherwise)| Rule::Permissions { permissions, otherwise });
    prop_oneof![1 => action().prop_map(Rule::Action), 6 => permissions]
}

/// Of every pair that the call could be of, and some that it is not.
fn intentions() -> impl Strategy<Value = Vec<Intention>> {
    let party = |names: [&'static str; 3]| select(names.to_vec()).prop_map(|name| name.parse::<Party>().unwrap());
    let mode = prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Audit)];
    let one = (party(["web", "*", "batch"]), party(["api", "*", "db"]), rule(), mode, option::weighted(0.3, 1..4_u64)).prop_map(
        |(source, destination, rule, mode, end)| Intention {
            rule,
            mode,
            expires_at: end.map(at),
            ..Intention::new(source, destination, Action::Allow)
        },
    );
    vec(one, 0..5).prop_map(|all| {
        let mut kept: Vec<Intention> = Vec::new();
        for one in all {
            if kept.iter().all(|other| other.key() != one.key()) {
                kept.push(one);
            }
        }
        kept
    })
}

fn target() -> impl Strategy<Value = String> {
    let segments = [
        "pub",
        "secret",
        "a",
        "b",
        "a:b",
        "a%3Ab",
        "..",
        ".",
        "",
        "%2e%2e",
        "%2E",
        "%73ecret",
        "a;x",
        "..;",
        ";",
        "..%3b",
        "%3B",
        "%2F",
        "x%2f..%2Fsecret",
        "a;x%2F..",
        "ä",
        "%c3%a4",
        "%ff",
        "%25",
        "%2573",
        "%20",
        "...",
        ".b",
        "pub%2e",
        "%70ub",
    ];
    let broken = ["%00", "%", "%zz", "\\", " ", "%5c", "\t"];
    let segment = prop_oneof![40 => select(segments.to_vec()), 1 => select(broken.to_vec())];
    let path = vec(segment, 0..6).prop_map(|segments| format!("/{}", segments.join("/")));
    // Most begin where criteria do, so that permissions match.
    let path =
        (select(vec!["", "", "/pub", "/pub", "/pub/secret", "/a:b"]), path).prop_map(|(start, path)| format!("{start}{path}"));
    let pairs = ["q=a", "q=b", "q=%61", "q=ab", "q", "p=a", "p=+", "%71=b", "q=%zz", "%zz=a", "%ff", "q=%FF", "", "x=1"];
    let query = prop_oneof![2 => Just(None), 2 => vec(select(pairs.to_vec()), 0..4).prop_map(|pairs| Some(pairs.join("&")))];
    let start = prop_oneof![20 => Just(""), 2 => Just("http://api.example"), 1 => Just("HTTP://API.EXAMPLE"), 1 => Just("http://other"), 1 => Just("x")];
    let end = prop_oneof![9 => Just(""), 1 => Just("#/f?g")];
    let whole = (start, path, query, end).prop_map(|(start, path, query, end)| {
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        format!("{start}{path}{query}{end}")
    });
    prop_oneof![30 => whole, 1 => select(vec!["*", "*?q", "http://api.example", "http://api.example?q=a", ""]).prop_map(str::to_owned)]
}

fn asked() -> impl Strategy<Value = Asked> {
    let method = prop_oneof![6 => Just("GET"), 2 => Just("POST"), 1 => Just("get"), 1 => Just("OPTIONS"), 1 => Just("CONNECT")];
    let values: [&'static [u8]; 6] = [b"a", b"b", b"ab", b"", b"\xff", b"a\xc3"];
    let header = (select(vec!["x", "X", "y", "z"]), select(values.to_vec()));
    let claims = [
        r#"{"sub": "a"}"#,
        r#"{"sub": 7, "n": true, "realm": {"roles": ["a", 7], "n": "7"}}"#,
        r#"{"sub": ["a"], "realm": {"roles": "a"}, "n": null}"#,
    ];
    let protocol = prop_oneof![1 => Just(Protocol::Tcp), 8 => select(vec![Protocol::Http, Protocol::Http2, Protocol::Grpc])];
    let paths = (any::<bool>(), any::<bool>()).prop_map(|(slash, double)| PathSettings {
        encoded_slash: if slash { EncodedSlash::Keep } else { EncodedSlash::Refuse },
        double_slash: if double { DoubleSlash::Keep } else { DoubleSlash::Collapse },
    });
    let paths = prop_oneof![1 => Just(PathSettings::default()), 1 => paths];
    (
        method,
        target(),
        vec(header, 0..4),
        option::of(select(claims.to_vec())),
        select(vec!["main", "admin"]),
        protocol,
        paths,
        0..5_u64,
    )
        .prop_map(|(method, target, headers, claims, port, protocol, paths, seconds)| Asked {
            method,
            target,
            headers,
            claims,
            port,
            protocol,
            paths,
            seconds,
        })
}

fn default_policy() -> impl Strategy<Value = DefaultPolicy> {
    select(vec![DefaultPolicy::Deny, DefaultPolicy::Allow, DefaultPolicy::Audit])
}

/// Asks with the types of the evaluator.
fn ask<T>(rules: &RuleSet, asked: &Asked, judge: impl FnOnce(&RuleSet, &Call<'_>, &Request<'_>) -> T) -> T {
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    let mut tokens = VerifiedTokens::none();
    if let Some(claims) = asked.claims {
        tokens.insert("corp", serde_json::from_str(claims).unwrap());
    }
    let request = Request {
        method: asked.method,
        target: &asked.target,
        host: Some("api.example"),
        headers: &headers,
        tokens: &tokens,
        paths: asked.paths,
    };
    let (web, api): (ServiceName, ServiceName) = ("web".parse().unwrap(), "api".parse().unwrap());
    let port = asked.port.parse().unwrap();
    let call = Call { source: &web, destination: &api, port: &port, protocol: asked.protocol, request: Some(&request) };
    judge(rules, &call, &request)
}

fn compiled(default: DefaultPolicy, intentions: &[Intention]) -> RuleSet {
    let entries = intentions.iter().cloned().zip(1..);
    RuleSet::compile(
        default,
        entries.map(|(intention, revision)| Entry { revision, content: EntryContent::Understood(Arc::new(intention)) }),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Twenty requests of each rule set, so a hundred thousand in all: compiling is what takes long.
    #[test]
    fn requests_are_judged_as_the_specification_reads(
        default in default_policy(),
        intentions in intentions(),
        questions in vec(asked(), 20),
    ) {
        let rules = compiled(default, &intentions);
        for asked in &questions {
            let expected = plainly(default, &intentions, asked);
            let judged = ask(&rules, asked, |rules, call, request| judge_request(rules, call, request, at(asked.seconds)));
            let decision = &judged.decision;

            prop_assert_eq!((decision.allowed(), decision.would_deny), (expected.allowed, expected.would_deny), "{:?}", asked);
            let is_refused = matches!(decision.because, Because::PathRefused { .. });
            prop_assert!(if is_refused { expected.because.is_empty() } else { expected.because.contains(&decision.because) }, "{:?}: {:?}", asked, decision);
            let forwarded = judged.forward().map(|forward| match forward {
                Forward::Untouched => asked.target.clone(),
                Forward::Target(target) => target.clone(),
            });
            prop_assert_eq!(forwarded, expected.forwarded, "{:?}", asked);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn an_explanation_tells_of_the_decision_that_is_made(
        default in default_policy(),
        intentions in intentions(),
        asked in asked(),
    ) {
        let rules = compiled(default, &intentions);
        let (decision, explanation) = ask(&rules, &asked, |rules, call, _| {
            (decide(rules, call, at(asked.seconds)), explain(rules, call, at(asked.seconds)))
        });
        prop_assert_eq!(&explanation.decision, &decision);
        let denied = explanation.readings.iter().any(|reading| reading.action == Action::Deny);
        if !explanation.readings.is_empty() {
            prop_assert_eq!(denied, !decision.allowed() || decision.would_deny);
        }
        for reading in &explanation.readings {
            let matching = reading.permissions.iter().filter(|permission| permission.outcome == "matches").count();
            prop_assert!(matching <= 1);
        }
    }
}
