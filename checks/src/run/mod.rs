//! The checks that are asked every so often.

mod grpc;
mod h2ping;
mod http;
mod script;
mod tcp;
mod tls;
mod udp;

use std::time::Duration;

use rand::Rng;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{Probe, Schedule, Status, shortened};

/// How often a check that was never good is asked, at most: what is just starting is waited for.
const UNTIL_GOOD: Duration = Duration::from_secs(1);

/// What one asking gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Good or not.
    pub status: Status,
    /// What it said, at most [`crate::OUTPUT_LIMIT`] bytes.
    pub output: String,
}

impl Answer {
    fn passing(output: impl AsRef<[u8]>) -> Self {
        Self { status: Status::Passing, output: shortened(output.as_ref()) }
    }

    fn critical(output: impl AsRef<[u8]>) -> Self {
        Self { status: Status::Critical, output: shortened(output.as_ref()) }
    }
}

/// Asks for ever, and hands each answer to `told`. The first comes within `spread`, at random; until one was good it is
/// asked every second, or as often as the schedule says if that is more often. Each asking takes one of `places`.
pub async fn poll(probe: &Probe, schedule: Schedule, spread: Duration, places: &Semaphore, mut told: impl FnMut(Answer)) {
    let fraction = rand::rng().random_range(0.0..=1.0);
    sleep(spread.mul_f64(fraction)).await;
    let mut was_good = false;
    loop {
        let next = Instant::now() + if was_good { schedule.interval } else { schedule.interval.min(UNTIL_GOOD) };
        // Nobody closes them.
        let Ok(place) = places.acquire().await else { return };
        let answer = ask(probe, schedule.timeout).await;
        drop(place);
        was_good |= answer.status != Status::Critical;
        told(answer);
        sleep_until(next).await;
    }
}

/// Asks once.
pub async fn ask(probe: &Probe, within: Duration) -> Answer {
    let asked = async {
        match probe {
            Probe::Http(http) => http::ask(http).await,
            Probe::Tcp(tcp) => tcp::ask(tcp).await,
            Probe::Udp(address) => udp::ask(address, within).await,
            Probe::Grpc(grpc) => grpc::ask(grpc).await,
            Probe::H2Ping(ping) => h2ping::ask(ping).await,
            Probe::Script(args) => script::ask(args).await,
        }
    };
    // A UDP probe ends by itself when its time is up, which is good news there.
    let limit = if matches!(probe, Probe::Udp(_)) { within + Duration::from_secs(1) } else { within };
    match timeout(limit, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::critical(error),
        Err(_) => Answer::critical(format!("no answer within {}", crate::duration::text(within))),
    }
}

#[cfg(test)]
mod tests;
