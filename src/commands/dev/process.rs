//! A process of this same binary that ends with us: it holds the other end of a pipe that closes when we are gone.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::outcome::Failure;

/// How long a process may take until it is ready.
const READY: Duration = Duration::from_secs(40);
/// How long it may take to end before it is killed.
const END: Duration = Duration::from_secs(10);
/// Lines of its log that a failure shows.
const LAST_LINES: usize = 5;

/// A started process.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    answers: Lines<BufReader<ChildStdout>>,
    _stdin: Option<ChildStdin>,
}

/// Where this binary is.
pub fn this_binary() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::new(format!("cannot find this binary: {error}")))
}

/// A command of this binary without anything of Postern in its environment.
pub fn clean(arguments: &[String]) -> Result<Command, Failure> {
    let mut command = Command::new(this_binary()?);
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("POSTERN_"))) {
        command.env_remove(name);
    }
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    Ok(command)
}

impl Process {
    /// Starts `meshctl ARGUMENTS`, with its log in `<logs>/<name>.log`.
    pub fn start(name: &str, arguments: &[String], secrets: &[(&str, &str)], logs: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("cannot start {name}: {error}"));
        let log = logs.join(format!("{name}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log).map_err(failed)?;
        let mut child = clean(arguments)?
            .envs(secrets.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| Failure::new(format!("{name} has no stdout")))?;
        Ok(Self { name: name.into(), child, log, answers: BufReader::new(stdout).lines(), _stdin: stdin })
    }

    /// Waits for the line that says where it listens.
    pub async fn addresses<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let line = match tokio::time::timeout(READY, self.answers.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(_) => return Err(self.ended().await),
            Err(_) => return Err(Failure::new(format!("{} was not ready in time{}", self.name, self.last_lines()))),
        };
        serde_json::from_str(&line).map_err(|error| Failure::new(format!("{} did not tell where it listens: {error}", self.name)))
    }

    /// Waits for its end, which nobody asked for.
    pub async fn ended(&mut self) -> Failure {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Failure::new(format!("{} ended by itself ({how}){}", self.name, self.last_lines()))
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join(" | ");
        if last.is_empty() { String::new() } else { format!("; its log ends: {last}") }
    }

    /// Asks it to end.
    pub fn ask_to_end(&self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended already, which is what was asked for.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }

    /// Waits for its end, and kills it when that takes too long.
    pub async fn gone(&mut self) {
        if tokio::time::timeout(END, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}
