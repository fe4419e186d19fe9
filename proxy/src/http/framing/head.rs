//! One head of a request, judged line by line (RFC 9112 §2, §3, §5 and §6).

use memchr::memchr;

use super::FramingError;
use super::bytes::{is_token_byte, is_visible, refuse_control_bytes, trim};

/// How the body of a request is delimited (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// This many bytes; none without a Content-Length.
    Known(u64),
    /// In chunks.
    Chunked,
}

/// What the lines of a head said so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head {
    has_request_line: bool,
    is_http_11: bool,
    fields: usize,
    content_length: Option<u64>,
    is_chunked: bool,
    has_host: bool,
    has_upgrade: bool,
    connection_says_upgrade: bool,
}

impl Head {
    /// Whether the request line was read.
    pub fn has_request_line(&self) -> bool {
        self.has_request_line
    }

    /// Whether the request asks for another protocol (RFC 9110 §7.8): HTTP/1.1, `Upgrade`, and `upgrade` in `Connection`.
    pub fn asks_for_upgrade(&self) -> bool {
        self.is_http_11 && self.has_upgrade && self.connection_says_upgrade
    }

    /// The request line, without its CRLF.
    pub fn request_line(&mut self, line: &[u8]) -> Result<(), FramingError> {
        refuse_control_bytes(line)?;
        let method_end = line.iter().position(|byte| !is_token_byte(*byte)).ok_or(FramingError::Version)?;
        let (method, rest) = line.split_at(method_end);
        if method.is_empty() || rest[0] != b' ' {
            return Err(FramingError::RequestLine);
        }
        let rest = &rest[1..];
        let target_end = memchr(b' ', rest).ok_or(FramingError::Version)?;
        let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
        if target.is_empty() || !target.iter().all(|byte| is_visible(*byte)) {
            return Err(FramingError::RequestLine);
        }
        self.is_http_11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            other if memchr(b' ', other).is_some() || other.is_empty() => return Err(FramingError::RequestLine),
            _ => return Err(FramingError::Version),
        };
        if method == b"CONNECT" {
            return Err(FramingError::Connect);
        }
        self.has_request_line = true;
        Ok(())
    }

    /// A header line, without its CRLF.
    pub fn field(&mut self, line: &[u8], limit: usize) -> Result<(), FramingError> {
        self.fields += 1;
        if self.fields > limit {
            return Err(FramingError::TooManyFields { limit });
        }
        let (name, value) = split_field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(trim(value)),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.has_upgrade = true;
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value),
            14 if is_named(name, b"content-length") => self.content_length(name, trim(value)),
            17 if is_named(name, b"transfer-encoding") => self.transfer_encoding(name, value),
            _ => Ok(()),
        }
    }

    /// The end of the head: how long the body is.
    pub fn end(&self) -> Result<BodyLength, FramingError> {
        if self.is_http_11 && !self.has_host {
            return Err(FramingError::NoHost);
        }
        Ok(if self.is_chunked { BodyLength::Chunked } else { BodyLength::Known(self.content_length.unwrap_or(0)) })
    }

    fn host(&mut self, value: &[u8]) -> Result<(), FramingError> {
        if self.has_host {
            return Err(FramingError::TwoHosts);
        }
        self.has_host = true;
        if value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte)) {
            Ok(())
        } else {
            Err(FramingError::Host)
        }
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), FramingError> {
        for option in value.split(|byte| *byte == b',').map(trim) {
            self.connection_says_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
            if is_framing_field(option) {
                return Err(FramingError::ConnectionOption);
            }
        }
        Ok(())
    }

    fn content_length(&mut self, name: &[u8], value: &[u8]) -> Result<(), FramingError> {
        refuse_underscore(name)?;
        if self.is_chunked {
            return Err(FramingError::TwoLengths);
        }
        if self.content_length.is_some() {
            return Err(FramingError::TwoContentLengths);
        }
        // 19 digits cannot overflow 64 bits.
        if !(1..=19).contains(&value.len()) || !value.iter().all(u8::is_ascii_digit) {
            return Err(FramingError::ContentLength);
        }
        self.content_length = Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
        Ok(())
    }

    /// Its value is compared byte by byte after one space at most. Every other spelling is one that some server takes for
    /// `chunked` and another does not.
    fn transfer_encoding(&mut self, name: &[u8], value: &[u8]) -> Result<(), FramingError> {
        refuse_underscore(name)?;
        if !self.is_http_11 {
            return Err(FramingError::OldTransferEncoding);
        }
        if self.content_length.is_some() {
            return Err(FramingError::TwoLengths);
        }
        if self.is_chunked || value.strip_prefix(b" ").unwrap_or(value) != b"chunked" {
            return Err(FramingError::TransferEncoding);
        }
        self.is_chunked = true;
        Ok(())
    }
}

/// The name and the raw value of a line, both of allowed bytes only.
pub fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), FramingError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(FramingError::FoldedLine);
    }
    refuse_control_bytes(line)?;
    match line.iter().position(|byte| !is_token_byte(*byte)) {
        Some(end) if end > 0 && line[end] == b':' => Ok((&line[..end], &line[end + 1..])),
        _ => Err(FramingError::FieldName),
    }
}

/// Whether this is the name of a field that says where a message ends or whom it is for.
fn is_framing_field(name: &[u8]) -> bool {
    is_named(name, b"content-length") || is_named(name, b"transfer-encoding") || is_named(name, b"host")
}

/// Whether a name reads as this one, with `_` as `-` and in any case: as CGI and its heirs hand names to a program.
pub fn is_named(name: &[u8], wanted: &[u8]) -> bool {
    name.len() == wanted.len() && has_prefix(name, wanted)
}

/// Whether a name begins as this one, read as in [`is_named`].
pub fn has_prefix(name: &[u8], wanted: &[u8]) -> bool {
    let as_program = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() >= wanted.len() && name.iter().zip(wanted).all(|(byte, wanted)| as_program(byte) == *wanted)
}

fn refuse_underscore(name: &[u8]) -> Result<(), FramingError> {
    if name.contains(&b'_') { Err(FramingError::AmbiguousName) } else { Ok(()) }
}
