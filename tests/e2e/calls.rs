//! One service calls another: who may, and what happens when that changes.

use crate::support::{EchoServer, Mesh, PATIENCE, connect, eventually, is_closed, say};

#[test]
fn a_call_is_denied_by_default_and_goes_through_once_allowed() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);

    assert!(is_closed(&mut connect(web.upstream("api"))), "denied by default");
    assert_eq!(echo.connections(), 0, "the service never saw it");

    mesh.allow("web", "api");
    assert_eq!(say(&mut connect(web.upstream("api")), "hello").as_deref(), Some("hello"));
    assert!(api.metric("postern_connections_total", &["direction=\"inbound\"", "verdict=\"allow\"", "peer=\"web\""]) >= 1.0);
    assert!(api.log().contains("default (deny)"), "the denial explains itself:\n{}", api.log());
    assert!(web.log().contains("default (deny)"), "on the caller's side too:\n{}", web.log());
}

#[test]
fn a_deny_closes_an_open_connection() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert_eq!(say(&mut open, "before").as_deref(), Some("before"));

    let said = mesh.meshctl(&["intention", "deny", "web", "api"]);

    assert!(said.contains("in force on"), "{said}");
    let seen = echo.bytes();
    assert!(is_closed(&mut open));
    assert_eq!(echo.bytes(), seen);
    assert!(is_closed(&mut connect(web.upstream("api"))));
    assert_eq!(echo.connections(), 1);
    eventually("the log says revoked", || api.log().contains("revoked").then_some(()));
    assert_eq!(api.metric("postern_connections_revoked_total", &["peer=\"web\""]), 1.0);
}

#[test]
fn a_temporary_allow_ends_by_itself_and_takes_its_connections_along() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.meshctl(&["intention", "allow", "web", "api", "--for", "4s"]);
    let mut open = connect(web.upstream("api"));
    assert_eq!(say(&mut open, "during").as_deref(), Some("during"));

    assert!(is_closed(&mut open), "closed at its end, within {PATIENCE:?}");
    assert!(is_closed(&mut connect(web.upstream("api"))));
}

#[test]
fn audit_lets_through_what_would_be_denied_and_counts_it() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.meshctl(&["intention", "audit", "web", "api"]);

    assert_eq!(say(&mut connect(web.upstream("api")), "seen").as_deref(), Some("seen"));
    eventually("the audit is counted", || {
        (api.metric("postern_connections_total", &["verdict=\"audit\"", "intention=\"web -> api\""]) >= 1.0).then_some(())
    });
}

#[test]
fn a_service_can_not_be_called_under_the_name_of_another() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let web2 = mesh.call("web2", &["api"]);
    mesh.allow("web", "api");

    assert!(is_closed(&mut connect(web2.upstream("api"))));
    assert_eq!(echo.connections(), 0);
}

#[test]
fn a_revoked_instance_loses_its_connections_and_its_stream() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let mut web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert_eq!(say(&mut open, "before").as_deref(), Some("before"));

    mesh.meshctl(&["service", "deregister", "web-1", "--revoke"]);

    assert!(is_closed(&mut open));
    assert!(is_closed(&mut connect(web.upstream("api"))));
    assert!(web.process().is_running(), "a revoked sidecar says so, and stays");
}
