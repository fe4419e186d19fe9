//! `meshctl`: the control plane, the sidecar and the command line of Postern, in one binary.

mod cli;
mod client;
mod commands;
mod credential;
mod data_dir;
mod duration;
mod logging;
mod notify;
mod outcome;
mod output;
mod settings;
mod terminal;
mod usage;

use std::process::ExitCode;

/// Gives memory back after a burst; its decay is set in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = std::env::args_os().collect();
    commands::main(arguments)
}
