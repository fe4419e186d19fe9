//! Times as Go writes them: `10s`, `1m30s`, `1.5h`, `250ms`; and as Consul's API also takes them, whole nanoseconds.

use std::time::Duration;

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time; write one such as 10s, 1m30s or 250ms")]
pub struct NotATime(pub String);

/// Reads a time; `0` needs no unit. Whole seconds, minutes and days that Postern writes elsewhere are read too.
///
/// # Errors
/// [`NotATime`] for anything else, and for more than 10,000 days.
pub fn parse(text: &str) -> Result<Duration, NotATime> {
    let refuse = || NotATime(text.chars().take(40).collect());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| refuse())?;
        let letters = after.bytes().take_while(|byte| !byte.is_ascii_digit() && *byte != b'.').count();
        let (unit, after) = after.split_at(letters);
        seconds += number * seconds_of(unit).ok_or_else(refuse)?;
        rest = after;
    }
    if text.is_empty() || seconds > 10_000.0 * 86_400.0 {
        return Err(refuse());
    }
    // Whole nanoseconds: what was written in decimal is meant in decimal.
    Duration::try_from_secs_f64((seconds * 1e9).round() / 1e9).map_err(|_| refuse())
}

fn seconds_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    })
}

/// The time as Go writes it: `1m30s`, `500ms`, `0s`.
pub fn text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", decimal(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", decimal(nanos, 1_000_000));
    }
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    let seconds = nanos % 60_000_000_000;
    let seconds = format!("{}s", decimal(seconds, 1_000_000_000));
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

fn decimal(value: u128, unit: u128) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", value % unit);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { (value / unit).to_string() } else { format!("{}.{fraction}", value / unit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_go_reads_it() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("2d", 172_800_000),
            ("0", 0),
            ("1h0m0.5s", 3_600_500),
            (".5s", 500),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "s", "10", "10 s", "-1s", "1x", "1s2", "1..2s", "99999999d", "infs", "1e3s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_written_as_go_writes_it() {
        for text in ["0s", "10s", "1m30s", "1h0m0s", "1.5s", "250ms", "1m0s", "26h0m0.25s", "1.5µs", "7ns"] {
            assert_eq!(super::text(parse(text).unwrap()), text);
        }
    }
}
