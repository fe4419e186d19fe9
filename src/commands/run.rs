//! `meshctl run`: a service and its sidecar, started and stopped as one.
//!
//! Read from the top: the sidecar starts → it is ready → COMMAND starts → one of three ends: COMMAND ends, the sidecar
//! fails, or a signal asks both to end.

mod child;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use postern_proxy::{Addresses, ProxyError, Shutdown};
use tokio::signal::unix::SignalKind;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::proxy::{settings, with_own_token};
use super::serving::{Stop, listen};
use crate::cli::proxy::RunArgs;
use crate::data_dir::{self, process_environment};
use crate::logging::Log;
use crate::outcome::{Answer, Failure, Outcome};
use child::Child;

/// Starts both, and stays until both have ended.
pub fn run(args: RunArgs) -> Outcome {
    let data_dir = data_dir::find(&process_environment)?;
    let mut settings = settings(&args.proxy, &data_dir)?;
    let log = Log::start(&args.proxy.log)?;
    settings.access_log_sink = log.access_sink();
    // The sidecar raises it for itself.
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    let runtime = super::runtime()?;
    // COMMAND is started on this thread, whose end the kernel takes for the end of its parent.
    let result = runtime.block_on(async {
        let mut stop = Stop::listen(args.until_stdin_closes)?;
        let settings = tokio::select! {
            settings = with_own_token(settings, &data_dir) => settings?,
            reason = stop.next() => return Ok(Answer::Code(signal_code(reason))),
        };
        serve(settings, &args, stop, files).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The running sidecar, and how to end it.
struct Sidecar {
    task: JoinHandle<Result<(), ProxyError>>,
    /// Gives the reason for going down.
    stop: Option<oneshot::Sender<&'static str>>,
    /// True once COMMAND has ended, so that the sidecar need carry no more traffic.
    command_ended: watch::Sender<bool>,
}

impl Sidecar {
    fn start(settings: postern_proxy::Settings) -> (Self, oneshot::Receiver<Addresses>) {
        let (stop, stopped) = oneshot::channel();
        let (tell, ready) = oneshot::channel();
        let (command_ended, ended) = watch::channel(false);
        let shutdown = async move {
            let reason = stopped.await.unwrap_or("meshctl run ends");
            Shutdown::after(reason, until_true(ended))
        };
        let ready_callback = move |addresses: &Addresses| {
            let _ = tell.send(addresses.clone());
        };
        let task = tokio::spawn(postern_proxy::run(settings, shutdown, ready_callback));
        (Self { task, stop: Some(stop), command_ended }, ready)
    }

    /// Deregisters; traffic goes on until [`Self::end`].
    fn deregister(&mut self, reason: &'static str) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(reason);
        }
    }

    /// Drains and ends; a signal cuts that short.
    async fn end(mut self, reason: &'static str, stop: &mut Stop) {
        self.deregister(reason);
        self.command_ended.send_replace(true);
        tokio::select! {
            result = &mut self.task => {
                if let Err(failure) = outcome_of(result) {
                    tracing::error!("{failure}");
                }
            }
            reason = stop.next() => {
                tracing::warn!("{reason} again: open connections are dropped");
                self.task.abort();
            }
        }
    }
}

async fn until_true(mut flag: watch::Receiver<bool>) {
    // An error means that the sender has gone, which ends the wait as well.
    let _ = flag.wait_for(|ended| *ended).await;
}

fn outcome_of(result: Result<Result<(), ProxyError>, tokio::task::JoinError>) -> Result<(), Failure> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(error.to_string())),
        Err(error) => Err(Failure::new(format!("the sidecar broke off: {error}"))),
    }
}

async fn serve(settings: postern_proxy::Settings, args: &RunArgs, mut stop: Stop, files: u64) -> Outcome {
    let service = settings.service.clone();
    let (mut sidecar, ready) = Sidecar::start(settings);
    let addresses = tokio::select! {
        result = &mut sidecar.task => return Err(ended_by_itself(result)),
        reason = stop.next() => {
            sidecar.end(reason, &mut stop).await;
            return Ok(Answer::Code(signal_code(reason)));
        }
        addresses = tokio::time::timeout(args.ready_timeout, ready) => addresses,
    };
    let addresses = match addresses {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(_)) => return Err(ended_by_itself(sidecar.task.await)),
        Err(_) => {
            sidecar.end("not ready in time", &mut stop).await;
            let waited = crate::duration::text(args.ready_timeout);
            return Err(Failure::new(format!(
                "the sidecar of {service} was not ready within {waited}, so the command was not started"
            ))
            .cure("its log above says why; --ready-timeout waits longer"));
        }
    };
    if args.proxy.print_addresses {
        super::control::print_line(&addresses)?;
    }
    let environment = environment(service.as_str(), &addresses);
    match Child::start(&tethered(&args.command, files), &environment) {
        Ok(child) => accompany(child, sidecar, stop, args).await,
        Err(failure) => {
            tracing::error!("{}", failure.why);
            sidecar.end("the command did not start", &mut stop).await;
            Ok(Answer::Code(failure.code))
        }
    }
}

