//! The intentions file: what is read, what is refused with which words, and that what is written reads back.

use postern_intentions::file::{FileError, IntentionFile, parse, render};
use postern_intentions::{Action, DefaultPolicy, Intention, Mode, PathCriterion, Rule};

const SHOWN: &str = r#"default: deny
intentions:
  - {source: web, destination: api, action: allow}
  - {source: "*", destination: db, action: deny}
  - source: api
    destination: billing
    description: invoices are read-only for api
    permissions:
      - {action: allow, methods: [GET, HEAD], path_prefix: /v1/invoices/}
    otherwise: deny
"#;

fn errors(text: &str) -> Vec<String> {
    parse(text, "x.yaml").unwrap_err().iter().map(FileError::to_string).collect()
}

#[test]
fn the_file_of_the_documentation_is_read() {
    let file = parse(SHOWN, "x.yaml").unwrap();
    assert_eq!(file.default, Some(DefaultPolicy::Deny));
    assert_eq!(file.intentions[..2].iter().map(Intention::pair).collect::<Vec<_>>(), ["web -> api", "* -> db"]);
    let Rule::Permissions { permissions, otherwise: Action::Deny } = &file.intentions[2].rule else { panic!() };
    assert_eq!(permissions[0].methods, ["GET", "HEAD"]);
    assert_eq!(permissions[0].path, Some(PathCriterion::Prefix("/v1/invoices/".into())));
    assert_eq!(file.intentions[2].mode, Mode::Enforce);
}

#[test]
fn a_rendered_file_looks_as_people_write_it() {
    let rendered = render(&parse(SHOWN, "x.yaml").unwrap());
    let expected = r#"default: deny
intentions:
  - source: api
    destination: billing
    description: invoices are read-only for api
    permissions:
      - {action: allow, methods: [GET, HEAD], path_prefix: /v1/invoices/}
    otherwise: deny
  - {source: web, destination: api, action: allow}
  - {source: "*", destination: db, action: deny}
"#;
    assert_eq!(rendered, expected);
}

#[test]
fn names_that_yaml_takes_for_something_else_are_quoted() {
    let file = parse(
        r#"intentions: [{source: "null", destination: "1e3", action: allow}, {source: "no", destination: "007", action: deny}]"#,
        "x",
    )
    .unwrap();
    let rendered = render(&file);
    assert_eq!(
        rendered,
        "intentions:\n  - {source: \"no\", destination: \"007\", action: deny}\n  - {source: \"null\", destination: \"1e3\", action: allow}\n"
    );
    assert_eq!(parse(&rendered, "x").unwrap().intentions.len(), 2);
}

#[test]
fn json_is_read_as_well() {
    let text = "{\n\t\"default\": \"audit\",\n\t\"intentions\": [\n\t\t{\"source\":\"*\",\"destination\":\"api\",\"action\":\"allow\",\
                \"description\":\"\\u00e9 \\ud83d\\ude00 a\\/b\"}\n\t]\n}\n";
    let file = parse(text, "x.json").unwrap();
    assert_eq!(file.default, Some(DefaultPolicy::Audit));
    assert_eq!(file.intentions[0].description, "é 😀 a/b");
}

#[test]
fn a_temporary_intention_is_not_rendered() {
    let mut file = parse(SHOWN, "x.yaml").unwrap();
    for intention in &mut file.intentions {
        intention.expires_at = Some(std::time::UNIX_EPOCH + std::time::Duration::from_secs(60));
    }
    assert_eq!(render(&file), "default: deny\nintentions: []\n");
}

#[test]
fn an_empty_list_is_none_and_an_empty_file_is_a_mistake() {
    assert_eq!(parse("intentions: []", "x").unwrap(), IntentionFile::default());
    let empty = "the file is empty: write intentions: with a list, or intentions: [] for none";
    for text in ["", "# nothing\n", "---\n", "~"] {
        assert_eq!(parse(text, "x").unwrap_err()[0].message, empty, "{text:?}");
    }
    assert_eq!(
        errors("default: deny\n"),
        ["x.yaml:1:1: intentions is missing: write intentions: with a list, or intentions: [] for none"]
    );
}

