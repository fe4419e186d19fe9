//! Identities that are renewed while a tunnel lives, and everybody who should not get away with it. The hostile ends are
//! written after docs/tunnel.md, by hand.

mod mesh;

use std::io::ErrorKind;
use std::time::Duration;

use mesh::tunnel_end::{CHALLENGE, CREDIT, DATA, PING, PROOF, Signer, TunnelEnd, open, proof, proven};
use mesh::{ALLOW, HOUR, Mesh, PATIENCE, Service, Side, intention};
use postern_ca::{Serial, Svid};
use postern_intentions::Intention;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// After a number, so that it is not the beginning of a longer one.
const END: &str = "\n";

/// A lifetime so short that tests see its end.
const SHORT: Duration = Duration::from_secs(3);

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

fn everybody() -> Vec<Intention> {
    vec![intention("*", "api", ALLOW)]
}

/// A mesh with the sidecar of `api`, and an echo behind it.
struct World {
    mesh: Mesh,
    service: Service,
    api: Side,
}

impl World {
    async fn new() -> Self {
        let mesh = Mesh::new();
        let service = Service::echo().await;
        let api = mesh.destination("api", service.address, everybody()).await;
        Self { mesh, service, api }
    }

    /// A tunnel that `service` has dialled, with one open stream and a certificate so old that it is asked for its
    /// renewed one at once.
    async fn old_tunnel(&self, service: &str) -> (TunnelEnd, Vec<u8>) {
        self.tunnel(self.mesh.svid_issued(service, Duration::from_secs(100), Duration::from_secs(80))).await
    }

    async fn tunnel(&self, svid: Svid) -> (TunnelEnd, Vec<u8>) {
        let mut end = TunnelEnd::dial(&self.mesh, svid, self.api.inbound).await;
        let challenge = end.challenge().await;
        end.open_accepted(1).await;
        end.say(1, "before").await;
        (end, challenge)
    }

    /// The certificate that takes the place of the one of `service`.
    fn renewed(&self, service: &str) -> Svid {
        self.mesh.svid(service, HOUR)
    }

