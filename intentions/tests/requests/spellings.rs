//! One denied path in all the ways in which it can be written.

use postern_intentions::{DoubleSlash, EncodedSlash, JudgedPath, PathRefused, PathSettings, RequestTarget};
use proptest::prelude::*;

use crate::support::{Question, forwarded, web_to_api};

/// Each is `/pub/secret`, or below it, to some server.
const SECRET: &[&str] = &[
    "/pub/secret",
    "/pub/secret/",
    "/pub/secret/x",
    "/pub/secret?q",
    "/pub/secret#f",
    "/pub/secret?q#f",
    "//pub/secret",
    "/pub//secret",
    "/pub///secret",
    "///pub///secret///",
    "/pub/secret//x",
    "/./pub/secret",
    "/pub/./secret",
    "/pub/secret/.",
    "/pub/secret/./x",
    "/pub/././secret",
    "/pub/.//secret",
    "/x/../pub/secret",
    "/pub/x/../secret",
    "/pub/x/y/../../secret",
    "/pub/secret/x/..",
    "/pub/secret/x/../y",
    "/pub/../pub/secret",
    "/pub//../pub/secret",
    "/pub/x//../secret",
    "/pub/%73ecret",
    "/pub/s%65cret",
    "/pub/secre%74",
    "/%70ub/secret",
    "/%70%75%62/%73%65%63%72%65%74",
    "/pub/%2e/secret",
    "/pub/%2E/secret",
    "/pub/x/%2e%2e/secret",
    "/pub/x/%2E%2E/secret",
    "/pub/x/%2e./secret",
    "/pub/x/.%2E/secret",
    "/pub/x/%2e%2E/%73ecret",
    "/%2e/pub/secret",
    "/x/%2e%2e/pub//secret",
    "/pub/secret;",
    "/pub/secret;a",
    "/pub/secret;a=b",
    "/pub/secret;a=b;c=d",
    "/pub/secret;a/x",
    "/pub/secret;/x",
    "/pub;a/secret",
    "/pub;a=b/secret;c=d",
    "/pub/;/secret",
    "/pub/;a/secret",
    "/;/pub/secret",
    "/pub/.;/secret",
    "/pub/.;a/secret",
    "/pub/x/..;/secret",
    "/pub/x/..;a=b/secret",
    "/pub/x/%2e%2e;/secret",
    "/pub/x/.%2e;a/%73ecret",
    "/x/..;/pub/secret",
    "/x/..;/pub;a/secret;b",
    "/pub/x;a/../secret",
    "/pub/x/;/..;/..;/secret",
    "/pub/x/y/..;/..;/secret",
    "/pub/x/..;/x/..;/secret",
    "/pub/secret%3b",
    "/pub/secret%3Ba=b",
    "/pub%3ba/secret",
    "/pub/x/..%3b/secret",
    "/pub/x/%2e%2e%3B/secret",
    "/pub/%3B/secret",
    "/pub/secret;%2e%2e",
    "/pub/%73ecret;a",
    "/pub/secret/%20",
    "/pub/secret/%0a",
    "/pub/secret/%ff",
    "/pub/secret/ä",
    "/pub/secret/..;x/../;y",
    "/pub/.well-known/../secret",
    "/pub/.../../secret",
    "/pub/..x/../secret",
    "/pub/x/.//../secret",
    "/pub/x/..//secret",
    "http://api.example/pub/secret",
    "HTTP://API.EXAMPLE//pub/./secret",
    "https://api.example/pub/%73ecret?x#y",
    "http://api.example/pub/x/..;/secret",
];

