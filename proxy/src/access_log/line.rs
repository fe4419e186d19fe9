//! One line of the access log, as text or JSON, in the form that the rest of the log has.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use crate::http::trace::hexadecimal;

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LineFormat {
    /// `key=value`, strings quoted.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Takes whole lines, each with its end. It must not wait.
pub type WriteLine = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Where lines go.
#[derive(Clone, Default)]
pub struct Sink {
    format: LineFormat,
    write: Option<WriteLine>,
}

impl Sink {
    /// To `write`.
    pub fn new(format: LineFormat, write: WriteLine) -> Self {
        Self { format, write: Some(write) }
    }

    /// Writes one line about `what`: `connection` or `request`.
    pub(super) fn line(&self, what: &str, fields: impl FnOnce(&mut Line<'_>)) {
        let Some(write) = &self.write else { return };
        thread_local! {
            // The longest line that was written stays as room for the next.
            static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        ROOM.with_borrow_mut(|room| {
            room.clear();
            let mut line = Line { bytes: room, format: self.format };
            line.begin(what, SystemTime::now());
            fields(&mut line);
            line.end();
            write(room);
        });
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("format", &self.format).finish_non_exhaustive()
    }
}

/// A line that is being written.
pub(super) struct Line<'l> {
    bytes: &'l mut Vec<u8>,
    format: LineFormat,
}

impl Line<'_> {
    fn begin(&mut self, what: &str, now: SystemTime) {
        match self.format {
            LineFormat::Text => {
                self.time(now);
                self.bytes.extend_from_slice(b"  INFO ");
                self.bytes.extend_from_slice(what.as_bytes());
            }
            LineFormat::Json => {
                self.bytes.extend_from_slice(b"{\"timestamp\":\"");
                self.time(now);
                self.bytes.extend_from_slice(b"\",\"level\":\"INFO\",\"message\":\"");
                self.bytes.extend_from_slice(what.as_bytes());
                self.bytes.push(b'"');
            }
        }
    }

    fn end(&mut self) {
        if self.format == LineFormat::Json {
            self.bytes.push(b'}');
        }
        self.bytes.push(b'\n');
    }

    fn key(&mut self, key: &str) {
        match self.format {
            LineFormat::Text => {
                self.bytes.push(b' ');
                self.bytes.extend_from_slice(key.as_bytes());
                self.bytes.push(b'=');
            }
            LineFormat::Json => {
                self.bytes.extend_from_slice(b",\"");
                self.bytes.extend_from_slice(key.as_bytes());
                self.bytes.extend_from_slice(b"\":");
            }
        }
    }

    /// A text, quoted and escaped as JSON has it.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.bytes.push(b'"');
        escape(self.bytes, value);
        self.bytes.push(b'"');
    }

    /// What displays itself.
    pub(super) fn display(&mut self, key: &str, value: &dyn fmt::Display) {
        self.key(key);
        self.bytes.push(b'"');
        // Writing to a vector does not fail.
        let _ = write!(Escaped(self.bytes), "{value}");
        self.bytes.push(b'"');
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.decimal(value);
    }

    /// HOST:PORT.
    pub(super) fn address(&mut self, key: &str, address: SocketAddr) {
        let SocketAddr::V4(address) = address else { return self.display(key, &address) };
        self.key(key);
        for (octet, before) in address.ip().octets().into_iter().zip(*b"\"...") {
            self.bytes.push(before);
            self.decimal(octet.into());
        }
        self.bytes.push(b':');
        self.decimal(address.port().into());
        self.bytes.push(b'"');
    }

    /// A number of 128 bits as 32 hexadecimal digits.
    pub(super) fn hexadecimal(&mut self, key: &str, value: u128) {
        self.key(key);
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(&hexadecimal(value));
        self.bytes.push(b'"');
    }

    fn decimal(&mut self, value: u64) {
        self.bytes.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// The digits of a fraction, zeros before them included.
    fn decimals<const N: usize>(&mut self, mut value: u32) {
        let mut digits = [b'0'; N];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
        self.bytes.extend_from_slice(&digits);
    }

    /// A length of time in milliseconds with three decimals.
    pub(super) fn milliseconds(&mut self, key: &str, micros: u64) {
        self.key(key);
        self.decimal(micros / 1_000);
        self.bytes.push(b'.');
        self.decimals::<3>((micros % 1_000) as u32);
    }

    /// RFC 3339 with microseconds.
    fn time(&mut self, now: SystemTime) {
        thread_local! {
            // What a second begins with is worked out once for it.
            static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
        }
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        SECOND.with_borrow_mut(|(second, text)| {
            if *second != since.as_secs() || text.is_empty() {
                *second = since.as_secs();
                text.clear();
                let t = OffsetDateTime::from(UNIX_EPOCH + std::time::Duration::from_secs(*second));
                let (date, month) = (t.date(), u8::from(t.month()));
                let _ = write!(
                    text,
                    "{:04}-{month:02}-{:02}T{:02}:{:02}:{:02}",
                    date.year(),
                    date.day(),
                    t.hour(),
                    t.minute(),
                    t.second()
                );
            }
            self.bytes.extend_from_slice(text.as_bytes());
        });
        self.bytes.push(b'.');
        self.decimals::<6>(since.subsec_micros());
        self.bytes.push(b'Z');
    }
}

/// Escapes what passes (RFC 8259 §7).
struct Escaped<'l>(&'l mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

/// What does not stand for itself between quotes, by byte.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || byte == 0x22 || byte == 0x5c || byte == 0x7f;
        byte += 1;
    }
    table
};

