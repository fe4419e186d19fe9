//! `Expect: 100-continue` (RFC 9110 §10.1.1): a body is asked of the caller only when the service has asked for it.
//!
//! hyper's server sends 100 when the body is first read, so not reading it is all that is needed: each sidecar reads on when
//! the one behind it, and in the end the service, has said 100.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::{Request, StatusCode, header};
use tokio::time::Sleep;

use super::body::Body;
use super::pool::Version;

/// A service that says nothing gets the body all the same after so long, as callers do it.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request whose body waits until the service asks for it, where it says so. HTTP/2 knows no such thing here.
pub(crate) fn expecting(mut request: Request<Body>, version: Version) -> Request<Body> {
    if !request.headers().contains_key(header::EXPECT) {
        return request;
    }
    if version == Version::Http2 {
        request.headers_mut().remove(header::EXPECT);
        return request;
    }
    let gate = Gate::of(&mut request);
    request.map(|body| body.behind(gate))
}

/// Holds a body back.
pub(crate) struct Gate {
    asked: Arc<Asked>,
    patience: Pin<Box<Sleep>>,
}

#[derive(Default)]
struct Asked {
    is_open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    /// Of a request that waits to be asked for its body; `None` of any other.
    pub(crate) fn of<B>(request: &mut Request<B>) -> Option<Self> {
        let expects = request.headers().get(header::EXPECT)?;
        if !expects.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return None;
        }
        let asked = Arc::new(Asked::default());
        let told = asked.clone();
        hyper::ext::on_informational(request, move |answer| {
            if answer.status() == StatusCode::CONTINUE {
                told.is_open.store(true, Ordering::Release);
                told.waker.wake();
            }
        });
        Some(Self { asked, patience: Box::pin(tokio::time::sleep(PATIENCE)) })
    }

    /// Ready when the body may be read.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.asked.waker.register(cx.waker());
        if self.asked.is_open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(cx)
    }
}
