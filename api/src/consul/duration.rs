//! Durations as Go writes them: `10s`, `1m30s`, `1.5h`, `250ms`.

use std::time::Duration;

/// Reads a duration as Go does; a bare number is seconds. `None`: it is none, or a negative one.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return part(text, "s");
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        total = total.checked_add(part(number, unit)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

fn part(number: &str, unit: &str) -> Option<Duration> {
    let nanos: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(nanos)?;
    let mut digit = nanos;
    for byte in fraction.bytes() {
        // A second point is no digit.
        let value = u64::from(byte.checked_sub(b'0').filter(|value| *value < 10)?);
        digit /= 10;
        total = total.checked_add(value * digit)?;
    }
    Some(Duration::from_nanos(total))
}

/// Writes a duration as Go does.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000_000_000 {
        let (unit, size) = match nanos {
            1_000_000.. => ("ms", 1_000_000),
            1_000.. => ("µs", 1_000),
            _ => ("ns", 1),
        };
        return format!("{}{unit}", decimal(nanos, size));
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal(nanos - u128::from(seconds / 60) * 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn decimal(amount: u128, size: u128) -> String {
    let whole = amount / size;
    let fraction = amount % size;
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = size.ilog10() as usize;
    format!("{whole}.{}", format!("{fraction:0digits$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_of_go_is_read() {
        let read = |text: &str| parse(text).map(|duration| duration.as_millis());
        for (text, millis) in [
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("60", 60_000),
            ("0s", 0),
            ("0", 0),
            (".5s", 500),
            ("+1s", 1_000),
        ] {
            assert_eq!(read(text), Some(millis), "{text}");
        }
        for text in ["", "s", "-1s", "1x", "1.2.3s", "10 s", ".s", "1s2", "99999999999999999999s", "9999999999h"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn it_is_written_as_go_writes_it() {
        for text in ["0s", "15s", "1m0s", "10m0s", "1h0m0s", "24h0m0s", "1.5s", "250ms", "1m1.25s", "1µs", "3ns"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}
