//! `meshctl run`: a service and its sidecar, started and stopped as one.
//!
//! Read from the top: the sidecar starts → it is ready, and what is to be rendered was rendered → COMMAND starts → one of
//! three ends: COMMAND ends, the sidecar fails, or a signal asks both to end. In between COMMAND may be signalled or started
//! again for what changed; its sidecar and its registration stay.

mod child;
mod output_file;
mod render;
mod rendering;
mod restarts;
mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use postern_names::ServiceName;
use postern_proxy::{Addresses, ProxyError, Shutdown};
use tokio::signal::unix::SignalKind;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::proxy::{settings, with_own_token};
use super::serving::{Stop, listen};
use crate::cli::proxy::RunArgs;
use crate::data_dir::{self, process_environment};
use crate::logging::Log;
use crate::outcome::{Answer, Failure, Outcome};
use child::{Child, NotStarted};
use rendering::{Plan, Rendering};
use restarts::{Restarts, Step};
use variables::Variables;

/// Starts both, and stays until both have ended.
pub fn run(args: RunArgs) -> Outcome {
    let data_dir = data_dir::find(&process_environment)?;
    let mut settings = settings(&args.proxy, &data_dir)?;
    let plan = Plan::read(&args)?;
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
        serve(settings, plan, &args, stop, files).await
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

async fn serve(mut settings: postern_proxy::Settings, plan: Option<Plan>, args: &RunArgs, mut stop: Stop, files: u64) -> Outcome {
    let service = settings.service.clone();
    let mut rendering = plan.map(|plan| {
        let (asker, teller) = postern_proxy::configuration::channel();
        settings.configuration = Some(teller);
        Rendering::start(plan, asker)
    });
    let (mut sidecar, ready) = Sidecar::start(settings);
    let mut addresses = None;
    let ready = async {
        addresses = Some(ready.await?);
        Ok::<_, oneshot::error::RecvError>(match &mut rendering {
            Some(rendering) => rendering.next().await.variables,
            None => Variables::new(),
        })
    };
    let ready = tokio::select! {
        result = &mut sidecar.task => return Err(ended_by_itself(result)),
        reason = stop.next() => {
            sidecar.end(reason, &mut stop).await;
            return Ok(Answer::Code(signal_code(reason)));
        }
        ready = tokio::time::timeout(args.ready_timeout, ready) => ready,
    };
    let variables = match ready {
        Ok(Ok(variables)) => variables,
        Ok(Err(_)) => return Err(ended_by_itself(sidecar.task.await)),
        Err(_) => {
            sidecar.end("not ready in time", &mut stop).await;
            return Err(not_ready(&service, addresses.is_some(), rendering.as_ref(), args.ready_timeout));
        }
    };
    let addresses = addresses.unwrap_or_default();
    if args.proxy.print_addresses {
        super::control::print_line(&addresses)?;
    }
    let command =
        Command { words: tethered(&args.command, files), environment: environment(service.as_str(), &addresses), variables };
    match command.start() {
        Ok(child) => Running { child, command, sidecar, rendering, stop, args }.accompany().await,
        Err(failure) => {
            tracing::error!("{}", failure.why);
            sidecar.end("the command did not start", &mut stop).await;
            Ok(Answer::Code(failure.code))
        }
    }
}

fn not_ready(service: &ServiceName, sidecar_is_ready: bool, rendering: Option<&Rendering>, waited: Duration) -> Failure {
    let waited = crate::duration::text(waited);
    match rendering {
        Some(rendering) if sidecar_is_ready => Failure::new(format!(
            "what {service} needs was not rendered within {waited}, so the command was not started: {}",
            rendering.waits_for()
        ))
        .cure("--ready-timeout waits longer"),
        _ => Failure::new(format!("the sidecar of {service} was not ready within {waited}, so the command was not started"))
            .cure("its log above says why; --ready-timeout waits longer"),
    }
}

/// What is started, now and again.
struct Command {
    words: Vec<OsString>,
    /// What it is told of its sidecar.
    environment: BTreeMap<OsString, OsString>,
    /// What the control plane has for it.
    variables: Variables,
}

impl Command {
    fn start(&self) -> Result<Child, NotStarted> {
        let variables = self.variables.iter().map(|(name, value)| (name.into(), value.into()));
        let environment = self.environment.iter().map(|(name, value)| (name.clone(), value.clone())).chain(variables);
        Child::start(&self.words, &environment.collect())
    }
}

fn ended_by_itself(result: Result<Result<(), ProxyError>, tokio::task::JoinError>) -> Failure {
    outcome_of(result).err().unwrap_or_else(|| Failure::new("the sidecar ended by itself"))
}

fn signal_code(reason: &str) -> u8 {
    if reason == "SIGINT" { 130 } else { 143 }
}

/// COMMAND and its sidecar.
struct Running<'a> {
    child: Child,
    command: Command,
    sidecar: Sidecar,
    rendering: Option<Rendering>,
    stop: Stop,
    args: &'a RunArgs,
}

impl Running<'_> {
    /// What happens while both run.
    async fn accompany(mut self) -> Outcome {
        let mut forwarded = Forwarded::listen()?;
        let mut restarts = Restarts::new(self.args.kill_timeout, Instant::now());
        loop {
            let step_at = restarts.at();
            tokio::select! {
                biased;
                code = self.child.wait() => {
                    // What it started and left behind.
                    self.child.signal_group(Signal::SIGTERM);
                    if !restarts.is_under_way() {
                        return Ok(Answer::Code(self.command_ended(code).await));
                    }
                    match self.command.start() {
                        Ok(child) => self.child = child,
                        Err(failure) => {
                            tracing::error!("{}", failure.why);
                            return Ok(Answer::Code(self.command_ended(failure.code).await));
                        }
                    }
                    restarts.started(Instant::now());
                    tracing::info!("the command was started again");
                }
                result = &mut self.sidecar.task => {
                    let failure = ended_by_itself(result);
                    tracing::error!("{failure}; the command is stopped");
                    self.child.stop(self.args.kill_timeout, std::future::pending()).await;
                    return Err(failure);
                }
                reason = self.stop.next() => return Ok(Answer::Code(self.take_down(reason).await)),
                signal = forwarded.next() => self.child.signal_group(signal),
                due = next_due(&mut self.rendering) => {
                    self.command.variables = due.variables;
                    for signal in due.signals {
                        self.child.signal_group(signal);
                    }
                    if due.restart {
                        restarts.ask();
                    }
                }
                () = at(step_at) => match restarts.step(Instant::now()) {
                    Some(Step::Terminate) => {
                        tracing::info!("what the command was started with has changed: it is stopped and started again");
                        self.child.signal_group(Signal::SIGTERM);
                    }
                    Some(Step::Kill) => {
                        tracing::warn!("the command did not end within {}; it is killed", crate::duration::text(self.args.kill_timeout));
                        self.child.signal_group(Signal::SIGKILL);
                    }
                    None => {}
                }
            }
        }
    }

    async fn command_ended(mut self, code: u8) -> u8 {
        tracing::info!("the command ended with code {code}; its instance is deregistered");
        self.sidecar.end("the command ended", &mut self.stop).await;
        code
    }

    async fn take_down(self, reason: &'static str) -> u8 {
        let Self { child, sidecar, stop, args, .. } = self;
        take_down(child, sidecar, stop, reason, args).await
    }
}

async fn next_due(rendering: &mut Option<Rendering>) -> rendering::Due {
    match rendering {
        Some(rendering) => rendering.next().await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
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

    async fn next(&mut self) -> Signal {
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
