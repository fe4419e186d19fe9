//! Limits of HTTP/1 heads, at a caller's sidecar and straight at the destination's port. Those of HTTP/2 are in
//! `http2_hostile`.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::{Pair, SvidFiles, connect, http_get};

/// The head of a request for `/fine` with so many headers, `Host` included, and so many bytes.
fn head(headers: usize, bytes: usize) -> Vec<u8> {
    let mut text = "GET /fine HTTP/1.1\r\nHost: api\r\n".to_owned();
    (2..headers).for_each(|number| text.push_str(&format!("x-{number}: y\r\n")));
    let rest = bytes.saturating_sub(text.len() + "x-fill: \r\n\r\n".len());
    text.push_str(&format!("x-fill: {}\r\n\r\n", "f".repeat(rest)));
    text.into_bytes()
}

/// The status of the answer; 0 where there is none.
fn status(stream: &mut (impl Read + Write), bytes: &[u8]) -> u16 {
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut answer = [0; 12];
    let mut held = 0;
    while held < answer.len() {
        match stream.read(&mut answer[held..]) {
            Ok(read @ 1..) => held += read,
            _ => return 0,
        }
    }
    String::from_utf8_lossy(&answer[9..]).parse().unwrap()
}

#[test]
fn a_head_has_128_headers_and_64_kib_and_no_more() {
    let pair = Pair::allowed("http");
    let files = SvidFiles::of(&pair.mesh, "web");
    let inbound = pair.api.inbound.clone().unwrap();
    // The destination has room for what a caller's sidecar adds: 8 headers, 1 KiB.
    let cases = [
        (128, 0, true, true),
        (129, 0, false, true),
        (137, 0, false, false),
        (1_000, 0, false, false),
        (3, 64 << 10, true, true),
        (3, (64 << 10) + 1, false, true),
        (3, (65 << 10) + 1, false, false),
        (3, 1 << 20, false, false),
    ];
    for (headers, bytes, is_good_at_caller, is_good_at_destination) in cases {
        let head = head(headers, bytes);
        for at in ["a caller's sidecar", "the destination"] {
            let before = pair.service.count("/fine");
            let (status, is_good) = match at {
                "the destination" => (status(&mut files.dial(&inbound), &head), is_good_at_destination),
                _ => (status(&mut connect(pair.upstream()), &head), is_good_at_caller),
            };
            let what = format!("{headers} headers, {} bytes at {at}: {status}", head.len());
            if is_good {
                assert_eq!((status, pair.service.count("/fine")), (200, before + 1), "{what}");
            } else {
                // It may be closed while much of it is still to be sent.
                assert!([0, 400, 431].contains(&status), "{what}");
                assert_eq!(pair.service.count("/fine"), before, "{what}");
            }
        }
    }
    assert_eq!(http_get(pair.upstream(), "/fine").0, 200);
}

#[test]
fn a_head_has_five_seconds_to_arrive() {
    let pair = Pair::allowed("http");
    let files = SvidFiles::of(&pair.mesh, "web");
    let inbound = pair.api.inbound.clone().unwrap();
    std::thread::scope(|scope| {
        for at in ["a caller's sidecar", "the destination", "a byte a second", "the preface of HTTP/2"] {
            let (upstream, inbound, files) = (pair.upstream(), &inbound, &files);
            scope.spawn(move || {
                let begun = Instant::now();
                let status = match at {
                    "the destination" => status(&mut files.dial(inbound), b"GET /slow HTTP/1.1\r\nHost: api\r\n"),
                    "the preface of HTTP/2" => status(&mut connect(upstream), b"PRI * HTTP/2.0\r\n\r\nSM"),
                    "a byte a second" => trickle(upstream),
                    _ => status(&mut connect(upstream), b"GET /slow HTTP/1.1\r\nHost: api\r\n"),
                };
                let took = begun.elapsed();
                println!("{at}: {status} after {took:?}");
                assert!([0, 400, 408].contains(&status), "{at}: {status}");
                assert!(took > Duration::from_secs(4) && took < Duration::from_secs(25), "{at}: {took:?}");
            });
        }
    });
    assert_eq!(pair.service.count("/slow"), 0);
}

/// Sends a byte a second for as long as it is let; the status that it hears.
fn trickle(upstream: &str) -> u16 {
    let mut stream = connect(upstream);
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut heard, mut buffer) = (Vec::new(), [0; 1024]);
    for byte in b"GET /slow HTTP/1.1\r\nHost: a-name-that-is-rather-long\r\n" {
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => heard.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    heard.get(9..12).map_or(0, |status| String::from_utf8_lossy(status).parse().unwrap_or(0))
}

#[test]
fn who_is_slow_holds_up_nobody_else() {
    let pair = Pair::allowed("http");
    let mut slow: Vec<_> = (0..300).map(|_| connect(pair.upstream())).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(b"GET /slow HTTP/1.1\r\nHost").unwrap());
    for _ in 0..20 {
        assert_eq!(http_get(pair.upstream(), "/fine").0, 200);
    }
    assert_eq!(pair.service.count("/slow"), 0);
}
