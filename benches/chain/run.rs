//! Rounds: each peer has its turn at each line, and another one begins every time.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::sleep;

use crate::certificates::Certificates;
use crate::figure::{Figure, Measure};
use crate::install::Tools;
use crate::layer::{Layer, Protocol};
use crate::line::{Ground, Line};
use crate::load::{
    Asked, Cost, Direction, Ending, Latency, age, at_fixed_rate, bulk, fresh_connections, h2load, idle_after_burst,
    idle_connections, requests, wrk,
};
use crate::machine;
use crate::pair::{Pair, Site};
use crate::peers;
use crate::probe;
use crate::samples::Samples;
use crate::service::{self, Service};
use crate::settings::{PeerName, Product, Settings};

/// Before a rate is called the highest: the machine is not always as fast as it can be.
const TRIES_OF_SATURATION: usize = 3;

/// From the proof of a fresh pair to the first look at its memory.
const SETTLE: Duration = Duration::from_secs(2);

/// All that a run found out.
#[derive(Debug)]
pub struct Outcome {
    /// The figures.
    pub samples: Samples,
    /// Whom the others are compared with: Envoy, or the first if it does not take part.
    pub base: PeerName,
    /// The machine and the versions.
    pub machine: Value,
    /// Requests a second of the line `latency`.
    pub rates: Vec<(Layer, f64)>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// Installs, starts, measures.
///
/// # Errors
/// If a peer cannot be installed or started, or does not refuse whom it should.
pub async fn run(settings: &Settings) -> anyhow::Result<Outcome> {
    ensure!(!settings.peers.is_empty() && settings.rounds > 0, "there is nothing to measure");
    let began = Instant::now();
    let files = machine::raise_file_limit()?;
    let needed = 4 * settings.idle as u64 + 1_000;
    ensure!(files >= needed, "--idle {} needs a limit of {needed} open files, here it is {files}", settings.idle);
    let tools = Tools::ready(settings)?;
    let directory = crate::pair::directory()?;
    let certificates = Certificates::make(&directory.path().join("certificates"), settings.spread.max(1))?;
    let base = settings.peers.iter().find(|peer| peer.product == Product::Envoy).unwrap_or(&settings.peers[0]);
    let mut run = Run {
        settings,
        tools: &tools,
        certificates: &certificates,
        directory: directory.path(),
        outcome: Outcome {
            samples: Samples::default(),
            base: base.clone(),
            machine: machine::describe(&tools, settings),
            rates: Vec::new(),
            failures: Vec::new(),
            seconds: 0.0,
        },
    };
    for layer in settings.layer.each() {
        for ground in Ground::ALL {
            run.on(*layer, ground).await?;
        }
    }
    run.outcome.seconds = began.elapsed().as_secs_f64();
    Ok(run.outcome)
}

struct Run<'a> {
    settings: &'a Settings,
    tools: &'a Tools,
    certificates: &'a Certificates,
    directory: &'a Path,
    outcome: Outcome,
}

/// A sample, and what it is measured against.
struct Turn<'a> {
    layer: Layer,
    line: Line,
    round: usize,
    peer: &'a PeerName,
    /// Requests a second, and the latency of the service without any proxy at that rate.
    reference: Option<(f64, Latency)>,
}

