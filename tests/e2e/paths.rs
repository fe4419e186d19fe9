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
