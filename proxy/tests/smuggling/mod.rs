//! Requests that two readers could delimit differently, and some that look like it and are fine.
//!
//! `proxy/tests/framing.rs` gives them to the reader of framing, the end-to-end tests to a whole sidecar (`#[path]`).

/// What becomes of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This many requests pass, whole.
    Passes(usize),
    /// Refused with this word; this many requests before it pass, whole.
    Refused(&'static str, usize),
    /// Neither: it waits for more, and this many requests before it pass, whole.
    Waits(usize),
}

use Verdict::{Passes, Refused, Waits};

/// A case: what it tries, the bytes that a client sends, and what becomes of them.
pub type Case = (&'static str, &'static [u8], Verdict);

/// Every case. Those that are refused must reach no service, not even in part, beyond the requests before them; of a body
/// that is refused in its middle no service sees the end.
pub const CASES: &[Case] = &[
    // Two lengths.
    (
        "a length, then chunks",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        Refused("two_lengths", 0),
    ),
    (
        "chunks, then a length",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n1\r\nZ\r\nQ",
        Refused("two_lengths", 0),
    ),
    (
        "two unequal lengths",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nContent-Length: 7\r\n\r\n12345\r\na",
        Refused("two_content_lengths", 0),
    ),
    (
        "two equal lengths",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        Refused("two_content_lengths", 0),
    ),
    (
        "two equal lengths in one line",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        Refused("content_length", 0),
    ),
    (
        "two unequal lengths in one line",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0,44\r\n\r\nhello",
        Refused("content_length", 0),
    ),
    // Lengths that are no number.
    ("a length with a plus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", Refused("content_length", 0)),
    ("a negative length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", Refused("content_length", 0)),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", Refused("content_length", 0)),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Refused("content_length", 0)),
    ("a blank length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \t \r\n\r\n", Refused("content_length", 0)),
    (
        "a length over 64 bits that is 3 if it wraps",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551619\r\n\r\nabc",
        Refused("content_length", 0),
    ),
    (
        "a length of 40 digits",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0000000000000000000000000000000000000003\r\n\r\nabc",
        Refused("content_length", 0),
    ),
    ("a length with a space in it", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\na", Refused("content_length", 0)),
    ("a length with an underscore", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_2\r\n\r\na", Refused("content_length", 0)),
    ("a length with a fraction", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3.0\r\n\r\nabc", Refused("content_length", 0)),
    ("a length in full-width digits", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xef\xbc\x93\r\n\r\nabc", Refused("content_length", 0)),
    ("a length beside a vertical tab", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \x0b3\r\n\r\nabc", Refused("control_byte", 0)),
    ("the name of a length with an underscore", b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\nabc", Refused("ambiguous_name", 0)),
    // Codings that some take for chunked and some do not.
    ("xchunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("Chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("chunKed with the Kelvin sign", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chun\xe2\x84\xaaed\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("chunked, identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("identity, chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("gzip, chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Refused("transfer_encoding", 0)),
    ("chunked and a comma", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("chunked and a parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("chunked in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("an empty coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", Refused("transfer_encoding", 0)),
    ("chunked and a space", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked \r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("a tab before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("two spaces before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  chunked\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("a vertical tab before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused("control_byte", 0)),
    ("chunked twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("chunked, then identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("the name of a coding with an underscore", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n", Refused("ambiguous_name", 0)),
    ("a space before the colon of a coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Refused("field_name", 0)),
    ("a coding in a folded line", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused("transfer_encoding", 0)),
    ("a coding behind a bare LF", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused("bare_line_feed", 0)),
    ("a coding behind a bare CR", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused("bare_carriage_return", 0)),
    ("a coding behind a NUL", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\0Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused("control_byte", 0)),
    ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused("old_transfer_encoding", 0)),
    ("a length called hop-by-hop", b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close, Content-Length\r\nContent-Length: 3\r\n\r\nabc", Refused("connection_option", 0)),
    ("a Host called hop-by-hop", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", Refused("connection_option", 0)),
    // Chunks.
    ("a chunk size over 64 bits", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", Refused("chunk_size", 0)),
    ("a chunk size of zeros", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000\r\n\r\n", Refused("chunk_size", 0)),
    ("a chunk size with a plus", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", Refused("chunk_size", 0)),
    ("a negative chunk size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", Refused("chunk_size", 0)),
    ("a chunk size with 0x", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", Refused("chunk_size", 0)),
    ("an empty chunk size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", Refused("chunk_size", 0)),
    ("a space before a chunk size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", Refused("chunk_size", 0)),
    ("a space after a chunk size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", Refused("chunk_size", 0)),
    ("a chunk size with an underscore", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0_5\r\nhello\r\n0\r\n\r\n", Refused("chunk_size", 0)),
    ("a bare LF after a chunk size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", Refused("bare_line_feed", 0)),
    ("a bare CR in a chunk header", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\rX\r\nhello\r\n0\r\n\r\n", Refused("bare_carriage_return", 0)),
    ("a bare LF in a chunk extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n", Refused("bare_line_feed", 0)),
    ("a bare CR in a chunk extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n", Refused("chunk_extension", 0)),
    ("a chunk extension without a name", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\r\nhello\r\n0\r\n\r\n", Refused("chunk_extension", 0)),
    ("a control byte in a quoted extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"\x01\"\r\nhello\r\n0\r\n\r\n", Refused("chunk_extension", 0)),
    ("an escaped control byte in a quoted extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"\\\x01\"\r\nhello\r\n0\r\n\r\n", Refused("chunk_extension", 0)),
    ("a chunk extension with an open quote", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\r\nhello\r\n0\r\n\r\n", Refused("chunk_extension", 0)),
    ("a chunk longer than its size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", Refused("chunk_end", 0)),
    ("a chunk that ends with LF", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", Refused("chunk_end", 0)),
    ("a chunk that ends with CR alone", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r0\r\n\r\n", Refused("chunk_end", 0)),
    ("a bare LF after the last chunk", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nGET /admin HTTP/1.1\r\n\r\n", Refused("bare_line_feed", 0)),
    // Trailers.
    ("a length as a trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", Refused("forbidden_trailer", 0)),
    ("a coding as a trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\ntransfer-encoding: chunked\r\n\r\n", Refused("forbidden_trailer", 0)),
    ("a Host as a trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n", Refused("forbidden_trailer", 0)),
    ("an identity as a trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Forwarded_Client-Cert: URI=spiffe://x\r\n\r\n", Refused("forbidden_trailer", 0)),
    ("a header of ours as a trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx_postern_source: web\r\n\r\n", Refused("forbidden_trailer", 0)),
    ("credentials as a trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: Bearer x\r\n\r\n", Refused("forbidden_trailer", 0)),
    ("a folded trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n b\r\n\r\n", Refused("folded_line", 0)),
    // Lines.
    ("LF for every CRLF", b"GET / HTTP/1.1\nHost: a\n\n", Refused("bare_line_feed", 0)),
    ("LF at the end of the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n", Refused("bare_line_feed", 0)),
    ("a folded header", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Refused("folded_line", 0)),
    ("a folded first header", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused("folded_line", 0)),
    ("a line folded with a tab", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", Refused("folded_line", 0)),
    ("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Refused("bare_carriage_return", 0)),
    ("a NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Refused("control_byte", 0)),
    ("DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", Refused("control_byte", 0)),
    ("ESC in a target", b"GET /\x1b HTTP/1.1\r\nHost: a\r\n\r\n", Refused("control_byte", 0)),
    ("a NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n", Refused("control_byte", 0)),
    ("a space before a colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refused("field_name", 0)),
    ("a name without bytes", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Refused("field_name", 0)),
    ("a line without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Refused("field_name", 0)),
    ("a name beyond ASCII", b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: b\r\n\r\n", Refused("field_name", 0)),
    ("a slash in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX/Y: b\r\n\r\n", Refused("field_name", 0)),
    // Hosts.
    ("no Host", b"GET / HTTP/1.1\r\nX: a\r\n\r\n", Refused("no_host", 0)),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refused("two_hosts", 0)),
    ("two equal Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Refused("two_hosts", 0)),
    ("two Hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Refused("two_hosts", 0)),
    ("two Hosts in one line", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused("host", 0)),
    ("a Host with a user", b"GET / HTTP/1.1\r\nHost: b@a\r\n\r\n", Refused("host", 0)),
    ("a Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused("host", 0)),
    // Request lines and versions.
    ("HTTP/0.9", b"GET /\r\n\r\n", Refused("version", 0)),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refused("version", 0)),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused("version", 0)),
    ("HTTP/1.01", b"GET / HTTP/1.01\r\nHost: a\r\n\r\n", Refused("version", 0)),
    ("http/1.1", b"GET / http/1.1\r\nHost: a\r\n\r\n", Refused("version", 0)),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused("version", 0)),
    ("two spaces after the method", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused("request_line", 0)),
    ("two spaces before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Refused("request_line", 0)),
    ("a space after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refused("request_line", 0)),
    ("a space before the method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused("request_line", 0)),
    ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refused("request_line", 0)),
    ("a tab between method and target", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused("request_line", 0)),
    ("a bad byte in the method", b"GE{T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused("request_line", 0)),
    ("two empty lines before a request", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused("request_line", 0)),
    ("CONNECT", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", Refused("connect", 0)),
    ("a ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Refused("request_line", 0)),
    // Requests behind requests.
    (
        "a request in a body is no request",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 34\r\n\r\nGET /admin HTTP/1.1\r\nHost: b\r\nX: y",
        Passes(1),
    ),
    (
        "a body shorter than what follows",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nokGPOST / HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(2),
    ),
    ("a request, then garbage", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x00\x01", Refused("request_line", 1)),
    (
        "a request, then a smuggled one",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        Refused("two_content_lengths", 1),
    ),
    (
        "a request that asks for WebSocket, then frames",
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x85\x00\x00\x00\x00hello",
        Refused("request_line", 1),
    ),
    (
        "a request that asks for WebSocket, then a request is a request",
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(2),
    ),
    // What is unusual and fine.
    ("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", Passes(1)),
    ("an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Passes(1)),
    ("a Host with a port", b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", Passes(1)),
    ("one empty line before a request", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Passes(1)),
    ("a length with zeros before it", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabc", Passes(1)),
    ("a length in white space", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:  3\t\r\n\r\nabc", Passes(1)),
    ("a length of a GET", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Passes(1)),
    ("chunked without a space", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Passes(1)),
    ("chunks with extensions", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a;b=c;d=\"e;\\\"f\"\r\nabc\r\n0;z\r\n\r\n", Passes(1)),
    ("a chunk size in capitals", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\n0\r\n\r\n", Passes(1)),
    ("chunks with a trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Checksum: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Passes(2)),
    ("bytes beyond ASCII in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\xff\r\n\r\n", Passes(1)),
    ("a tab in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\r\n\r\n", Passes(1)),
    // What waits.
    ("a head without an end", b"GET / HTTP/1.1\r\nHost: a\r\n", Waits(0)),
    ("a body without an end", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\nabc", Waits(0)),
    ("a largest chunk", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nabc", Waits(0)),
    ("a CR that may become CRLF", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r", Waits(1)),
];