/// What is refused before anything is judged: it could be `/pub/secret` to some server, or break one.
const REFUSED: &[(&str, PathRefused)] = &[
    ("/pub%2fsecret", PathRefused::EscapedSlash),
    ("/pub/x%2F..%2Fsecret", PathRefused::EscapedSlash),
    ("/pub%5csecret", PathRefused::EscapedBackslash),
    ("/pub%5Csecret", PathRefused::EscapedBackslash),
    ("/pub\\secret", PathRefused::Backslash),
    ("/pub/x\\..\\secret", PathRefused::Backslash),
    ("/pub/secret%00", PathRefused::EscapedNul),
    ("/pub/secret%00.html", PathRefused::EscapedNul),
    ("/pub/secret\0", PathRefused::ControlCharacter),
    ("/pub/\tsecret", PathRefused::ControlCharacter),
    ("/pub/secret\r\n", PathRefused::ControlCharacter),
    ("/pub/secret\x7f", PathRefused::ControlCharacter),
    ("/pub/ secret", PathRefused::Space),
    ("/pub/secret%", PathRefused::BadEscape),
    ("/pub/secret%7", PathRefused::BadEscape),
    ("/pub/%7gecret", PathRefused::BadEscape),
    ("/pub/%%37%33ecret", PathRefused::BadEscape),
    ("/pub/%u0073ecret", PathRefused::BadEscape),
    ("/pub/%+3ecret", PathRefused::BadEscape),
    ("/..", PathRefused::AboveRoot),
    ("/../pub/secret", PathRefused::AboveRoot),
    ("/%2e%2e/pub/secret", PathRefused::AboveRoot),
    ("/pub/../../secret", PathRefused::AboveRoot),
    ("/..;/pub/secret", PathRefused::AboveRoot),
    ("/..%3b/pub/secret", PathRefused::AboveRoot),
    ("//../pub/secret", PathRefused::AboveRoot),
    ("", PathRefused::NoPath),
    ("pub/secret", PathRefused::NoPath),
    ("*", PathRefused::NoPath),
    ("?q", PathRefused::NoPath),
    ("#/pub", PathRefused::NoPath),
    ("ftp://api.example/pub/secret", PathRefused::NoPath),
    ("api.example/pub/secret", PathRefused::NoPath),
    ("api.example:80", PathRefused::NoPath),
    ("http://other.example/pub/secret", PathRefused::OtherAuthority),
    ("http:///pub/secret", PathRefused::OtherAuthority),
    ("http://u@api.example/pub/secret", PathRefused::OtherAuthority),
    ("http://api.example:80/pub/secret", PathRefused::OtherAuthority),
    ("http://api.example\\/pub/secret", PathRefused::OtherAuthority),
];

#[test]
fn every_spelling_of_a_denied_path_is_denied() {
    assert!(SECRET.len() >= 80);
    let deny = "{action: deny, path_prefix: /pub/secret}";
    let first = web_to_api(&format!("[{deny}, {{action: allow}}]"), "");
    let otherwise = web_to_api(&format!("[{deny}]"), ", otherwise: allow");
    let regex = web_to_api("[{action: deny, path_regex: '/pub/secret(/.*)?'}, {action: allow}]", "");
    for target in SECRET {
        for rules in [&first, &otherwise, &regex] {
            let question = Question::of(&format!("GET {target}"));
            assert_eq!(question.told(rules), "deny: intention web -> api (deny, permission 0)", "{target}");
            assert_eq!(forwarded(&question, rules), None, "{target}");
        }
    }
}

#[test]
fn no_spelling_of_a_path_passes_for_another_that_is_allowed() {
    let rules = web_to_api("[{action: allow, path_prefix: /pub/open/}, {action: allow, path_exact: /pub/open}]", "");
    for target in SECRET {
        assert!(!Question::of(&format!("GET {target}")).judged(&rules).decision.allowed(), "{target}");
        // The same behind an allowed path.
        if let Some(path) = target.strip_prefix('/') {
            let behind = format!("GET /pub/open/..;/../{path}");
            assert!(!Question::of(&behind).judged(&rules).decision.allowed(), "{behind}");
        }
    }
}

#[test]
fn what_can_not_be_judged_is_refused() {
    let rules = web_to_api("[{action: allow}]", "");
    for (target, why) in REFUSED {
        let question = Question { target: (*target).to_owned(), ..Question::of("GET /") };
        let judged = question.judged(&rules);
        assert_eq!(judged.refused(), Some(*why), "{target:?}");
        assert!(!why.word().is_empty() && judged.forward().is_none());
    }
}

