//! What a client sends as HTTP/1.1.

use postern_proxy::http::framing::{Framing, FramingError, Limits};

/// The first byte says in what pieces the others come.
pub fn http1_framing(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let whole = passed(bytes.chunks(usize::MAX));
    let split = passed(bytes.chunks(usize::from(*size).max(1)));
    assert_eq!(whole, split, "what passes does not depend on how it came");
    assert!(whole.0 <= bytes.len());
    if let Some(error) = whole.1 {
        let answer = error.answer();
        assert!(answer.starts_with("HTTP/1.1 4") && !error.word().is_empty());
    }
    assert_no_two_readings(&bytes[..whole.0]);
}

/// How many bytes pass, and why no more may.
fn passed<'b>(pieces: impl Iterator<Item = &'b [u8]>) -> (usize, Option<FramingError>) {
    let limits = Limits::default();
    let mut framing = Framing::new(limits);
    let (mut passed, mut held) = (0, Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match framing.feed(&held) {
                Ok(0) => break,
                Ok(good) => {
                    passed += good;
                    held.drain(..good);
                }
                Err(error) => {
                    assert_eq!(framing.refusal(), Some(error));
                    return (passed, Some(error));
                }
            }
        }
        assert!(held.len() <= limits.head, "no more than a head is held back");
    }
    (passed, None)
}

/// The first head that has passed has no line that ends with LF alone, and one length at most.
fn assert_no_two_readings(passed: &[u8]) {
    let Some(end) = passed.windows(4).position(|window| window == b"\r\n\r\n") else { return };
    let head = String::from_utf8_lossy(&passed[..end]).to_ascii_lowercase();
    let lines: Vec<&str> = head.split('\n').collect();
    assert!(lines.iter().rev().skip(1).all(|line| line.ends_with('\r')), "a bare LF");
    let names = lines.iter().filter_map(|line| line.split_once(':')).map(|(name, _)| name.replace('_', "-"));
    let lengths = names.filter(|name| name == "content-length" || name == "transfer-encoding");
    assert!(lengths.count() <= 1, "two lengths");
}
