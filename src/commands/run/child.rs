//! COMMAND: a process with its own process group and no secret of ours.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Why COMMAND did not start, with the exit code that env(1) gives.
#[derive(Debug)]
pub struct NotStarted {
    /// One line.
    pub why: String,
    /// 127: not found; 126: found and cannot be run.
    pub code: u8,
}

/// The running COMMAND.
pub struct Child {
    process: tokio::process::Child,
    group: Option<Pid>,
}

impl Child {
    /// Starts it with `environment` added to ours, and without our secrets.
    pub fn start(command: &[OsString], environment: &BTreeMap<OsString, OsString>) -> Result<Self, NotStarted> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(NotStarted { why: "no command is given".into(), code: 126 });
        };
        let mut builder = tokio::process::Command::new(program);
        builder.args(arguments).process_group(0);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_secret(name)) {
            builder.env_remove(name);
        }
        builder.envs(environment);
        let process = builder.spawn().map_err(|error| {
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            NotStarted { why: format!("cannot start {}: {error}", program.to_string_lossy()), code }
        })?;
        let group = process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Self { process, group })
    }

    /// Waits for its end, and gives its exit code: 128+n when signal n ended it.
    pub async fn wait(&mut self) -> u8 {
        match self.process.wait().await {
            Ok(status) => code_of(status),
            Err(error) => {
                tracing::error!("cannot wait for the command: {error}");
                125
            }
        }
    }

    /// Sends a signal to it and all that it started in its group.
    pub fn signal_group(&self, signal: Signal) {
        let Some(group) = self.group else { return };
        match killpg(group, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => tracing::warn!("cannot send {signal} to the command: {error}"),
        }
    }

    /// SIGTERM, and SIGKILL when `patience` has run out or `hurry` is done.
    pub async fn stop(&mut self, patience: Duration, hurry: impl Future<Output = ()>) -> u8 {
        self.signal_group(Signal::SIGTERM);
        tokio::select! {
            code = self.wait() => return code,
            () = tokio::time::sleep(patience) => tracing::warn!("the command did not end within {}; it is killed", crate::duration::text(patience)),
            () = hurry => tracing::warn!("a second signal: the command is killed"),
        }
        self.signal_group(Signal::SIGKILL);
        self.wait().await
    }
}

fn code_of(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        (None, None) => 125,
    }
}

/// Tokens and keys of ours, and the files that hold them.
fn is_secret(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    name.starts_with("POSTERN_")
        && ["TOKEN", "KEY"].iter().any(|word| name.contains(word))
        && !name.starts_with("POSTERN_UPSTREAM_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn shell(script: &str) -> Child {
        let command = ["sh", "-c", script].map(OsString::from);
        Child::start(&command, &BTreeMap::new()).unwrap()
    }

    #[tokio::test]
    async fn the_code_is_the_commands() {
        assert_eq!(shell("exit 7").wait().await, 7);
        assert_eq!(shell("kill -9 $$").wait().await, 137);
    }

    #[test]
    fn a_secret_is_known_by_its_name() {
        for secret in [
            "POSTERN_TOKEN",
            "POSTERN_TOKEN_FILE",
            "POSTERN_RUN_TOKEN",
            "POSTERN_PROXY_TOKEN_FILE",
            "POSTERN_CONTROL_SEAL_KEY_FILE",
        ] {
            assert!(is_secret(OsStr::new(secret)), "{secret}");
        }
        for open in ["POSTERN_SERVICE", "POSTERN_UPSTREAM_TOKEN_DB", "POSTERN_HTTP", "TOKEN", "PATH"] {
            assert!(!is_secret(OsStr::new(open)), "{open}");
        }
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_gives_127_and_one_that_can_not_run_126() {
        assert_eq!(Child::start(&words("/nowhere/x"), &BTreeMap::new()).err().unwrap().code, 127);
        assert_eq!(Child::start(&words("/etc/hostname"), &BTreeMap::new()).err().unwrap().code, 126);
    }

    #[tokio::test]
    async fn a_command_that_does_not_listen_is_killed() {
        let mut child = shell("trap '' TERM; echo; while :; do sleep 1; done");
        let code = child.stop(Duration::from_millis(300), std::future::pending()).await;
        assert!(code == 137 || code == 143, "{code}");
    }

    #[tokio::test]
    async fn what_the_command_started_gets_the_signal_too() {
        let mut child = shell("sleep 1000 & wait");
        let code = child.stop(Duration::from_secs(10), std::future::pending()).await;
        assert_eq!(code, 143);
        let group = child.group.unwrap();
        let gone = async {
            while killpg(group, None).is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    }
}
