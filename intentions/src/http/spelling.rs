//! Ways to write a path, and from one to another.
//!
//! Every function but the first expects a path of [`canonical_escapes`]: valid escapes in upper case, none of them of an
//! unreserved character. Those that give an `Option` give nothing where there is nothing to change.

use super::PathRefused;
use crate::EncodedSlash;

/// What an escape stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escaped {
    /// RFC 3986 §2.3: the same with and without its escape.
    Unreserved,
    /// Another character that can be seen: services decode it, and a criterion may be written with it.
    Visible,
    /// What stays escaped whatever is done: bytes that no path holds as they are, and `%`, `?` and `#`.
    Opaque,
    Slash,
}

/// What the escape at the start of `text` stands for, and its byte.
fn escape(text: &[u8]) -> Result<(Escaped, u8), PathRefused> {
    let digit = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16)).ok_or(PathRefused::BadEscape);
    let byte = (digit(1)? * 16 + digit(2)?) as u8;
    let escaped = match byte {
        0 => return Err(PathRefused::EscapedNul),
        b'\\' => return Err(PathRefused::EscapedBackslash),
        b'/' => Escaped::Slash,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Escaped::Unreserved,
        b'%' | b'?' | b'#' => Escaped::Opaque,
        b'!'..=b'}' => Escaped::Visible,
        _ => Escaped::Opaque,
    };
    Ok((escaped, byte))
}

/// Whether the path is as it is forwarded, and no server reads anything else in it. Cheap, and true of nearly every path.
pub(super) fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match KINDS[usize::from(*byte)] {
            Kind::Plain => at += 1,
            Kind::Slash if begins_unusual_segment(&bytes[at + 1..]) => return false,
            Kind::Slash => at += 1,
            Kind::Percent if is_opaque_in_upper_case(&bytes[at..]) => at += 3,
            Kind::Percent | Kind::Unusual => return false,
        }
    }
    true
}

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Slash,
    Percent,
    /// `;`, not ASCII, or never in a path.
    Unusual,
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Unusual; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        kinds[byte as usize] = match byte {
            b';' | b'\\' => Kind::Unusual,
            b'/' => Kind::Slash,
            b'%' => Kind::Percent,
            _ => Kind::Plain,
        };
        byte += 1;
    }
    kinds
};

/// An empty one that others follow, `.` or `..`.
fn begins_unusual_segment(rest: &[u8]) -> bool {
    matches!(rest, [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..])
}

fn is_opaque_in_upper_case(text: &[u8]) -> bool {
    let is_upper_case = text.iter().take(3).all(|byte| !byte.is_ascii_lowercase());
    is_upper_case && escape(text).is_ok_and(|(escaped, _)| escaped == Escaped::Opaque)
}

/// Decodes escapes of unreserved characters, writes the others in upper case, and escapes what is not ASCII.
///
/// # Errors
/// The first thing that no path may hold.
pub(super) fn canonical_escapes(path: &str, slash: EncodedSlash) -> Result<String, PathRefused> {
    let mut written = String::with_capacity(path.len() + 16);
    let bytes = path.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'%' => {
                match escape(&bytes[at..])? {
                    (Escaped::Unreserved, byte) => written.push(char::from(byte)),
                    (Escaped::Slash, _) if slash == EncodedSlash::Refuse => return Err(PathRefused::EscapedSlash),
                    (_, byte) => push_escape(&mut written, byte),
                }
                3
            }
            b' ' => return Err(PathRefused::Space),
            b'\\' => return Err(PathRefused::Backslash),
            0..=0x1f | 0x7f => return Err(PathRefused::ControlCharacter),
            0x80.. => {
                push_escape(&mut written, *byte);
                1
            }
            _ => {
                let run = bytes[at..].iter().take_while(|byte| stays_in_a_path(**byte)).count();
                written.push_str(&path[at..at + run]);
                run
            }
        };
    }
    Ok(written)
}

fn stays_in_a_path(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'%' && byte != b'\\'
}

fn push_escape(written: &mut String, byte: u8) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    written.push('%');
    written.push(DIGITS[usize::from(byte >> 4)]);
    written.push(DIGITS[usize::from(byte & 15)]);
}

/// Resolves `.` and `..` (RFC 3986 §5.2.4). An empty segment is a segment.
///
/// # Errors
/// [`PathRefused::AboveRoot`]: RFC 3986 would stay at `/`; a server may not.
pub(super) fn resolve(path: &str) -> Result<String, PathRefused> {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        ends_in_slash = true;
        match segment {
            "." => {}
            ".." => {
                kept.pop().ok_or(PathRefused::AboveRoot)?;
            }
            "" if segments.peek().is_none() => {}
            _ => {
                kept.push(segment);
                ends_in_slash = false;
            }
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &kept {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if ends_in_slash {
        resolved.push('/');
    }
    Ok(resolved)
}

/// `//` as `/`.
pub(super) fn collapsed(path: &str) -> Option<String> {
    path.contains("//").then(|| {
        let mut collapsed = String::with_capacity(path.len());
        for character in path.chars() {
            if character != '/' || !collapsed.ends_with('/') {
                collapsed.push(character);
            }
        }
        collapsed
    })
}

/// Without `;…` in each segment, as servers read that know path parameters (RFC 3986 §3.3).
pub(super) fn without_parameters(path: &str) -> Option<String> {
    path.contains(';').then(|| {
        let segments = path.split('/').map(|segment| segment.split_once(';').map_or(segment, |(before, _)| before));
        segments.collect::<Vec<_>>().join("/")
    })
}

/// With `%2F` as a slash.
pub(super) fn with_slashes(path: &str) -> Option<String> {
    path.contains("%2F").then(|| path.replace("%2F", "/"))
}

/// With every other character that can be seen as itself, as services decode it: `%3A` as `:`.
pub(super) fn with_visible(path: &str) -> Option<String> {
    let is_visible = |at: usize| escape(&path.as_bytes()[at..]).is_ok_and(|(escaped, _)| escaped == Escaped::Visible);
    let mut escapes = path.match_indices('%').map(|(at, _)| at).filter(|at| is_visible(*at)).peekable();
    escapes.peek()?;
    let mut changed = String::with_capacity(path.len());
    let mut rest_from = 0;
    for at in escapes {
        changed.push_str(&path[rest_from..at]);
        if let Ok((_, byte)) = escape(&path.as_bytes()[at..]) {
            changed.push(char::from(byte));
        }
        rest_from = at + 3;
    }
    changed.push_str(&path[rest_from..]);
    Some(changed)
}

/// Why no request can have this path, which begins with `/`, whatever its service keeps. For what a criterion is written as.
pub(crate) fn never_in_a_path(path: &str) -> Option<&'static str> {
    match canonical_escapes(path, EncodedSlash::Keep) {
        Ok(canonical) if canonical.split('/').any(|segment| segment == "." || segment == "..") => {
            Some("segments . and .. are resolved before a request is judged")
        }
        Ok(_) => None,
        Err(PathRefused::BadEscape) => Some("a % stands before two hexadecimal digits; write %25 for the character"),
        Err(_) => Some("no request that is let through has a space, a control character or \\ in its path"),
    }
}
