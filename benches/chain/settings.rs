//! What one run measures.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

use crate::layer::Layers;
use crate::line::Line;

/// Runs the same work through several sidecar pairs, alternating, and compares what each of them costs.
#[derive(Debug, Clone, Parser)]
#[command(name = "chain")]
pub struct Settings {
    /// Who is measured: envoy, nginx, haproxy, plain (two relays without TLS), postern, or postern:VARIANT. A variant is
    /// named by --postern-args NAME=FLAGS, or is made of direct, tunnel, auto, rustls and inplace joined by `+`
    #[arg(long, value_name = "PEER", value_delimiter = ',', default_value = "envoy,nginx,haproxy,postern")]
    pub peers: Vec<PeerName>,
    /// What the proxies understand: bytes (l4), requests (l7), or first the one and then the other
    #[arg(long, value_enum, default_value_t = Layers::All)]
    pub layer: Layers,
    /// What is measured [default: everything]
    #[arg(long, value_name = "LINE", value_delimiter = ',', value_enum)]
    pub lines: Vec<Line>,
    /// How often each peer has its turn at each line
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// How long a timed line runs
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Two rounds of short lines: shows that everything works, and figures to the nearest ten percent
    #[arg(long)]
    pub quick: bool,
    /// Where the report is written [default: target/chain]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where the charts are written, for pages that show them [default: where the report is]
    #[arg(long, value_name = "DIR")]
    pub charts: Option<PathBuf>,
    /// Connections of the lines `requests` and `latency`
    #[arg(long, default_value_t = 32)]
    pub connections: usize,
    /// Connections held open by the line `idle`
    #[arg(long, default_value_t = 4_000)]
    pub idle: usize,
    /// Server-side proxies of the line `spread`
    #[arg(long, default_value_t = 20)]
    pub spread: usize,
    /// Connections that carry bulk at once
    #[arg(long, default_value_t = 1)]
    pub streams: usize,
    /// Requests at once over the one connection of the lines `http2` and `grpc`
    #[arg(long, default_value_t = 100)]
    pub streams_at_once: usize,
    /// Before the timed lines: seconds for which `--connections` connections have been open on each pair, with a GB behind
    /// each of them; they stay open
    #[arg(long, value_name = "SECONDS")]
    pub aged: Option<f64>,
    /// Requests a second of the line `latency` [default: half of the first peer's saturation, which is Envoy's]
    #[arg(long)]
    pub rate: Option<f64>,
    /// Further flags of `meshctl proxy`, for every Postern, or for the variant NAME
    #[arg(long, value_name = "[NAME=]FLAGS", allow_hyphen_values = true)]
    pub postern_args: Vec<String>,
    /// The binary that is measured as Postern [default: built by this command]
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_meshctl"), hide_default_value = true)]
    pub meshctl: PathBuf,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Settings {
    /// What `--quick` stands for.
    pub fn with_quick(mut self) -> Self {
        if self.lines.is_empty() {
            self.lines = Line::ALL.to_vec();
        }
        if self.quick {
            self.rounds = self.rounds.min(2);
            self.seconds = self.seconds.min(0.7);
            self.idle = self.idle.min(1_000);
        }
        self
    }

    /// How long a timed line runs.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Where the report is written.
    pub fn out(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("chain"))
    }

    /// Where the charts are written.
    pub fn charts(&self) -> PathBuf {
        self.charts.clone().unwrap_or_else(|| self.out())
    }

    /// The flags of `meshctl proxy` for a variant of Postern.
    ///
    /// # Errors
    /// If nothing says what the variant is.
    pub fn flags_of(&self, variant: Option<&str>) -> anyhow::Result<Vec<String>> {
        let named = |argument: &str| argument.split_once('=').is_some_and(|(name, _)| !name.starts_with('-'));
        let mut flags: Vec<String> = words(self.postern_args.iter().filter(|argument| !named(argument)));
        let Some(variant) = variant else { return Ok(flags) };
        let own = self.postern_args.iter().filter_map(|argument| argument.split_once('='));
        let own: Vec<&str> = own.filter(|(name, _)| *name == variant).map(|(_, flags)| flags).collect();
        if !own.is_empty() {
            flags.extend(words(own.iter()));
            return Ok(flags);
        }
        for part in variant.split('+') {
            let flag = match part {
                "direct" | "tunnel" | "auto" => "--transport",
                "rustls" | "inplace" => "--record-layer",
                _ => anyhow::bail!("nothing says what postern:{variant} is; give --postern-args '{variant}=FLAGS'"),
            };
            flags.extend([flag.to_owned(), part.to_owned()]);
        }
        Ok(flags)
    }
}

fn words<S: AsRef<str>>(lines: impl Iterator<Item = S>) -> Vec<String> {
    lines.flat_map(|line| line.as_ref().split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// A product, and which of its variants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerName {
    /// The product.
    pub product: Product,
    /// Of Postern: which flags it runs with.
    pub variant: Option<String>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Product {
    /// Envoy.
    Envoy,
    /// nginx: its stream module, or its HTTP proxy.
    Nginx,
    /// HAProxy in mode tcp or http.
    Haproxy,
    /// `meshctl proxy`.
    Postern,
    /// Two relays without TLS: what the two hops cost by themselves.
    Plain,
}

impl FromStr for PeerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (product, variant) = match text.split_once(':') {
            Some((product, variant)) => (product, Some(variant.to_owned())),
            None => (text, None),
        };
        let product = <Product as clap::ValueEnum>::from_str(product, false)?;
        if variant.is_some() && product != Product::Postern {
            return Err(format!("only Postern has variants, not {text}"));
        }
        Ok(Self { product, variant })
    }
}

impl std::fmt::Display for PeerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let product = match self.product {
            Product::Envoy => "envoy",
            Product::Nginx => "nginx",
            Product::Haproxy => "haproxy",
            Product::Postern => "postern",
            Product::Plain => "plain",
        };
        match &self.variant {
            Some(variant) => write!(f, "{product}:{variant}"),
            None => f.write_str(product),
        }
    }
}
