use postern_intentions::file::{IntentionFile, render};
use proptest::prelude::*;

use super::*;
use crate::Verdict;
use crate::samples::{called, connection, now, request};

fn file(suggestion: &Suggestion) -> IntentionFile {
    let intentions = suggestion.intentions.iter().map(|suggested| suggested.intention.clone()).collect();
    IntentionFile { default: Some(DefaultPolicy::Deny), intentions }
}

fn rules(intentions: &[Intention]) -> RuleSet {
    let entry = |intention: &Intention| Entry { revision: 1, content: EntryContent::Understood(intention.clone().into()) };
    RuleSet::compile(DefaultPolicy::Deny, intentions.iter().map(entry))
}

fn suggested(seen: &[Sighting]) -> Suggestion {
    suggest(seen, Detail::Requests, |_| called("http"), now())
}

#[test]
fn pairs_are_exact() {
    let mut seen = vec![
        connection("web", "db", 1),
        request("web", "api", "GET", "/", 1),
        connection("bad", "db", 1),
        connection("gone", "db", 1),
    ];
    seen[2].edge.verdict = Verdict::Deny;
    seen[3].edge.verdict = Verdict::Failed;
    let suggestion = suggest(&seen, Detail::Pairs, |_| Called::default(), now());
    assert_eq!(
        render(&file(&suggestion)),
        "default: deny\nintentions:\n  - {source: web, destination: api, action: allow}\n  - {source: web, destination: db, action: allow}\n"
    );
    assert_eq!(suggestion.intentions[1].needed_for, [0]);
}

#[test]
fn requests_become_methods_and_paths_and_never_all_below_the_root() {
    let seen = [
        request("web", "api", "GET", "/", 9),
        request("web", "api", "GET", "/v1/invoices/17", 9),
        request("web", "api", "GET", "/v1/invoices/open", 9),
        request("web", "api", "POST", "/v1/invoices", 9),
        request("web", "api", "PUT", "/v1/invoices", 9),
        request("web", "api", "GET", "/4711", 9),
        request("web", "api", "DELETE", "/a/b.c/0", 9),
    ];
    assert_eq!(
        render(&file(&suggested(&seen))),
        "default: deny\nintentions:\n  - source: web\n    destination: api\n    permissions:\n      \
         - {action: allow, methods: [GET], path_exact: /}\n      \
         - {action: allow, methods: [POST, PUT], path_exact: /v1/invoices}\n      \
         - {action: allow, methods: [GET], path_regex: \"/[^/]+\"}\n      \
         - {action: allow, methods: [DELETE], path_prefix: /a/b.c/}\n      \
         - {action: allow, methods: [GET], path_prefix: /v1/invoices/}\n    otherwise: deny\n"
    );
}

#[test]
fn a_path_that_a_prefix_allows_needs_no_rule_of_its_own() {
    let seen = [request("web", "api", "GET", "/items/", 9), request("web", "api", "GET", "/items/7", 9)];
    let text = render(&file(&suggested(&seen)));
    assert!(text.contains("path_prefix: /items/") && !text.contains("path_exact"), "{text}");
}

#[test]
fn other_ports_are_named() {
    let mut seen =
        [request("web", "api", "GET", "/a", 1), request("web", "api", "GET", "/a", 1), request("web", "api", "GET", "/b", 1)];
    seen[1].edge.port = "admin".parse().unwrap();
    let text = render(&file(&suggested(&seen)));
    assert!(text.contains("path_exact: /a, ports: [admin, main]}"), "{text}");
    assert!(text.contains("path_exact: /b, ports: [main]}"), "{text}");
}

#[test]
fn what_no_permission_can_allow_is_allowed_whole_and_said() {
    for (path, why) in [("/a%2Fb", "cannot be judged"), ("/a;x=1/b", "would be refused")] {
        let suggestion = suggested(&[request("web", "api", "GET", path, 1), request("web", "api", "GET", "/c", 1)]);
        assert_eq!(suggestion.intentions[0].intention.rule, Rule::Action(Action::Allow), "{path}");
        assert!(suggestion.notes[0].contains(why), "{:?}", suggestion.notes);
    }
}

#[test]
fn what_has_no_shape_of_its_own_is_allowed_by_method() {
    let mut rest = request("web", "api", "GET", "/some/thing", 1);
    rest.edge.http.as_mut().unwrap().shape = Shape::rest();
    let text = render(&file(&suggested(std::slice::from_ref(&rest))));
    assert!(text.contains("- {action: allow, methods: [GET]}"), "{text}");
    assert_eq!(
        suggested(&[request("web", "db", "GET", "/a", 1), rest]).notes,
        ["web -> api allows every path for GET: the paths seen were too many to tell apart"]
    );
}

