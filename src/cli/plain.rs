//! The smaller commands: `dev`, `token`, `service`, `ca`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use postern_names::Address;
use postern_names::ServiceName;

use super::service_config::ServiceConfigCommand;
use super::{LogArgs, OutputArgs};
use crate::duration;

/// A mesh to try.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Plays what a deny does, step by step, and ends.
    #[arg(long, conflicts_with = "bare")]
    pub tour: bool,
    /// The control plane alone.
    #[arg(long)]
    pub bare: bool,
    /// Keep the data in <data directory>/dev at exit.
    #[arg(long)]
    pub keep: bool,
    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Enrolment tokens.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TokenCommand,
    /// How to print the answer.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `meshctl token` can do.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token with which a sidecar becomes a service; it is printed once
    Create {
        /// The service that its bearer becomes.
        #[arg(long, value_name = "NAME")]
        service: ServiceName,
        /// How often it can be spent.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// How long it lasts, at most 24h.
        #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration::parse)]
        ttl: Duration,
    },
    /// Every token, without its secret
    List,
    /// End a token
    Revoke {
        /// As `token list` shows it.
        id: String,
        /// Revoke every SVID that came from it, too.
        #[arg(long)]
        svids: bool,
    },
}

/// Services and their instances.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ServiceCommand,
    /// How to print the answer.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `meshctl service` can do.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Every service
    List,
    /// A service, its instances and who may call it
    Show {
        /// The service.
        name: ServiceName,
    },
    /// Register instances that have no sidecar: they can be found, and are endpoints of no upstream
    Register {
        /// YAML or JSON with `service`, `services`, one definition or a list of them, in the form of Consul's service
        /// definitions; - is stdin. The control plane runs their checks.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Take an instance out of the mesh
    Deregister {
        /// As `service show` shows it.
        id: String,
        /// The node that it is on, for one without a sidecar that is elsewhere than the control plane.
        #[arg(long, value_name = "NODE", conflicts_with = "revoke")]
        node: Option<String>,
        /// Revoke its SVIDs, too: it can not come back without a new token.
        #[arg(long)]
        revoke: bool,
    },
    /// Take an instance, or a whole node, out of every set for a while, at once
    Maintenance {
        /// As `service show` shows it; without one the node is meant.
        #[arg(required_unless_present = "node")]
        id: Option<String>,
        /// The node.
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// It begins.
        #[arg(long, required_unless_present = "off")]
        on: bool,
        /// It ends.
        #[arg(long, conflicts_with = "on")]
        off: bool,
        /// Why, for everyone who looks.
        #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "off")]
        reason: String,
    },
    /// Settings of services: time-outs, retries, balancing, routing, limits; and JWT providers
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ServiceConfigCommand,
    },
}

/// The certificate authority.
#[derive(Debug, Args)]
pub struct CaArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CaCommand,
    /// How to print the answer.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `meshctl ca` can do.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Roots, intermediate and SVIDs
    Status,
    /// Replace the root without an interruption (not built yet)
    Rotate(super::unbuilt::Rest),
    /// The trust bundle as PEM
    Export,
}

/// What stands between `run` and its COMMAND.
#[derive(Debug, Clone, Args)]
pub struct TetherArgs {
    /// The process whose end ends COMMAND.
    #[arg(long)]
    pub parent: i32,
    /// The soft limit of open files for COMMAND.
    #[arg(long)]
    pub files: u64,
    /// COMMAND and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<std::ffi::OsString>,
}

/// A service of `dev`.
#[derive(Debug, Clone, Args)]
pub struct DemoServiceArgs {
    /// The name that it answers with.
    #[arg(long)]
    pub name: ServiceName,
    /// Where it listens.
    #[arg(long)]
    pub listen: Address,
    /// The service that it calls, at the address in POSTERN_UPSTREAM_<NAME>.
    #[arg(long)]
    pub calls: Option<ServiceName>,
}
