use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use super::mesh::{self, ALLOW, AUDIT, DENY, Mesh, Service, eventually, intention, temporary};
use postern_proxy::data_plane::{Limits, LocalTarget};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("write");
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await.expect("read");
    assert_eq!(answer, text.as_bytes());
}

/// Waits for the end of a connection; gives how it ended.
async fn end_of(stream: &mut TcpStream) -> Result<usize, ErrorKind> {
    let mut buffer = [0; 64];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.expect("an end within 5 s");
    read.map_err(|error| error.kind())
}

#[tokio::test]
async fn an_allowed_connection_passes_bytes_both_ways_and_half_close_works() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;

    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        writer.write_all(&sent).await.expect("write");
        writer.shutdown().await.expect("half-close");
    };
    let read = async {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.expect("read");
        got
    };
    let ((), got) = tokio::join!(write, read);

    assert!(got == sent, "{} bytes came back of {}", got.len(), sent.len());
    for (side, direction, peer) in [(&api, "inbound", "web"), (&web, "outbound", "api")] {
        for way in ["in", "out"] {
            let line = format!(r#"postern_bytes_total{{direction="{direction}",peer="{peer}",way="{way}"}} 3000000"#);
            side.counts(&line).await;
        }
        side.counts(&format!(r#"postern_connections_active{{direction="{direction}",peer="{peer}"}} 0"#)).await;
    }
    api.counts(r#"{direction="inbound",intention="web -> api",peer="web",verdict="allow"} 1"#).await;
    web.counts(r#"{direction="outbound",intention="web -> api",peer="api",verdict="allow"} 1"#).await;
}

#[tokio::test]
async fn a_denied_connection_is_reset_and_both_sides_say_why() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("*", "api", DENY)]).await;
    let web = mesh.caller("web", "api", &api, false).await;

    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(service.connections(), 0, "the service never hears of it");
    api.counts(r#"{direction="inbound",intention="* -> api",peer="web",verdict="deny"} 1"#).await;
    web.counts(r#"verdict="deny"} 1"#).await;
}

#[tokio::test]
async fn without_an_intention_the_default_denies() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![]).await;
    let web = mesh.caller("web", "api", &api, false).await;

    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    api.counts(r#"intention="default",peer="web",verdict="deny"} 1"#).await;
}

#[tokio::test]
async fn a_deny_closes_an_open_connection_before_it_counts_as_enforced() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut stream, "hello").await;

    let sequence = api.publish(&mesh, vec![intention("web", "api", DENY)]);
    api.plane.enforced().wait_for(|enforced| *enforced >= sequence).await.expect("enforced");

    assert_eq!(api.plane.open_connections(), 0, "closed by the time it is called enforced");
    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(service.last_end().await, Err(ErrorKind::ConnectionReset), "the service sees a cut, not an end");
    api.counts(r#"postern_connections_revoked_total{peer="web"} 1"#).await;
}

#[tokio::test]
async fn a_snapshot_that_still_allows_leaves_connections_open() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut stream, "hello").await;

    let sequence = api.publish(&mesh, vec![intention("*", "api", ALLOW), intention("shop", "api", DENY)]);
    api.plane.enforced().wait_for(|enforced| *enforced >= sequence).await.expect("enforced");

    say(&mut stream, "still here").await;
}

#[tokio::test]
async fn audit_lets_through_and_counts_what_it_would_deny() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", AUDIT)]).await;
    let web = mesh.caller("web", "api", &api, true).await;

    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");

    say(&mut stream, "hello").await;
    api.counts(r#"{direction="inbound",intention="web -> api",peer="web",verdict="audit"} 1"#).await;
}

