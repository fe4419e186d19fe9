//! Commands that show what the sidecars see: `tail`, `top`, `graph`, `intention audited`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use postern_names::ServiceName;

use super::OutputArgs;
use crate::duration;

/// How a call was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Judged {
    /// It was let through.
    Allow,
    /// It was let through because of audit; enforced, it would be denied.
    Audit,
    /// It was refused.
    Deny,
    /// It was not judged: no instance was reached, or it could not be read.
    Failed,
}

impl Judged {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Audit => "audit",
            Self::Deny => "deny",
            Self::Failed => "failed",
        }
    }
}

/// Which calls.
#[derive(Debug, Clone, Default, Args)]
pub struct WhichArgs {
    /// Calls of or to this service.
    #[arg(long, value_name = "NAME")]
    pub service: Option<ServiceName>,
    /// Calls of this service.
    #[arg(long, value_name = "NAME")]
    pub source: Option<ServiceName>,
    /// Calls to this service.
    #[arg(long, value_name = "NAME")]
    pub destination: Option<ServiceName>,
}

/// Calls as they are decided.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Which calls.
    #[command(flatten)]
    pub which: WhichArgs,
    /// Calls that are judged so, comma-separated [default: all].
    #[arg(long, value_name = "VERDICT", value_enum, value_delimiter = ',')]
    pub verdict: Vec<Judged>,
    /// End after so long [default: never].
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    pub for_time: Option<Duration>,
    /// End after so many lines [default: never].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max: Option<u64>,
    /// How to print them: a line each, or a JSON or YAML document each.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Who calls whom how much, live.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Which calls.
    #[command(flatten)]
    pub which: WhichArgs,
    /// Pairs that called within this time are shown.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration::parse)]
    pub since: Duration,
    /// What is first.
    #[arg(long, value_name = "COLUMN", value_enum, default_value = "rate")]
    pub sort: TopColumn,
    /// How to print it, once; without a terminal, and with json and yaml.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `top` can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TopColumn {
    /// Calls a second, most first.
    #[default]
    Rate,
    /// Errors, most first.
    Errors,
    /// The 99th percentile, slowest first.
    P99,
    /// Denials, most first.
    Denied,
    /// Names of destination and source.
    Name,
}

/// Services and their calls as a graph.
#[derive(Debug, Args)]
pub struct GraphArgs {
    /// Which calls.
    #[command(flatten)]
    pub which: WhichArgs,
    /// How far to look back.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
    pub since: Duration,
    /// How to write it.
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value = "text")]
    pub output: GraphFormat,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum GraphFormat {
    /// For people: a line a service and a line a call, in layers from callers to called.
    #[default]
    Text,
    /// Graphviz.
    Dot,
    /// Mermaid, as Markdown viewers draw it.
    Mermaid,
    /// JSON, one document.
    Json,
    /// YAML, one document.
    Yaml,
}

/// What audit let through.
#[derive(Debug, Args)]
pub struct AuditedArgs {
    /// Which calls.
    #[command(flatten)]
    pub which: WhichArgs,
    /// How far to look back.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
    pub since: Duration,
}
