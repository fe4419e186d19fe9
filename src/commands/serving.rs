//! What `control`, `proxy` and `run` have in common: signals, the end of stdin, and settings read again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::data_dir::process_environment;
use crate::logging::Log;
use crate::outcome::Failure;
use crate::settings::{self, LoadError};

/// What was read at the start, to compare with what is read at SIGHUP.
pub struct Reload {
    /// The command line.
    pub arguments: Vec<OsString>,
    /// Every flag with its values.
    pub values: BTreeMap<String, Vec<String>>,
}

/// The signals that end a process.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    stdin: Option<oneshot::Receiver<()>>,
}

impl Stop {
    /// Listens from now on; `until_stdin_closes` also takes the end of stdin for one.
    pub fn listen(until_stdin_closes: bool) -> Result<Self, Failure> {
        let stdin = if until_stdin_closes { Some(end_of_stdin()?) } else { None };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())?, stdin })
    }

    /// Waits for the next one and names it.
    pub async fn next(&mut self) -> &'static str {
        let stdin = async {
            match &mut self.stdin {
                Some(closed) => drop(closed.await),
                None => std::future::pending().await,
            }
        };
        let reason = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = stdin => "the end of stdin",
        };
        if reason == "the end of stdin" {
            self.stdin = None;
        }
        reason
    }
}

/// Listens for a signal.
pub fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))
}

/// A thread of its own, since a read of stdin cannot be given up.
fn end_of_stdin() -> Result<oneshot::Receiver<()>, Failure> {
    let (closed, wait) = oneshot::channel();
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(move || {
            let mut buffer = [0; 64];
            while matches!(std::io::stdin().read(&mut buffer), Ok(read) if read > 0) {}
            let _ = closed.send(());
        })
        .map_err(|error| Failure::new(format!("cannot start the thread that reads stdin: {error}")))?;
    Ok(wait)
}

impl Reload {
    /// Reads the settings again at every SIGHUP, takes over what it can and names what needs a restart; never ends.
    pub async fn at_hangup(mut self, mut hangup: Signal, log: &Log) {
        while hangup.recv().await.is_some() {
            self.read_again(log);
        }
        std::future::pending().await
    }

    fn read_again(&mut self, log: &Log) {
        let values = match settings::load(&self.arguments, &process_environment) {
            Ok(loaded) => loaded.values,
            Err(LoadError::Layer(failure)) => return tracing::error!("settings were not read again: {failure}"),
            Err(LoadError::Usage(error)) => {
                return tracing::error!("settings were not read again: {}", error.render().to_string().trim_end());
            }
        };
        let changed = changed_flags(&self.values, &values);
        if changed.is_empty() {
            return tracing::info!("settings were read again; nothing has changed");
        }
        for flag in changed {
            let now = values.get(&flag).cloned().unwrap_or_default();
            match (flag.as_str(), now.first()) {
                ("log-level", Some(level)) => match log.set_level(level) {
                    Ok(()) => tracing::info!("--log-level is {level} now"),
                    Err(failure) => tracing::error!("{failure}"),
                },
                ("token", _) => tracing::warn!("--token has changed; it needs a restart"),
                _ => tracing::warn!("--{flag} is {} now; it needs a restart", now.join(",")),
            }
            if flag == "log-level" {
                self.values.insert(flag, now);
            }
        }
    }
}

fn changed_flags(before: &BTreeMap<String, Vec<String>>, after: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    after.iter().filter(|(flag, values)| before.get(*flag) != Some(values)).map(|(flag, _)| flag.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_named() {
        let values =
            |http: &str| BTreeMap::from([("http".to_owned(), vec![http.to_owned()]), ("grpc".to_owned(), vec!["1".to_owned()])]);
        assert_eq!(changed_flags(&values("1"), &values("2")), ["http"]);
        assert!(changed_flags(&values("1"), &values("1")).is_empty());
    }
}
