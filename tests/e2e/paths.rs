//! A path that is denied stays so, however it is spelled, before services that resolve paths in ways of their own.

use serde_json::{Value, json};

use crate::support::{Pair, Service, run_script};

/// Spellings of `/admin/x` that some server resolves to it, and of others that none should.
const DENIED: &[&str] = &[
    "/admin",
    "/admin/",
    "/admin/x",
    "/admin?x",
    "/admin/x?y=/pub",
    "/admin#x",
    "/admin/x#/pub",
    "/%61dmin/x",
    "/%61%64%6d%69%6e/x",
    "/%61%64%6D%69%6E/x",
    "/adm%69n",
    "/admin%2fx",
    "/admin%2Fx",
    "/admin%5cx",
    "/admin%5Cx",
    "%2fadmin/x",
    "/%2fadmin/x",
    "/%2Fadmin/x",
    "//admin/x",
    "///admin/x",
    "////admin",
    "/./admin/x",
    "/././admin/x",
    "/%2e/admin/x",
    "/%2E/admin/x",
    "/.//admin/x",
    "/pub/../admin/x",
    "/pub/..//admin/x",
    "/pub//../admin/x",
    "/pub//..//..//admin/x",
    "/pub/./../admin/x",
    "/pub/.././admin/x",
    "/pub/x/../../admin/x",
    "/pub/%2e%2e/admin/x",
    "/pub/%2E%2E/admin/x",
    "/pub/.%2e/admin/x",
    "/pub/%2e./admin/x",
    "/pub/%2e%2e%2fadmin/x",
    "/pub/..%2fadmin/x",
    "/pub/..%5cadmin/x",
    "/pub/..\\admin/x",
    "\\admin\\x",
    "/\\admin/x",
    "/admin\\x",
    "/pub\\..\\admin/x",
    "/../admin/x",
    "/../../admin/x",
    "/%2e%2e/admin/x",
    "/./../admin/x",
    "/pub/../../admin/x",
    "/pub/../../../admin/x",
    "/admin;a=b/x",
    "/admin;/x",
    "/admin;",
    "/;/admin/x",
    "/;a=b/admin/x",
    "/.;/admin/x",
    "/.;a=b/admin/x",
    "/..;/admin/x",
    "/pub/..;/admin/x",
    "/pub/..;a=b/admin/x",
    "/pub/..;a=b;c/admin/x",
    "/pub/%2e%2e;/admin/x",
    "/pub/%2e.;x/admin/x",
    "/pub;a/../admin/x",
    "/pub/;/../admin/x",
    "/pub/x;/..;/..;/admin/x",
    "/pub/%3b/../../admin/x",
    "/pub/..%3b/admin/x",
    "/admin%3ba=b/x",
    "/admin%00",
    "/admin%00/x",
    "/admin/%00",
    "/%00/admin/x",
    "/admin%0a",
    "/admin%0d%0ax",
    "/admin%09",
    "/admin%20",
    "/admin%",
    "/admin%2",
    "/admin%zz/x",
    "/%/admin/x",
    "/%u0061dmin/x",
    "/%c1%a1dmin/x",
    "/%e0%81%a1dmin/x",
    "/%2561dmin/x",
    "/admin%252fx",
    "/pub/%252e%252e/admin/x",
    "/pub/..%252fadmin/x",
    "/pub/%c0%ae%c0%ae/admin/x",
    "/pub/%c0%af../admin/x",
    "/pub/\u{e9}/../../admin/x",
    "/admin/\u{e9}",
    "/\u{ef}\u{bc}\u{8f}admin/x",
    "http://api/admin/x",
    "http://api//admin/x",
    "http://api/pub/../admin/x",
    "http://other/admin/x",
    "http:///admin/x",
    "http://api\\admin/x",
    "//api/admin/x",
    "admin/x",
    "./admin/x",
    "../admin/x",
    "*/admin",
    "?/../admin/x",
    "/?/../admin/x",
    "/pub?/../admin/x",
    "/pub#/../admin/x",
    "/pub%23/../admin/x",
    "/pub%3f/../admin/x",
    "/admin//x",
    "/admin/./x",
    "/admin/../admin/x",
    "/admin/y/../x",
    "/x/y/z/../../../admin/x",
    "/pub/...//../../admin/x",
    "/.../../admin/x",
    "/ admin/x",
    "/admin /x",
    "/\tadmin/x",
    "/admin\u{7f}/x",
    "/admin\u{0}/x",
    "/admin\u{1}",
];

