//! `meshctl service config …`.

use std::path::PathBuf;

use clap::Subcommand;
use postern_names::ServiceName;

use super::intention::ChangeArgs;

/// What `meshctl service config` can do.
#[derive(Debug, Subcommand)]
pub enum ServiceConfigCommand {
    /// Set what a file says; services and JWT providers that are not in it stay as they are
    Apply {
        /// The file; - is stdin.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Delete settings and JWT providers that are not in the file.
        #[arg(long)]
        replace: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
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
        replace: bool,
    },
    /// Check a file without a control plane
    Validate {
        /// The file; - is stdin.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// The settings of a service, or of all services and the JWT providers
    Show {
        /// The service.
        name: Option<ServiceName>,
    },
    /// All settings and JWT providers as a file
    Export,
    /// Remove the settings of a service: the defaults hold again
    Delete {
        /// The service, or with --jwt the provider.
        name: ServiceName,
        /// Remove the JWT provider of this name instead.
        #[arg(long)]
        jwt: bool,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },
}
