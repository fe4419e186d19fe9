//! Flags of `meshctl snapshot`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputArgs;

/// Backups of the store.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SnapshotCommand,
    /// How to print the answer.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `meshctl snapshot` can do.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Write everything that the control plane has, as of one moment, into a new file (0600)
    Save {
        /// The file; it must not exist.
        file: PathBuf,
    },
    /// What a file holds, and whether it is whole
    Inspect {
        /// The file.
        file: PathBuf,
    },
    /// Bring the state of a file back; the control plane starts anew on it
    Restore {
        /// The file.
        file: PathBuf,
        /// It may be of another mesh, which then takes the place of this one.
        #[arg(long)]
        replace_mesh: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}