/// What is beside it and allowed, in both policies.
const ALLOWED: &[&str] =
    &["/pub/", "/pub/x", "/pub/admin", "/pub/%61", "/pub/x;v=1", "/pub/./x", "/pub//x", "/pub/x?a=/../admin/x"];

/// Policies that both deny what is under `/admin`: by naming it, and by naming what else is allowed.
const POLICIES: [&str; 2] =
    ["[{action: deny, path_prefix: /admin}, {action: allow, path_prefix: /}]", "[{action: allow, path_prefix: /pub/}]"];

/// Where dots and slashes of a decoded path lead.
fn followed(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let path = path.replace('\\', "/");
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

/// What a server would serve for a target: decoded once, with and without what is behind a `;`.
fn resolutions(target: &str) -> [String; 2] {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let without_parameters: Vec<_> = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    [path.to_owned(), without_parameters.join("/")]
        .map(|path| followed(&percent_encoding::percent_decode_str(&path).decode_utf8_lossy()))
}

fn is_denied(resolved: &str) -> bool {
    resolved == "/admin" || resolved.starts_with("/admin/")
}

/// Asks for every spelling and gives what the service saw of it.
fn ask(pair: &Pair, paths: &[&str]) -> Vec<[i64; 2]> {
    let file = pair.mesh.path("paths.json");
    let paths: Vec<String> = paths.iter().map(|path| (*path).into()).collect();
    std::fs::write(&file, json!(paths).to_string()).unwrap();
    serde_json::from_value(run_script("paths_client.py", &[&file.display().to_string(), pair.upstream()])).unwrap()
}

fn no_spelling_of_a_denied_path_reaches(protocol: &str, service: impl FnOnce(&crate::support::Mesh) -> Service) {
    assert!(DENIED.len() >= 80, "{}", DENIED.len());
    let pair = Pair::start(protocol, service);
    for policy in POLICIES {
        pair.permit(policy);
        let before = pair.service.requests().len();
        for (path, statuses) in ALLOWED.iter().zip(ask(&pair, ALLOWED)) {
            // Whether it is there or not: it was asked for.
            assert!(statuses.iter().all(|status| [200, 404].contains(status)), "{policy}: {path} is {statuses:?}");
        }
        let allowed = pair.service.requests().len();
        assert_eq!(allowed - before, 2 * ALLOWED.len());
        let answers = ask(&pair, DENIED);
        let reached = pair.service.requests().split_off(allowed);
        for request in &reached {
            let seen = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
            println!("{policy}: the service saw {} as {}", seen("path"), seen("resolved"));
            let is_denied =
                is_denied(&followed(&seen("resolved"))) || resolutions(&seen("path")).iter().any(|path| is_denied(path));
            assert!(!is_denied, "{policy}: {request} reached the service");
        }
        for (path, statuses) in DENIED.iter().zip(&answers) {
            let is_through = statuses.iter().any(|status| (200..300).contains(status) || *status == 404);
            let is_denied = resolutions(path).iter().any(|path| is_denied(path));
            assert!(!(is_through && is_denied), "{policy}: {path} is {statuses:?}");
        }
        let refused = answers.iter().flatten().filter(|status| [400, 403, -1, 0].contains(*status)).count();
        println!("{policy}: {refused} of {} refused, {} reached the service", answers.len() * 2, reached.len());
    }
}

#[test]
fn no_spelling_of_a_denied_path_reaches_nginx() {
    no_spelling_of_a_denied_path_reaches("http", |mesh| Service::nginx(mesh, "", "location / { return 200 'ok'; }"));
}

#[test]
fn no_spelling_of_a_denied_path_reaches_nginx_over_http_2() {
    no_spelling_of_a_denied_path_reaches("http2", |mesh| Service::nginx(mesh, "http2", "location / { return 200 'ok'; }"));
}

#[test]
fn no_spelling_of_a_denied_path_reaches_a_python_service() {
    no_spelling_of_a_denied_path_reaches("http", |mesh| Service::start(mesh, "http_service.py"));
}

#[test]
fn no_spelling_of_a_denied_path_reaches_a_python_service_over_http_2() {
    no_spelling_of_a_denied_path_reaches("http2", |mesh| Service::start(mesh, "http_service.py"));
}

#[test]
fn a_path_that_is_judged_is_forwarded_as_it_was_judged() {
    let pair = Pair::allowed("http");
    pair.permit("[{action: allow, path_prefix: /pub/}]");
    let spellings = ["/pub//a/./b/../c", "/pub/%61%7e%c3%a9", "/pub/\u{c3}\u{a9}", "/pub/x?y=%2e%2e//z", "/pub/x#y"];
    for (path, statuses) in spellings.iter().zip(ask(&pair, &spellings)) {
        assert!(statuses[0] == 200, "{path}: {statuses:?}");
    }
    let forwarded: Vec<Value> = pair.service.requests().iter().map(|request| request["path"].clone()).collect();
    for wanted in ["/pub/a/c", "/pub/a~%C3%A9", "/pub/%C3%A9", "/pub/x"] {
        assert!(forwarded.contains(&wanted.into()), "{wanted}: {forwarded:?}");
    }
}

/// Paths that settings of the service make a difference for, and others that they must not let through.
const UNUSUAL: &[&str] = &[
    "/queues/%2F/x",
    "/queues/%2f/x",
    "/queues/%5C/x",
    "/signed//x",
    "/signed///x//",
    "//signed/x",
    "/mixed//%2Fx",
    "/plain/x",
    "/admin%2Fx",
    "/admin%2f",
    "/admin%5Cx",
    "/%2Fadmin/x",
    "/x%2f..%2fadmin/x",
    "/x/..%2Fadmin/x",
    "/%2e%2e%2fadmin",
    "//admin/x",
    "/admin//x",
    "/x//..//admin/x",
    "/x//../../admin/x",
    "/x/..;//admin/x",
    "/x%2F..;%2Fadmin/x",
];

/// The path that reaches the service, where one does: as `check` says of the control plane, and as it says of files.
fn foretold(pair: &Pair, path: &str, files: [&str; 2]) -> Option<String> {
    let asked = ["intention", "check", "web", "api", "--path", path, "-o", "json"];
    let of_files = ["--file", files[0], "--service-config", files[1]];
    let answers = [asked.to_vec(), [&asked[..], &of_files[..]].concat()].map(|arguments| {
        let answer: Value = serde_json::from_slice(&pair.mesh.run(&arguments).stdout).unwrap();
        let forwarded = answer["forwarded"].as_str().unwrap_or(path).to_owned();
        (answer["allowed"] == true).then_some(forwarded)
    });
    assert_eq!(answers[0], answers[1], "{path}: the control plane and the files");
    answers[0].clone()
}

#[test]
fn paths_pass_as_the_settings_of_the_service_say_and_check_says_so_before() {
    let pair = Pair::start("http", |mesh| Service::start(mesh, "http_service.py"));
    pair.permit(POLICIES[0]);
    let intentions = pair.mesh.path("intentions.yaml").display().to_string();
    let settings = pair.mesh.path("settings.yaml").display().to_string();
    let mut seen_with = Vec::new();
    for said in [
        "encoded_slash: refuse, double_slash: collapse",
        "encoded_slash: keep",
        "double_slash: keep",
        "encoded_slash: keep, double_slash: keep",
    ] {
        pair.mesh.set(&format!("services: [{{service: api, timeouts: {{request: 14s}}, {said}}}]\n"));
        let foretold: Vec<_> = UNUSUAL.iter().map(|path| foretold(&pair, path, [&intentions, &settings])).collect();
        let before = pair.service.requests().len();
        let answers = ask(&pair, UNUSUAL);
        let reached = pair.service.requests().split_off(before);
        for ((path, statuses), foretold) in UNUSUAL.iter().zip(answers).zip(&foretold) {
            let passes = statuses.map(|status| [200, 404].contains(&status));
            assert_eq!(passes, [foretold.is_some(); 2], "{said}: {path} is {statuses:?}");
        }
        // Over HTTP/1 and over HTTP/2, one after the other.
        let seen: Vec<_> = reached.iter().map(|request| request["path"].as_str().unwrap().to_owned()).collect();
        let wanted: Vec<_> = foretold.into_iter().flatten().flat_map(|path| [path.clone(), path]).collect();
        assert_eq!(seen, wanted, "{said}");
        assert!(!seen.iter().any(|path| resolutions(path).iter().any(|resolved| is_denied(resolved))), "{said}: {seen:?}");
        seen_with.push(seen);
    }
    let [shipped, slashes, doubles, both] = &seen_with[..] else { unreachable!("four settings") };
    let has = |seen: &[String], path: &str| seen.iter().any(|one| one == path);
    for (path, is_seen) in [
        ("/queues/%2F/x", [false, true, false, true]),
        // An escape is written in upper case, as everywhere.
        ("/queues/%2f/x", [false; 4]),
        ("/signed//x", [false, false, true, true]),
        ("/signed///x//", [false, false, true, true]),
        ("/mixed//%2Fx", [false, false, false, true]),
        ("/plain/x", [true; 4]),
    ] {
        assert_eq!([shipped, slashes, doubles, both].map(|seen| has(seen, path)), is_seen, "{path}");
    }
}
