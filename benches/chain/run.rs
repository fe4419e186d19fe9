//! Rounds: each peer has its turn at each line, and another one begins every time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::certificates::Certificates;
use crate::http::Connection;
use crate::install::Tools;
use crate::line::{Figure, Ground, Line};
use crate::load::{Direction, aged_connections, at_fixed_rate, bulk, fresh_connections, idle_connections, requests};
use crate::machine;
use crate::pair::{Pair, Site};
use crate::peers;
use crate::samples::Samples;
use crate::service;
use crate::settings::{PeerName, Product, Settings};

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
    pub rate: Option<f64>,
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
    let service = service::start()?;
    let base = settings.peers.iter().find(|peer| peer.product == Product::Envoy).unwrap_or(&settings.peers[0]);
    let mut run = Run {
        settings,
        site: Site { tools: &tools, certificates: &certificates, service, servers: 1 },
        outcome: Outcome {
            samples: Samples::default(),
            base: base.clone(),
            machine: machine::describe(&tools, settings),
            rate: settings.rate,
            failures: Vec::new(),
            seconds: 0.0,
        },
    };
    run.on_running_pairs().await?;
    run.on_fresh_pairs().await?;
    run.on_wide_pairs().await?;
    run.outcome.seconds = began.elapsed().as_secs_f64();
    Ok(run.outcome)
}

struct Run<'a> {
    settings: &'a Settings,
    site: Site<'a>,
    outcome: Outcome,
}

