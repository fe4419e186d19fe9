//! Unary gRPC calls by h2load: as many as `streams` at once, over one connection.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::Cost;
use crate::grpc;
use crate::pair::Pair;
use crate::permission::UNARY;
use crate::service::grpc::message;

/// Ends after `length`, in whole seconds; calls that are then not answered are not counted.
pub async fn calls(pair: &Pair, streams: usize, length: Duration) -> anyhow::Result<Cost> {
    let entry = pair.entries.first().context("a pair has an entry")?;
    let status = grpc::call(TcpStream::connect(entry).await?, UNARY).await?;
    ensure!(status == 0, "grpc-status {status}");
    let mut body = tempfile::NamedTempFile::new()?;
    body.write_all(&message())?;
    let cpu = pair.cpu()?;
    let output = Command::new("h2load")
        .args(["--threads=1", "--clients=1", &format!("--max-concurrent-streams={streams}")])
        .args([
            &format!("--duration={:.0}", length.as_secs_f64().ceil()),
            "--header=content-type: application/grpc",
            "--header=te: trailers",
        ])
        .arg("--data")
        .arg(body.path())
        .arg(format!("http://{entry}{UNARY}"))
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot start h2load")?;
    let cpu = pair.cpu()?.saturating_sub(cpu);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let (units, rate) = counted(&text).with_context(|| format!("h2load says something else than expected:\n{text}"))?;
    Ok(Cost { units, cpu, wall: Duration::from_secs_f64(units / rate) })
}

/// Calls that were answered with a message, and those a second.
///
/// # Errors
/// If some of them failed. A refusal of gRPC has the status 200 too, but no message: the bytes tell.
fn counted(text: &str) -> anyhow::Result<(f64, f64)> {
    let number = |line: &str, before: &str| -> anyhow::Result<f64> {
        let line = text.lines().find(|candidate| candidate.starts_with(line)).with_context(|| format!("no «{line}»"))?;
        let end = line.find(before).with_context(|| format!("no «{before}» in {line}"))?;
        let digits = line[..end].trim_end_matches(['(', ')', ' ']).rsplit([' ', '(']).next().unwrap_or_default();
        digits.parse().with_context(|| format!("no number before «{before}» in {line}"))
    };
    let (succeeded, failed) = (number("requests:", " succeeded")?, number("requests:", " failed")?);
    ensure!(succeeded > 0.0 && failed == 0.0, "{failed} calls failed, {succeeded} did not");
    ensure!(number("status codes:", " 2xx")? >= succeeded, "not every status is 2xx");
    let data = number("traffic:", " data")?;
    ensure!(data >= succeeded * message().len() as f64, "answers without a message: {data} bytes in {succeeded}");
    Ok((succeeded, number("finished in", " req/s")?))
}
