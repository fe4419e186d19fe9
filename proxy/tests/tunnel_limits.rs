//! What one peer may take of a sidecar over tunnels, on the wire. The limits of one tunnel have their tests beside the state
//! machine, the budgets of unread bytes beside the driver.

mod mesh;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use mesh::tunnel_end::{CREDIT, DATA, DENIED, LIMIT, OPEN, PING, RESET, TunnelEnd, open};
use mesh::{ALLOW, DENY, HOUR, Mesh, PATIENCE, Service, Side, eventually, intention};
use postern_proxy::data_plane::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("write");
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await.expect("read");
    assert_eq!(answer, text.as_bytes());
}

async fn end_of(stream: &mut TcpStream) -> Result<usize, ErrorKind> {
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("an end in time");
    read.map_err(|error| error.kind())
}

async fn tunnels(side: &Side, direction: &str, peer: &str, number: usize) {
    side.counts(&format!(r#"postern_tunnels_active{{direction="{direction}",peer="{peer}"}} {number}"#)).await;
}

/// The sidecar of `api` with one good caller, who is undisturbed by whatever `hostile` sends on a tunnel of its own, which
/// ends for `reason` and is counted.
async fn ends_its_own_tunnel_only(reason: &str, frames: Vec<(u8, u32, Vec<u8>)>) {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let rules = vec![intention("*", "api", ALLOW), intention("denied", "api", DENY)];
    let api = mesh.destination("api", service.address, rules).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut good = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut good, "before").await;
    let mut hostile = TunnelEnd::dial(&mesh, mesh.svid("denied", HOUR), api.inbound).await;

    hostile.send_all(frames).await;

    hostile.ended().await;
    tunnels(&api, "inbound", "denied", 0).await;
    tunnels(&api, "inbound", "web", 1).await;
    api.counts(&format!(r#"postern_tunnel_violations_total{{reason="{reason}"}} 1"#)).await;
    say(&mut good, "after").await;
}

#[tokio::test]
async fn more_than_500_refused_opens_a_second_end_the_tunnel() {
    ends_its_own_tunnel_only("refused_too_fast", (1..=501).map(|id| (OPEN, id, open())).collect()).await;
}

#[tokio::test]
async fn up_to_500_refused_opens_a_second_are_only_refused() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("*", "api", DENY)]).await;
    let mut end = TunnelEnd::dial(&mesh, mesh.svid("web", HOUR), api.inbound).await;

    end.send_all((1..=500).map(|id| (OPEN, id, open()))).await;

    for _ in 1..=500 {
        assert_eq!(end.next(RESET).await.payload, [DENIED]);
    }
    tunnels(&api, "inbound", "web", 1).await;
}

#[tokio::test]
async fn more_than_10_pings_a_second_end_the_tunnel() {
    ends_its_own_tunnel_only("pings_too_fast", (0..11).map(|_| (PING, 0, [&[0][..], &[1; 8]].concat())).collect()).await;
}

#[tokio::test]
async fn data_without_credit_end_the_tunnel() {
    ends_its_own_tunnel_only("no_credit", vec![(OPEN, 1, open()), (DATA, 1, vec![0; 16 * 1024 + 1])]).await;
}

#[tokio::test]
async fn a_reused_id_ends_the_tunnel() {
    ends_its_own_tunnel_only("reused_id", vec![(OPEN, 1, open()), (OPEN, 1, open())]).await;
}

#[tokio::test]
async fn credit_that_overflows_ends_the_tunnel() {
    ends_its_own_tunnel_only("credit_overflow", vec![(OPEN, 1, open()), (CREDIT, 1, u32::MAX.to_be_bytes().to_vec())]).await;
}

#[tokio::test]
async fn a_service_has_so_many_tunnels_from_one_address_and_others_have_theirs() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let limits = Limits { tunnels_per_address: 2, ..Limits::default() };
    let api = mesh.destination_with("api", service.address, vec![intention("*", "api", ALLOW)], limits).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut end = TunnelEnd::dial(&mesh, mesh.svid("web", HOUR), api.inbound).await;
        end.open_accepted(1).await;
        held.push(end);
    }

    let mut third = TunnelEnd::dial(&mesh, mesh.svid("web", HOUR), api.inbound).await;
    third.open(1).await;
    assert_eq!(third.ended().await, []);
    api.counts(r#"postern_connections_refused_total{direction="inbound",reason="max_tunnels_per_peer"} 1"#).await;

    let mut other = TunnelEnd::dial(&mesh, mesh.svid("shop", HOUR), api.inbound).await;
    other.open_accepted(1).await;
    held.pop();
    tunnels(&api, "inbound", "web", 1).await;
    let mut again = TunnelEnd::dial(&mesh, mesh.svid("web", HOUR), api.inbound).await;
    again.open_accepted(1).await;
    again.say(1, "there is room again").await;
}

