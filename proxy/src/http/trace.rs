//! W3C trace context (Trace Context, Level 1): passed on with a new parent, or started.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;

/// `traceparent` (§3.2).
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Where a request is in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Of the whole trace, never zero.
    pub(crate) id: u128,
    /// The span of whoever sent the request; zero: the trace starts here.
    pub(crate) parent: u64,
    /// The span of this sidecar, never zero.
    pub(crate) span: u64,
    /// Whether the trace is recorded (§3.2.2.5).
    pub(crate) is_sampled: bool,
}

impl Trace {
    /// Goes on with the trace that a request is part of, or starts one, and writes what the next one reads. A header that is
    /// not valid, or there twice, starts a new trace (§3.2.3 and §4.3).
    pub(crate) fn carry(headers: &mut HeaderMap, rng: &mut impl Rng) -> Self {
        let trace = Self::of(headers, rng);
        if let Ok(value) = HeaderValue::from_bytes(&trace.written()) {
            headers.insert(TRACEPARENT, value);
        }
        trace
    }

    /// The same, with nothing written.
    pub(crate) fn of(headers: &HeaderMap, rng: &mut impl Rng) -> Self {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let sent = values.next().filter(|_| values.next().is_none()).and_then(|value| read(value.as_bytes()));
        let span = rng.random_range(1..=u64::MAX);
        match sent {
            Some((id, parent, is_sampled)) => Self { id, parent, span, is_sampled },
            // Whether a new trace is recorded, who records it decides.
            None => Self { id: rng.random_range(1..=u128::MAX), parent: 0, span, is_sampled: true },
        }
    }
}

impl Trace {
    /// As the next one reads it (§3.2).
    fn written(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&hexadecimal(self.id));
        text[36..52].copy_from_slice(&hexadecimal(self.span.into())[16..]);
        text[54] += u8::from(self.is_sampled);
        text
    }
}

/// 32 digits, lower case.
pub(crate) fn hexadecimal(number: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    for (two, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(number.to_be_bytes()) {
        *two = [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
    }
    digits
}

/// Trace, parent and whether it is sampled, of version 00 or of a later one that begins like it (§3.2.4).
fn read(value: &[u8]) -> Option<(u128, u64, bool)> {
    let [v0, v1, b'-', rest @ ..] = value else { return None };
    let version = hex(&[*v0, *v1])?;
    let (id, rest) = rest.split_at_checked(32)?;
    let (parent, rest) = rest.strip_prefix(b"-")?.split_at_checked(16)?;
    let (flags, rest) = rest.strip_prefix(b"-")?.split_at_checked(2)?;
    let ends = rest.is_empty() || (version > 0 && rest.starts_with(b"-"));
    let (id, parent, flags) = (hex(id)?, hex(parent)? as u64, hex(flags)?);
    (ends && version != 0xff && id != 0 && parent != 0).then_some((id, parent, flags & 1 == 1))
}

/// Lower case digits only (§3.2.1).
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn carried(values: &[&str]) -> (Trace, String) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().expect("value"));
        }
        let trace = Trace::carry(&mut headers, &mut rand::rng());
        (trace, headers[TRACEPARENT].to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn a_trace_goes_on_with_this_sidecar_as_the_parent() {
        let (trace, written) = carried(&[SENT]);
        assert_eq!(
            (trace.id, trace.parent, trace.is_sampled),
            (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, true)
        );
        assert_eq!(written, format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{:016x}-01", trace.span));
        assert_ne!(trace.span, trace.parent);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let (trace, written) = carried(&["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-what-comes-later"]);
        assert!(!trace.is_sampled && trace.parent != 0 && written.starts_with("00-4bf92f35"));
    }

    #[test]
    fn what_is_not_valid_starts_a_new_trace() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let upper = "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01";
        let longer = format!("{SENT}-more");
        let last = SENT.replacen("00", "ff", 1);
        for bad in
            [vec![], vec![""], vec![zero_trace], vec![zero_parent], vec![upper], vec![&longer], vec![&last], vec![SENT, SENT]]
        {
            let (trace, _) = carried(&bad);
            assert!(trace.parent == 0 && trace.id != 0 && trace.id != 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, "{bad:?}");
        }
    }
}
