//! What one run measures.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Compares a tunnel with direct connections over a link with delay and loss. Needs root.
#[derive(Debug, Clone, Parser)]
#[command(name = "link")]
pub struct Settings {
    /// The part of the benchmark that this process is; it starts them itself.
    #[command(subcommand)]
    pub part: Option<Part>,
    /// The link.
    #[command(flatten)]
    pub link: Link,
    /// Congestion controls, each measured by itself
    #[arg(long, value_delimiter = ',', default_value = "cubic,bbr")]
    pub congestion: Vec<String>,
    /// How often each transport has its turn
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// How long one measurement takes, of which the first quarter is not counted
    #[arg(long, default_value_t = 4.0)]
    pub seconds: f64,
    /// Connections with small requests
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// Further flags of `meshctl proxy`, for both transports
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true, default_value = "")]
    pub postern_args: String,
    /// The binary that is measured [default: built by this command]
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_meshctl"), hide_default_value = true)]
    pub meshctl: PathBuf,
    /// Where the report is written
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/link"), hide_default_value = true)]
    pub out: PathBuf,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// What a link does to packets, the same each way.
#[derive(Debug, Clone, Copy, Args)]
pub struct Link {
    /// Milliseconds that a packet is on its way
    #[arg(long, default_value_t = 10.0)]
    pub delay: f64,
    /// Packets of a hundred that are lost
    #[arg(long, default_value_t = 1.0)]
    pub loss: f64,
    /// Megabytes (10^6) a second that it carries; 0 is as many as this machine can
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// Milliseconds' worth of packets that wait at its entry; what is over that is lost
    #[arg(long, default_value_t = 50.0)]
    pub queue: f64,
}

/// One process of the benchmark.
#[derive(Debug, Clone, Subcommand)]
pub enum Part {
    /// Carries packets between the devices that are its standard input and output
    Relay(Link),
    /// The service
    Serve {
        /// Where it listens
        address: SocketAddr,
    },
    /// The callers
    Load(Work),
}

/// What callers do.
#[derive(Debug, Clone, Args)]
pub struct Work {
    /// Where they connect to.
    pub address: SocketAddr,
    /// How long, of which the first quarter is not counted.
    #[arg(long)]
    pub seconds: f64,
    /// Connections with small requests.
    #[arg(long)]
    pub connections: usize,
    /// When the bulk flow begins.
    #[arg(long, value_enum)]
    pub bulk: Bulk,
}

/// When the bulk flow begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Bulk {
    /// There is none.
    None,
    /// Before the connections with small requests are opened.
    Before,
    /// When they are open.
    After,
}