#[tokio::test]
async fn revoking_a_serial_closes_its_connections_on_both_sides() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut stream, "hello").await;

    api.revoke(&mesh, &web, vec![intention("web", "api", ALLOW)]);

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    api.counts(r#"postern_connections_revoked_total{peer="web"} 1"#).await;
    let mut again = TcpStream::connect(web.upstream).await.expect("connect");
    assert!(!matches!(end_of(&mut again).await, Ok(1..)));
    api.counts(r#"postern_handshake_failures_total{direction="inbound",reason="revoked"} 1"#).await;
}

#[tokio::test]
async fn a_root_that_leaves_the_bundle_takes_its_connections_along() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut stream, "hello").await;

    api.trust_only(&Mesh::over(CARRIED), vec![intention("web", "api", ALLOW)]);

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    api.counts(r#"postern_connections_revoked_total{peer="web"} 1"#).await;
}

#[tokio::test]
async fn a_temporary_intention_that_ends_closes_what_it_allowed() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let until = SystemTime::now() + Duration::from_millis(1_500);
    let api = mesh.destination("api", service.address, vec![temporary("web", "api", ALLOW, until)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut stream, "hello").await;

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));

    assert!(SystemTime::now() >= until);
    api.counts(r#"postern_connections_revoked_total{peer="web"} 1"#).await;
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_of_its_peer() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller_for("web", "api", &api, Duration::from_secs(3)).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut stream, "hello").await;

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));

    api.counts(r#"postern_connections_revoked_total{peer="web"} 1"#).await;
}

#[tokio::test]
async fn an_instance_that_is_another_service_is_refused() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let impostor = mesh.destination("api2", service.address, vec![intention("*", "api2", ALLOW)]).await;
    let web = mesh.caller("web", "api", &impostor, true).await;

    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(service.connections(), 0);
    // It is refused twice over: the impostor does not serve the name that is asked for.
    web.counts(r#"postern_connections_refused_total{direction="outbound",reason="handshake_failed"} 1"#).await;
}

#[tokio::test]
async fn a_certificate_of_another_service_is_unexpected_whatever_name_it_answers_to() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let impostor = mesh.impostor("api", "web2", service.address).await;
    let web = mesh.caller("web", "api", &impostor, true).await;

    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(service.connections(), 0);
    web.counts(r#"postern_handshake_failures_total{direction="outbound",reason="unexpected_peer"} 1"#).await;
}

#[tokio::test]
async fn an_instance_that_refuses_is_passed_over_for_the_next() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let gone = mesh::NOWHERE;
    web.publish_endpoints(&mesh, "api", &[("api-gone", gone), ("api-1", api.inbound)]);

    for _ in 0..8 {
        let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
        say(&mut stream, "hello").await;
    }
}

#[tokio::test]
async fn a_sidecar_does_not_dial_itself() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    web.publish_endpoints(&mesh, "api", &[("web-1", api.inbound)]);

    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    web.counts(r#"postern_connections_refused_total{direction="outbound",reason="dial_to_self"} 1"#).await;
}

#[tokio::test]
async fn without_an_endpoint_the_caller_is_cut_off_and_the_reason_counted() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    web.publish_endpoints(&mesh, "api", &[]);

    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    web.counts(r#"postern_connections_refused_total{direction="outbound",reason="no_endpoint"} 1"#).await;
}

#[tokio::test]
async fn a_service_that_does_not_run_costs_its_caller_a_reset() {
    let mesh = Mesh::over(CARRIED);
    let api = mesh.destination("api", mesh::NOWHERE, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;

    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    api.counts(r#"postern_connections_refused_total{direction="inbound",reason="local_unavailable"} 1"#).await;
}

#[tokio::test]
async fn three_hundred_half_open_connections_disturb_nobody() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut half_open = Vec::new();
    for _ in 0..300 {
        half_open.push(TcpStream::connect(api.inbound).await.expect("connect"));
    }

    for _ in 0..20 {
        let exchange = async {
            let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
            say(&mut stream, "hello").await;
        };
        tokio::time::timeout(Duration::from_secs(1), exchange).await.expect("good traffic within a second");
    }
}

#[tokio::test]
async fn an_address_that_keeps_handshakes_waiting_holds_up_no_other_address() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut dripping = Vec::new();
    for _ in 0..200 {
        let mut stream = mesh::connect_from("127.0.0.2", api.inbound).await;
        stream.write_all(&[0x16]).await.expect("write");
        dripping.push(stream);
    }

    for _ in 0..10 {
        let exchange = async {
            let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
            say(&mut stream, "hello").await;
        };
        tokio::time::timeout(Duration::from_secs(1), exchange).await.expect("good traffic within a second");
    }
}

