//! A duration as people write it: `250ms`, `15s`, `2m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Length of time in whole milliseconds, at most 366 days; written `250ms`, `15s`, `5m`, `2h`, `1d`, or joined: `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Period(u64);

/// A text that is no [`Period`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no duration; write 250ms, 15s, 5m, 2h or 1d")]
pub struct PeriodError {
    given: String,
}

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const LONGEST: u64 = 366 * 86_400_000;

impl Period {
    /// Of so many milliseconds, cut to 366 days.
    pub const fn millis(millis: u64) -> Self {
        Self(if millis > LONGEST { LONGEST } else { millis })
    }

    /// Of so many seconds, cut to 366 days.
    pub const fn seconds(seconds: u64) -> Self {
        Self::millis(seconds.saturating_mul(1_000))
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Whether it is no time at all, which switches a time-out off.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.duration()
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let refuse = || PeriodError { given: text.chars().take(40).collect() };
        let mut total: u64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, tail) = tail.split_at(letters);
            let number: u64 = number.parse().map_err(|_| refuse())?;
            let (_, size) = UNITS.iter().find(|(word, _)| *word == unit).ok_or_else(refuse)?;
            let part = number.checked_mul(*size).ok_or_else(refuse)?;
            total = total.checked_add(part).filter(|total| *total <= LONGEST).ok_or_else(refuse)?;
            rest = tail;
        }
        if text.is_empty() { Err(refuse()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (word, size) in UNITS {
            if rest >= size {
                write!(f, "{}{word}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(PeriodVisitor)
    }
}

struct PeriodVisitor;

impl Visitor<'_> for PeriodVisitor {
    type Value = Period;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 250ms, 15s or 5m")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
        text.parse().map_err(E::custom)
    }

    /// A bare number: people mean seconds, or milliseconds.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Period, E> {
        Err(E::invalid_type(Unexpected::Unsigned(number), &self))
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(millis in 0..=LONGEST) {
            let period = Period::millis(millis);
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }
    }

    #[test]
    fn a_text_without_a_unit_is_refused() {
        for text in ["", "15", "s", "1w", "-1s", "1.5s", "1 s", "367d", "99999999999999999999d"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
