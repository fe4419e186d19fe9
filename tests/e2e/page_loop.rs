//! The page at `/ui/` with a mesh at work: what was seen, why, and what is done about it.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use crate::page::on_page;
use crate::support::{Pair, http_get};

/// `web` calls `api` without end as long as `then` runs, which is given the last status that it got.
fn with_traffic<T>(pair: &Pair, then: impl FnOnce(&AtomicU16) -> T) -> T {
    let (is_over, last) = (AtomicBool::new(false), AtomicU16::new(0));
    let upstream = pair.upstream();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                last.store(http_get(upstream, "/v1/invoices/7").0, Ordering::SeqCst);
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        // Whatever comes of it, the traffic ends.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| then(&last)));
        is_over.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn the_graph_is_used_by_keyboard_alone() {
    let pair = Pair::allowed("http");
    with_traffic(&pair, |_| on_page(&pair.mesh, "keyboard", &[]));
}
