//! Life without the control plane, and after it.

use crate::support::{EchoServer, Mesh, connect, eventually, is_closed, say};

#[test]
fn traffic_flows_without_the_control_plane_and_a_killed_sidecar_comes_back() {
    let echo = EchoServer::start();
    let mut mesh = Mesh::start();
    let mut api = mesh.serve("api", &echo.address());
    let mut web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert!(say(&mut open, "a").is_some());

    mesh.kill_control();
    assert!(say(&mut open, "b").is_some(), "open connections stay");
    assert!(say(&mut connect(web.upstream("api")), "c").is_some(), "new ones are made");

    api.kill_hard();
    api.start();
    eventually("a call reaches the restarted sidecar", || say(&mut connect(web.upstream("api")), "d"));
    web.kill_hard();
    web.start();
    eventually("the restarted caller reaches it", || say(&mut connect(web.upstream("api")), "e"));

    mesh.start_control();
    mesh.wait_connected("api-1");
    mesh.wait_connected("web-1");
    mesh.deny("web", "api");
    assert!(is_closed(&mut connect(web.upstream("api"))));
}

#[test]
fn an_acknowledged_deny_survives_kill_9_of_everything() {
    let echo = EchoServer::start();
    let mut mesh = Mesh::start();
    let mut api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    assert!(say(&mut connect(web.upstream("api")), "a").is_some());

    mesh.deny("web", "api");
    mesh.kill_control();
    api.kill_hard();
    api.start();

    assert!(is_closed(&mut connect(web.upstream("api"))), "from the disk alone");
    mesh.start_control();
    let list = mesh.json(&["intention", "list"]);
    assert_eq!(list["intentions"][0]["action"], "deny", "{list}");
}

#[test]
fn sidecars_restarted_in_the_other_order_get_their_own_ports_back() {
    let echo = EchoServer::start();
    let mut mesh = Mesh::start();
    let any_port = ["--listen", "[::]", "--advertise", "127.0.0.1"];
    let with_local = |address: &str| -> Vec<String> {
        any_port.iter().map(ToString::to_string).chain(["--local".into(), address.to_owned()]).collect()
    };
    let options = with_local(&echo.address());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut first = mesh.sidecar("api", "api-1", &options);
    let mut second = mesh.sidecar("api", "api-2", &options);
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let (port_1, port_2) = (first.inbound.clone(), second.inbound.clone());
    assert_ne!(port_1, port_2);

    mesh.kill_control();
    first.kill_hard();
    second.kill_hard();
    second.start();
    first.start();

    assert_eq!(first.inbound, port_1);
    assert_eq!(second.inbound, port_2);
    eventually("traffic flows", || say(&mut connect(web.upstream("api")), "x"));
}

#[test]
fn every_acknowledged_write_survives_kill_9() {
    let mut mesh = Mesh::start();
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let victim = mesh.control().id();
        let killer = std::thread::spawn(move || {
            std::thread::park_timeout(std::time::Duration::from_millis(150 + 90 * round));
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim as i32), nix::sys::signal::Signal::SIGKILL);
        });
        for number in 0.. {
            let source = format!("s{round}-{number}");
            let output = mesh.run(&["intention", "allow", &source, "api", "--wait", "0s"]);
            if !output.status.success() {
                break;
            }
            acknowledged.push(source);
        }
        killer.join().unwrap();
        mesh.kill_control();
        mesh.start_control();
    }
    let list = mesh.json(&["intention", "list"]);
    let stored: std::collections::HashSet<&str> =
        list["intentions"].as_array().unwrap().iter().map(|i| i["source"].as_str().unwrap()).collect();
    assert!(acknowledged.len() >= 8, "some writes were acknowledged between the kills: {}", acknowledged.len());
    for source in &acknowledged {
        assert!(stored.contains(source.as_str()), "{source} was acknowledged and is gone");
    }
}

#[test]
fn an_expired_svid_ends_its_connections_and_heals_by_grace() {
    let echo = EchoServer::start();
    let mut mesh = Mesh::start_with(&["--test-periods", "--svid-ttl", "8s"]);
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert!(say(&mut open, "a").is_some());

    mesh.kill_control();
    assert!(is_closed(&mut open), "ended with the SVID");
    eventually("the log says why", || (api.log() + &web.log()).contains("expired").then_some(()));
    eventually("nothing goes through", || say(&mut connect(web.upstream("api")), "b").is_none().then_some(()));
    eventually("the sidecar says that it is not ready", || (web.admin("/ready").0 == 503).then_some(()));

    mesh.start_control();
    eventually("traffic returns untouched by hand", || say(&mut connect(web.upstream("api")), "c"));
}

#[test]
fn short_connections_never_fail_across_renewals() {
    let echo = EchoServer::start();
    let mesh = Mesh::start_with(&["--test-periods", "--svid-ttl", "6s", "--intermediate-ttl", "16s"]);
    let intermediate = || mesh.json(&["ca", "status"])["intermediate"]["pin"].clone();
    let first_intermediate = intermediate();
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let first = api.metric("postern_svid_expiry_timestamp_seconds", &[]);
    let mut failed = 0;
    let mut made = 0;
    eventually("five renewals have passed", || {
        made += 1;
        failed += usize::from(say(&mut connect(web.upstream("api")), "x").is_none());
        (api.metric("postern_svid_expiry_timestamp_seconds", &[]) >= first + 15.0).then_some(())
    });
    assert_eq!(failed, 0, "of {made}");
    assert_ne!(intermediate(), first_intermediate, "the intermediate was renewed too");
}
