//! SVG: a chart for each figure that has a goal, and one a layer of all ratios.

use std::path::Path;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::figure::{Figure, Row};
use crate::run::Outcome;
use crate::settings::{PeerName, Product, Settings};

const WIDTH: u32 = 720;
const BAR: u32 = 34;
const LABELS: u32 = 190;
const TOP: u32 = 48;
const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(190, 194, 200);

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws them all.
pub fn draw(outcome: &Outcome, settings: &Settings, out: &Path) -> anyhow::Result<()> {
    for layer in settings.layer.each() {
        let figures = outcome.samples.figures_of(*layer);
        let headlines: Vec<Figure> = figures.into_iter().filter(|figure| figure.row().is_headline).collect();
        if headlines.is_empty() {
            continue;
        }
        for figure in &headlines {
            let row = figure.row();
            let file = out.join(format!("{}.svg", row.id));
            bars(*figure, &row, outcome, settings, &file).map_err(|error| anyhow!("{}: {error}", file.display()))?;
        }
        let file = out.join(format!("{}-ratios.svg", layer.id()));
        ratios(&headlines, outcome, settings, &file).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// One bar a peer, with a line from the least to the most of the rounds.
fn bars(figure: Figure, row: &Row, outcome: &Outcome, settings: &Settings, file: &Path) -> Drawn {
    let measured: Vec<_> = settings.peers.iter().filter_map(|peer| Some((peer, outcome.samples.spread(figure, peer)?))).collect();
    let canvas_height = TOP + BAR * u32::try_from(measured.len())? + 16;
    let canvas = canvas(file, canvas_height)?;
    title(&canvas, &format!("{} ({})", row.label, row.unit))?;
    let most = measured.iter().map(|(_, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let mut top = TOP;
    for (peer, spread) in measured {
        label(&canvas, &peer.to_string(), top)?;
        bar(&canvas, top + 6, BAR - 12, spread.median / most, colour(peer, settings))?;
        let middle = i32::try_from(top + BAR / 2)?;
        let ends = [(x_of(spread.least / most)?, middle), (x_of(spread.most / most)?, middle)];
        canvas.draw(&PathElement::new(ends.to_vec(), INK.stroke_width(1)))?;
        let text = format!("{:.4}", spread.median);
        let text = text.get(..5).unwrap_or(&text).trim_end_matches('.').to_owned();
        let text = if spread.median >= 1000.0 { format!("{:.0}", spread.median) } else { text };
        canvas.draw(&Text::new(text, (x_of(spread.most / most)? + 6, middle - 6), font(13)))?;
        top += BAR;
    }
    canvas.present()?;
    Ok(())
}

/// A group of bars for each figure: the ratios to Envoy, whose own bar is the line at 1.
fn ratios(figures: &[Figure], outcome: &Outcome, settings: &Settings, file: &Path) -> Drawn {
    let others: Vec<&PeerName> = settings.peers.iter().filter(|peer| **peer != outcome.base).collect();
    let thickness = 13;
    let group = thickness * u32::try_from(others.len())? + 14;
    let legend = TOP + 8;
    let height = legend + group * u32::try_from(figures.len())? + 34;
    let canvas = canvas(file, height)?;
    title(&canvas, &format!("ratio to {} (less is better; | is the goal)", outcome.base))?;
    let mut x = i32::try_from(LABELS)?;
    for peer in &others {
        let top = i32::try_from(TOP)? - 12;
        canvas.draw(&Rectangle::new([(x, top), (x + 10, top + 10)], colour(peer, settings).filled()))?;
        canvas.draw(&Text::new(peer.to_string(), (x + 14, top - 1), font(12)))?;
        x += 34 + 7 * i32::try_from(peer.to_string().len())?;
    }
    let ratio = |figure: Figure, peer: &PeerName| outcome.samples.ratio(figure, peer, &outcome.base);
    let all = figures.iter().flat_map(|figure| others.iter().filter_map(|peer| ratio(*figure, peer)));
    let most = all.map(|spread| spread.median).fold(1.0, f64::max);
    let mut top = legend;
    for figure in figures {
        let row = figure.row();
        label(&canvas, &row.label, top)?;
        for (number, peer) in (0u32..).zip(&others) {
            let Some(spread) = ratio(*figure, peer) else { continue };
            let y = top + thickness * number;
            bar(&canvas, y, thickness - 2, spread.median / most, colour(peer, settings))?;
            let at = (x_of(spread.median / most)? + 4, i32::try_from(y)?);
            canvas.draw(&Text::new(format!("{:.2}", spread.median), at, font(11)))?;
        }
        if let Some(goal) = row.goal {
            vertical(&canvas, goal / most, top, group - 12, INK)?;
        }
        top += group;
    }
    vertical(&canvas, 1.0 / most, legend, top - legend, FAINT)?;
    canvas.draw(&Text::new("1", (x_of(1.0 / most)? - 3, i32::try_from(top)? + 4), font(12)))?;
    canvas.present()?;
    Ok(())
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn canvas(file: &Path, height: u32) -> Result<Canvas<'_>, Box<dyn std::error::Error>> {
    let canvas = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    canvas.fill(&WHITE)?;
    Ok(canvas)
}

fn title(canvas: &Canvas<'_>, text: &str) -> Drawn {
    canvas.draw(&Text::new(text.trim().to_owned(), (12, 10), font(16)))?;
    Ok(())
}

fn label(canvas: &Canvas<'_>, text: &str, top: u32) -> Drawn {
    canvas.draw(&Text::new(text.trim().to_owned(), (12, i32::try_from(top)? + 10), font(12)))?;
    Ok(())
}

fn bar(canvas: &Canvas<'_>, top: u32, height: u32, share: f64, colour: RGBColor) -> Drawn {
    let corners = [(i32::try_from(LABELS)?, i32::try_from(top)?), (x_of(share)?, i32::try_from(top + height)?)];
    canvas.draw(&Rectangle::new(corners, colour.filled()))?;
    Ok(())
}

fn vertical(canvas: &Canvas<'_>, share: f64, top: u32, height: u32, colour: RGBColor) -> Drawn {
    let x = x_of(share)?;
    let ends = vec![(x, i32::try_from(top)?), (x, i32::try_from(top + height)?)];
    canvas.draw(&PathElement::new(ends, colour.stroke_width(2)))?;
    Ok(())
}

/// Where a share of the longest bar ends; room is left for the number behind it.
fn x_of(share: f64) -> Result<i32, std::num::TryFromIntError> {
    let room = f64::from(WIDTH - LABELS - 70);
    Ok(i32::try_from(LABELS)? + (share.clamp(0.0, 1.0) * room) as i32)
}

fn font(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn colour(peer: &PeerName, settings: &Settings) -> RGBColor {
    match peer.product {
        Product::Envoy => RGBColor(172, 58, 128),
        Product::Nginx => RGBColor(70, 150, 84),
        Product::Haproxy => RGBColor(84, 122, 190),
        Product::Plain => RGBColor(150, 150, 150),
        Product::Postern => {
            let variants = settings.peers.iter().filter(|other| other.product == Product::Postern);
            let shades = [RGBColor(224, 122, 32), RGBColor(240, 178, 60), RGBColor(168, 76, 20), RGBColor(250, 210, 130)];
            let place = variants.take_while(|other| *other != peer).count();
            shades[place % shades.len()]
        }
    }
}
