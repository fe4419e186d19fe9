//! The parts of a chunked body that are not data (RFC 9112 §7.1).

use super::FramingError;
use super::bytes::is_token_byte;
use super::head::{has_prefix, is_named, split_field};

/// Most digits of a chunk size: more would not fit into 64 bits.
pub const MOST_SIZE_DIGITS: usize = 16;

/// Names that a trailer may not have: who merges trailers into the head would change what was judged (RFC 9110 §6.5.1).
const FORBIDDEN: [&[u8]; 14] = [
    b"content-length",
    b"transfer-encoding",
    b"content-encoding",
    b"content-type",
    b"content-range",
    b"trailer",
    b"te",
    b"connection",
    b"upgrade",
    b"host",
    b"expect",
    b"authorization",
    b"cookie",
    b"x-forwarded-client-cert",
];

/// The size of a chunk and the length of its extensions, from its line without the CRLF.
pub fn header(line: &[u8]) -> Result<(u64, usize), FramingError> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, extensions) = line.split_at(digits);
    if !(1..=MOST_SIZE_DIGITS).contains(&digits) {
        return Err(FramingError::ChunkSize);
    }
    match extensions {
        [] | [b';', ..] => refuse_malformed(extensions)?,
        [b'\r', ..] => return Err(FramingError::BareCarriageReturn),
        _ => return Err(FramingError::ChunkSize),
    }
    Ok((size.iter().fold(0, |number, digit| number << 4 | hexadecimal(*digit)), extensions.len()))
}

/// A trailer line, without its CRLF.
pub fn trailer(line: &[u8]) -> Result<(), FramingError> {
    let (name, _) = split_field(line)?;
    if FORBIDDEN.iter().any(|forbidden| is_named(name, forbidden)) || has_prefix(name, b"x-postern-") {
        return Err(FramingError::ForbiddenTrailer);
    }
    Ok(())
}

fn hexadecimal(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

/// `*( ";" name [ "=" ( token / quoted-string ) ] )`, without the white space that the grammar calls bad.
fn refuse_malformed(mut rest: &[u8]) -> Result<(), FramingError> {
    while let [b';', extension @ ..] = rest {
        rest = after_token(extension)?;
        if let [b'=', value @ ..] = rest {
            rest = match value {
                [b'"', quoted @ ..] => after_quoted(quoted)?,
                _ => after_token(value)?,
            };
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(FramingError::ChunkExtension) }
}

fn after_token(bytes: &[u8]) -> Result<&[u8], FramingError> {
    match bytes.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(bytes.len()) {
        0 => Err(FramingError::ChunkExtension),
        end => Ok(&bytes[end..]),
    }
}

/// What follows the closing quote (RFC 9110 §5.6.4).
fn after_quoted(mut bytes: &[u8]) -> Result<&[u8], FramingError> {
    let may_be_quoted = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    loop {
        bytes = match bytes {
            [b'"', rest @ ..] => return Ok(rest),
            [b'\\', escaped, rest @ ..] if may_be_quoted(escaped) => rest,
            [byte, rest @ ..] if may_be_quoted(byte) => rest,
            _ => return Err(FramingError::ChunkExtension),
        };
    }
}
