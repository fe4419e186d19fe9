//! What it costs to judge the framing of HTTP/1.1 requests before the server parses them.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use postern_proxy::http::framing::{Framing, Limits};

/// As a browser sends it.
const GET: &[u8] = b"GET /v1/items?page=2 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef\r\n\r\n";

/// A body of four chunks of 4 KiB.
fn chunked() -> Vec<u8> {
    let mut request = b"POST /v1/items HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..4 {
        request.extend(b"1000\r\n");
        request.resize(request.len() + 4_096, b'x');
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    request
}

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    for (name, request) in [("head", GET.to_vec()), ("chunked body", chunked())] {
        let mut framing = Framing::new(Limits::default());
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| framing.feed(black_box(&request)).expect("a good request")));
    }
    group.finish();
}