impl Run<'_> {
    async fn on_running_pairs(&mut self) -> anyhow::Result<()> {
        let lines = self.lines(Ground::Running);
        if lines.is_empty() {
            return Ok(());
        }
        let mut pairs = Vec::new();
        for peer in &self.settings.peers {
            pairs.push((peer, peers::start(peer, self.site, self.settings).await?));
        }
        let aged = self.age(&pairs).await?;
        if lines.contains(&Line::Latency) && self.outcome.rate.is_none() {
            let base = pairs.iter().find(|(peer, _)| **peer == self.outcome.base).context("the base takes part")?;
            let cost = requests(&base.1, self.settings.connections, self.settings.duration()).await?;
            self.outcome.rate = Some((cost.rate() / 2.0).round());
        }
        for round in 0..self.settings.rounds {
            for line in &lines {
                let reference = self.reference(*line).await?;
                for (peer, pair) in in_turn(&pairs, round) {
                    let measured = self.measure(*line, pair, reference).await;
                    self.keep(*line, peer, round, measured);
                }
            }
        }
        drop(aged);
        Ok(())
    }

    /// Connections with a past, on every pair, that are open while the lines are measured.
    async fn age(&self, pairs: &[(&PeerName, Pair)]) -> anyhow::Result<Vec<Connection<TcpStream>>> {
        let Some(seconds) = self.settings.aged else { return Ok(Vec::new()) };
        let began = Instant::now();
        let mut aged = Vec::new();
        for (peer, pair) in pairs {
            eprintln!("{peer}: a GB over each of {} connections", self.settings.connections);
            aged.extend(aged_connections(pair, self.settings.connections).await?);
        }
        tokio::time::sleep(Duration::from_secs_f64(seconds).saturating_sub(began.elapsed())).await;
        Ok(aged)
    }

    async fn on_fresh_pairs(&mut self) -> anyhow::Result<()> {
        let lines = self.lines(Ground::Fresh);
        if lines.is_empty() {
            return Ok(());
        }
        for round in 0..self.settings.rounds {
            for peer in in_turn(&self.settings.peers, round) {
                let pair = peers::start(peer, self.site, self.settings).await?;
                // `start` before `idle`, which leaves the pair heavier.
                for line in lines.iter().rev() {
                    let measured = self.measure(*line, &pair, None).await;
                    self.keep(*line, peer, round, measured);
                }
            }
        }
        Ok(())
    }

    async fn on_wide_pairs(&mut self) -> anyhow::Result<()> {
        let lines = self.lines(Ground::Wide);
        if lines.is_empty() {
            return Ok(());
        }
        let site = Site { servers: self.settings.spread, ..self.site };
        let mut pairs = Vec::new();
        for peer in &self.settings.peers {
            pairs.push((peer, peers::start(peer, site, self.settings).await?));
        }
        for round in 0..self.settings.rounds {
            for line in &lines {
                for (peer, pair) in in_turn(&pairs, round) {
                    let measured = self.measure(*line, pair, None).await;
                    self.keep(*line, peer, round, measured);
                }
            }
        }
        Ok(())
    }

    /// In the order of the report, whatever the order on the command line.
    fn lines(&self, ground: Ground) -> Vec<Line> {
        let wanted = |line: &Line| self.settings.lines.contains(line) && line.ground() == ground;
        Line::ALL.into_iter().filter(wanted).collect()
    }

    /// The latency of the service without any proxy.
    async fn reference(&self, line: Line) -> anyhow::Result<Option<crate::load::Latency>> {
        let Some(rate) = self.outcome.rate.filter(|_| line == Line::Latency) else { return Ok(None) };
        let entries: [SocketAddr; 1] = [self.site.service];
        let (latency, _) = at_fixed_rate(&entries, self.settings.connections, rate, self.settings.duration()).await?;
        Ok(Some(latency))
    }

    async fn measure(
        &self,
        line: Line,
        pair: &Pair,
        reference: Option<crate::load::Latency>,
    ) -> anyhow::Result<Vec<(Figure, f64)>> {
        let length = self.settings.duration();
        Ok(match line {
            Line::Requests => {
                let cost = requests(pair, self.settings.connections, length).await?;
                vec![(Figure::RequestsCpu, cost.cpu_us()), (Figure::RequestsRate, cost.rate())]
            }
            Line::Request => {
                let cost = requests(pair, 1, length).await?;
                vec![(Figure::RequestCpu, cost.cpu_us()), (Figure::RequestTime, 1e6 / cost.rate())]
            }
            Line::Latency => {
                let rate = self.outcome.rate.context("the rate is known")?;
                let cpu = pair.cpu()?;
                let (latency, count) = at_fixed_rate(&pair.entries, self.settings.connections, rate, length).await?;
                let cpu = pair.cpu()?.saturating_sub(cpu).as_secs_f64() * 1e6 / count as f64;
                let without = reference.context("the service was measured without proxies")?;
                vec![
                    (Figure::LatencyP50, latency.p50),
                    (Figure::LatencyP99, latency.p99),
                    (Figure::LatencyP999, latency.p999),
                    (Figure::AddedP50, latency.p50 - without.p50),
                    (Figure::AddedP99, latency.p99 - without.p99),
                    (Figure::AddedP999, latency.p999 - without.p999),
                    (Figure::LatencyCpu, cpu),
                ]
            }
            Line::Connections => {
                let cost = fresh_connections(pair, length).await?;
                vec![(Figure::ConnectionCpu, cost.cpu_us()), (Figure::ConnectionRate, cost.rate())]
            }
            Line::Download => {
                let cost = bulk(pair, Direction::Download, self.settings.streams, length).await?;
                vec![(Figure::DownloadCpu, cost.cpu_us() * 1e3), (Figure::DownloadRate, cost.rate() / 1e6)]
            }
            Line::Upload => {
                let cost = bulk(pair, Direction::Upload, self.settings.streams, length).await?;
                vec![(Figure::UploadCpu, cost.cpu_us() * 1e3), (Figure::UploadRate, cost.rate() / 1e6)]
            }
            Line::Idle => vec![(Figure::IdleMemory, idle_connections(pair, self.settings.idle).await?)],
            Line::Start => vec![(Figure::StartMemory, pair.pss_kib()? as f64 / 1024.0)],
            Line::Spread => {
                let cost = requests(pair, 2 * self.settings.spread, length).await?;
                vec![(Figure::SpreadCpu, cost.cpu_us())]
            }
        })
    }

    fn keep(&mut self, line: Line, peer: &PeerName, round: usize, measured: anyhow::Result<Vec<(Figure, f64)>>) {
        let figures = match measured {
            Ok(figures) => figures,
            Err(error) => {
                let failure = format!("round {}, {line:?}, {peer}: {error:#}", round + 1);
                eprintln!("{failure}");
                self.outcome.failures.push(failure);
                return;
            }
        };
        let shown: Vec<String> = figures.iter().map(|(figure, value)| format!("{value:.1} {}", figure.row().unit)).collect();
        eprintln!("round {}, {line:?}, {peer}: {}", round + 1, shown.join(", "));
        for (figure, value) in figures {
            self.outcome.samples.add(figure, peer, round, value);
        }
    }
}

/// All of them, another one first in each round.
fn in_turn<T>(all: &[T], round: usize) -> impl Iterator<Item = &T> {
    all.iter().cycle().skip(round % all.len()).take(all.len())
}
