//! What a service tells systemd (sd_notify(3)); silent elsewhere.

use std::time::Duration;

use sd_notify::NotifyState;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// It serves.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It goes down.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog at half its period, for as long as this runtime turns; never ends.
pub async fn watchdog() {
    let mut microseconds = 0;
    if !sd_notify::watchdog_enabled(false, &mut microseconds) {
        return std::future::pending().await;
    }
    let mut turn = tokio::time::interval(Duration::from_micros(microseconds / 2).max(Duration::from_millis(1)));
    loop {
        turn.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}
