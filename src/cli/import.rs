//! Flags of `meshctl import`.

use clap::{Args, Subcommand};

use super::OutputArgs;

/// Take over what another system has.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// From what.
    #[command(subcommand)]
    pub command: ImportCommand,
    /// How to print the report.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `meshctl import` can read.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Services, keys and values, intentions and settings of a Consul; what is there already and not in it stays
    Consul(ImportConsulArgs),
}

/// Flags of `meshctl import consul`.
#[derive(Debug, Args)]
pub struct ImportConsulArgs {
    /// A running Consul (http://HOST:PORT), or a file of its JSON: `consul kv export`, `consul config read`, or what
    /// its API answers for intentions, config entries, keys and services. Can be repeated.
    #[arg(long, value_name = "URL|FILE", required = true)]
    pub from: Vec<String>,
    /// A file with Consul's token [default: CONSUL_HTTP_TOKEN].
    #[arg(long, value_name = "FILE")]
    pub consul_token_file: Option<std::path::PathBuf>,
    /// What Consul does where no intention matches [default: as it says itself; deny for files].
    #[arg(long, value_name = "POLICY", value_parser = ["allow", "deny"])]
    pub consul_default: Option<String>,
    /// Only report what would be carried.
    #[arg(long)]
    pub dry_run: bool,
}
