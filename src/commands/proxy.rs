//! `meshctl proxy`: the sidecar of one instance.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use hyper::Method;
use postern_api::http::{CreateTokenRequest, CreatedToken};
use postern_checks::{Definition, OwnCheck};
use postern_names::PortName;
use postern_proxy::settings::{AccessLogMode, Address, LocalSetting, TokenSource};
use postern_proxy::{ProxyError, Settings, Shutdown};
use tokio::signal::unix::SignalKind;

use super::control::print_line;
use super::done;
use super::serving::{Reload, Stop, listen};
use crate::cli::proxy::{AccessLogWord, Listen, ProxyArgs};
use crate::client::Finder;
use crate::credential;
use crate::data_dir::{self, process_environment};
use crate::logging::Log;
use crate::notify;
use crate::outcome::{Failure, Outcome};

/// How long a token lives that a sidecar makes for itself: it is spent within seconds.
const OWN_TOKEN_TTL: Duration = Duration::from_secs(300);

/// Checks of one instance.
const MOST_CHECKS: usize = 32;

/// The local service is not to be kept busy by being looked at.
const LEAST_PROBE: Duration = Duration::from_millis(100);

/// Runs the sidecar until SIGTERM or SIGINT.
pub fn proxy(args: ProxyArgs, reload: Reload) -> Outcome {
    let data_dir = data_dir::find(&process_environment)?;
    let mut settings = settings(&args, &data_dir)?;
    let log = Log::start(&args.log)?;
    settings.access_log_sink = log.access_sink();
    let runtime = super::runtime()?;
    let result = runtime.block_on(serve(settings, &args, &data_dir, reload, &log));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(settings: Settings, args: &ProxyArgs, data_dir: &Path, reload: Reload, log: &Log) -> Outcome {
    let (first, again) = Stop::listen(false)?.in_two_steps();
    let hangup = listen(SignalKind::hangup())?;
    let shutdown = async move {
        let reason = first.await.unwrap_or("the end of its signals");
        tracing::info!("{reason}: the sidecar goes down");
        notify::stopping("stopping: open connections may end");
        Shutdown::now(reason)
    };
    let print_addresses = args.print_addresses;
    let ready = move |addresses: &postern_proxy::Addresses| {
        notify::ready(&serving_text(addresses));
        if print_addresses && let Err(failure) = print_line(addresses) {
            tracing::warn!("{failure}");
        }
    };
    notify::starting("starting: waiting for an SVID and for what the control plane knows");
    let sidecar = async {
        let settings = with_own_token(settings, data_dir).await?;
        postern_proxy::run(settings, shutdown, ready).await.map_err(|error| failure_of(&error))
    };
    tokio::select! {
        result = sidecar => result?,
        reason = again => tracing::warn!("{reason} again: open connections are dropped"),
        () = reload.at_hangup(hangup, log) => {}
        () = notify::watchdog() => {}
    }
    done()
}

fn serving_text(addresses: &postern_proxy::Addresses) -> String {
    match &addresses.inbound {
        Some(inbound) => format!("serving: inbound on {inbound}, {} upstreams", addresses.upstreams.len()),
        None => format!("serving: {} upstreams", addresses.upstreams.len()),
    }
}

/// A fault of the system may be gone at the next start; everything else needs somebody who mends it.
pub fn failure_of(error: &ProxyError) -> Failure {
    let failure = Failure::new(error.to_string());
    if matches!(error, ProxyError::System { .. }) { failure.passing() } else { failure }
}

/// The settings of the sidecar that the flags ask for.
pub fn settings(args: &ProxyArgs, data_dir: &Path) -> Result<Settings, Failure> {
    let refuse = |error: postern_proxy::settings::SettingError| Failure::new(error.to_string());
    let service = args.service.clone().ok_or_else(|| Failure::new("no service is named").cure("give --service NAME"))?;
    let mut settings = match &args.id {
        Some(id) => Settings::new(service, data_dir).map(|settings| settings.with_id(id.clone(), data_dir)).map_err(refuse)?,
        None => Settings::new(service, data_dir).map_err(refuse)?,
    };
    settings.token = token(args)?;
    settings.control = args.control.clone();
    settings.listen = match &args.listen {
        Some(Listen::At(address)) => Some(address.clone()),
        Some(Listen::FirstFree) | None => None,
    };
    settings.advertise = args.advertise.clone();
    settings.locals = locals(&args.local)?;
    settings.upstreams = args.upstream.clone();
    refuse_twice_the_same_upstream(&settings)?;
    settings.protocol = args.protocol;
    settings.admin = args.admin.clone();
    settings.metrics = args.metrics.clone();
    if let Some(directory) = &args.state_dir {
        settings.state_dir = std::path::absolute(directory)
            .map_err(|error| Failure::new(format!("--state-dir {}: {error}", directory.display())))?;
    }
    settings.workers = args.workers.into();
    settings.transport = args.transport;
    settings.record_layer = args.record_layer;
    settings.drain = args.drain;
    settings.access_log_sample = args.access_log_sample;
    settings.access_log = match args.access_log {
        AccessLogWord::All => AccessLogMode::All,
        AccessLogWord::Denied => AccessLogMode::Denied,
        AccessLogWord::Off => AccessLogMode::Off,
    };
    settings.otlp = args.otlp.clone();
    settings.meta = meta(args)?;
    settings.locality = args.locality.clone().unwrap_or_default();
    settings.tags = args.tag.clone();
    settings.weight = args.weight;
    settings.checks = checks(args)?;
    if args.probe < LEAST_PROBE {
        return Err(
            Failure::new(format!("--probe {} is too often", crate::duration::text(args.probe))).cure("give 100ms or more")
        );
    }
    settings.periods.probe = args.probe;
    settings.counts_calls = !args.no_edges;
    settings.max_connections = args.max_connections as usize;
    settings.max_connections_per_peer = args.max_connections_per_peer.map(|most| most as usize);
    Ok(settings)
}

fn locals(given: &[LocalSetting]) -> Result<BTreeMap<PortName, Address>, Failure> {
    let mut locals = BTreeMap::new();
    for local in given {
        if locals.insert(local.port.clone(), local.address.clone()).is_some() {
            return Err(
                Failure::new(format!("--local gives port {} twice", local.port)).cure("name the others: --local NAME=ADDR")
            );
        }
    }
    Ok(locals)
}

fn refuse_twice_the_same_upstream(settings: &Settings) -> Result<(), Failure> {
    let mut names = std::collections::BTreeSet::new();
    for upstream in &settings.upstreams {
        if !names.insert(upstream.name()) {
            return Err(Failure::new(format!("--upstream gives {} twice", upstream.name()))
                .cure("one listener serves every caller in the service"));
        }
    }
    Ok(())
}

fn meta(args: &ProxyArgs) -> Result<BTreeMap<String, String>, Failure> {
    let mut meta = BTreeMap::new();
    for pair in &args.meta {
        if meta.insert(pair.key.clone(), pair.value.clone()).is_some() {
            return Err(Failure::new(format!("--meta gives {} twice", pair.key)));
        }
    }
    Ok(meta)
}

/// `--check` and `--checks`.
fn checks(args: &ProxyArgs) -> Result<Vec<Definition>, Failure> {
    let mut checks: Vec<Definition> = Vec::new();
    let from_file = match &args.checks {
        None => Vec::new(),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| Failure::new(format!("--checks {}: {error}", path.display())))?;
            postern_checks::parse_file(&text).map_err(|error| Failure::new(format!("--checks {}: {error}", path.display())))?
        }
    };
    for mut check in args.check.iter().cloned().chain(from_file).map(OwnCheck::into_definition) {
        if check.is_script() && !args.enable_script_checks {
            return Err(Failure::new(format!("check {:?} runs a program", check.name)).cure("give --enable-script-checks"));
        }
        if check.id.is_empty() {
            let number = checks.iter().filter(|other| other.type_name() == check.type_name()).count();
            check.id = if number == 0 { check.type_name().into() } else { format!("{}-{}", check.type_name(), number + 1) };
        }
        if checks.iter().any(|other| other.id == check.id) {
            return Err(Failure::new(format!("two checks have the id {:?}", check.id)).cure("give each one an id of its own"));
        }
        checks.push(check);
    }
    if checks.len() > MOST_CHECKS {
        return Err(Failure::new(format!("{} checks, at most {MOST_CHECKS} are allowed", checks.len())));
    }
    Ok(checks)
}