#[test]
fn connect_is_refused_and_the_star_is_of_options_alone() {
    let read = |method, target, host| RequestTarget::read(method, target, host).map(|target| target.path().to_owned());
    assert_eq!(read("CONNECT", "api.example:443", Some("api.example:443")), Err(PathRefused::Connect));
    assert_eq!(read("CONNECT", "/", None), Err(PathRefused::Connect));
    assert_eq!(read("OPTIONS", "*", None).as_deref(), Ok("*"));
    assert_eq!(read("OPTIONS", "*?q", None), Err(PathRefused::NoPath));
    assert_eq!(read("OPTIONS", "http://api.example", Some("api.example")).as_deref(), Ok("*"));
    assert_eq!(read("OPTIONS", "http://api.example/", Some("api.example")).as_deref(), Ok("/"));
    assert_eq!(read("GET", "http://api.example/", None), Err(PathRefused::OtherAuthority));

    let every = web_to_api("[{action: allow}]", "");
    assert!(Question::of("OPTIONS *").judged(&every).decision.allowed());
    let below_root = web_to_api("[{action: allow, path_prefix: /}]", "");
    assert!(!Question::of("OPTIONS *").judged(&below_root).decision.allowed());
}

fn read(path: &str, paths: PathSettings) -> Vec<String> {
    let target = RequestTarget::read("GET", path, None).unwrap();
    JudgedPath::read(&target, paths).unwrap().readings().map(str::to_owned).collect()
}

#[test]
fn a_plain_path_has_one_reading_and_a_parameter_makes_two() {
    let plain = |path| read(path, PathSettings::default());
    for path in ["/", "/a/b.c/~d/", "/.well-known/...", "/a%20b%C3%A4", "/a:b@c!$&'()*+,=", "/a%25%3F%23", "/{a}|\"^`<>[]"] {
        assert_eq!(plain(path), [path]);
    }
    assert_eq!(plain("/a;b/c"), ["/a;b/c", "/a/c"]);
    assert_eq!(plain("/a%3Ab"), ["/a%3Ab", "/a:b"]);
    assert_eq!(plain("/%61%2d%7e"), ["/a-~"]);
    assert_eq!(plain("/ü%c3%bc"), ["/%C3%BC%C3%BC"]);
    assert_eq!(plain("/%2573"), ["/%2573"], "an escaped % begins no escape");
}

#[test]
fn what_goes_on_is_read_again_since_a_service_sees_no_more() {
    // `..` takes the first parameter away; what is left has another.
    assert!(read("/p/q/..;x/../;y/admin", PathSettings::default()).contains(&"/p/q/admin".to_owned()));
    let keep = PathSettings { encoded_slash: EncodedSlash::Keep, ..PathSettings::default() };
    assert!(read("/a;x%2F..%2Fb", keep).contains(&"/b".to_owned()), "decoded before parameters are taken off");
    assert!(read("/a;x%2F..%2Fb", keep).contains(&"/a".to_owned()), "and after");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_forwarded_reads_as_itself_and_holds_nothing_that_was_not_judged(
        path in "(/|\\.|\\.\\.|%2[eEfF5]|%3[aAbB]|%[0-7][0-9a-f]|;|:|a|\\PC){0,16}",
        keeps_slash in any::<bool>(),
        keeps_double in any::<bool>(),
    ) {
        let paths = PathSettings {
            encoded_slash: if keeps_slash { EncodedSlash::Keep } else { EncodedSlash::Refuse },
            double_slash: if keeps_double { DoubleSlash::Keep } else { DoubleSlash::Collapse },
        };
        let path = format!("/{path}");
        let target = RequestTarget::read("GET", &path, None).unwrap();
        let Ok(judged) = JudgedPath::read(&target, paths) else { return Ok(()) };
        let forwarded = judged.forwarded();

        prop_assert!(forwarded.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{forwarded:?}");
        prop_assert!(keeps_double || !forwarded.contains("//"), "{forwarded}");
        prop_assert!(judged.readings().all(|path| path.split('/').all(|segment| segment != "." && segment != "..")), "{judged:?}");
        let again_target = RequestTarget::read("GET", forwarded, None).unwrap();
        let again = JudgedPath::read(&again_target, paths).unwrap();
        prop_assert_eq!(again.forwarded(), forwarded);
        prop_assert!(again.readings().all(|reading| judged.readings().any(|judged| judged == reading)), "{judged:?} {again:?}");
    }
}
