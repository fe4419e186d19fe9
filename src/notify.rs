//! What a service tells systemd (sd_notify(3)); silent elsewhere.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::data_dir::{Environment, process_environment};

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// What it does until it is ready; `systemctl status` shows it.
pub fn starting(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// It serves.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It goes down.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Feeds the watchdog at half its period, for as long as this runtime turns; never ends.
pub async fn watchdog() {
    let Some(period) = watchdog_period(&process_environment) else { return std::future::pending().await };
    let mut turn = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
    loop {
        turn.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// `WATCHDOG_USEC`, unless `WATCHDOG_PID` says that another process is meant (sd_watchdog_enabled(3): without it, we are).
fn watchdog_period(environment: Environment<'_>) -> Option<Duration> {
    let period: u64 = environment("WATCHDOG_USEC")?.parse().ok().filter(|period| *period > 0)?;
    let is_meant = environment("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    is_meant.then(|| Duration::from_micros(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_ours_unless_another_process_is_named() {
        let period = |usec: &str, pid: Option<String>| {
            watchdog_period(&|name| if name == "WATCHDOG_USEC" { Some(usec.into()) } else { pid.clone() })
        };
        assert_eq!(period("300000", None), Some(Duration::from_millis(300)));
        assert_eq!(period("300000", Some(std::process::id().to_string())), Some(Duration::from_millis(300)));
        assert_eq!(period("300000", Some("1".into())), None);
        assert_eq!(period("0", None), None);
        assert_eq!(period("soon", None), None);
        assert_eq!(watchdog_period(&|_| None), None);
    }
}
