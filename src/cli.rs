//! The command line as a tree of types. `reference` and the shell completions are generated from it.

pub mod acl;
pub mod control;
pub mod import;
pub mod intention;
pub mod kv;
pub mod plain;
pub mod proxy;
pub mod seen;
pub mod service_config;
pub mod snapshot;
pub mod template;
pub mod unbuilt;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// How the answer of a client command is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// JSON, one document.
    Json,
    /// YAML, one document.
    Yaml,
}

/// `-o`, for every client command.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// How to print the answer.
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value = "table", global = true)]
    pub output: Format,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Flags of every command that logs.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// What to log on stderr: error, warn, info, debug, trace, or a filter such as `info,postern_proxy=debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = "Logging")]
    pub log_level: String,
    /// How log lines look.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text", help_heading = "Logging")]
    pub log_format: LogFormat,
}

const HELP: &str = "\
{about}

{usage-heading} {usage}

Run the mesh:
  dev         A control plane and demo services with sidecars on this machine
  control     The control plane
  proxy       The sidecar of one instance of a service
  run         A service and its sidecar, started and stopped as one

Say who may call whom:
  intention   Allow, deny, check and explain; apply a file
  service     Services, their instances and settings
  token       Enrolment tokens: who may become which service
  ca          The certificate authority of the mesh

See what happens:
  status      The control plane and every instance
  doctor      What is wrong, and what to do
  tail        Calls as they are decided
  top         Who calls whom how much, live
  graph       Services and their calls as a graph

More:
  kv          Key-value store
  acl         Who may use the API: tokens, policies, roles
  job         Jobs of processes with sidecars (not built yet)
  snapshot    Save and restore the store
  import      Take over what a Consul has
  completions Completions for your shell

Options:
{options}{after-help}";

const AFTER_HELP: &str = "\
The control plane is found at POSTERN_HTTP with POSTERN_TOKEN or POSTERN_TOKEN_FILE (and POSTERN_CA_FILE), else at the \
socket in the data directory (POSTERN_DATA_DIR), else at http://127.0.0.1:8500.

Exit codes: 0 yes or done, 1 no, 2 an error. `meshctl COMMAND --help` tells more.";

/// Identity, mutual TLS and intentions for anything that runs as a process.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, about, help_template = HELP, after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `meshctl` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A control plane and demo services with sidecars on this machine; prints what to try next
    Dev(plain::DevArgs),
    /// The control plane
    Control(control::ControlArgs),
    /// The sidecar of one instance of a service
    Proxy(proxy::ProxyArgs),
    /// A service and its sidecar, started and stopped as one
    Run(proxy::RunArgs),
    /// Enrolment tokens: who may become which service
    Token(plain::TokenArgs),
    /// Who may call whom
    Intention(intention::IntentionArgs),
    /// Services, their instances and settings
    Service(plain::ServiceArgs),
    /// Key-value store: configuration that is shared
    Kv(kv::KvArgs),
    /// The certificate authority of the mesh
    Ca(plain::CaArgs),
    /// Who may use the API: tokens, policies, roles
    Acl(acl::AclArgs),
    /// Jobs of processes with sidecars (not built yet)
    Job(unbuilt::JobArgs),
    /// Save and restore the store
    Snapshot(snapshot::SnapshotArgs),
    /// The control plane and every instance
    Status(OutputArgs),
    /// Calls as they are decided
    Tail(seen::TailArgs),
    /// Who calls whom how much, live
    Top(seen::TopArgs),
    /// Services and their calls as a graph
    Graph(seen::GraphArgs),
    /// What is wrong, and what to do; exit code 1 when something hurts now
    Doctor(OutputArgs),
    /// Take over what another system has
    Import(import::ImportArgs),
    /// Prints completions for a shell
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Prints the reference of every command, flag, variable and default as Markdown
    #[command(hide = true)]
    Reference,
    /// Becomes the command of `run`, tied to it
    #[command(hide = true)]
    Tether(plain::TetherArgs),
    /// A small HTTP service for `dev`
    #[command(hide = true)]
    DemoService(plain::DemoServiceArgs),
}

#[cfg(test)]
mod tests;