/// Each text with all that is said of it.
const REFUSED: &[(&str, &[&str])] = &[
    // Keys.
    (
        "intentions:\n  - {scource: web, destination: api, action: allow}\n",
        &[
            "x.yaml:2:6: unknown key \"scource\": did you mean \"source\"?",
            "x.yaml:2:6: source is missing: give a service name or \"*\"",
        ],
    ),
    (
        "intentions:\n  - source: web\n    destination: api\n    action: allow\n    colour: red\n",
        &[
            "x.yaml:5:5: unknown key \"colour\": an intention has source, destination, action, permissions, otherwise, mode, description and meta",
        ],
    ),
    (
        "intention: []\n",
        &[
            "x.yaml:1:1: unknown key \"intention\": did you mean \"intentions\"?",
            "x.yaml:1:1: intentions is missing: write intentions: with a list, or intentions: [] for none",
        ],
    ),
    (
        "intentions:\n  - source: web\n    destination: api\n    source: db\n    action: allow\n",
        &["x.yaml:4:5: key \"source\" is given twice, first on line 2: keep one of the two"],
    ),
    (
        "default: deny\nintentions: []\ndefault: allow\n",
        &["x.yaml:3:1: key \"default\" is given twice, first on line 1: keep one of the two"],
    ),
    // Pairs.
    (
        "intentions:\n  - {source: web, destination: api, action: allow}\n  - source: web\n    destination: api\n    action: deny\n",
        &["x.yaml:3:5: web -> api is given twice, first on line 2: a pair has one intention; keep one of the two"],
    ),
    // Names.
    (
        "intentions:\n  - {source: Web, destination: api, action: allow}\n",
        &["x.yaml:2:14: service name \"Web\" is not valid: use only a-z (lower case), 0-9 and -"],
    ),
    (
        "intentions:\n  - {source: web*, destination: \"*.*\", action: allow}\n",
        &[
            "x.yaml:2:14: \"web*\" is not valid: `*` stands alone, for every service; name a service or use \"*\"",
            "x.yaml:2:33: \"*.*\" names a caller of another mesh, and federation is not built yet; name a service of this mesh or use \"*\"",
        ],
    ),
    (
        "intentions:\n  - {source: *, destination: api, action: allow}\n",
        &["x.yaml:2:14: a bare * begins a YAML alias: write \"*\" for every service"],
    ),
    (
        "intentions:\n  - source: *\n    destination: api\n",
        &["x.yaml:2:13: a bare * begins a YAML alias: write \"*\" for every service"],
    ),
    (
        "intentions:\n  - {source: *api, destination: api}\n",
        &["x.yaml:2:14: a bare * begins a YAML alias: write \"*\" for every service"],
    ),
    (
        "intentions:\n  - {source: 9, destination: api, action: allow}\n",
        &["x.yaml:2:14: source is a number: expected a text; put it in quotes"],
    ),
    (
        "intentions:\n  - {source: , destination: true, action: allow}\n",
        &[
            "x.yaml:2:14: source is nothing: expected a text",
            "x.yaml:2:29: destination is true or false: expected a text; put it in quotes",
        ],
    ),
    // Words.
    (
        "default: alow\nintentions:\n  - {source: web, destination: api, action: block, mode: Audit}\n",
        &[
            "x.yaml:1:10: default \"alow\" is not known: use deny, allow or audit; did you mean \"allow\"?",
            "x.yaml:3:45: action \"block\" is not known: use allow or deny",
            "x.yaml:3:58: mode \"Audit\" is not known: use enforce or audit; did you mean \"audit\"?",
        ],
    ),
    // What goes together.
    (
        "intentions:\n  - {source: web, destination: api}\n",
        &["x.yaml:2:6: neither action nor permissions is given: add action: allow, action: deny or permissions"],
    ),
    (
        "intentions:\n  - {source: web, destination: api, action: allow, permissions: [{action: allow}]}\n",
        &[
            "x.yaml:2:6: action and permissions are both given: an intention has one of the two; keep one, and say what else happens with otherwise",
        ],
    ),
    (
        "intentions:\n  - {source: web, destination: api, action: allow, otherwise: deny}\n",
        &[
            "x.yaml:2:6: otherwise is given without permissions: it says what happens where no permission matches; use action instead",
        ],
    ),
    (
        "intentions:\n  - {source: web, destination: api, permissions: []}\n",
        &["x.yaml:2:50: permissions is empty: give at least one permission, or use action"],
    ),
    (
        "intentions:\n  - {source: web, destination: api, action: allow, expires_at: 2026-03-01T12:00:00Z}\n",
        &[
            "x.yaml:2:52: expires_at is given, and a file holds no temporary intentions: use meshctl intention allow SOURCE DESTINATION --for 2h",
        ],
    ),
    // Permissions.
    (
        "intentions:\n  - source: web\n    destination: api\n    permissions:\n      - methods: [get]\n        path_prefix: v1\n        path_exact: /a?b\n",
        &[
            "x.yaml:5:9: action is missing: give allow or deny",
            "x.yaml:5:19: method \"get\" is not valid: use an upper-case token such as GET",
            "x.yaml:6:22: path \"v1\" is not valid: a path begins with /",
            "x.yaml:7:21: path \"/a?b\" is not valid: the query is not part of the path; use query",
        ],
    ),
    (
        "intentions:\n  - source: web\n    destination: api\n    permissions:\n      - {action: allow, path_exact: /a, path_prefix: /b}\n",
        &[
            "x.yaml:5:54: more than one path criterion is given: use one of path_exact, path_prefix and path_regex, or several permissions",
        ],
    ),
    (
        "intentions:\n  - source: web\n    destination: api\n    permissions:\n      - {action: allow, path_regex: \"/(a\"}\n      - {action: allow, path_regex: \"a)|(b\"}\n",
        &[
            "x.yaml:5:37: regular expression \"/(a\" is not valid: unclosed group",
            "x.yaml:6:37: regular expression \"a)|(b\" is not valid: unopened group",
        ],
    ),
    (
        "intentions:\n  - source: web\n    destination: api\n    permissions:\n      - {action: allow, path_regex: \"/(\\\\w{500}){500}\"}\n",
        &["x.yaml:5:37: regular expression \"/(\\\\w{500}){500}\" is not valid: it is too large when compiled; make it simpler"],
    ),
    (
        "intentions:\n  - source: web\n    destination: api\n    permissions:\n      - action: allow\n        headers:\n          - {name: X Team, present: true}\n          - {name: a, exact: b, prefix: c}\n          - {name: a}\n          - {name: a, present: false}\n          - {exact: b}\n        query: [{name: q, prefix: x}]\n        ports: [Main, 80]\n        jwt: [{provider: P}, {provider: p, claims: [{path: a}]}]\n",
        &[
            "x.yaml:7:20: header name \"x team\" is not valid: use a token such as x-team",
            "x.yaml:8:41: the header criterion matches in more than one way: give exactly one of present, exact, prefix, suffix, contains and regex",
            "x.yaml:9:14: the header criterion says nothing of the value: give exactly one of present, exact, prefix, suffix, contains and regex",
            "x.yaml:10:32: present: false is not valid: use present: true, with invert: true for a header that must be absent",
            "x.yaml:11:14: name is missing: give a header name",
            "x.yaml:12:18: the query criterion says nothing of the value: give exactly one of present, exact and regex",
            "x.yaml:12:27: unknown key \"prefix\": a query criterion has name, present, exact and regex",
            "x.yaml:13:17: port name \"Main\" is not valid: use only a-z (lower case), 0-9 and -",
            "x.yaml:13:23: a port is a number: expected a text; put it in quotes",
            "x.yaml:14:26: jwt provider \"P\" is not valid: use only a-z (lower case), 0-9 and -",
            "x.yaml:14:54: the claim criterion says nothing of the value: give exactly one of equals and contains",
        ],
    ),
    // Metadata.
    (
        "intentions:\n  - {source: a, destination: b, action: allow, meta: {k: 1, k: v, \"\": x}, description: \"a\\eb\"}\n",
        &[
            "x.yaml:2:58: meta \"k\" is a number: expected a text; put it in quotes",
            "x.yaml:2:61: key \"k\" is given twice, first on line 2: keep one of the two",
            "x.yaml:2:71: a key of meta is empty: give a text, or leave it out",
            "x.yaml:2:88: description holds a control character: leave it out",
        ],
    ),
    // Shapes.
    ("- a\n- b\n", &["x.yaml:1:3: the file is a list: expected a map with default and intentions"]),
    ("intentions: {}\n", &["x.yaml:1:13: intentions is a map: expected a list"]),
    ("intentions:\n", &["x.yaml:1:12: intentions is nothing: expected a list"]),
    (
        "intentions:\n  - web\n  - {}\n  - []\n",
        &[
            "x.yaml:2:5: an intention is a text: expected a map with source, destination, action, permissions, otherwise, mode, description and meta",
            "x.yaml:3:5: source is missing: give a service name or \"*\"",
            "x.yaml:3:5: destination is missing: give a service name or \"*\"",
            "x.yaml:3:5: neither action nor permissions is given: add action: allow, action: deny or permissions",
            "x.yaml:4:5: an intention is a list: expected a map with source, destination, action, permissions, otherwise, mode, description and meta",
        ],
    ),
    (
        "intentions: []\n---\nintentions: []\n",
        &["x.yaml:1:1: the file has more than one document: leave out the lines ---, and put all intentions into one list"],
    ),
    (
        "intentions: !secret []\n",
        &["x.yaml:1:13: not valid YAML: intentions: a YAML tag (!) has no meaning here: leave it out, or quote the text"],
    ),
    (
        "intentions:\n  - {source: web, destination: api\n",
        &["x.yaml:3:1: not valid YAML: did not find expected ',' or '}', while parsing a flow mapping at line 2 column 5"],
    ),
    (
        "intentions:\n\t- a\n",
        &["x.yaml:2:1: not valid YAML: found character that cannot start any token, while scanning for the next token"],
    ),
];

