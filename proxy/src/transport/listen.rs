//! Accepting connections, one task for each, without ever spinning on an error.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::limits::Backoff;

/// Something that hands out connections.
pub(crate) trait Listen {
    /// What it hands out.
    type Connection;

    /// Waits for the next one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Listen for TcpListener {
    type Connection = (TcpStream, SocketAddr);

    async fn accept(&self) -> io::Result<Self::Connection> {
        TcpListener::accept(self).await
    }
}

impl Listen for UnixListener {
    type Connection = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

/// Runs `serve` for each connection until `stopping`; then closes the listener and waits for those that are open.
pub(crate) async fn serve_each<L, F>(listener: L, stopping: CancellationToken, serve: impl Fn(L::Connection) -> F)
where
    L: Listen,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut backoff = Backoff::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            Some(ended) = connections.join_next() => {
                tell_panic(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                backoff.reset();
                connections.spawn(serve(connection));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                let pause = backoff.pause();
                tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "cannot accept a connection; trying again");
                tokio::select! {
                    () = stopping.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        tell_panic(ended);
    }
}

/// A connection that went away before it was accepted says nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended by a fault of this program");
    }
}