fn ended_by_itself(result: Result<Result<(), ProxyError>, tokio::task::JoinError>) -> Failure {
    outcome_of(result).err().unwrap_or_else(|| Failure::new("the sidecar ended by itself"))
}

fn signal_code(reason: &str) -> u8 {
    if reason == "SIGINT" { 130 } else { 143 }
}

/// What happens while both run.
async fn accompany(mut child: Child, mut sidecar: Sidecar, mut stop: Stop, args: &RunArgs) -> Outcome {
    let mut forwarded = Forwarded::listen()?;
    loop {
        tokio::select! {
            biased;
            code = child.wait() => {
                tracing::info!("the command ended with code {code}; its instance is deregistered");
                child.signal_group(nix::sys::signal::Signal::SIGTERM);
                sidecar.end("the command ended", &mut stop).await;
                return Ok(Answer::Code(code));
            }
            result = &mut sidecar.task => {
                let failure = ended_by_itself(result);
                tracing::error!("{failure}; the command is stopped");
                child.stop(args.kill_timeout, std::future::pending()).await;
                return Err(failure);
            }
            reason = stop.next() => return Ok(Answer::Code(take_down(child, sidecar, stop, reason, args).await)),
            signal = forwarded.next() => child.signal_group(signal),
        }
    }
}

/// Deregister, give callers time to go elsewhere, end COMMAND, drain.
async fn take_down(mut child: Child, mut sidecar: Sidecar, mut stop: Stop, reason: &'static str, args: &RunArgs) -> u8 {
    tracing::info!("{reason}: the instance is deregistered, then the command is stopped");
    sidecar.deregister(reason);
    let early = tokio::select! {
        code = child.wait() => Some(code),
        () = tokio::time::sleep(args.shutdown_delay) => None,
        _ = stop.next() => None,
    };
    let code = match early {
        Some(code) => code,
        None => {
            let again = async {
                stop.next().await;
            };
            child.stop(args.kill_timeout, again).await
        }
    };
    sidecar.end(reason, &mut stop).await;
    code
}

/// COMMAND by way of `tether`, where a kernel can tie it to us.
fn tethered(command: &[OsString], files: u64) -> Vec<OsString> {
    if !cfg!(target_os = "linux") {
        return command.to_vec();
    }
    let parent = std::process::id().to_string();
    // This very binary, even when its file has been replaced since.
    let tether = ["/proc/self/exe", "tether", "--parent", &parent, "--files", &files.to_string(), "--"].map(OsString::from);
    tether.into_iter().chain(command.iter().cloned()).collect()
}

/// Signals that mean something to COMMAND alone.
struct Forwarded {
    hangup: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    first: tokio::signal::unix::Signal,
    second: tokio::signal::unix::Signal,
}

impl Forwarded {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
            first: listen(SignalKind::user_defined1())?,
            second: listen(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> nix::sys::signal::Signal {
        use nix::sys::signal::Signal;
        tokio::select! {
            _ = self.hangup.recv() => Signal::SIGHUP,
            _ = self.quit.recv() => Signal::SIGQUIT,
            _ = self.first.recv() => Signal::SIGUSR1,
            _ = self.second.recv() => Signal::SIGUSR2,
        }
    }
}

/// What COMMAND is told of its sidecar: `POSTERN_SERVICE`, and `POSTERN_UPSTREAM_<NAME>` for each upstream.
fn environment(service: &str, addresses: &Addresses) -> BTreeMap<OsString, OsString> {
    let mut environment = BTreeMap::from([(OsString::from("POSTERN_SERVICE"), OsString::from(service))]);
    for (name, address) in &addresses.upstreams {
        let name = name.to_ascii_uppercase().replace(['-', ':'], "_");
        environment.insert(format!("POSTERN_UPSTREAM_{name}").into(), address.into());
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_named_in_upper_case() {
        let upstreams = [("user-db", "127.0.0.1:1"), ("api:grpc", "unix:/x")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let addresses = Addresses { upstreams: upstreams.into(), ..Addresses::default() };
        let environment = environment("web", &addresses);
        let get = |name: &str| environment.get(&OsString::from(name)).and_then(|value| value.to_str());
        assert_eq!(get("POSTERN_SERVICE"), Some("web"));
        assert_eq!(get("POSTERN_UPSTREAM_USER_DB"), Some("127.0.0.1:1"));
        assert_eq!(get("POSTERN_UPSTREAM_API_GRPC"), Some("unix:/x"));
    }
}