#[tokio::test]
async fn over_the_parked_the_newest_connection_is_closed_and_counted() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let limits = Limits { unauthenticated_per_address: 2, parked: 3, ..Limits::default() };
    let api = mesh.destination_with("api", service.address, vec![], limits).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(TcpStream::connect(api.inbound).await.expect("connect"));
    }

    // The reset may come before the connect has returned.
    if let Ok(mut newest) = TcpStream::connect(api.inbound).await {
        assert_eq!(end_of(&mut newest).await, Err(ErrorKind::ConnectionReset));
    }

    api.counts(r#"postern_connections_refused_total{direction="inbound",reason="too_many_unauthenticated"} 1"#).await;
}

#[tokio::test]
async fn a_handshake_that_drips_is_ended_in_time() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
    let api = mesh.destination_with("api", service.address, vec![], limits).await;
    let mut stream = TcpStream::connect(api.inbound).await.expect("connect");
    stream.write_all(&[0x16, 3, 1, 2]).await.expect("write");

    let ended = end_of(&mut stream).await;

    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    api.counts(r#"postern_handshake_failures_total{direction="inbound",reason="timed_out"} 1"#).await;
}

#[tokio::test]
async fn a_client_hello_in_single_bytes_succeeds() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;

    let socket = TcpStream::connect(api.inbound).await.expect("connect");
    let mut stream = mesh.shake_hands("web", "api.mesh.example", mesh::ByteByByte(socket)).await.expect("handshake");

    stream.write_all(b"hello").await.expect("write");
    stream.flush().await.expect("flush");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.expect("read");
    assert_eq!(&answer, b"hello");
}

#[tokio::test]
async fn what_is_not_tls_is_refused_and_counted() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("*", "api", ALLOW)]).await;
    let inputs: [&[u8]; 3] = [b"GET / HTTP/1.1\r\nHost: api\r\n\r\n", &[0; 512], b"\x16\x03\x01\xff\xff\x01\xff\xff\xff garbage"];
    for input in inputs {
        let mut stream = TcpStream::connect(api.inbound).await.expect("connect");
        stream.write_all(input).await.expect("write");
        let mut got = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut got)).await.expect("ended at once");
        assert!(got.len() < 16, "an alert at most, not {got:?}");
    }
    api.counts(r#"postern_handshake_failures_total{direction="inbound",reason="not_tls"} 3"#).await;
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn a_client_without_certificate_is_refused_and_counted() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("*", "api", ALLOW)]).await;
    let socket = TcpStream::connect(api.inbound).await.expect("connect");

    if let Ok(mut stream) = mesh.shake_hands_without_certificate("api.mesh.example", socket).await {
        let read = stream.read(&mut [0; 8]).await;
        assert!(!matches!(read, Ok(1..)), "{read:?}");
    }

    api.counts(r#"postern_handshake_failures_total{direction="inbound",reason="no_certificate"} 1"#).await;
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn a_certificate_of_another_mesh_is_refused_and_counted() {
    let (mesh, other) = (Mesh::over(CARRIED), Mesh::over(CARRIED));
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("*", "api", ALLOW)]).await;
    let socket = TcpStream::connect(api.inbound).await.expect("connect");

    let _ = other.shake_hands_trusting(&mesh, "web", "api.mesh.example", socket).await;

    api.counts(r#"postern_handshake_failures_total{direction="inbound",reason="unknown_authority"} 1"#).await;
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn a_name_of_another_service_is_refused_before_the_handshake() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("*", "api", ALLOW)]).await;
    let socket = TcpStream::connect(api.inbound).await.expect("connect");

    assert!(mesh.shake_hands("web", "db.mesh.example", socket).await.is_err());

    api.counts(r#"postern_handshake_failures_total{direction="inbound",reason="wrong_name"} 1"#).await;
}

