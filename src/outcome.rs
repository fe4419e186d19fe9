//! How a command ends: 0 yes or done, 1 no, 2 an error with one line that says what, why and what to do.

use std::fmt;
use std::process::ExitCode;

use postern_api::http::ErrorBody;

/// An answer that is not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Yes, or done.
    Yes,
    /// No: denied, differs, or the wait ran out.
    No,
    /// The exit code of the command that `run` ran.
    Code(u8),
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Yes => ExitCode::SUCCESS,
            Answer::No => ExitCode::from(1),
            Answer::Code(code) => ExitCode::from(code),
        }
    }
}

/// Why a command could not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong and why.
    pub what: String,
    /// What to do, where something helps.
    pub cure: Option<String>,
    /// Whether it may pass by itself, so that a service may be started again (exit code 1).
    pub may_pass: bool,
}

/// What every command ends with.
pub type Outcome = Result<Answer, Failure>;

impl Failure {
    /// A failure that speaks for itself.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), cure: None, may_pass: false }
    }

    /// The same failure, with what to do about it.
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// The same failure, which may pass by itself.
    pub fn passing(mut self) -> Self {
        self.may_pass = true;
        self
    }

    /// The answer of a command or flag whose capability is not part of this version.
    pub fn not_built(what: &str) -> Self {
        Self::new(format!("{what} is not built yet")).cure("`meshctl --help` lists what is")
    }
}

impl fmt::Display for Failure {
    /// One line, whatever the parts hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        f.write_str(&one_line(&self.what))?;
        match &self.cure {
            Some(cure) => write!(f, "; {}", one_line(cure)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<ErrorBody> for Failure {
    fn from(body: ErrorBody) -> Self {
        Self { what: body.error, cure: body.hint, may_pass: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_cure() {
        let failure = Failure::new("cannot bind\n  127.0.0.1:8500").cure("choose\n--http");
        assert_eq!(failure.to_string(), "cannot bind 127.0.0.1:8500; choose --http");
    }
}
