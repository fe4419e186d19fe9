//! One row a figure, one column a peer: the median, and in brackets the ratio to Envoy.

use std::fmt::Write;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::figure::Figure;
use crate::run::Outcome;
use crate::settings::Settings;

/// The whole report: a table a layer, and what must be known to read them.
pub fn text(outcome: &Outcome, settings: &Settings) -> String {
    let mut text = String::new();
    for layer in settings.layer.each() {
        let figures = outcome.samples.figures_of(*layer);
        if !figures.is_empty() {
            let _ = writeln!(text, "{}\n\n{}\n", layer.title(), table(&figures, outcome, settings));
        }
    }
    for line in notes(outcome, settings) {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn table(figures: &[Figure], outcome: &Outcome, settings: &Settings) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let peers = settings.peers.iter().map(ToString::to_string);
    let header: Vec<String> = ["figure".to_owned(), "unit".into()].into_iter().chain(peers).chain(["goal".into()]).collect();
    let columns = header.len();
    table.set_header(header);
    for figure in figures {
        table.add_row(cells(*figure, outcome, settings));
    }
    for column in 2..columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn cells(figure: Figure, outcome: &Outcome, settings: &Settings) -> Vec<String> {
    let row = figure.row();
    let mut cells = vec![row.label, row.unit.into()];
    for peer in &settings.peers {
        let median = outcome.samples.spread(figure, peer).map(|spread| number(spread.median));
        let ratio = outcome.samples.ratio(figure, peer, &outcome.base).filter(|_| *peer != outcome.base);
        cells.push(match (median, ratio) {
            (Some(median), Some(ratio)) => format!("{median} ({:.2})", ratio.median),
            (Some(median), None) => median,
            (None, _) => "-".into(),
        });
    }
    cells.push(row.goal.map_or_else(String::new, |goal| format!("{goal:.2}")));
    cells
}

fn notes(outcome: &Outcome, settings: &Settings) -> Vec<String> {
    let mut notes = vec![format!(
        "Medians of {} rounds of {} s; in brackets the median of the ratios to {}, each taken within one round.",
        settings.rounds, settings.seconds, outcome.base
    )];
    notes.push(format!(
        "Many connections: {}. Many streams: {} of one connection. Idle: {}. Spread: {} connections over {} server-side proxies. \
         Bulk: {} at a time.",
        settings.connections,
        settings.streams_at_once,
        settings.idle,
        2 * settings.spread,
        settings.spread,
        settings.streams
    ));
    if let Some(aged) = settings.aged {
        notes.push(format!("Beside {} connections, open for {aged} s, that moved a GB each.", settings.connections));
    }
    for (layer, rate) in &outcome.rates {
        notes.push(format!("Latency at {}: {rate} requests a second, timed from when each was due.", layer.id()));
    }
    notes.push(format!("Measured in {:.0} s on {}", outcome.seconds, outcome.machine));
    if !outcome.failures.is_empty() {
        notes.push("Not measured:".into());
        notes.extend(outcome.failures.iter().map(|failure| format!("  {failure}")));
    }
    notes
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
