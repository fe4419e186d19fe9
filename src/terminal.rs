//! What the terminal can do, and questions asked on it.

use std::io::{IsTerminal, Write};

use crate::outcome::Failure;

/// Colours only on a terminal, and never with `NO_COLOR` (no-color.org).
pub fn stdout_has_colours() -> bool {
    std::io::stdout().is_terminal() && colours_wanted()
}

/// As [`stdout_has_colours`], for logs.
pub fn stderr_has_colours() -> bool {
    std::io::stderr().is_terminal() && colours_wanted()
}

fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether somebody can answer a question.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks on stderr; everything but `y` and `yes` is no.
pub fn ask(question: &str) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot ask: {error}")).cure("give --yes");
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Prints on stdout. A reader that has gone away (`| head`) is no error: there is nobody left to tell.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a line on stderr; where that fails nothing can be told.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