fn escape(bytes: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| ESCAPED[usize::from(byte)]) {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        match rest.as_bytes()[at] {
            byte @ (b'"' | b'\\') => bytes.extend_from_slice(&[b'\\', byte]),
            byte => {
                let _ = write!(bytes, "\\u{byte:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    bytes.extend_from_slice(rest.as_bytes());
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn written(format: LineFormat, fields: impl FnOnce(&mut Line<'_>)) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        let sink = Sink::new(format, Arc::new(move |line: &[u8]| kept.lock().extend_from_slice(line)));
        sink.line("request", fields);
        String::from_utf8(lines.lock().clone()).expect("UTF-8")
    }

    fn fields(line: &mut Line<'_>) {
        line.text("path", "/a\"b\\c\n\u{7f}ü");
        line.display("because", &"intention web -> api");
        line.number("status", 200);
        line.milliseconds("duration_ms", 1_042);
        line.hexadecimal("trace", 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        line.address("v4", "10.0.203.7:8080".parse().expect("address"));
        line.address("v6", "[2001:db8::1]:80".parse().expect("address"));
    }

    #[test]
    fn a_json_line_is_one_object_whatever_is_in_it() {
        let line = written(LineFormat::Json, fields);
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["path"], "/a\"b\\c\n\u{7f}ü");
        assert_eq!(value["message"], "request");
        assert_eq!((value["status"].as_u64(), value["duration_ms"].as_f64()), (Some(200), Some(1.042)));
        assert_eq!(value["trace"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((&value["v4"], &value["v6"]), (&"10.0.203.7:8080".into(), &"[2001:db8::1]:80".into()));
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1);
    }

    #[test]
    fn a_text_line_cannot_be_broken_by_what_is_in_it() {
        let line = written(LineFormat::Text, fields);
        assert!(
            line.contains(r#" request path="/a\"b\\c\u000a\u007fü" because="intention web -> api" status=200 duration_ms=1.042"#),
            "{line}"
        );
        assert_eq!(line.matches('\n').count(), 1);
        let now: SystemTime = UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 42_000);
        let mut bytes = Vec::new();
        Line { bytes: &mut bytes, format: LineFormat::Text }.time(now);
        assert_eq!(String::from_utf8(bytes).expect("text"), "2023-11-14T22:13:20.000042Z");
    }
}
