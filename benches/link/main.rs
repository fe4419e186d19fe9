//! A tunnel and direct connections over a link with delay and loss, alternating: how much bulk they carry, and how long
//! small requests take beside it. Needs root, for network namespaces. `README.md` beside this file says more.

mod hosts;
mod load;
#[path = "../chain/process.rs"]
#[allow(dead_code)] // what only the other benchmark needs
mod process;
mod relay;
mod report;
mod run;
mod serve;
mod settings;

use clap::Parser;

use crate::settings::{Part, Settings};

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &settings.part {
        Some(Part::Relay(link)) => relay::run(*link),
        Some(Part::Serve { address }) => runtime.block_on(serve::run(*address)),
        Some(Part::Load(work)) => runtime.block_on(load::run(work)),
        None => {
            let outcome = run::run(&settings)?;
            print!("{}", report::text(&outcome));
            report::write(&outcome, &settings)
        }
    }
}
