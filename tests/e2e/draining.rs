//! A sidecar that goes down carries open connections for a while, and still hears of every change.

use nix::sys::signal::Signal;

use crate::support::{EchoServer, Mesh, connect, eventually, is_closed, say};

#[test]
fn a_deny_closes_a_connection_that_is_being_drained() {
    let mesh = Mesh::start();
    mesh.allow("web", "api");
    let echo = EchoServer::start();
    let mut api = mesh.sidecar("api", "api-1", &["--local", &echo.address(), "--drain", "10m"]);
    let web = mesh.call("web", &["api"]);
    let mut call = connect(web.upstream("api"));
    assert_eq!(say(&mut call, "hello").as_deref(), Some("hello"));

    api.process().signal(Signal::SIGTERM);
    let is_gone = || {
        let service = mesh.json(&["service", "show", "api"]);
        (service["instances"][0]["health"] == "left").then_some(())
    };
    eventually("api-1 is deregistered", is_gone);
    assert_eq!(say(&mut call, "still there").as_deref(), Some("still there"), "the drain goes on");

    mesh.deny("web", "api");
    assert!(is_closed(&mut call), "within the patience of a test, not the ten minutes of the drain");
    assert!(api.process().exit().success());
}
