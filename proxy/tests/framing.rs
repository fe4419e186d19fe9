//! The reader of framing against its corpus, against a naive reader, and in front of the real server.

#[path = "smuggling/naive.rs"]
mod naive;
#[path = "smuggling/server.rs"]
mod server;
#[path = "smuggling/mod.rs"]
mod smuggling;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use naive::requests;
use postern_proxy::http::framing::{Framing, FramingError, Guarded, Limits, Upgrade};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use server::serve;
use smuggling::{CASES, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const UPGRADE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// What has passed when the bytes came in these pieces, and why nothing more may.
fn feed<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> (Vec<u8>, Option<FramingError>) {
    let mut framing = Framing::new(Limits::default());
    let (mut passed, mut held) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match framing.feed(&held) {
                Ok(0) => break,
                Ok(good) => passed.extend(held.drain(..good)),
                Err(error) => return (passed, Some(error)),
            }
        }
    }
    (passed, None)
}

fn feed_whole(bytes: &[u8]) -> (Vec<u8>, Option<FramingError>) {
    feed([bytes])
}

fn refusal(bytes: &[u8]) -> Option<&'static str> {
    feed_whole(bytes).1.map(|error| error.word())
}

/// The bytes in pieces that end at these places.
fn pieces<'b>(bytes: &'b [u8], ends: &[Index]) -> Vec<&'b [u8]> {
    let mut ends: Vec<usize> = ends.iter().map(|index| index.index(bytes.len() + 1)).collect();
    ends.extend([0, bytes.len()]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

#[test]
fn every_case_of_the_corpus_has_its_verdict() {
    for (name, bytes, verdict) in CASES {
        let (passed, error) = feed_whole(bytes);
        let whole = requests(&passed).0.len();
        let got = match error {
            Some(error) => Verdict::Refused(error.word(), whole),
            None if passed.len() == bytes.len() && matches!(verdict, Verdict::Passes(_)) => Verdict::Passes(whole),
            None => Verdict::Waits(whole),
        };
        assert_eq!(got, *verdict, "{name}");
    }
    assert!(CASES.len() >= 60);
}

#[test]
fn a_head_that_is_refused_passes_in_no_part() {
    for (name, bytes, verdict) in CASES {
        if !matches!(verdict, Verdict::Refused(..)) {
            continue;
        }
        let (passed, _) = feed_whole(bytes);
        let (_, rest) = requests(&passed);
        let is_head_whole = rest.windows(4).any(|window| window == b"\r\n\r\n");
        assert!(rest.is_empty() || is_head_whole, "{name}: {:?} passed", String::from_utf8_lossy(rest));
    }
}

#[test]
fn byte_by_byte_nothing_is_judged_otherwise() {
    for (name, bytes, _) in CASES {
        assert_eq!(feed(bytes.chunks(1)), feed_whole(bytes), "{name}");
    }
}

#[test]
fn a_head_may_have_64_kib_and_no_more() {
    let head = |length: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(length - frame)).into_bytes()
    };
    assert_eq!(feed_whole(&head(65_536)), (head(65_536), None));
    assert_eq!(refusal(&head(65_537)), Some("head_too_large"));
    assert_eq!(refusal(&vec![b'x'; 65_535]), None, "still waits");
    assert_eq!(refusal(&vec![b'x'; 65_536]), Some("head_too_large"));
}

#[test]
fn a_head_may_have_128_fields_and_no_more() {
    let head = |fields: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(fields - 1)).into_bytes();
    assert_eq!(feed_whole(&head(128)).1, None);
    assert_eq!(refusal(&head(129)), Some("too_many_fields"));
    assert_eq!(refusal(&head(1_000)), Some("too_many_fields"));
}

#[test]
fn trailers_have_the_limits_of_a_head() {
    let trailers =
        |text: String| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{text}\r\n").into_bytes();
    assert_eq!(refusal(&trailers("X: y\r\n".repeat(128))), None);
    assert_eq!(refusal(&trailers("X: y\r\n".repeat(129))), Some("too_many_fields"));
    assert_eq!(refusal(&trailers(format!("X: {}\r\n", "y".repeat(8 * 1024 - 7)))), None);
    assert_eq!(refusal(&trailers(format!("X: {}\r\n", "y".repeat(8 * 1024 - 6)))), Some("trailers_too_large"));
}