#[test]
fn what_stands_for_any_request_of_a_pair_is_allowed_and_the_path_that_is_not_known_is_no_reason_to_allow_it_whole() {
    let mut rest = request("web", "api", "BREW", "/some/thing", 1);
    rest.edge.http.as_mut().unwrap().shape = Shape::rest();
    rest.tally.sample = None;
    let suggestion = suggested(&[rest.clone(), request("web", "api", "GET", "/a", 1)]);
    let text = render(&file(&suggestion));
    assert!(text.contains("- {action: allow}") && !text.contains("path_exact"), "{text}");
    // By a rule for some paths alone it is not allowed: nothing is known of it.
    let narrow = crate::samples::rules(
        "default: deny\nintentions: [{source: web, destination: api, permissions: [{action: allow, path_prefix: /a}]}]",
    );
    assert!(!judge(&narrow, &rest, called("http"), now()).allowed());
}

fn sightings() -> impl Strategy<Value = Vec<Sighting>> {
    let word = || prop::sample::select(vec!["a", "b.c", "17", "0123456789abcdef0", "%7Ex", "x;y", "..", "", "é"]);
    let path = prop::collection::vec(word(), 1..4).prop_map(|words| format!("/{}", words.join("/")));
    let one = (
        prop::sample::select(vec!["web", "job"]),
        prop::sample::select(vec!["api", "db"]),
        prop::sample::select(vec!["GET", "POST", "BREW"]),
        path,
        prop::sample::select(vec!["main", "admin"]),
        prop::sample::select(Verdict::ALL.to_vec()),
    );
    let one = one.prop_map(|(source, destination, method, path, port, verdict)| {
        let mut seen =
            if destination == "db" { connection(source, destination, 1) } else { request(source, destination, method, &path, 1) };
        seen.edge.port = port.parse().unwrap();
        seen.edge.verdict = verdict;
        seen
    });
    prop::collection::vec(one, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Applying it denies no edge of the window; whatever was not seen stays denied; every rule is needed by an edge.
    #[test]
    fn a_suggestion_denies_nothing_seen_and_holds_nothing_that_is_not_needed(seen in sightings(), by_requests in any::<bool>()) {
        let detail = if by_requests { Detail::Requests } else { Detail::Pairs };
        let of = |name: &ServiceName| called(if name.as_str() == "db" { "tcp" } else { "http" });
        let suggestion = suggest(&seen, detail, of, now());
        let intentions: Vec<Intention> = suggestion.intentions.iter().map(|suggested| suggested.intention.clone()).collect();
        let allowed = |intentions: &[Intention], sighting: &Sighting| judge(&rules(intentions), sighting, of(&sighting.edge.destination), now()).allowed();
        let went_through: Vec<&Sighting> = seen.iter().filter(|sighting| sighting.edge.verdict.went_through()).collect();
        for sighting in &went_through {
            prop_assert!(allowed(&intentions, sighting), "{sighting:?} is denied by {intentions:?}");
        }
        let pairs: BTreeSet<_> = went_through.iter().map(|sighting| (&sighting.edge.source, &sighting.edge.destination)).collect();
        for sighting in seen.iter().filter(|sighting| !pairs.contains(&(&sighting.edge.source, &sighting.edge.destination))) {
            prop_assert!(!allowed(&intentions, sighting));
        }
        for (at, intention) in intentions.iter().enumerate() {
            let mut without = intentions.clone();
            without.remove(at);
            prop_assert!(went_through.iter().any(|sighting| !allowed(&without, sighting)), "{intention:?} is not needed");
            let Rule::Permissions { permissions, otherwise } = &intention.rule else { continue };
            for index in 0..permissions.len() {
                let mut fewer = permissions.clone();
                fewer.remove(index);
                let mut without = intentions.clone();
                if fewer.is_empty() {
                    without.remove(at);
                } else {
                    without[at].rule = Rule::Permissions { permissions: fewer, otherwise: *otherwise };
                }
                prop_assert!(went_through.iter().any(|sighting| !allowed(&without, sighting)), "{:?} is not needed in {intentions:?}", permissions[index]);
            }
        }
        let read = postern_intentions::file::parse(&render(&file(&suggestion)), "suggested.yaml").unwrap();
        prop_assert_eq!(read.intentions.len(), intentions.len());
    }
}