#[tokio::test]
async fn the_server_name_leads_to_the_port_that_it_names() {
    let mesh = Mesh::over(CARRIED);
    let (main, grpc) = (Service::echo().await, Service::greeting("grpc here").await);
    let rules = vec![intention("web", "api", ALLOW)];
    let locals = [("main", main.target()), ("grpc", grpc.target())];
    let api = mesh.destination_at("api", &locals, rules, Limits::default()).await;
    let socket = TcpStream::connect(api.inbound).await.expect("connect");

    let mut stream = mesh.shake_hands("web", "grpc.api.mesh.example", socket).await.expect("handshake");

    let mut greeting = [0; 9];
    stream.read_exact(&mut greeting).await.expect("read");
    assert_eq!(&greeting, b"grpc here");
    assert_eq!(main.connections(), 0);
}

#[tokio::test]
async fn a_port_that_is_not_served_is_refused() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let socket = TcpStream::connect(api.inbound).await.expect("connect");

    let mut stream = mesh.shake_hands("web", "grpc.api.mesh.example", socket).await.expect("handshake");

    let read = stream.read(&mut [0; 8]).await;
    assert!(!matches!(read, Ok(1..)), "{read:?}");
    api.counts(r#"postern_connections_refused_total{direction="inbound",reason="unknown_port"} 1"#).await;
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn one_peer_cannot_take_every_connection() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let rules = vec![intention("*", "api", ALLOW)];
    let api = mesh.destination_with("api", service.address, rules, Limits::with_max_connections(10, Some(2))).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let shop = mesh.caller("shop", "api", &api, true).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
        say(&mut stream, "hello").await;
        held.push(stream);
    }

    let mut third = TcpStream::connect(web.upstream).await.expect("connect");
    assert_eq!(end_of(&mut third).await, Err(ErrorKind::ConnectionReset));
    api.counts(r#"postern_connections_refused_total{direction="inbound",reason="max_connections_per_peer"} 1"#).await;

    let mut other = TcpStream::connect(shop.upstream).await.expect("connect");
    say(&mut other, "hello").await;
}

#[tokio::test]
async fn unix_sockets_serve_on_both_ends() {
    let mesh = Mesh::over(CARRIED);
    let directory = tempfile::tempdir().expect("directory");
    let service_path = directory.path().join("api.sock");
    let listener = UnixListener::bind(&service_path).expect("bind");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    let locals = [("main", LocalTarget::Unix(service_path))];
    let api = mesh.destination_at("api", &locals, vec![intention("web", "api", ALLOW)], Limits::default()).await;
    let upstream_path = directory.path().join("upstream.sock");
    let web = mesh.unix_caller("web", "api", &api, &upstream_path).await;

    let mut stream = UnixStream::connect(&upstream_path).await.expect("connect");
    stream.write_all(b"hello").await.expect("write");
    stream.shutdown().await.expect("half-close");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert_eq!(answer, "hello");

    web.plane.drain(Duration::from_secs(5)).await;
    assert!(!upstream_path.exists(), "the socket is removed with the sidecar");
}

#[tokio::test]
async fn a_drain_accepts_no_more_and_lets_open_connections_end() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut stream, "hello").await;

    let inbound = api.inbound;
    let draining = tokio::spawn(api.plane.drain(Duration::from_secs(20)));
    eventually("the listener closes", || async move { TcpStream::connect(inbound).await.is_err() }).await;

    say(&mut stream, "still here").await;
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), draining)
        .await
        .expect("the drain ends with the last connection")
        .expect("drain");
}

#[tokio::test]
async fn at_the_deadline_of_a_drain_what_is_left_is_closed() {
    let mesh = Mesh::over(CARRIED);
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut stream, "hello").await;

    api.plane.drain(Duration::from_millis(200)).await;

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
}