    /// The tunnel of `peer` and its streams are cut, and this is counted.
    async fn refuses(&self, mut end: TunnelEnd, peer: &str, reason: &str) {
        end.ended().await;
        self.api.counts(&format!(r#"postern_identity_proofs_refused_total{{reason="{reason}"}} 1{END}"#)).await;
        self.api.counts(&format!(r#"postern_tunnels_active{{direction="inbound",peer="{peer}"}} 0"#)).await;
        self.api.counts(&format!(r#"postern_connections_active{{direction="inbound",peer="{peer}"}} 0"#)).await;
        self.api.counts(&format!(r#"postern_connections_revoked_total{{peer="{peer}"}} 1{END}"#)).await;
        assert_eq!(self.service.last_end().await, Err(ErrorKind::ConnectionReset), "the stream is cut, not ended");
    }
}

#[tokio::test]
async fn streams_go_on_over_twenty_lifetimes_of_both_ends() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let api = mesh.destination_holding(mesh.svid("api", SHORT), "api", service.address, everybody()).await;
    let web = mesh.caller_for("web", "api", &api, SHORT).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    let begun = Instant::now();

    // A third of a lifetime for each certificate, 60 times.
    for turn in 0..60 {
        say(&mut stream, &format!("turn {turn}")).await;
        tokio::time::sleep_until(begun + SHORT / 3 * turn).await;
        api.renew(&mesh, SHORT);
        web.renew(&mesh, SHORT);
    }

    say(&mut stream, "the end").await;
    assert_eq!(service.connections(), 1);
    for (side, direction, peer) in [(&api, "inbound", "web"), (&web, "outbound", "api")] {
        side.counts(&format!(r#"postern_handshake_seconds_count{{direction="{direction}"}} 1"#)).await;
        side.counts(&format!(r#"postern_tunnels_active{{direction="{direction}",peer="{peer}"}} 1"#)).await;
        assert!(!side.metrics().contains("postern_identity_proofs_refused_total{"), "{}", side.metrics());
    }
}

#[tokio::test]
async fn a_peer_that_is_not_renewed_is_cut_at_expiry_with_its_streams() {
    for caller_expires in [true, false] {
        let mesh = Mesh::new();
        let service = Service::echo().await;
        let of_api = mesh.svid("api", if caller_expires { HOUR } else { SHORT });
        let api = mesh.destination_holding(of_api, "api", service.address, everybody()).await;
        let web = mesh.caller_for("web", "api", &api, if caller_expires { SHORT } else { HOUR }).await;
        let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
        say(&mut stream, "hello").await;

        assert_eq!(end_of(&mut stream).await, Err(ErrorKind::ConnectionReset));

        let (judge, other) = if caller_expires { (&api, "web") } else { (&web, "api") };
        judge.counts(&format!(r#"postern_connections_revoked_total{{peer="{other}"}} 1"#)).await;
        api.counts(r#"postern_tunnels_active{direction="inbound",peer="web"} 0"#).await;
        web.counts(r#"postern_tunnels_active{direction="outbound",peer="api"} 0"#).await;
        assert_eq!(service.last_end().await, Err(ErrorKind::ConnectionReset), "the service sees a cut, not an end");
    }
}

#[tokio::test]
async fn a_peer_that_hears_the_challenge_and_does_not_answer_is_cut_at_expiry() {
    let world = World::new().await;
    let svid = world.mesh.svid_issued("web", Duration::from_secs(20), Duration::from_secs(16));
    let expires = svid.not_after();

    let (mut end, first) = world.tunnel(svid).await;
    let second = end.challenge().await;

    assert_ne!(first, second, "each question is a new one");
    end.ended().await;
    assert!(std::time::SystemTime::now() >= expires);
    world.api.counts(r#"postern_connections_revoked_total{peer="web"} 1"#).await;
    world.api.counts(r#"postern_tunnels_active{direction="inbound",peer="web"} 0"#).await;
}

#[tokio::test]
async fn a_proof_by_the_specification_carries_a_tunnel_over_the_end_of_its_first_certificate() {
    let world = World::new().await;
    let svid = world.mesh.svid_issued("web", Duration::from_secs(20), Duration::from_secs(16));
    let expires = svid.not_after();
    let (mut end, challenge) = world.tunnel(svid).await;

    let bytes = proof(Signer::Client, &challenge, &end.leaves, &world.renewed("web"));
    end.send(PROOF, 0, &bytes).await;

    while std::time::SystemTime::now() < expires + Duration::from_secs(1) {
        end.say(1, "still here").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    end.open_accepted(2).await;
    end.say(2, "and a new stream").await;
    assert!(!world.api.metrics().contains("postern_identity_proofs_refused_total{"));
}

#[tokio::test]
async fn a_dialler_asks_the_acceptor_and_takes_its_proof() {
    let mesh = Mesh::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let instances = [("api-1", listener.local_addr().expect("address"))];
    let web = mesh.caller_within(Default::default(), "web", "api", &instances).await;
    let mut caller = TcpStream::connect(web.upstream).await.expect("connect");
    caller.write_all(b"hello").await.expect("write");
    let old = mesh.svid_issued("api", Duration::from_secs(20), Duration::from_secs(16));
    let expires = old.not_after();
    let mut end = TunnelEnd::accept(&mesh, old, &listener).await;

    let (mut challenge, mut opened, mut said) = (None, false, Vec::new());
    while challenge.is_none() || !opened || said.is_empty() {
        let frame = end.frame().await.expect("the tunnel lives");
        match frame.kind {
            CHALLENGE => challenge = Some(frame.payload),
            DATA => said = frame.payload,
            _ => opened = true,
        }
    }
    end.send(CREDIT, 1, &65_536_u32.to_be_bytes()).await;
    let bytes = proof(Signer::Server, &challenge.expect("a challenge"), &end.leaves, &mesh.svid("api", HOUR));
    end.send(PROOF, 0, &bytes).await;

    let mut turn = 0_u32;
    while std::time::SystemTime::now() < expires + Duration::from_secs(1) {
        turn += 1;
        end.send(DATA, 1, &turn.to_be_bytes()).await;
        let mut got = [0; 4];
        caller.read_exact(&mut got).await.expect("the stream goes on");
        assert_eq!(got, turn.to_be_bytes());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!web.metrics().contains("postern_identity_proofs_refused_total{"));
}

#[tokio::test]
async fn a_dialler_refuses_a_proof_of_the_acceptor_that_is_not_good() {
    let mesh = Mesh::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let instances = [("api-1", listener.local_addr().expect("address"))];
    let web = mesh.caller_within(Default::default(), "web", "api", &instances).await;
    let mut caller = TcpStream::connect(web.upstream).await.expect("connect");
    let mut end = TunnelEnd::accept(&mesh, mesh.svid_issued("api", HOUR, HOUR * 4 / 5), &listener).await;
    let challenge = end.challenge().await;

    // As if the acceptor had been the client of the handshake.
    let bytes = proof(Signer::Client, &challenge, &end.leaves, &mesh.svid("api", HOUR));
    end.send(PROOF, 0, &bytes).await;

    end.ended().await;
    web.counts(r#"postern_identity_proofs_refused_total{reason="bad_signature"} 1"#).await;
    web.counts(r#"postern_tunnels_active{direction="outbound",peer="api"} 0"#).await;
    assert_eq!(end_of(&mut caller).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_sidecar_proves_itself_by_the_specification_once_it_is_renewed() {
    let world = World::new().await;
    let mut end = TunnelEnd::dial(&world.mesh, world.mesh.svid("web", HOUR), world.api.inbound).await;
    let serial = world.api.renew(&world.mesh, 2 * HOUR);

    end.send(CHALLENGE, 0, &[7; 32]).await;

    let answer = end.next(PROOF).await.payload;
    let leaf = proven(&answer, Signer::Server, &[7; 32], &end.leaves).expect("a good proof");
    assert_eq!(Serial::of(&leaf), Ok(serial));
    assert!(proven(&answer, Signer::Server, &[8; 32], &end.leaves).is_none(), "for that challenge only");
}

#[tokio::test]
async fn a_sidecar_that_is_not_renewed_yet_does_not_answer_a_challenge_and_goes_on() {
    let world = World::new().await;
    let mut end = TunnelEnd::dial(&world.mesh, world.mesh.svid("web", HOUR), world.api.inbound).await;

    end.send(CHALLENGE, 0, &[7; 32]).await;

    end.open(1).await;
    end.send(DATA, 1, b"hello").await;
    let mut kinds = Vec::new();
    while kinds.last() != Some(&DATA) {
        kinds.push(end.frame().await.expect("the tunnel lives").kind);
    }
    assert!(!kinds.contains(&PROOF), "{kinds:?}");
}

#[tokio::test]
async fn a_proof_for_another_id_is_refused() {
    let world = World::new().await;
    let (mut end, challenge) = world.old_tunnel("web").await;

    let bytes = proof(Signer::Client, &challenge, &end.leaves, &world.renewed("payments"));
    end.send(PROOF, 0, &bytes).await;

    world.refuses(end, "web", "other_identity").await;
}

#[tokio::test]
async fn a_proof_that_is_sent_twice_is_refused() {
    let world = World::new().await;
    let (mut end, challenge) = world.old_tunnel("web").await;

    let bytes = proof(Signer::Client, &challenge, &end.leaves, &world.renewed("web"));
    end.send_all([(PROOF, 0, bytes.clone()), (PROOF, 0, bytes)]).await;

    world.refuses(end, "web", "proof_unasked").await;
}

#[tokio::test]
async fn a_proof_for_an_earlier_challenge_is_refused() {
    let world = World::new().await;
    let svid = world.mesh.svid_issued("web", Duration::from_secs(20), Duration::from_secs(16));
    let (mut end, first) = world.tunnel(svid).await;
    end.challenge().await;

    let bytes = proof(Signer::Client, &first, &end.leaves, &world.renewed("web"));
    end.send(PROOF, 0, &bytes).await;

    world.refuses(end, "web", "bad_signature").await;
}

#[tokio::test]
async fn a_proof_from_another_tunnel_is_refused() {
    let world = World::new().await;
    let (other, _) = world.old_tunnel("web").await;
    let elsewhere = other.leaves.clone();
    drop(other);
    let (mut end, challenge) = world.old_tunnel("web").await;
    assert_ne!(elsewhere.client, end.leaves.client);

    let bytes = proof(Signer::Client, &challenge, &elsewhere, &world.renewed("web"));
    end.send(PROOF, 0, &bytes).await;

    world.refuses(end, "web", "bad_signature").await;
}

#[tokio::test]
async fn a_proof_that_the_judge_itself_has_made_is_refused() {
    let world = World::new().await;
    let (mut end, challenge) = world.old_tunnel("api").await;
    world.api.renew(&world.mesh, 2 * HOUR);

    end.send(CHALLENGE, 0, &challenge).await;
    let reflected = end.next(PROOF).await.payload;
    assert!(proven(&reflected, Signer::Server, &challenge, &end.leaves).is_some(), "it is good, for the other role");
    end.send(PROOF, 0, &reflected).await;

    world.refuses(end, "api", "bad_signature").await;
}

#[tokio::test]
async fn a_proof_that_another_instance_of_the_service_has_made_is_refused() {
    let world = World::new().await;
    let twin = world.mesh.destination("api", world.service.address, everybody()).await;
    let (mut end, challenge) = world.old_tunnel("api").await;
    let stolen = world.mesh.svid_issued("api", Duration::from_secs(100), Duration::from_secs(80));
    let mut to_twin = TunnelEnd::dial(&world.mesh, stolen, twin.inbound).await;
    twin.renew(&world.mesh, 2 * HOUR);

    to_twin.send(CHALLENGE, 0, &challenge).await;
    let reflected = to_twin.next(PROOF).await.payload;
    end.send(PROOF, 0, &reflected).await;

    world.refuses(end, "api", "bad_signature").await;
}

#[tokio::test]
async fn a_proof_by_a_certificate_without_its_key_is_refused() {
    let world = World::new().await;
    let (mut end, challenge) = world.old_tunnel("web").await;
    let (renewed, other) = (world.renewed("web"), world.renewed("web"));

    let good = proof(Signer::Client, &challenge, &end.leaves, &renewed);
    let mut forged = proof(Signer::Client, &challenge, &end.leaves, &other);
    let leaf = renewed.chain()[0].len();
    if other.chain()[0].len() != leaf {
        // Serials differ in length now and then: the whole chain is the other one's, the signature is not.
        forged = [&good[..good.len() - 8], &[0; 8]].concat();
    } else {
        forged[3..6 + leaf].copy_from_slice(&good[3..6 + leaf]);
    }
    end.send(PROOF, 0, &forged).await;

    world.refuses(end, "web", "bad_signature").await;
}

#[tokio::test]
async fn a_proof_by_a_certificate_that_lives_no_longer_is_refused() {
    let world = World::new().await;
    let (mut end, challenge) = world.old_tunnel("web").await;

    let shorter = world.mesh.svid("web", Duration::from_secs(10));
    let bytes = proof(Signer::Client, &challenge, &end.leaves, &shorter);
    end.send(PROOF, 0, &bytes).await;

    world.refuses(end, "web", "not_later").await;
}

#[tokio::test]
async fn a_proof_by_a_stranger_is_refused() {
    let world = World::new().await;
    let (mut end, challenge) = world.old_tunnel("web").await;

    let bytes = proof(Signer::Client, &challenge, &end.leaves, &Mesh::new().svid("web", HOUR));
    end.send(PROOF, 0, &bytes).await;

    world.refuses(end, "web", "unknown_authority").await;
}

#[tokio::test]
async fn a_proof_by_a_certificate_that_was_revoked_before_is_refused() {
    let world = World::new().await;
    let renewed = world.renewed("web");
    let sequence = world.api.revoke_serial(&world.mesh, *renewed.serial(), everybody());
    world.api.enforces(sequence).await;
    let (mut end, challenge) = world.old_tunnel("web").await;

    let bytes = proof(Signer::Client, &challenge, &end.leaves, &renewed);
    end.send(PROOF, 0, &bytes).await;

    world.refuses(end, "web", "revoked").await;
}

#[tokio::test]
async fn a_proof_by_a_certificate_that_was_revoked_after_the_challenge_is_refused() {
    let world = World::new().await;
    let renewed = world.renewed("web");
    let (mut end, challenge) = world.old_tunnel("web").await;
    let sequence = world.api.revoke_serial(&world.mesh, *renewed.serial(), everybody());
    world.api.enforces(sequence).await;
    end.say(1, "nobody has shown that one yet").await;

    let bytes = proof(Signer::Client, &challenge, &end.leaves, &renewed);
    end.send(PROOF, 0, &bytes).await;

    world.refuses(end, "web", "revoked").await;
}

#[tokio::test]
async fn a_proof_that_nobody_asked_for_is_refused() {
    let world = World::new().await;
    let mut end = TunnelEnd::dial(&world.mesh, world.mesh.svid("web", HOUR), world.api.inbound).await;
    end.open_accepted(1).await;
    end.say(1, "before").await;

    let bytes = proof(Signer::Client, &[0; 32], &end.leaves, &world.mesh.svid("web", 2 * HOUR));
    end.send(PROOF, 0, &bytes).await;

    world.refuses(end, "web", "proof_unasked").await;
}

#[tokio::test]
async fn many_proofs_at_once_are_one_refusal() {
    let world = World::new().await;
    let mut end = TunnelEnd::dial(&world.mesh, world.mesh.svid("web", HOUR), world.api.inbound).await;
    end.open_accepted(1).await;
    end.say(1, "before").await;

    end.send_all((0..1_000).map(|_| (PROOF, 0, vec![0; 8]))).await;

    world.refuses(end, "web", "proof_unasked").await;
}

#[tokio::test]
async fn a_challenge_too_soon_after_another_ends_the_tunnel() {
    let world = World::new().await;
    let mut end = TunnelEnd::dial(&world.mesh, world.mesh.svid("web", HOUR), world.api.inbound).await;
    end.open_accepted(1).await;
    end.say(1, "before").await;

    end.send_all([(CHALLENGE, 0, vec![1; 32]), (CHALLENGE, 0, vec![2; 32])]).await;

    world.refuses(end, "web", "challenged_too_often").await;
}

#[tokio::test]
async fn a_proof_longer_than_8_kib_is_refused_at_its_header() {
    let world = World::new().await;
    let (mut end, _) = world.old_tunnel("web").await;

    end.send(PROOF, 0, &[0; 8 * 1024 + 1]).await;

    world.refuses(end, "web", "proof_too_long").await;
}

#[tokio::test]
async fn what_is_no_proof_is_refused() {
    let world = World::new().await;
    let (mut end, _) = world.old_tunnel("web").await;

    end.send(PROOF, 0, &[0; 8 * 1024]).await;

    world.refuses(end, "web", "malformed_proof").await;
}

#[tokio::test]
async fn revoking_any_certificate_that_a_tunnel_has_had_ends_it_and_its_streams() {
    for revoked in 0..3 {
        let world = World::new().await;
        let certificates = [(20, 16), (22, 17), (3_600, 0)];
        let certificates =
            certificates.map(|(ttl, ago)| world.mesh.svid_issued("web", Duration::from_secs(ttl), Duration::from_secs(ago)));
        let serials = certificates.each_ref().map(|svid| *svid.serial());
        let [first, second, third] = certificates;
        let (mut end, challenge) = world.tunnel(first).await;
        let bytes = proof(Signer::Client, &challenge, &end.leaves, &second);
        end.send(PROOF, 0, &bytes).await;
        let challenge = end.challenge().await;
        let bytes = proof(Signer::Client, &challenge, &end.leaves, &third);
        end.send(PROOF, 0, &bytes).await;
        end.say(1, "three certificates").await;

        let sequence = world.api.revoke_serial(&world.mesh, serials[revoked], everybody());
        world.api.enforces(sequence).await;

        assert_eq!(world.api.plane.open_connections(), 0, "closed by the time it is called enforced");
        end.ended().await;
        world.api.counts(r#"postern_tunnels_active{direction="inbound",peer="web"} 0"#).await;
        world.api.counts(r#"postern_connections_revoked_total{peer="web"} 1"#).await;
        assert!(!world.api.metrics().contains("postern_identity_proofs_refused_total{"), "{}", world.api.metrics());
    }
}

#[tokio::test]
async fn revoking_the_certificate_of_an_idle_tunnel_ends_it() {
    let world = World::new().await;
    let svid = world.mesh.svid("web", HOUR);
    let serial = *svid.serial();
    let mut end = TunnelEnd::dial(&world.mesh, svid, world.api.inbound).await;
    world.api.counts(r#"postern_tunnels_active{direction="inbound",peer="web"} 1"#).await;

    world.api.revoke_serial(&world.mesh, serial, everybody());

    end.ended().await;
    world.api.counts(r#"postern_tunnels_active{direction="inbound",peer="web"} 0"#).await;
}

#[tokio::test]
async fn a_tunnel_that_is_dialled_late_in_a_lifetime_is_not_cut_for_being_asked() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    // Both are past 85 % of their lifetimes, as while the control plane is away.
    let late = |name: &str| mesh.svid_issued(name, Duration::from_secs(100), Duration::from_secs(88));
    let api = mesh.destination_holding(late("api"), "api", service.address, everybody()).await;
    let web = mesh.caller_holding(late("web"), "web", "api", &api).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");

    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        say(&mut stream, "still here").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    api.renew(&mesh, HOUR);
    web.renew(&mesh, HOUR);
    while begun.elapsed() < Duration::from_secs(15) {
        say(&mut stream, "over the end of both").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for side in [&api, &web] {
        assert!(!side.metrics().contains("postern_identity_proofs_refused_total{"), "{}", side.metrics());
    }
}

#[tokio::test]
async fn a_tunnel_goes_on_when_no_snapshot_comes_any_more() {
    let mut world = World::new().await;
    let mut end = TunnelEnd::dial(&world.mesh, world.mesh.svid("web", HOUR), world.api.inbound).await;
    end.open_accepted(1).await;
    end.say(1, "before").await;

    world.api.publish_nothing_more();

    end.say(1, "after").await;
    let busy = || tokio::runtime::Handle::current().metrics().worker_total_busy_duration(0);
    let before = busy();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = busy() - before;
    assert!(spent < Duration::from_millis(500), "with nothing to do it was busy for {spent:?} of a second");
    end.send_all([(mesh::tunnel_end::OPEN, 2, open()), (PING, 0, [&[0][..], &[3; 8]].concat())]).await;
    end.next(CREDIT).await;
    end.say(2, "a new one").await;
}
