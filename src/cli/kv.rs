//! `meshctl kv …`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputArgs;

/// Key-value store.
#[derive(Debug, Args)]
pub struct KvArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KvCommand,
    /// How to print the answer.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `meshctl kv` can do.
#[derive(Debug, Subcommand)]
pub enum KvCommand {
    /// Print the value of a key as it is; exit code 1 when there is none
    Get {
        /// The key; with --recurse what keys begin with.
        key: String,
        /// Every key that begins so, with its value, one a line.
        #[arg(long)]
        recurse: bool,
    },
    /// Set the value of a key
    Put {
        /// The key.
        key: String,
        /// The value; @FILE is the content of a file, - is stdin. Without one the key is empty.
        value: Option<OsString>,
        /// A number that is kept with the value, for whoever reads it.
        #[arg(long, value_name = "N", default_value_t = 0)]
        flags: u64,
        /// Only if the key was last changed in this revision (0: if it does not exist); else exit code 1.
        #[arg(long, value_name = "REVISION")]
        cas: Option<u64>,
    },
    /// Delete a key
    Delete {
        /// The key; with --recurse what keys begin with.
        key: String,
        /// Every key that begins so.
        #[arg(long, conflicts_with = "cas")]
        recurse: bool,
        /// Only if the key was last changed in this revision; else exit code 1.
        #[arg(long, value_name = "REVISION")]
        cas: Option<u64>,
    },
    /// List keys
    List {
        /// What they begin with; everything if left out.
        #[arg(default_value = "")]
        prefix: String,
        /// Cut each key after the first of these behind the prefix, so that a tree is shown by its branches.
        #[arg(long, value_name = "TEXT")]
        separator: Option<String>,
    },
    /// Run a command now and at each change, with the key as JSON on its stdin; without a command, print it
    Watch {
        /// The key; with --recurse what keys begin with.
        key: String,
        /// Every key that begins so.
        #[arg(long)]
        recurse: bool,
        /// The command. A change while it runs is told when it has ended.
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Print keys and values as a JSON file that `import` reads (Consul's form)
    Export {
        /// What the keys begin with; everything if left out.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Set the keys that a file of `export` or of `consul kv export` holds; others stay as they are
    Import {
        /// The file; - is stdin.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Put this before every key.
        #[arg(long, value_name = "TEXT", default_value = "")]
        prefix: String,
    },
}
