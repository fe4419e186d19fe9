//! Sidecars that speak tunnels beside those that do not.

use crate::support::{Carriage, EchoServer, Mesh, Sidecar, connect, eventually, is_closed, over_every_carriage, say};

over_every_carriage!(a_pair_speaks_what_it_was_told_to);

fn a_pair_speaks_what_it_was_told_to(carriage: Carriage) {
    let echo = EchoServer::start();
    let mesh = Mesh::over(carriage);
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open: Vec<_> = (0..10).map(|_| connect(web.upstream("api"))).collect();
    open.iter_mut().for_each(|stream| assert!(say(stream, "hello").is_some()));

    let tunnels = if carriage.transport == "tunnel" { 1.0 } else { 0.0 };
    assert_eq!(web.tunnels("outbound"), tunnels);
    assert_eq!(api.tunnels("inbound"), tunnels);
    let shaken = api.metric("postern_handshake_seconds_count", &["direction=\"inbound\""]);
    assert_eq!(shaken, if carriage.transport == "tunnel" { 1.0 } else { 10.0 }, "handshakes for ten calls");
}

/// One service in front of an echo, one that calls it, each with flags of its own.
struct Pair {
    mesh: Mesh,
    echo: EchoServer,
    api: Sidecar,
    web: Sidecar,
}

impl Pair {
    fn new(api: &[&str], web: &[&str]) -> Self {
        let echo = EchoServer::start();
        let mesh = Mesh::start();
        let api = mesh.sidecar("api", "api-1", &[&["--local", &echo.address()], api].concat());
        let web = mesh.sidecar("web", "web-1", &[&["--upstream", "api=127.0.0.1:0"], web].concat());
        mesh.allow("web", "api");
        Self { mesh, echo, api, web }
    }

    fn call(&self) -> Option<String> {
        say(&mut connect(self.web.upstream("api")), "hello")
    }

    fn tunnels(&self) -> f64 {
        self.web.tunnels("outbound") + self.api.tunnels("inbound")
    }
}

#[test]
fn new_sidecars_speak_a_tunnel_without_being_told() {
    let pair = Pair::new(&[], &[]);
    assert!(pair.call().is_some());
    assert_eq!(pair.tunnels(), 2.0, "each end counts it");
}

#[test]
fn a_new_sidecar_calls_one_that_speaks_only_direct() {
    let pair = Pair::new(&["--transport", "direct"], &[]);
    assert!(pair.call().is_some());
    assert_eq!(pair.tunnels(), 0.0);
    pair.mesh.deny("web", "api");
    assert!(pair.call().is_none(), "and the policy holds");
}

#[test]
fn a_sidecar_that_speaks_only_direct_calls_a_new_one() {
    let pair = Pair::new(&[], &["--transport", "direct"]);
    assert!(pair.call().is_some());
    assert_eq!(pair.tunnels(), 0.0);
    pair.mesh.deny("web", "api");
    assert!(pair.call().is_none(), "and the policy holds");
}

#[test]
fn one_that_wants_tunnels_only_says_why_it_does_not_call_one_that_speaks_none() {
    let pair = Pair::new(&["--transport", "direct"], &["--transport", "tunnel"]);

    assert!(is_closed(&mut connect(pair.web.upstream("api"))));

    assert_eq!(pair.echo.connections(), 0);
    eventually("it is counted", || {
        let refused = pair.web.metric("postern_connections_refused_total", &["direction=\"outbound\"", "reason=\"no_tunnel\""]);
        (refused == 1.0).then_some(())
    });
    eventually("the access log says why", || {
        let log = pair.web.log();
        (log.contains("no_tunnel") && log.contains("speaks no tunnel, and --transport tunnel allows nothing else")).then_some(())
    });
}

#[test]
fn a_sidecar_that_comes_back_without_tunnels_is_called_without() {
    let mut pair = Pair::new(&["--listen", &format!("127.0.0.1:{}", crate::support::free_port())], &[]);
    assert!(pair.call().is_some());
    assert_eq!(pair.tunnels(), 2.0);

    pair.api.kill_hard();
    pair.api.add_flags(&["--transport", "direct"]);
    pair.api.start();

    eventually("calls go through again", || pair.call());
    assert_eq!(pair.tunnels(), 0.0);
}
