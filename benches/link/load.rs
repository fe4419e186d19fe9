//! The callers: small requests at a fixed rate, and one bulk flow towards them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::settings::{Bulk, Work};

/// Each connection asks so often, whenever its answers come.
const EVERY: Duration = Duration::from_millis(50);
const REQUEST: usize = 64;

/// Does the work, and prints what it measured as a line of JSON.
pub async fn run(work: &Work) -> anyhow::Result<()> {
    let length = Duration::from_secs_f64(work.seconds);
    let moved = Arc::new(AtomicU64::new(0));
    let mut flows = JoinSet::new();
    if work.bulk == Bulk::Before {
        flows.spawn(bulk(work.address, moved.clone()));
        sleep(length / 4).await;
    }
    let mut connections = Vec::new();
    for _ in 0..work.connections {
        connections.push(open_and_ask(work.address).await?);
    }
    if work.bulk == Bulk::After {
        flows.spawn(bulk(work.address, moved.clone()));
    }
    sleep(length / 4).await;
    let (begun, before) = (Instant::now(), moved.load(Ordering::Relaxed));
    let end = begun + length * 3 / 4;
    let mut running = JoinSet::new();
    for (number, stream) in connections.into_iter().enumerate() {
        let first = begun + EVERY.mul_f64(number as f64 / work.connections as f64);
        running.spawn(ask_until(stream, first, end));
    }
    let mut latencies: Vec<Duration> = Vec::new();
    while let Some(answered) = running.join_next().await {
        latencies.extend(answered??);
    }
    sleep_until(end).await;
    let bytes = moved.load(Ordering::Relaxed) - before;
    latencies.sort();
    let at = |part: f64| {
        let place = ((latencies.len() as f64 * part) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(place).map(|latency| latency.as_secs_f64() * 1e3)
    };
    println!(
        "{}",
        json!({
            "bulk": bytes as f64 / begun.elapsed().as_secs_f64() / 1e6,
            "requests": latencies.len(),
            "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999),
        })
    );
    Ok(())
}

async fn open(address: SocketAddr, kind: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind]).await?;
    Ok(stream)
}

/// A link that loses packets makes a sidecar give up now and then, and the caller tries again.
async fn open_and_ask(address: SocketAddr) -> io::Result<TcpStream> {
    let mut tries = 0;
    loop {
        let opened = async {
            let mut stream = open(address, b'e').await?;
            ask(&mut stream).await?;
            Ok(stream)
        };
        match opened.await {
            Err(_) if tries < 5 => tries += 1,
            opened => return opened,
        }
    }
}

async fn ask(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0; REQUEST];
    stream.write_all(&[1; REQUEST]).await?;
    stream.read_exact(&mut answer).await?;
    Ok(())
}

/// Each request is sent when it is due and the one before it was answered, as callers over HTTP/1.1 do.
async fn ask_until(mut stream: TcpStream, first: Instant, end: Instant) -> io::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut due = first;
    while due < end {
        sleep_until(due).await;
        let begun = Instant::now();
        ask(&mut stream).await?;
        latencies.push(begun.elapsed());
        due = (due + EVERY).max(Instant::now());
    }
    Ok(latencies)
}

async fn bulk(address: SocketAddr, moved: Arc<AtomicU64>) -> io::Result<()> {
    let mut buffer = vec![0; 512 * 1024];
    loop {
        let mut stream = open(address, b'b').await?;
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            moved.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
}
