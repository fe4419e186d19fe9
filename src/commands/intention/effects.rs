//! What a plan says of the calls that were seen.

use postern_api::http::{Effect, Effects};
use postern_edges::Edge;

use crate::output::{Output, Tone, plain};

/// Rows of each kind that are shown; `-o json` has all.
const MOST: usize = 20;

/// Which calls change sides, what would be closed, and what is not known for sure.
pub fn text(output: &Output, effects: &Effects) -> String {
    let mut text = String::new();
    if effects.edges == 0 {
        text.push_str("no call was seen in the time that is judged, so what it does to live traffic is not known\n");
    } else if effects.newly_denied.is_empty() {
        text.push_str(&format!("no call that was seen would be refused ({} edges since {})\n", effects.edges, effects.since));
    } else {
        text.push_str(&format!("judged by the calls that were seen ({} edges since {})\n", effects.edges, effects.since));
    }
    text.push_str(&table(output, "would be refused, and goes through now", Tone::Bad, &effects.newly_denied));
    text.push_str(&table(output, "would go through, and is refused now", Tone::Good, &effects.newly_allowed));
    text.push_str(&table(output, "would go through because of audit alone", Tone::Doubtful, &effects.newly_audited));
    text.push_str(&closes(effects));
    for note in &effects.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn table(output: &Output, title: &str, tone: Tone, effects: &[Effect]) -> String {
    if effects.is_empty() {
        return String::new();
    }
    let rows = effects.iter().take(MOST).map(|effect| {
        let seen = &effect.seen;
        vec![
            (call(&seen.edge), tone),
            plain(seen.count),
            plain(seen.last_seen.get(..19).map_or(seen.last_seen.as_str(), |second| second)),
            plain(&effect.before),
            plain(&effect.after),
        ]
    });
    let table = output.table(&["call", "seen", "last", "now", "then"], rows.collect());
    let more = effects.len().checked_sub(MOST).filter(|more| *more > 0);
    let more = more.map(|more| format!("and {more} more (-o json shows all)\n")).unwrap_or_default();
    format!("\n{title}:\n{table}{more}")
}

/// `web -> api GET /v1/invoices/{id}`
pub fn call(edge: &Edge) -> String {
    let port = if edge.port.as_str() == "main" { String::new() } else { format!(":{}", edge.port) };
    let http = edge.http.as_ref().map(|http| format!(" {} {}", http.method, http.shape)).unwrap_or_default();
    format!("{} -> {}{port}{http}", edge.source, edge.destination)
}

fn closes(effects: &Effects) -> String {
    let closes = &effects.closes;
    if closes.connections + closes.requests == 0 {
        return String::new();
    }
    let of = |connections: u64, requests: u64| match (connections, requests) {
        (connections, 0) => format!("{connections} open connections"),
        (0, requests) => format!("{requests} requests under way"),
        (connections, requests) => format!("{connections} open connections and {requests} requests under way"),
    };
    let pairs = closes
        .of
        .iter()
        .map(|pair| format!("  {} -> {}: {}\n", pair.source, pair.destination, of(pair.connections, pair.requests)));
    format!("\nit would close {} right now:\n{}", of(closes.connections, closes.requests), pairs.collect::<String>())
}
