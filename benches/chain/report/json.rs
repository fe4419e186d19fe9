//! Everything, round by round.

use serde_json::{Map, Value, json};

use crate::run::Outcome;
use crate::samples::Spread;
use crate::settings::Settings;

/// One object a figure, and in it one a peer.
pub fn json(outcome: &Outcome, settings: &Settings) -> Value {
    let mut figures = Map::new();
    for figure in outcome.samples.figures() {
        let row = figure.row();
        let mut peers = Map::new();
        for peer in &settings.peers {
            let Some(spread) = outcome.samples.spread(figure, peer) else { continue };
            let mut entry = shown(spread);
            entry["samples"] = json!(outcome.samples.of(figure, peer));
            if let Some(ratio) = outcome.samples.ratio(figure, peer, &outcome.base) {
                entry["ratio"] = shown(ratio);
            }
            peers.insert(peer.to_string(), entry);
        }
        figures.insert(row.id, json!({"label": row.label.trim(), "unit": row.unit, "goal": row.goal, "peers": peers}));
    }
    json!({
        "machine": outcome.machine,
        "settings": {
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "connections": settings.connections,
            "idle": settings.idle,
            "spread": settings.spread,
            "streams": settings.streams,
            "aged": settings.aged,
            "streams_at_once": settings.streams_at_once,
            "rates": outcome.rates.iter().map(|(layer, rate)| (layer.id().to_owned(), json!(rate))).collect::<Map<_, _>>(),
            "postern_args": settings.postern_args,
        },
        "base": outcome.base.to_string(),
        "figures": figures,
        "failures": outcome.failures,
        "took_seconds": outcome.seconds,
    })
}

fn shown(spread: Spread) -> Value {
    json!({"median": spread.median, "min": spread.least, "max": spread.most})
}
