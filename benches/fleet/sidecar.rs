//! The stream of a sidecar, without the sidecar.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use postern_api::convert;
use postern_api::v1::{self, control_message, identity_client::IdentityClient, mesh_client::MeshClient, sidecar_message};
use postern_ca::{EnrolmentToken, Expected, PrivateKey, Svid, SvidSlot, SvidVerifier, Trust};
use postern_edges::{Edge, HttpPart, Method, Shape, Tally, Verdict};
use postern_intentions::Protocol;
use postern_names::{Datacenter, PortName};
use postern_proxy::control_client::dial::{ControlConnection, ControlDialler, origin};
use rand::Rng;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

/// What a service was seen to be called by.
#[derive(Debug, Clone)]
pub struct Seen {
    caller: String,
    method: Method,
    path: String,
    count: u64,
}

impl Seen {
    /// An edge from `caller`; `at` tells it from others.
    pub fn of(caller: &str, at: usize, rng: &mut impl Rng) -> Self {
        let method = [Method::Get, Method::Get, Method::Post, Method::Put][rng.random_range(0..4)];
        let path = match at % 3 {
            0 => format!("/v1/things/{}", rng.random_range(0..100_000)),
            1 => format!("/v1/lists/{}/entries", rng.random_range(0..100_000)),
            _ => format!("/v1/status/{caller}"),
        };
        Self { caller: caller.to_owned(), method, path, count: rng.random_range(1..5_000) }
    }
}

/// An enrolled service with an open stream.
pub struct FakeSidecar {
    service: String,
    seen: Vec<Seen>,
    outgoing: mpsc::Sender<v1::SidecarMessage>,
    reading: JoinHandle<()>,
    _connection: ControlConnection,
}

impl Drop for FakeSidecar {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl FakeSidecar {
    /// Enrols with a token and opens the stream.
    pub async fn start(grpc: &str, token: &str, service: &str, seen: Vec<Seen>) -> anyhow::Result<Self> {
        let dialler = ControlDialler::new(vec![grpc.parse()?], Duration::from_secs(30));
        let token: EnrolmentToken = token.parse()?;
        let key = PrivateKey::generate()?;
        let enrolling = dialler.dial(&postern_ca::pinned_client_config(None, token.pin, &[b"h2"])).await?;
        let request = v1::EnrollRequest {
            token: token.reveal(),
            csr: key.csr_der().into(),
            instance_id: format!("{service}-1"),
            ports: vec!["main".into()],
        };
        let grant = IdentityClient::with_origin(enrolling.channel.clone(), origin()).enroll(request).await?.into_inner();
        let bundle = convert::bundle_from_wire(&grant.bundle.context("no bundle")?)?;
        let trust = Trust { bundle, datacenter: "dc1".parse::<Datacenter>()?, revoked: Default::default() };
        let verifier = SvidVerifier::new(Arc::new(ArcSwap::from_pointee(trust)), Expected::ControlPlane);
        let chain = grant.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let svid = Arc::new(SvidSlot::new(Arc::new(Svid::new(chain, key)?)));
        let connection = dialler.dial(&postern_ca::client_config(svid, verifier, &[b"h2"])).await?;
        let (outgoing, messages) = mpsc::channel(8);
        let hello = v1::Hello {
            version: env!("CARGO_PKG_VERSION").into(),
            registration: Some(v1::Registration {
                instance_id: format!("{service}-1"),
                advertise: "127.0.0.1:1".into(),
                protocol: "http".into(),
                ports: vec!["main".into()],
                transports: vec!["direct".into()],
                node: "fleet".into(),
                healthy: true,
                ..v1::Registration::default()
            }),
            understands: postern_api::understanding::ALL.map(String::from).to_vec(),
            ..v1::Hello::default()
        };
        outgoing.send(message(sidecar_message::Message::Hello(hello))).await?;
        let mut client = MeshClient::with_origin(connection.channel.clone(), origin());
        let mut incoming = client.connect(ReceiverStream::new(messages)).await?.into_inner();
        let answers = outgoing.clone();
        let reading = tokio::spawn(async move {
            let mut beats = tokio::time::interval(Duration::from_secs(5));
            loop {
                let answer = tokio::select! {
                    _ = beats.tick() => sidecar_message::Message::Beat(v1::Beat { healthy: true, ..v1::Beat::default() }),
                    told = incoming.message() => match told {
                        Ok(Some(told)) => match acknowledged(told) {
                            Some(answer) => answer,
                            None => continue,
                        },
                        _ => return,
                    },
                };
                if answers.send(message(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { service: service.to_owned(), seen, outgoing, reading, _connection: connection })
    }

    /// Tells what was seen.
    pub async fn tell(&mut self) -> anyhow::Result<()> {
        let now = SystemTime::now();
        let mut edges = Vec::with_capacity(self.seen.len());
        for seen in &self.seen {
            let edge = Edge {
                source: seen.caller.parse()?,
                destination: self.service.parse()?,
                port: PortName::main(),
                protocol: Protocol::Http,
                verdict: Verdict::Audit,
                because: "default (audit)".into(),
                http: Some(HttpPart { method: seen.method, shape: Shape::of(&seen.path) }),
            };
            let mut tally = Tally { count: seen.count, sample: Some(seen.path.as_str().into()), ..Tally::new(now) };
            tally.latency.add(12, seen.count);
            edges.push(postern_api::seen::edge_to_wire(&edge, false, &tally, now));
        }
        let seen = v1::Seen { edges, ..v1::Seen::default() };
        Ok(self.outgoing.send(message(sidecar_message::Message::Seen(seen))).await?)
    }
}

fn message(message: sidecar_message::Message) -> v1::SidecarMessage {
    v1::SidecarMessage { message: Some(message) }
}

/// The acknowledgement of a message that has come whole.
fn acknowledged(told: v1::ControlMessage) -> Option<sidecar_message::Message> {
    let Some(control_message::Message::Delta(delta)) = told.message else { return None };
    delta.last.then(|| sidecar_message::Message::Ack(v1::Ack { lane: delta.lane, position: delta.to, ..v1::Ack::default() }))
}
