//! One file a command. Each takes its part of the command line and ends with an [`Outcome`].

mod acl;
mod ca;
mod completions;
mod control;
mod demo_service;
mod dev;
mod doctor;
mod graph;
mod import;
mod input_file;
mod intention;
mod kv;
mod proxy;
mod reference;
mod run;
mod seen;
mod service;
mod serving;
mod snapshot;
mod status;
mod tail;
mod tether;
mod token;
mod top;
mod unbuilt;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::data_dir::process_environment;
use crate::outcome::{Answer, Failure, Outcome};
use crate::settings::{LoadError, Loaded};
use crate::{settings, terminal, usage};

/// The exit code of our own failures; those of `run` stand apart from COMMAND's (env(1)).
const ERROR: u8 = 2;
const RUN_ERROR: u8 = 125;
/// A service that failed for a reason that may pass: whoever supervises it starts it again.
const PASSING: u8 = 1;

/// Reads the command line, does what it says and gives the exit code.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let error_code = if arguments.get(1).is_some_and(|word| word == "run") { RUN_ERROR } else { ERROR };
    let failed = |failure: &Failure| {
        terminal::note(&format!("meshctl: {failure}"));
        ExitCode::from(if failure.may_pass && error_code == ERROR { PASSING } else { error_code })
    };
    let loaded = match settings::load(&arguments, &process_environment) {
        Ok(loaded) => loaded,
        Err(LoadError::Layer(failure)) => return failed(&failure),
        Err(LoadError::Usage(error)) => {
            return match error.kind() {
                clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => {
                    let _ = error.print();
                    ExitCode::SUCCESS
                }
                clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    let _ = error.print();
                    ExitCode::from(error_code)
                }
                _ => failed(&usage::failure(&error, &arguments)),
            };
        }
    };
    match dispatch(loaded, arguments) {
        Ok(answer) => answer.into(),
        Err(failure) => failed(&failure),
    }
}

fn dispatch(loaded: Loaded, arguments: Vec<OsString>) -> Outcome {
    let Loaded { cli: Cli { command }, values } = loaded;
    match command {
        Command::Control(args) => control::control(args, serving::Reload::new(arguments, values)),
        Command::Proxy(args) => proxy::proxy(args, serving::Reload::new(arguments, values)),
        Command::Run(args) => run::run(args),
        Command::Dev(args) => dev::dev(args),
        Command::DemoService(args) => demo_service::demo_service(args),
        Command::Tether(args) => tether::tether(args),
        Command::Token(args) => ask(token::token(args)),
        Command::Intention(args) => ask(intention::intention(args)),
        Command::Service(args) => ask(service::service(args)),
        Command::Kv(args) => ask(kv::kv(args)),
        Command::Ca(args) => ask(ca::ca(args)),
        Command::Status(args) => ask(status::status(args)),
        Command::Doctor(args) => ask(doctor::doctor(args)),
        Command::Completions { shell } => completions::completions(shell),
        Command::Reference => reference::reference(),
        Command::Acl(args) => ask(acl::acl(args)),
        Command::Job(args) => unbuilt::unbuilt(&format!("`meshctl job {}`", args.command.word())),
        Command::Snapshot(args) => ask(snapshot::snapshot(args)),
        Command::Tail(args) => ask(tail::tail(args)),
        Command::Top(args) => ask(top::top(args)),
        Command::Graph(args) => ask(graph::graph(args)),
        Command::Import(args) => ask(import::import(args)),
    }
}

/// Runs a client command to its end on a small runtime.
fn ask(command: impl Future<Output = Outcome>) -> Outcome {
    runtime()?.block_on(command)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))
}

fn done() -> Outcome {
    Ok(Answer::Yes)
}
