//! The report: a table for the terminal, every sample as JSON.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde_json::json;

use crate::run::{Sample, TRANSPORTS, WORK};
use crate::settings::Settings;

const FIGURES: [(&str, &str); 5] = [("bulk", "MB/s"), ("p50", "ms"), ("p90", "ms"), ("p99", "ms"), ("p99.9", "ms")];

/// Medians of the rounds, and of the ratios within each round.
pub fn text(samples: &[Sample]) -> String {
    let mut congestions: Vec<&str> = samples.iter().map(|sample| sample.congestion.as_str()).collect();
    congestions.dedup();
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["", "", "figure", "unit", "tunnel", "direct", "tunnel / direct"]);
    for congestion in congestions {
        for (work, ..) in WORK {
            for (figure, unit) in FIGURES {
                let [tunnel, direct] = TRANSPORTS.map(|transport| {
                    let of_it =
                        samples.iter().filter(|one| (&*one.congestion, one.work, one.transport) == (congestion, work, transport));
                    of_it
                        .filter_map(|one| Some((one.round, one.figures[figure].as_f64().filter(|value| *value > 0.0)?)))
                        .collect::<Vec<_>>()
                });
                let ratios = tunnel.iter().filter_map(|(round, value)| {
                    let (_, base) = direct.iter().find(|(other, _)| other == round)?;
                    Some(value / base)
                });
                let [tunnel, direct] = [&tunnel, &direct].map(|values| median(values.iter().map(|(_, value)| *value).collect()));
                let (Some(tunnel), Some(direct), Some(ratio)) = (tunnel, direct, median(ratios.collect())) else { continue };
                let figures = [tunnel, direct].map(|value| format!("{value:.1}"));
                let [tunnel, direct] = figures;
                table.add_row([congestion, work, figure, unit, &tunnel, &direct, &format!("{ratio:.2}")]);
            }
        }
    }
    table.column_iter_mut().skip(4).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    format!("{table}\n")
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

/// Writes `table.txt` and `figures.json`.
pub fn write(samples: &[Sample], settings: &Settings) -> anyhow::Result<()> {
    std::fs::create_dir_all(&settings.out)?;
    let rows: Vec<_> = samples.iter().map(row).collect();
    std::fs::write(settings.out.join("table.txt"), text(samples))?;
    std::fs::write(settings.out.join("figures.json"), serde_json::to_string_pretty(&rows)? + "\n")?;
    eprintln!("written to {}", settings.out.display());
    Ok(())
}

fn row(sample: &Sample) -> serde_json::Value {
    let Sample { congestion, work, transport, round, figures } = sample;
    json!({ "congestion": congestion, "work": work, "transport": transport, "round": round, "figures": figures })
}