impl Run<'_> {
    async fn on(&mut self, layer: Layer, ground: Ground) -> anyhow::Result<()> {
        let lines = self.lines(layer, ground);
        if lines.is_empty() {
            return Ok(());
        }
        let protocol = ground.protocol(layer);
        let service = self.service(protocol).await?;
        let servers = if ground == Ground::Wide { self.settings.spread } else { 1 };
        let (tools, certificates) = (self.tools, self.certificates);
        let site = Site { tools, certificates, service: service.address, protocol, servers };
        match ground {
            Ground::Fresh | Ground::FreshToo => self.on_fresh_pairs(layer, &lines, site).await,
            _ => self.on_running_pairs(layer, &lines, site).await,
        }
    }

    /// In the order of the report, whatever the order on the command line.
    fn lines(&self, layer: Layer, ground: Ground) -> Vec<Line> {
        let wanted = |line: &Line| self.settings.lines.contains(line) && line.is_of(layer) && line.ground() == ground;
        Line::ALL.into_iter().filter(wanted).collect()
    }

    async fn service(&self, protocol: Protocol) -> anyhow::Result<Service> {
        let service = service::start(protocol, self.tools, self.directory)?;
        probe::check_service(service.address, protocol).await.context("the service does not answer")?;
        Ok(service)
    }

    async fn on_running_pairs(&mut self, layer: Layer, lines: &[Line], site: Site<'_>) -> anyhow::Result<()> {
        let mut pairs = Vec::new();
        for peer in &self.settings.peers {
            pairs.push((peer, peers::start(peer, site, self.settings).await?));
        }
        let has_aged = lines.iter().any(|line| line.ground() == Ground::Running);
        let aged = match self.settings.aged.filter(|_| has_aged) {
            Some(seconds) => age(&pairs, self.settings.connections, seconds).await?,
            None => Vec::new(),
        };
        let rate = if lines.contains(&Line::Latency) { Some(self.rate(layer, &pairs).await?) } else { None };
        for round in 0..self.settings.rounds {
            for line in lines {
                let reference = match rate.filter(|_| *line == Line::Latency) {
                    Some(rate) => Some((rate, self.latency_without_proxies(site.service, rate).await?)),
                    None => None,
                };
                for (peer, pair) in in_turn(&pairs, round) {
                    self.take(&Turn { layer, line: *line, round, peer, reference }, pair).await;
                }
            }
        }
        drop(aged);
        Ok(())
    }

    async fn on_fresh_pairs(&mut self, layer: Layer, lines: &[Line], site: Site<'_>) -> anyhow::Result<()> {
        for round in 0..self.settings.rounds {
            for peer in in_turn(&self.settings.peers, round) {
                let pair = peers::start(peer, site, self.settings).await?;
                // What a start needed for a moment is no memory of what comes after it.
                sleep(SETTLE).await;
                // `start` before `idle`, which leaves the pair heavier.
                for line in lines.iter().rev() {
                    self.take(&Turn { layer, line: *line, round, peer, reference: None }, &pair).await;
                }
            }
        }
        Ok(())
    }

    /// Half of what the base carries.
    async fn rate(&mut self, layer: Layer, pairs: &[(&PeerName, Pair)]) -> anyhow::Result<f64> {
        let rate = match self.settings.rate {
            Some(rate) => rate,
            None => {
                let (_, pair) = pairs.iter().find(|(peer, _)| **peer == self.outcome.base).context("the base takes part")?;
                let mut most: f64 = 0.0;
                for _ in 0..TRIES_OF_SATURATION {
                    most = most.max(self.requests(layer, pair, self.settings.connections).await?.rate());
                }
                (most / 2.0).round()
            }
        };
        self.outcome.rates.push((layer, rate));
        Ok(rate)
    }

    async fn latency_without_proxies(&self, service: SocketAddr, rate: f64) -> anyhow::Result<Latency> {
        Ok(at_fixed_rate(&[service], self.settings.connections, rate, self.settings.duration()).await?.0)
    }

    /// HTTP/1.1 is what wrk speaks, and at L4 it goes by listeners that no single URL names.
    async fn requests(&self, layer: Layer, pair: &Pair, connections: usize) -> anyhow::Result<Cost> {
        match layer {
            Layer::L4 => requests(pair, connections, self.settings.duration()).await,
            Layer::L7 => wrk(pair, connections, self.settings.duration()).await,
        }
    }

    async fn measure(&self, turn: &Turn<'_>, pair: &Pair) -> anyhow::Result<Vec<(Measure, f64)>> {
        let (layer, length) = (turn.layer, self.settings.duration());
        Ok(match turn.line {
            Line::Requests => {
                let cost = self.requests(layer, pair, self.settings.connections).await?;
                vec![(Measure::RequestsCpu, cost.cpu_us()), (Measure::RequestsRate, cost.rate())]
            }
            Line::Request => {
                let cost = self.requests(layer, pair, 1).await?;
                vec![(Measure::RequestCpu, cost.cpu_us()), (Measure::RequestTime, 1e6 / cost.rate())]
            }
            Line::Latency => self.latency(turn, pair).await?,
            Line::Connections => {
                let ending = if layer == Layer::L4 { Ending::ByCaller } else { Ending::ByAnswer };
                let cost = fresh_connections(pair, ending, length).await?;
                vec![(Measure::ConnectionCpu, cost.cpu_us()), (Measure::ConnectionRate, cost.rate())]
            }
            Line::Download => {
                let cost = bulk(pair, Direction::Download, self.settings.streams, length).await?;
                vec![(Measure::DownloadCpu, cost.cpu_us() * 1e3), (Measure::DownloadRate, cost.rate() / 1e6)]
            }
            Line::Upload => {
                let cost = bulk(pair, Direction::Upload, self.settings.streams, length).await?;
                vec![(Measure::UploadCpu, cost.cpu_us() * 1e3), (Measure::UploadRate, cost.rate() / 1e6)]
            }
            Line::Http2 => {
                let cost = h2load(pair, Asked::Items, self.settings.streams_at_once, length).await?;
                vec![(Measure::Http2Cpu, cost.cpu_us()), (Measure::Http2Rate, cost.rate())]
            }
            Line::Grpc => {
                let cost = h2load(pair, Asked::Calls, self.settings.streams_at_once, length).await?;
                vec![(Measure::GrpcCpu, cost.cpu_us()), (Measure::GrpcRate, cost.rate())]
            }
            Line::Idle => vec![(Measure::IdleMemory, idle_connections(pair, self.settings.idle).await?)],
            Line::Burst => vec![(Measure::BurstMemory, idle_after_burst(pair, self.settings.idle / 2).await?)],
            Line::Start => vec![
                (Measure::StartMemory, pair.pss_kib()? as f64 / 1024.0),
                (Measure::StartAnonymous, pair.anonymous_kib()? as f64 / 1024.0),
            ],
            Line::Spread => {
                let cost = requests(pair, 2 * self.settings.spread, length).await?;
                vec![(Measure::SpreadCpu, cost.cpu_us())]
            }
        })
    }

    async fn latency(&self, turn: &Turn<'_>, pair: &Pair) -> anyhow::Result<Vec<(Measure, f64)>> {
        let (rate, without) = turn.reference.context("the service was measured without proxies")?;
        let cpu = pair.cpu()?;
        let (latency, count) = at_fixed_rate(&pair.entries, self.settings.connections, rate, self.settings.duration()).await?;
        let cpu = pair.cpu()?.saturating_sub(cpu).as_secs_f64() * 1e6 / count as f64;
        Ok(vec![
            (Measure::LatencyP50, latency.p50),
            (Measure::LatencyP99, latency.p99),
            (Measure::LatencyP999, latency.p999),
            (Measure::AddedP50, latency.p50 - without.p50),
            (Measure::AddedP99, latency.p99 - without.p99),
            (Measure::AddedP999, latency.p999 - without.p999),
            (Measure::LatencyCpu, cpu),
        ])
    }

    /// Measures and keeps, or says why not.
    async fn take(&mut self, turn: &Turn<'_>, pair: &Pair) {
        let Turn { layer, line, round, peer, .. } = turn;
        let what = format!("round {}, {} {line:?}, {peer}", round + 1, layer.id());
        let figures = match self.measure(turn, pair).await {
            Ok(figures) => figures,
            Err(error) => {
                let failure = format!("{what}: {error:#}");
                eprintln!("{failure}");
                self.outcome.failures.push(failure);
                return;
            }
        };
        let mut shown = Vec::new();
        for (measure, value) in figures {
            let figure = Figure { layer: *layer, measure };
            shown.push(format!("{value:.1} {}", figure.row().unit));
            self.outcome.samples.add(figure, peer, *round, value);
        }
        eprintln!("{what}: {}", shown.join(", "));
    }
}

/// All of them, another one first in each round.
fn in_turn<T>(all: &[T], round: usize) -> impl Iterator<Item = &T> {
    all.iter().cycle().skip(round % all.len()).take(all.len())
}
