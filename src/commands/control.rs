//! `meshctl control`: the control plane.

use postern_control::settings::StoreEngine;
use postern_control::store::StoreError;
use postern_control::{ControlError, Settings};
use tokio::signal::unix::SignalKind;

use super::done;
use super::serving::{Reload, Stop, listen};
use crate::cli::control::ControlArgs;
use crate::data_dir::{self, process_environment};
use crate::logging::Log;
use crate::outcome::{Failure, Outcome};
use crate::{notify, terminal};

/// Runs the control plane until SIGTERM or SIGINT.
pub fn control(args: ControlArgs, reload: Reload) -> Outcome {
    let settings = settings(&args)?;
    let log = Log::start(&args.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let result = runtime.block_on(serve(settings, &args, reload, &log));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

async fn serve(settings: Settings, args: &ControlArgs, reload: Reload, log: &Log) -> Outcome {
    let (first, again) = Stop::listen(args.until_stdin_closes)?.in_two_steps();
    let hangup = listen(SignalKind::hangup())?;
    let shutdown = async move {
        let reason = first.await.unwrap_or("the end of its signals");
        tracing::info!("{reason}: the control plane goes down");
        notify::stopping("stopping: requests under way are answered");
    };
    let print_addresses = args.print_addresses;
    let ready = move |addresses: &postern_control::Addresses| {
        notify::ready(&format!("serving: HTTP API on {}, sidecars on {}", addresses.http, addresses.grpc));
        if print_addresses && let Err(failure) = print_line(addresses) {
            tracing::warn!("{failure}");
        }
    };
    notify::starting("starting: the store is opened");
    tokio::select! {
        result = postern_control::run(settings, shutdown, ready) => result.map_err(|error| failure_of(&error))?,
        reason = again => tracing::warn!("{reason} again: requests under way are dropped"),
        () = reload.at_hangup(hangup, log) => {}
        () = notify::watchdog() => {}
    }
    done()
}

/// A fault of the store's disk may be gone at the next start; everything else needs somebody who mends it.
fn failure_of(error: &ControlError) -> Failure {
    let failure = Failure::new(error.to_string());
    if matches!(error, ControlError::Store(StoreError::Io { .. })) { failure.passing() } else { failure }
}

/// One JSON line on stdout.
pub fn print_line(addresses: &impl serde::Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(addresses).map_err(|error| Failure::new(format!("cannot print the addresses: {error}")))?;
    terminal::print(&(line + "\n"))
}

fn settings(args: &ControlArgs) -> Result<Settings, Failure> {
    if args.store.starts_with("etcd://") {
        return Err(Failure::not_built("--store etcd://"));
    }
    let store: StoreEngine =
        args.store.parse().map_err(|error: postern_control::settings::SettingError| Failure::new(format!("--store: {error}")))?;
    let data_dir = match &args.data_dir {
        Some(directory) => std::path::absolute(directory)
            .map_err(|error| Failure::new(format!("--data-dir {}: {error}", directory.display())))?,
        None => data_dir::find(&process_environment)?,
    };
    let settings = Settings {
        data_dir,
        http: args.http.clone(),
        http_cert: args.http_cert.clone(),
        http_key: args.http_key.clone(),
        grpc: args.grpc.clone(),
        dns: args.dns.clone().unwrap_or_default(),
        recursors: args.recursor.clone(),
        trust_domain: args.trust_domain.clone(),
        datacenter: args.datacenter.clone(),
        default: args.default.map(Into::into).unwrap_or_default(),
        svid_ttl: args.svid_ttl,
        renew_grace: args.renew_grace,
        ca_cert: args.ca_cert.clone(),
        ca_key: args.ca_key.clone(),
        seal_key_file: args.seal_key_file.clone(),
        seal_in_memory: args.seal_in_memory,
        store,
        heartbeat: args.heartbeat,
        beat: args.beat,
        silence: args.silence,
        liveness: args.liveness,
        enable_script_checks: args.enable_script_checks,
        settle: args.settle,
        intermediate_ttl: args.intermediate_ttl,
        removal: args.removal,
        ack_timeout: args.ack_timeout,
        test_periods: args.test_periods,
        ..Settings::default()
    };
    settings.validate().map_err(|error| Failure::new(error.to_string()))?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn settings_of(line: &str) -> Result<Settings, Failure> {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Control(args) => settings(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_of_the_flags_are_those_of_the_control_plane() {
        let (ours, theirs) = (settings_of("meshctl control --data-dir /var/lib/postern").unwrap(), Settings::default());
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }

    #[test]
    fn what_is_not_built_says_so() {
        let line = "meshctl control --store etcd://a:1";
        assert!(settings_of(line).unwrap_err().to_string().contains("not built yet"), "{line}");
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        assert!(settings_of("meshctl control --data-dir /d --http-cert /c").unwrap_err().what.contains("--http-key"));
    }
}