#[test]
fn extensions_are_bounded_a_chunk_and_a_body() {
    let body = |text: String| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{text}").into_bytes();
    let chunk = |extension: usize| format!("1;{}\r\nx\r\n", "e".repeat(extension - 1));
    assert_eq!(refusal(&body(chunk(1_024))), None);
    assert_eq!(refusal(&body(chunk(1_025))), Some("chunk_extension"));
    assert_eq!(refusal(&body(format!("1;{}", "e".repeat(2_000)))), Some("chunk_extension"), "without an end too");
    assert_eq!(refusal(&body(chunk(1_024).repeat(8))), None);
    assert_eq!(refusal(&body(chunk(1_024).repeat(9))), Some("chunk_extension"));
}

#[test]
fn after_a_refusal_everything_is_refused() {
    let mut framing = Framing::new(Limits::default());
    assert_eq!(framing.feed(b"GET / HTTP/0.9\r\n"), Err(FramingError::Version));
    assert_eq!(framing.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Err(FramingError::Version));
    assert_eq!(framing.refusal(), Some(FramingError::Version));
}

#[test]
fn a_101_makes_the_reader_transparent() {
    let mut framing = Framing::new(Limits::default());
    assert_eq!(framing.feed(UPGRADE), Ok(UPGRADE.len()));
    assert_eq!(framing.become_transparent(), Ok(()));
    assert_eq!(framing.feed(b"\x81\x00\r\n\n"), Ok(5));
}

#[test]
fn a_101_that_nobody_asked_for_makes_nothing_transparent() {
    let asks_for_none: [&[u8]; 5] = [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ];
    for bytes in asks_for_none {
        let mut framing = Framing::new(Limits::default());
        assert_eq!(framing.feed(bytes), Ok(bytes.len()));
        assert_eq!(framing.become_transparent(), Err(FramingError::PrematureUpgrade));
    }
}

#[test]
fn a_101_before_the_request_is_whole_makes_nothing_transparent() {
    let mut framing = Framing::new(Limits::default());
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(framing.feed(head), Ok(head.len()));
    assert_eq!(framing.become_transparent(), Err(FramingError::PrematureUpgrade));
    assert_eq!(framing.feed(b"ab"), Ok(2));
    assert_eq!(framing.become_transparent(), Ok(()));
}

#[test]
fn who_goes_on_before_the_101_gets_none() {
    let mut framing = Framing::new(Limits::default());
    let mut bytes = UPGRADE.to_vec();
    bytes.extend(b"GET /ad");
    assert_eq!(framing.feed(&bytes), Ok(UPGRADE.len()));
    assert_eq!(framing.upgrade(), Upgrade::Premature);
    assert_eq!(framing.become_transparent(), Err(FramingError::PrematureUpgrade));
}

