//! Which bytes may stand where (RFC 9110 §5).

use super::FramingError;

/// `tchar` (RFC 9110 §5.6.2), by byte.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let one = byte as u8;
        table[byte] = one.is_ascii_alphanumeric()
            || matches!(
                one,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether a byte may stand in a method or in the name of a field.
pub fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Whether a byte may stand in a request target: anything but space and control bytes. What is beyond ASCII is no matter
/// of framing; it is judged with the path.
pub fn is_visible(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

/// Refuses every control byte but the tab.
pub fn refuse_control_bytes(line: &[u8]) -> Result<(), FramingError> {
    if !has_control_byte(line) {
        Ok(())
    } else if line.contains(&b'\r') {
        Err(FramingError::BareCarriageReturn)
    } else {
        Err(FramingError::ControlByte)
    }
}

/// Sixteen bytes are looked at together, which the compiler makes one step of. The last sixteen overlap those before.
fn has_control_byte(line: &[u8]) -> bool {
    match line.last_chunk::<16>() {
        Some(last) => line.as_chunks::<16>().0.iter().chain([last]).fold(false, |bad, chunk| bad | is_any_bad(chunk)),
        None => is_any_bad(line),
    }
}

#[inline]
fn is_any_bad(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |bad, byte| bad | (u8::from(*byte < b' ') & u8::from(*byte != b'\t')) | u8::from(*byte == 0x7f)) != 0
}

/// A value without the white space around it (`OWS`, RFC 9110 §5.6.3).
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