#[test]
fn everything_wrong_is_told_with_its_place_and_what_was_expected() {
    let wrong = REFUSED.iter().filter(|(text, expected)| errors(text) != *expected);
    let told: Vec<String> = wrong.map(|(text, _)| format!("{text}\n{}", errors(text).join("\n"))).collect();
    assert!(told.is_empty(), "told otherwise:\n{}", told.join("\n\n"));
}

#[test]
fn places_are_the_same_in_json() {
    let text = "{\n  \"intentions\": [\n    {\"source\": \"web\", \"destination\": \"api\", \"action\": \"alow\"},\n    {\"source\": \"web\", \"destination\": \"api\", \"action\": \"deny\"}\n  ]\n}\n";
    assert_eq!(
        errors(text),
        [
            "x.yaml:3:55: action \"alow\" is not known: use allow or deny; did you mean \"allow\"?",
            "x.yaml:4:6: web -> api is given twice, first on line 3: a pair has one intention; keep one of the two",
        ]
    );
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let text = "intentions:\n  - {description: \"äöü\", source: web, destination: api, action: no}\n";
    assert_eq!(errors(text), ["x.yaml:2:65: action \"no\" is not known: use allow or deny"]);
}

#[test]
fn a_header_name_is_kept_in_lower_case() {
    let text = "intentions: [{source: a, destination: b, permissions: [{action: deny, headers: [{name: X-Team, exact: ops}]}]}]";
    assert!(render(&parse(text, "x").unwrap()).contains("headers: [{name: x-team, exact: ops}]"));
}

#[test]
fn depth_is_limited() {
    for (depth, refused_by_depth) in [(60, false), (64, true), (900, true), (2_000_000, true)] {
        let text = format!("intentions: {}{}", "[".repeat(depth), "]".repeat(depth));
        let errors = parse(&text, "x").unwrap_err();
        assert_eq!(errors[0].message.contains("nested deeper than 64"), refused_by_depth, "{depth}: {}", errors[0]);
    }
}

#[test]
fn size_is_limited() {
    let text = format!("intentions: []\n#{}", "x".repeat(32 << 20));
    let message = "the file is larger than 32 MiB: split it, and apply the parts with --merge";
    assert_eq!(parse(&text, "x").unwrap_err()[0].message, message);
}

#[test]
fn many_errors_are_gathered_in_one_go() {
    let mut text = "intentions:\n".to_owned();
    for n in 0..5_000 {
        text.push_str(&format!("  - {{source: s{n}, destination: API, action: allow}}\n"));
    }
    let errors = errors(&text);
    assert_eq!(errors.len(), 5_000);
    assert_eq!(errors[4_999], "x.yaml:5001:34: service name \"API\" is not valid: use only a-z (lower case), 0-9 and -");
}
