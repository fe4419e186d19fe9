//! `meshctl completions SHELL`.

use clap::CommandFactory;

use super::done;
use crate::cli::Cli;
use crate::outcome::Outcome;
use crate::terminal;

/// Prints the completions of a shell.
pub fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "meshctl", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    done()
}
