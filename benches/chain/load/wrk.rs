//! Requests by wrk: each of its connections asks again as soon as it has its answer.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::{Cost, requests};
use crate::pair::Pair;
use crate::permission::ITEMS;

/// The pair is warmed first, so that no handshake of its pools is counted. wrk's own connections are.
pub async fn wrk(pair: &Pair, connections: usize, length: Duration) -> anyhow::Result<Cost> {
    requests(pair, connections, length / 10).await?;
    let entry = pair.entries.first().context("a pair has an entry")?;
    let cpu = pair.cpu()?;
    let child = Command::new("wrk")
        // It ends by a signal: its own durations are whole seconds.
        .args(["--threads", "1", "--duration", "1h", "--timeout", "30s", "--connections", &connections.to_string()])
        .arg(format!("http://{entry}{ITEMS}"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start wrk")?;
    tokio::time::sleep(length).await;
    let id = child.id().context("wrk has ended by itself")?;
    kill(Pid::from_raw(id.cast_signed()), Signal::SIGINT)?;
    let output = child.wait_with_output().await?;
    let cpu = pair.cpu()?.saturating_sub(cpu);
    let text = String::from_utf8_lossy(&output.stdout);
    let (units, rate) = counted(&text).with_context(|| format!("wrk says something else than expected:\n{text}"))?;
    Ok(Cost { units, cpu, wall: Duration::from_secs_f64(units / rate) })
}

/// Requests, and requests a second.
///
/// # Errors
/// If some of them failed.
fn counted(text: &str) -> anyhow::Result<(f64, f64)> {
    let failed = text.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    ensure!(failed.is_none(), "{}", failed.unwrap_or_default().trim());
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")).context("no count")?.0;
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).context("no rate")?;
    let (requests, rate): (f64, f64) = (requests.parse()?, rate.trim().parse()?);
    ensure!(requests > 0.0 && rate > 0.0, "no request was answered");
    Ok((requests, rate))
}