/// The wrong kind of token is refused here, before anything is sent.
fn token(args: &ProxyArgs) -> Result<Option<TokenSource>, Failure> {
    if let Some(text) = &args.token {
        credential::enrolment(text, "--token")?;
        return Ok(Some(TokenSource::Text(text.trim().to_owned().into())));
    }
    let Some(path) = &args.token_file else { return Ok(None) };
    if let Ok(text) = credential::read_file(path, "--token-file") {
        // What systemd gives in place of a credential that is not there any more, since it was needed once.
        if text.is_empty() {
            return Ok(None);
        }
        credential::enrolment(&text, &format!("--token-file {}", path.display()))?;
    }
    Ok(Some(TokenSource::File(path.clone())))
}

/// A sidecar without state and token makes its own token where an operator credential can be read on this machine.
pub async fn with_own_token(mut settings: Settings, data_dir: &Path) -> Result<Settings, Failure> {
    if settings.token.is_some() || postern_proxy::state::StateDir::is_enrolled(&settings.state_dir) {
        return Ok(settings);
    }
    let Some(finder) = Finder::on_this_machine(data_dir).with_a_credential() else { return Ok(settings) };
    let request = CreateTokenRequest { service: settings.service.clone(), uses: Some(1), ttl_s: Some(OWN_TOKEN_TTL.as_secs()) };
    let made = async {
        let mut client = finder.connect().await?;
        let created: CreatedToken = client.call(Method::POST, "/v1/tokens", Some(&request), Duration::ZERO).await?;
        Ok::<_, Failure>((client.place(), created))
    };
    match made.await {
        Ok((place, created)) => {
            tracing::info!(
                "no token was given: made token {} for {} with the operator credential of {place}",
                created.id,
                settings.service
            );
            settings.token = Some(TokenSource::Text(created.token.into()));
        }
        Err(failure) => tracing::warn!("no token was given, and none could be made: {failure}"),
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn settings_of(line: &str) -> Result<Settings, Failure> {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Proxy(args) => settings(&args, Path::new("/data")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_of_the_flags_are_those_of_the_sidecar() {
        let ours = settings_of("meshctl proxy --service web").unwrap();
        let theirs = Settings::new("web".parse().unwrap(), Path::new("/data")).unwrap();
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }

    #[test]
    fn an_id_moves_the_state() {
        let settings = settings_of("meshctl proxy --service web --id web-1").unwrap();
        assert_eq!(settings.state_dir, Path::new("/data/proxy/web-1"));
    }

    #[test]
    fn the_same_port_or_upstream_twice_is_refused() {
        for line in [
            "meshctl proxy --service web --local 1 --local 2",
            "meshctl proxy --service web --upstream db=1 --upstream db=2",
            "meshctl proxy --service web --meta a=1 --meta a=2",
        ] {
            assert!(settings_of(line).unwrap_err().what.contains("twice"), "{line}");
        }
    }

    #[test]
    fn an_operator_token_is_refused_before_it_is_sent() {
        assert!(settings_of("meshctl proxy --service web --token postern-op1.abc").unwrap_err().what.contains("operator token"));
    }
}
