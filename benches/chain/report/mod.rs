//! The report: text for the terminal, JSON for programs, charts for people.

mod charts;
mod json;
mod text;

pub use text::text;

use anyhow::Context;

use crate::run::Outcome;
use crate::settings::Settings;

/// Writes `table.txt`, `figures.json` and the charts.
pub fn write(outcome: &Outcome, settings: &Settings) -> anyhow::Result<()> {
    let out = settings.out();
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    std::fs::write(out.join("table.txt"), text(outcome, settings))?;
    std::fs::write(out.join("figures.json"), serde_json::to_string_pretty(&json::json(outcome, settings))? + "\n")?;
    let charts = settings.charts();
    std::fs::create_dir_all(&charts).with_context(|| format!("cannot make {}", charts.display()))?;
    charts::draw(outcome, settings, &charts)?;
    eprintln!("written to {}, charts to {}", out.display(), charts.display());
    Ok(())
}
