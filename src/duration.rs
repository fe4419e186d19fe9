//! Durations as people write them: `90s`, `15m`, `2h`, `1d`, `1h30m`, `500ms`.

use std::time::Duration;

/// Reads a duration. A number without a unit is refused, since nobody can tell what it means.
pub fn parse(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("a duration is empty; write 90s, 15m, 2h or 1d".into());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let part = part(number, unit).ok_or_else(|| format!("{text:?} is not a duration; write 90s, 15m, 2h or 1d"))?;
        total = total.checked_add(part).ok_or_else(|| format!("{text:?} is too long"))?;
        rest = tail;
    }
    Ok(total)
}

fn part(number: &str, unit: &str) -> Option<Duration> {
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// Writes a duration in the form that [`parse`] reads, in the largest unit that fits.
pub fn text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_millis() > 0 {
        return format!("{}ms", duration.as_millis());
    }
    for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds >= size && seconds.is_multiple_of(size) {
            return format!("{}{unit}", seconds / size);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        for (given, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("1d", 86_400), ("1h30m", 5_400), ("0s", 0)] {
            assert_eq!(parse(given).unwrap(), Duration::from_secs(seconds), "{given}");
        }
        assert_eq!(parse("500ms").unwrap(), Duration::from_millis(500));
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_the_forms_that_are() {
        for bad in ["", "90", "s", "1w", "-1s", "1.5h", "2 hours", "99999999999999999999s", "18446744073709551615d"] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains("duration") || error.contains("long"), "{bad}: {error}");
        }
    }

    #[test]
    fn text_is_read_back_as_the_same_duration() {
        for given in ["90s", "15m", "2h", "1d", "0s", "1500ms"] {
            assert_eq!(text(parse(given).unwrap()), given);
        }
    }
}
