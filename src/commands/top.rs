//! `meshctl top`: who calls whom how much.
//!
//! On a terminal it fills the screen until somebody presses q; elsewhere it prints one table.

mod board;
mod keys;
mod screen;

use std::io::IsTerminal;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use self::board::{Board, Next};
use self::keys::Keys;
use self::screen::Screen;
use super::done;
use super::seen::{PairRow, edges, pairs};
use crate::cli::Format;
use crate::cli::seen::TopArgs;
use crate::client::Client;
use crate::outcome::{Failure, Outcome};
use crate::output::Output;

/// How often it is asked for anew.
const EVERY: Duration = Duration::from_secs(2);

/// Shows the table until it is ended, or once.
pub async fn top(args: TopArgs) -> Outcome {
    let mut client = Client::find().await?;
    let format = args.output.output;
    let mut board = Board::new(args.sort, client.place());
    let is_watched = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if format != Format::Table || !is_watched {
        board.show(ask(&mut client, &args).await?);
        let rows: Vec<&PairRow> = board.rows().collect();
        Output::new(format).show(&rows, |output| board.table(output))?;
        return done();
    }
    board.show(ask(&mut client, &args).await?);
    watch(&mut client, &args, board).await
}

async fn ask(client: &mut Client, args: &TopArgs) -> Result<Vec<PairRow>, Failure> {
    Ok(pairs(&edges(client, &args.which, &[], args.since, "pair").await?.edges))
}

async fn watch(client: &mut Client, args: &TopArgs, mut board: Board) -> Outcome {
    let mut resized = signal(SignalKind::window_change()).map_err(failed("hear of the size of the terminal"))?;
    let mut ended = signal(SignalKind::terminate()).map_err(failed("hear of signals"))?;
    // From here on the terminal is ours, and given back whatever happens.
    let mut screen = Screen::open().map_err(failed("use the terminal"))?;
    let mut keys = Keys::open().map_err(failed("read keys"))?;
    let mut every = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        screen.draw(&board).map_err(failed("draw on the terminal"))?;
        tokio::select! {
            key = keys.next() => if key.is_none_or(|key| board.press(key) == Next::Quit) { return done() },
            _ = every.tick() => tokio::select! {
                // A control plane that does not answer keeps nobody from leaving.
                rows = ask(client, args) => match rows {
                    Ok(rows) => board.show(rows),
                    Err(failure) => board.fail(&failure),
                },
                key = keys.next() => if key.is_none_or(|key| board.press(key) == Next::Quit) { return done() },
            },
            _ = resized.recv() => {}
            _ = ended.recv() => return done(),
        }
    }
}

/// Why the terminal cannot be used.
fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::new(format!("cannot {what}: {error}"))
}
