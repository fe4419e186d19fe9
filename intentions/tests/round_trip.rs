//! What is written reads back as it was, and no text makes the reader fail in any other way than by an error.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use postern_intentions::file::{IntentionFile, parse, render};
use postern_intentions::{
    Action, ClaimCriterion, ClaimMatch, DefaultPolicy, HeaderCriterion, Intention, JwtCriterion, Mode, Party, PathCriterion,
    Permission, QueryCriterion, Rule, TextMatch,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Allow), Just(Action::Deny)]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?",
        prop::sample::select(vec!["null", "true", "no", "1e3", "0x1f", "0o7", "1-2"]).prop_map(str::to_owned)
    ]
}

fn party() -> impl Strategy<Value = Party> {
    prop_oneof![Just(Party::Any), name().prop_map(|name| name.parse().unwrap())]
}

/// Text with everything that a YAML writer can stumble over, but no control characters.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,12}", "[^\\p{Cc}]{1,8}", Just("\u{2028}\u{feff}\u{fffe}😀".to_owned()), Just(" - a: #b ".to_owned())]
}

fn path() -> impl Strategy<Value = PathCriterion> {
    prop_oneof![
        "/([a-z0-9:,\\[\\]{}\"'*&!|>@`-]|%[a-f][0-9a-e]){0,8}".prop_map(PathCriterion::Exact),
        "/[a-z]{1,4}/".prop_map(PathCriterion::Prefix),
        "/[a-z]{1,3}(\\.\\*|\\\\d\\+|\\[0-9\\])?".prop_map(PathCriterion::Regex),
    ]
}

fn header() -> impl Strategy<Value = HeaderCriterion> {
    let matches = prop_oneof![
        Just(TextMatch::Present),
        text().prop_map(TextMatch::Exact),
        text().prop_map(TextMatch::Prefix),
        text().prop_map(TextMatch::Suffix),
        text().prop_map(TextMatch::Contains),
        "[a-z]{1,4}\\$?".prop_map(TextMatch::Regex),
        Just(TextMatch::Exact(String::new())),
    ];
    ("[a-z][a-z0-9-]{0,6}", matches, any::<bool>()).prop_map(|(name, matches, invert)| HeaderCriterion { name, matches, invert })
}

fn query() -> impl Strategy<Value = QueryCriterion> {
    let matches =
        prop_oneof![Just(TextMatch::Present), text().prop_map(TextMatch::Exact), "[a-z]{1,4}".prop_map(TextMatch::Regex)];
    (text(), matches).prop_map(|(name, matches)| QueryCriterion { name, matches })
}

fn jwt() -> impl Strategy<Value = JwtCriterion> {
    let matches = prop_oneof![text().prop_map(ClaimMatch::Equals), text().prop_map(ClaimMatch::Contains)];
    let claim = (text(), matches).prop_map(|(path, matches)| ClaimCriterion { path, matches });
    (name(), vec(claim, 0..3)).prop_map(|(provider, claims)| JwtCriterion { provider, claims })
}

fn permission() -> impl Strategy<Value = Permission> {
    let methods = vec(prop_oneof![Just("GET".to_owned()), Just("M-SEARCH".to_owned()), Just("*'!".to_owned())], 0..3);
    let ports = vec(name().prop_map(|name| name.parse().unwrap()), 0..2);
    (action(), methods, option::of(path()), vec(header(), 0..3), vec(query(), 0..2), ports, vec(jwt(), 0..2)).prop_map(
        |(action, methods, path, headers, query, ports, jwt)| Permission { action, methods, path, headers, query, ports, jwt },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        action().prop_map(Rule::Action),
        (vec(permission(), 1..4), action()).prop_map(|(permissions, otherwise)| Rule::Permissions { permissions, otherwise }),
    ]
}

fn intention() -> impl Strategy<Value = Intention> {
    let mode = prop_oneof![Just(Mode::Enforce), Just(Mode::Audit)];
    let description = prop_oneof![Just(String::new()), text(), (text(), text()).prop_map(|(a, b)| format!("{a}\n\n  {b}\n"))];
    let meta = btree_map(text(), prop_oneof![Just(String::new()), text()], 0..3);
    (party(), party(), rule(), mode, description, meta).prop_map(|(source, destination, rule, mode, description, meta)| {
        Intention { source, destination, rule, mode, expires_at: None, description, meta }
    })
}

fn file() -> impl Strategy<Value = IntentionFile> {
    let default = option::of(prop_oneof![Just(DefaultPolicy::Deny), Just(DefaultPolicy::Allow), Just(DefaultPolicy::Audit)]);
    (default, vec(intention(), 0..6)).prop_map(|(default, intentions)| {
        let once: BTreeMap<_, _> = intentions.into_iter().map(|intention| (intention.key(), intention)).collect();
        let mut intentions: Vec<Intention> = once.into_values().collect();
        intentions.sort_by_key(|intention| std::cmp::Reverse(intention.precedence()));
        IntentionFile { default, intentions }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_rendered_file_reads_back_as_it_was(file in file()) {
        let text = render(&file);
        prop_assert_eq!(parse(&text, "x.yaml"), Ok(file), "\n{}", text);
    }

    #[test]
    fn the_serialised_form_reads_back_as_it_was(intention in intention(), end in option::of(1..100_000_000_000_u64)) {
        let intention = Intention { expires_at: end.map(|ms| UNIX_EPOCH + Duration::from_millis(ms)), ..intention };
        let text = serde_yaml::to_string(&intention).unwrap();
        prop_assert_eq!(serde_yaml::from_str::<Intention>(&text).unwrap(), intention, "\n{}", text);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused(file in file(), at in any::<prop::sample::Index>(), put in "[ -~\\n\\t]{0,3}", cut in 0..4_usize) {
        let characters: Vec<char> = render(&file).chars().collect();
        let at = at.index(characters.len());
        let damaged: String = characters[..at].iter().copied().chain(put.chars()).chain(characters[at..].iter().copied().skip(cut)).collect();
        let lines = damaged.split('\n').count();
        for error in parse(&damaged, "x.yaml").err().unwrap_or_default() {
            prop_assert!((1..=lines + 1).contains(&error.line), "{} in\n{}", error, damaged);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\\n]{0,40}|[{}\\[\\]:,&*!|>'\"a \\n-]{0,40}|\\PC{0,20}") {
        let _ = parse(&text, "x.json");
        let _ = parse(&text, "x.yaml");
    }
}