#[test]
fn the_answer_is_whole_http_and_says_why() {
    let answer = FramingError::TwoLengths.answer();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert!(head.contains(&format!("content-length: {}", body.len())) && head.contains("connection: close"));
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["error"], "bad_request");
    assert_eq!(body["because"], FramingError::TwoLengths.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_refused_after_its_time() {
    let (mut client, socket) = tokio::io::duplex(1024);
    let (mut guarded, guard) = Guarded::new(socket, Limits::default());
    let trickle = async {
        loop {
            client.write_all(b"x").await.unwrap();
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
    };
    let started = tokio::time::Instant::now();
    let mut buffer = [0; 64];
    let error = tokio::select! {
        read = guarded.read(&mut buffer) => read.unwrap_err(),
        () = trickle => unreachable!(),
    };
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(guard.refusal(), Some(FramingError::HeadTooSlow));
    assert_eq!(started.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn every_head_has_its_own_time() {
    let (mut client, socket) = tokio::io::duplex(1024);
    let (mut guarded, guard) = Guarded::new(socket, Limits::default());
    let trickle = async {
        for _ in 0..3 {
            client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            client.write_all(b"Host: a\r\n\r\n").await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        for _ in 0..3 {
            assert_eq!(guarded.read(&mut [0; 64]).await.unwrap(), 27);
        }
    };
    tokio::select! {
        () = read => {}
        () = trickle => unreachable!(),
    }
    assert_eq!(guard.refusal(), None);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_is_not_slow() {
    let (mut client, socket) = tokio::io::duplex(1024);
    let (mut guarded, guard) = Guarded::new(socket, Limits::default());
    let mut buffer = [0; 64];
    // The CRLF that an old client sends after a body is no beginning of a head.
    client.write_all(b"\r\n").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(600), guarded.read(&mut buffer)).await.is_err());
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(guarded.read(&mut buffer).await.unwrap(), 29);
    assert_eq!(guard.refusal(), None);
}

#[tokio::test]
async fn a_guarded_socket_becomes_transparent_from_afar() {
    let (mut client, socket) = tokio::io::duplex(1024);
    let (mut guarded, guard) = Guarded::new(socket, Limits::default());
    let mut buffer = [0; 256];
    assert_eq!(guard.become_transparent(), Err(FramingError::PrematureUpgrade));
    client.write_all(UPGRADE).await.unwrap();
    assert_eq!(guarded.read(&mut buffer).await.unwrap(), UPGRADE.len());
    assert_eq!(guard.become_transparent(), Ok(()));
    client.write_all(b"\x81\x00\n").await.unwrap();
    assert_eq!(guarded.read(&mut buffer).await.unwrap(), 3);
}

#[tokio::test]
async fn a_small_buffer_is_given_a_head_in_parts() {
    let (mut client, socket) = tokio::io::duplex(1024);
    let (mut guarded, _guard) = Guarded::new(socket, Limits::default());
    client.write_all(UPGRADE).await.unwrap();
    let (mut read, mut buffer) = (Vec::new(), [0; 7]);
    while read.len() < UPGRADE.len() {
        let length = guarded.read(&mut buffer).await.unwrap();
        read.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(read, UPGRADE);
}

#[tokio::test]
async fn a_guard_may_be_followed_by_another_between_requests_alone() {
    let (mut client, socket) = tokio::io::duplex(1024);
    let (mut guarded, guard) = Guarded::new(socket, Limits::default());
    let mut buffer = [0; 256];
    assert!(guarded.is_between_requests() && guard.is_between_requests());
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").await.unwrap();
    assert_eq!(guarded.read(&mut buffer).await.unwrap(), 48);
    assert!(!guarded.is_between_requests() && !guard.is_between_requests());
    client.write_all(b"bGET / HT").await.unwrap();
    assert_eq!(guarded.read(&mut buffer).await.unwrap(), 1);
    assert!(guarded.is_between_requests() && guard.is_between_requests());
    client.write_all(b"TP/9\r\n").await.unwrap();
    guarded.read(&mut buffer).await.unwrap_err();
    assert!(!guarded.is_between_requests() && !guard.is_between_requests());
}

/// What a read gives within a moment of paused time, while one request is being answered.
async fn read_while_answering(bytes: &[u8], reads: usize) -> Option<std::io::Result<usize>> {
    let (mut client, socket) = tokio::io::duplex(1024);
    let (guarded, _guard) = Guarded::new(socket, Limits::default());
    let mut guarded = guarded.patient_while(Arc::new(AtomicUsize::new(1)));
    client.write_all(bytes).await.unwrap();
    let mut buffer = [0; 256];
    for _ in 1..reads {
        assert!(guarded.read(&mut buffer).await.unwrap() > 0);
    }
    tokio::time::timeout(Duration::from_secs(60), guarded.read(&mut buffer)).await.ok()
}

#[tokio::test(start_paused = true)]
async fn a_refused_head_waits_for_the_answers_before_it_and_a_refused_body_does_not() {
    let head = read_while_answering(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/9\r\n", 2).await;
    assert!(head.is_none(), "{head:?}");
    let body = read_while_answering(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 2).await;
    assert!(matches!(body, Some(Err(_))), "{body:?}");
}

#[tokio::test]
async fn the_error_of_a_read_carries_the_reason() {
    let (mut client, socket) = tokio::io::duplex(1024);
    let (mut guarded, guard) = Guarded::new(socket, Limits::default());
    client.write_all(b"GET / HTTP/1.1\nHost: a\n\n").await.unwrap();
    let error = guarded.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(error.get_ref().and_then(|inner| inner.downcast_ref()), Some(&FramingError::BareLineFeed));
    assert_eq!(guard.refusal(), Some(FramingError::BareLineFeed));
    assert!(guarded.read(&mut [0; 64]).await.is_err(), "and it stays refused");
}

#[tokio::test]
async fn the_server_sees_the_corpus_as_the_naive_reader_does() {
    for (name, bytes, verdict) in CASES {
        let seen = serve(&[bytes]).await;
        let (passed, error) = feed_whole(bytes);
        assert_eq!(seen.whole, requests(&passed).0, "{name}");
        assert_eq!(seen.refusal, error, "{name}");
        if let Verdict::Refused(_, before) = verdict {
            assert!(seen.answers.starts_with("HTTP/1.1 200 OK\r\n".repeat((*before).min(1)).as_str()), "{name}");
            let told = error.map(|error| error.answer()).unwrap_or_default();
            assert!(seen.answers.ends_with(&told), "{name}: {}", seen.answers);
        }
    }
}

/// A request of a client that means well.
fn good_request() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec!["GET", "POST", "DELETE", "PROPFIND"]);
    let target = select(vec!["/", "/a/b?c=d", "/%2e%2e/x", "http://a/x", "/\u{e9}"]);
    let fields = vec(select(vec!["X-A: b", "Accept: */*", "Cookie: a=b; c=d", "x:", "Connection: keep-alive"]), 0..6);
    let body = prop_oneof![
        Just(String::from("\r\n")),
        "[a-zA-Z \r\n]{0,60}".prop_map(|body| format!("Content-Length: {}\r\n\r\n{body}", body.len())),
        (vec("[a-f0-9\r\n;]{1,40}", 0..4), select(vec!["", ";e=1", ";a;b=\"c d\""]), select(vec!["", "X-T: 1\r\n"])).prop_map(
            |(chunks, extension, trailer)| {
                let chunk = |data: &String| format!("{:X}{extension}\r\n{data}\r\n", data.len());
                let chunks: String = chunks.iter().map(chunk).collect();
                format!("Transfer-Encoding: chunked\r\n\r\n{chunks}0{extension}\r\n{trailer}\r\n")
            }
        ),
    ];
    (method, target, fields, body).prop_map(|(method, target, fields, body)| {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}{body}").into_bytes()
    })
}

/// A small change that a mischievous client makes.
fn change() -> impl Strategy<Value = (Index, usize, Vec<u8>)> {
    let insert = select(
        [
            "",
            "\r",
            "\n",
            "\r\n",
            " ",
            "\t",
            "\0",
            "\x0b",
            ":",
            ";",
            ",",
            "0",
            "1",
            "f",
            "+",
            "-",
            "x",
            "\u{e9}",
            "Content-Length: 3\r\n",
            "Content-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Host: b\r\n",
            "\r\n\r\n",
            "0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.0",
            " HTTP/1.1\r\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec(),
    );
    (any::<Index>(), 0..3_usize, insert)
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    (vec(good_request(), 1..4), vec(change(), 0..3)).prop_map(|(requests, changes)| {
        let mut bytes = requests.concat();
        for (at, remove, insert) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + remove).min(bytes.len());
            bytes.splice(at..end, insert);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_split_changes_neither_the_verdict_nor_what_passes(bytes in stream(), ends in vec(any::<Index>(), 0..8)) {
        prop_assert_eq!(feed(pieces(&bytes, &ends)), feed_whole(&bytes));
    }

    #[test]
    fn what_passes_is_the_beginning_of_what_came(bytes in vec(any::<u8>(), 0..200)) {
        let (passed, _) = feed_whole(&bytes);
        prop_assert!(bytes.starts_with(&passed));
    }

    #[test]
    fn requests_of_those_who_mean_well_pass_whole(requests in vec(good_request(), 1..5)) {
        let bytes = requests.concat();
        prop_assert_eq!(feed_whole(&bytes), (bytes, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_server_sees_what_passes_as_the_naive_reader_does(bytes in stream(), ends in vec(any::<Index>(), 0..5)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let seen = runtime.block_on(serve(&pieces(&bytes, &ends)));
        let (passed, error) = feed_whole(&bytes);
        let expected = requests(&passed).0;
        let has_old_version = passed.windows(8).any(|window| window == b"HTTP/1.0");
        if seen.closed_by_server || has_old_version {
            // It refused a target or closed after an HTTP/1.0 request; then it saw less, never something else.
            prop_assert_eq!(&seen.whole[..], &expected[..seen.whole.len()]);
        } else {
            prop_assert_eq!(seen.whole, expected);
            prop_assert_eq!(seen.refusal, error);
        }
    }
}
