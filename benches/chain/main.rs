//! Sidecar pairs side by side: the same work through Envoy, nginx, HAProxy and Postern, alternating, with the CPU time,
//! memory and latency that each of them costs, for bytes and for requests. `README.md` beside this file says how each is configured and why.

mod certificates;
mod figure;
mod http;
mod http2;
mod install;
mod layer;
mod line;
mod load;
mod machine;
mod pair;
mod peers;
mod permission;
mod probe;
mod process;
mod report;
mod run;
mod samples;
mod service;
mod settings;

use anyhow::Context;
use clap::Parser;

use crate::settings::Settings;

fn main() -> anyhow::Result<()> {
    if let Some(legs) = peers::plain::requested_legs() {
        return peers::plain::relay(&legs);
    }
    if service::http2::is_requested() {
        return service::http2::serve();
    }
    let settings = Settings::parse().with_quick();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let outcome = runtime.block_on(run::run(&settings))?;
    print!("{}", report::text(&outcome, &settings));
    report::write(&outcome, &settings)
}
