//! What was measured, round by round, and what is made of it.

use std::collections::BTreeMap;

use crate::figure::Figure;
use crate::layer::Layer;
use crate::settings::PeerName;

/// Every sample of a run.
#[derive(Debug, Default)]
pub struct Samples {
    measured: BTreeMap<(Figure, PeerName), BTreeMap<usize, f64>>,
}

/// The middle, and how far the rounds lie apart.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// Of all rounds.
    pub median: f64,
    /// Of all rounds.
    pub least: f64,
    /// Of all rounds.
    pub most: f64,
}

impl Samples {
    /// Keeps a value of a round.
    pub fn add(&mut self, figure: Figure, peer: &PeerName, round: usize, value: f64) {
        self.measured.entry((figure, peer.clone())).or_default().insert(round, value);
    }

    /// Every figure that somebody has, in the order of the report.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures: Vec<Figure> = self.measured.keys().map(|(figure, _)| *figure).collect();
        figures.dedup();
        figures
    }

    /// Those of one layer.
    pub fn figures_of(&self, layer: Layer) -> Vec<Figure> {
        self.figures().into_iter().filter(|figure| figure.layer == layer).collect()
    }

    /// By round.
    pub fn of(&self, figure: Figure, peer: &PeerName) -> Vec<f64> {
        self.rounds(figure, peer).map(|(_, value)| value).collect()
    }

    /// The middle of the rounds.
    pub fn spread(&self, figure: Figure, peer: &PeerName) -> Option<Spread> {
        spread(self.of(figure, peer))
    }

    /// The middle of the ratios to another peer, each taken within one round: the machine drifts between rounds. A round in
    /// which the other's figure is not above zero, as an added latency below the noise may be, has no ratio.
    pub fn ratio(&self, figure: Figure, peer: &PeerName, base: &PeerName) -> Option<Spread> {
        let base: BTreeMap<usize, f64> = self.rounds(figure, base).collect();
        let ratios = self.rounds(figure, peer).filter_map(|(round, value)| {
            let base = base.get(&round).filter(|base| **base > 0.0)?;
            Some(value / base)
        });
        spread(ratios.collect())
    }

    fn rounds(&self, figure: Figure, peer: &PeerName) -> impl Iterator<Item = (usize, f64)> {
        self.measured.get(&(figure, peer.clone())).into_iter().flatten().map(|(round, value)| (*round, *value))
    }
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
    Some(Spread { median, least, most })
}