#[tokio::test]
async fn the_streams_of_a_tunnel_count_as_connections() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let rules = vec![intention("*", "api", ALLOW)];
    let api = mesh.destination_with("api", service.address, rules, Limits::with_max_connections(10, Some(2))).await;
    let mut end = TunnelEnd::dial(&mesh, mesh.svid("web", HOUR), api.inbound).await;
    end.open_accepted(1).await;
    end.open_accepted(2).await;

    end.open(3).await;

    assert_eq!(end.next(RESET).await.payload, [LIMIT]);
    api.counts(r#"postern_connections_refused_total{direction="inbound",reason="max_connections_per_peer"} 1"#).await;
    end.say(1, "the others go on").await;
}

/// Sends for as long as it is let.
async fn flood(address: SocketAddr) -> tokio::task::JoinHandle<()> {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    tokio::spawn(async move {
        let (mut reader, mut writer) = stream.split();
        let send = async {
            let bytes = vec![7; 64 * 1024];
            while writer.write_all(&bytes).await.is_ok() {}
        };
        let receive = async {
            let mut bytes = vec![0; 64 * 1024];
            while matches!(reader.read(&mut bytes).await, Ok(1..)) {}
        };
        tokio::join!(send, receive);
    })
}

#[tokio::test]
async fn a_bulk_stream_gets_a_tunnel_to_itself_up_to_so_many_an_instance() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let limits = Limits { tunnels_per_instance: 3, ..Limits::default() };
    let web = mesh.caller_within(limits, "web", "api", &[("api-1", api.inbound)]).await;
    let mut floods = Vec::new();
    for number in 1..=3 {
        let moved = |number: usize| web.sum("postern_bytes_total", r#"way="out""#) > number as f64 * 32e6;
        floods.push(flood(web.upstream).await);
        eventually("it moves much", || async { moved(number) }).await;
        eventually("the next one finds every tunnel busy", || async {
            let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
            say(&mut stream, "hello").await;
            web.sum("postern_tunnels_active", "outbound") as usize > number.min(2)
        })
        .await;
    }

    for _ in 0..10 {
        let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
        say(&mut stream, "carried, by the one with the fewest").await;
    }
    tunnels(&web, "outbound", "api", 3).await;
    tunnels(&api, "inbound", "web", 3).await;
    floods.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_sidecar_that_is_found_at_another_name_is_still_itself() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let api = mesh.calling_itself("api", service.address).await;
    api.publish_endpoints_with(&mesh, "api", &[("api-elsewhere", api.inbound)], vec![intention("*", "api", ALLOW)]);

    let mut stream = TcpStream::connect(api.upstream).await.expect("connect");

    assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));
    api.counts(r#"postern_connections_refused_total{direction="outbound",reason="dial_to_self"} 1"#).await;
    assert_eq!(service.connections(), 0);
    tunnels(&api, "inbound", "api", 0).await;
}

#[tokio::test]
async fn a_peer_that_neither_sends_nor_answers_is_given_up() {
    let mesh = Mesh::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let instances = [("api-1", listener.local_addr().expect("address"))];
    let web = mesh.caller_within(Limits::default(), "web", "api", &instances).await;
    let mut caller = TcpStream::connect(web.upstream).await.expect("connect");
    let mut end = TunnelEnd::accept(&mesh, mesh.svid("api", HOUR), &listener).await;
    assert_eq!(end.next(OPEN).await.stream, 1);
    end.send(CREDIT, 1, &65_536_u32.to_be_bytes()).await;
    end.send(DATA, 1, b"hello").await;
    caller.read_exact(&mut [0; 5]).await.expect("the stream is open");

    // From here on the end reads nothing and says nothing, and its socket stays open: asked after 10 s, dead after 5 s more.
    let end_of_stream = tokio::time::timeout(3 * PATIENCE, caller.read(&mut [0; 8])).await.expect("an end in time");
    assert_eq!(end_of_stream.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    tunnels(&web, "outbound", "api", 0).await;
    web.counts(r#"postern_tunnel_violations_total{reason="silent"} 1"#).await;
    drop(end);
}

#[tokio::test]
async fn an_open_that_nobody_answers_is_given_up_and_the_tunnel_goes_on() {
    let mesh = Mesh::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let instances = [("api-1", listener.local_addr().expect("address"))];
    let limits = Limits { dial: Duration::from_millis(500), ..Limits::default() };
    let web = mesh.caller_within(limits, "web", "api", &instances).await;
    let mut caller = TcpStream::connect(web.upstream).await.expect("connect");
    let mut end = TunnelEnd::accept(&mesh, mesh.svid("api", HOUR), &listener).await;
    assert_eq!(end.next(OPEN).await.stream, 1);

    let given_up = end.next(RESET).await;
    assert_eq!((given_up.stream, &given_up.payload[..]), (1, &[7][..]));
    assert_eq!(end_of(&mut caller).await, Err(ErrorKind::ConnectionReset));

    let mut next = TcpStream::connect(web.upstream).await.expect("connect");
    assert_eq!(end.next(OPEN).await.stream, 2);
    end.send(CREDIT, 2, &65_536_u32.to_be_bytes()).await;
    end.send(DATA, 2, b"hello").await;
    next.read_exact(&mut [0; 5]).await.expect("the next stream of the same tunnel");
}
