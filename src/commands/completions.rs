//! `meshctl completions SHELL`.

use clap::{Command, CommandFactory};

use super::done;
use crate::cli::Cli;
use crate::outcome::Outcome;
use crate::terminal;

/// Prints the completions of a shell.
pub fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(&Cli::command()), "meshctl", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    done()
}

/// The command tree without what the help does not show either: the generators would offer it.
fn shown(command: &Command) -> Command {
    let about = command.get_about().cloned().unwrap_or_default();
    Command::new(command.get_name().to_owned())
        .about(about)
        .disable_help_subcommand(true)
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_not_offered() {
        let tree = shown(&Cli::command());
        assert!(tree.find_subcommand("reference").is_none());
        let control = tree.find_subcommand("control").unwrap();
        assert!(control.get_arguments().any(|arg| arg.get_id() == "data_dir"));
        assert!(control.get_arguments().all(|arg| arg.get_id() != "test_periods"));
    }
}
