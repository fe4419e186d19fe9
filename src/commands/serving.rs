//! What `control`, `proxy` and `run` have in common: signals, the end of stdin, and settings read again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

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
    /// The files that those name, as they were.
    files: BTreeMap<String, FileState>,
}

/// Flags that name a file which is read at the start.
const FILES: [&str; 6] = ["http-cert", "http-key", "ca-cert", "ca-key", "seal-key-file", "token-file"];

/// Enough to see that a file was replaced or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileState {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl FileState {
    fn of(path: &str) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { inode: metadata.ino(), length: metadata.len(), modified: metadata.modified().ok() })
    }
}

/// A file that is not there is left out: a first start makes its seal key.
fn files_of(values: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, FileState> {
    let state = |flag: &str| FileState::of(values.get(flag)?.first()?);
    FILES.into_iter().filter_map(|flag| Some((flag.to_owned(), state(flag)?))).collect()
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

    /// Going down in two steps: the first signal goes to the receiver, and the future ends with the second. It must be
    /// polled for the first to be heard.
    pub fn in_two_steps(mut self) -> (oneshot::Receiver<&'static str>, impl Future<Output = &'static str>) {
        let (tell, first) = oneshot::channel();
        let second = async move {
            // Where nobody waits for the first any more, the second still counts.
            let _ = tell.send(self.next().await);
            self.next().await
        };
        (first, second)
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
    /// What was just read.
    pub fn new(arguments: Vec<OsString>, values: BTreeMap<String, Vec<String>>) -> Self {
        Self { files: files_of(&values), arguments, values }
    }

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
        let replaced = self.replaced_files();
        for (flag, path) in &replaced {
            tracing::warn!("the file of --{flag}, {path}, has changed; it is read at the next start");
        }
        if changed.is_empty() && replaced.is_empty() {
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

    fn replaced_files(&self) -> Vec<(String, String)> {
        let now = files_of(&self.values);
        let replaced = now.iter().filter(|(flag, now)| self.files.get(*flag).is_some_and(|before| before != *now));
        replaced.filter_map(|(flag, _)| Some((flag.clone(), self.values.get(flag)?.first()?.clone()))).collect()
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
