//! Connections that outlive the certificates that they were opened with, and one that must not.

use crate::support::{EchoServer, Mesh, Sidecar, connect, eventually, is_closed, say};

/// The lifetime of the certificates of these tests, in seconds.
const LIFETIME: f64 = 4.0;

fn expiry(sidecar: &Sidecar) -> f64 {
    sidecar.metric("postern_svid_expiry_timestamp_seconds", &[])
}

#[test]
fn sessions_go_on_over_twenty_lifetimes_of_both_ends() {
    let echo = EchoServer::start();
    let mesh = Mesh::start_with(&["--test-periods", "--svid-ttl", "4s"]);
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let (mut session, mut quiet) = (connect(web.upstream("api")), connect(web.upstream("api")));
    assert_eq!(say(&mut session, "begin").as_deref(), Some("begin"));
    assert_eq!(say(&mut quiet, "begin").as_deref(), Some("begin"));
    let begun = [expiry(&api), expiry(&web)];

    for lifetime in 1..=20 {
        eventually(&format!("lifetime {lifetime} is over"), || {
            assert_eq!(say(&mut session, "select 1").as_deref(), Some("select 1"), "in lifetime {lifetime}");
            let passed = f64::from(lifetime) * LIFETIME;
            (expiry(&api) >= begun[0] + passed && expiry(&web) >= begun[1] + passed).then_some(())
        });
    }

    assert_eq!(say(&mut quiet, "end").as_deref(), Some("end"));
    assert_eq!(echo.connections(), 2);
    for (sidecar, direction) in [(&api, "direction=\"inbound\""), (&web, "direction=\"outbound\"")] {
        assert_eq!(sidecar.metric("postern_handshake_seconds_count", &[direction]) as u32, 1, "one tunnel carried it all");
        assert_eq!(sidecar.metric("postern_tunnels_active", &[direction]) as u32, 1);
        assert_eq!(sidecar.metric("postern_identity_proofs_refused_total", &[]) as u32, 0, "{}", sidecar.log());
    }
}

#[test]
fn a_session_whose_peer_is_not_renewed_ends_with_its_certificate_and_the_log_says_so() {
    let echo = EchoServer::start();
    let mut mesh = Mesh::start_with(&["--test-periods", "--svid-ttl", "6s"]);
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut session = connect(web.upstream("api"));
    assert!(say(&mut session, "begin").is_some());

    mesh.kill_control();

    assert!(is_closed(&mut session), "ended with the certificate");
    let says_so = |sidecar: &Sidecar| {
        sidecar.log().lines().any(|line| line.contains(" connection ") && line.contains("reason=\"expired\""))
    };
    eventually("one of them has cut it for that reason", || (says_so(&api) || says_so(&web)).then_some(()));
    for (sidecar, direction) in [(&api, "direction=\"inbound\""), (&web, "direction=\"outbound\"")] {
        eventually("the tunnel is gone", || (sidecar.metric("postern_tunnels_active", &[direction]) as u32 == 0).then_some(()));
        assert_eq!(sidecar.metric("postern_identity_proofs_refused_total", &[]) as u32, 0);
    }
}
