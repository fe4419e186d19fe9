//! `meshctl intention …`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use postern_intentions::Party;
use postern_names::{PortName, ServiceName};

use super::OutputArgs;
use super::control::Policy;
use crate::duration;

/// Who may call whom.
#[derive(Debug, Args)]
pub struct IntentionArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: IntentionCommand,
    /// How to print the answer.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn party(text: &str) -> Result<Party, String> {
    text.parse().map_err(|error: postern_intentions::PartyError| error.to_string())
}

/// The two sides of an intention.
#[derive(Debug, Args)]
pub struct PairArgs {
    /// The caller: a service, or '*' (in quotes) for all.
    #[arg(value_name = "SRC", value_parser = party)]
    pub source: Party,
    /// What it calls: a service, or '*' (in quotes) for all.
    #[arg(value_name = "DST", value_parser = party)]
    pub destination: Party,
}

/// How a change is made.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// Why, for the audit log and the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How long to wait until it is in force; 0s returns at commit.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    pub wait: Duration,
}

/// Sets the intention of a pair.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Which pair.
    #[command(flatten)]
    pub pair: PairArgs,
    /// For how long; afterwards the permanent intention governs again.
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    pub for_time: Option<Duration>,
    /// How.
    #[command(flatten)]
    pub change: ChangeArgs,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not K=V")),
    }
}

/// A call to be judged.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// The caller.
    #[arg(value_name = "SRC")]
    pub source: ServiceName,
    /// The service that is called.
    #[arg(value_name = "DST")]
    pub destination: ServiceName,
    /// The port of the destination [default: main].
    #[arg(long, value_name = "NAME")]
    pub port: Option<PortName>,
    /// Judge an HTTP request with this method [default with --path or --header: GET].
    #[arg(long, value_name = "M")]
    pub method: Option<String>,
    /// Judge an HTTP request for this path, with its query.
    #[arg(long, value_name = "P")]
    pub path: Option<String>,
    /// A header of that request; may be given several times.
    #[arg(long, value_name = "K=V", value_parser = header)]
    pub header: Vec<(String, String)>,
    /// Judge by this file instead of asking the control plane.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// With --file: the settings of services, as `meshctl service config` takes them; what DST speaks and how its paths are
    /// judged [default: those of a service without settings].
    #[arg(long, value_name = "FILE", requires = "file")]
    pub service_config: Option<PathBuf>,
}

/// Which changes are shown.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Only changes of the pair of this caller: a service, or '*' (in quotes).
    #[arg(value_name = "SRC", value_parser = party, requires = "destination")]
    pub source: Option<Party>,
    /// And this service: a service, or '*' (in quotes).
    #[arg(value_name = "DST", value_parser = party)]
    pub destination: Option<Party>,
    /// How many, at most 1000.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub limit: u64,
    /// Only changes before this revision.
    #[arg(long, value_name = "REVISION")]
    pub before: Option<u64>,
}

/// Where to go back to, and how.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Permanent intentions and default become what they were at this revision.
    #[arg(value_name = "REVISION")]
    pub revision: u64,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Refuse where something was changed after this revision.
    #[arg(long, value_name = "REVISION")]
    pub if_revision: Option<u64>,
    /// How long to watch for new denials afterwards: exit code 1 if there are any [default: 30s on a terminal, else 0s].
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub watch: Option<Duration>,
    /// How.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// A file, named in one of two ways.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct FileArgs {
    /// The file; - is stdin.
    #[arg(value_name = "FILE")]
    pub positional: Option<PathBuf>,
    /// The same, as the other commands take it.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// What is suggested.
#[derive(Debug, Args)]
pub struct SuggestArgs {
    /// How far to look back.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
    pub since: Duration,
    /// Allow the methods and paths of HTTP requests that were seen, instead of whole services.
    #[arg(long)]
    pub l7: bool,
    /// Only calls of and to this service: apply the file with --merge.
    #[arg(long, value_name = "NAME")]
    pub service: Option<ServiceName>,
}

/// What `meshctl intention` can do.
#[derive(Debug, Subcommand)]
pub enum IntentionCommand {
    /// Let SRC call DST
    Allow(SetArgs),
    /// Keep SRC from calling DST; what is open is closed
    Deny(SetArgs),
    /// Let calls through, and tell which would be denied
    Audit(SetArgs),
    /// Calls that audit let through and that would be denied: exit code 0 none, 1 some
    Audited(super::seen::AuditedArgs),
    /// Every intention, highest precedence first
    List,
    /// The permanent and the temporary intention of a pair
    Get(PairArgs),
    /// Remove the permanent intention of a pair
    Delete {
        /// Which pair.
        #[command(flatten)]
        pair: PairArgs,
        /// The temporary one instead.
        #[arg(long)]
        temporary: bool,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Intentions that apply to calls of a service
    Match {
        /// The service.
        name: ServiceName,
        /// Calls by it instead.
        #[arg(long)]
        source: bool,
    },
    /// Whether a call goes through: exit code 0 allowed, 1 denied
    Check(CallArgs),
    /// Why a call goes through or not
    Explain(CallArgs),
    /// The verdict where no intention matches
    Default {
        /// The new default.
        #[arg(value_enum)]
        policy: Policy,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Make the store equal to a file, atomically
    Apply {
        /// The file; - is stdin.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Keep permanent intentions that are not in the file.
        #[arg(long)]
        merge: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        /// Refuse where something was changed after this revision.
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
        /// Judge only the calls that were seen in so long a time [default: all that are kept, 30 days].
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        since: Option<Duration>,
        /// How long to watch for new denials afterwards: exit code 1 if there are any [default: 30s on a terminal, else 0s].
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        watch: Option<Duration>,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// What an apply would change: exit code 0 nothing, 1 something
    Plan {
        /// The file; - is stdin.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// As with apply.
        #[arg(long)]
        merge: bool,
        /// Judge only the calls that were seen in so long a time [default: all that are kept, 30 days].
        #[arg(long, value_name = "TIME", value_parser = duration::parse, conflicts_with = "against")]
        since: Option<Duration>,
        /// Compare with this file instead of asking the control plane.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
    /// Check a file without a control plane: exit code 0 valid, 2 not
    Validate {
        /// Which file.
        #[command(flatten)]
        file: FileArgs,
        /// Exit code 1 where it holds something that decides nothing.
        #[arg(long)]
        strict: bool,
    },
    /// The permanent intentions and the default as a file
    Export,
    /// A file of intentions that allow the calls that were seen, and nothing else
    Suggest(SuggestArgs),
    /// Changes of intentions and default, newest first
    History(HistoryArgs),
    /// Go back to the permanent intentions and the default of a revision
    Rollback(RollbackArgs),
}
