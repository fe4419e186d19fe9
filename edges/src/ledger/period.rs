//! The spans of time that counts are kept by.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

const HOUR: u64 = 3600;
const DAY_HOURS: u32 = 24;

/// An hour or a day of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    /// Hours since the Unix epoch.
    start: u32,
    /// 1 or 24.
    hours: u32,
}

impl Period {
    /// The hour that a time is in.
    pub fn hour_of(time: SystemTime) -> Self {
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { start: u32::try_from(seconds / HOUR).unwrap_or(u32::MAX - DAY_HOURS), hours: 1 }
    }

    /// The day that it is in.
    pub fn day(self) -> Self {
        Self { start: self.start / DAY_HOURS * DAY_HOURS, hours: DAY_HOURS }
    }

    /// Whether it is one hour.
    pub fn is_hour(self) -> bool {
        self.hours == 1
    }

    /// Its first moment.
    pub fn start(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(self.start) * HOUR)
    }

    /// The first moment after it.
    pub fn end(self) -> SystemTime {
        self.start() + Duration::from_secs(u64::from(self.hours) * HOUR)
    }

    /// The period of the same length that begins `count` lengths before; the first one where there is none.
    #[must_use]
    pub fn before(self, count: u32) -> Self {
        Self { start: self.start.saturating_sub(self.hours.saturating_mul(count)), hours: self.hours }
    }
}

/// As in a key of the store: `h0000495123`, `d0000495120`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:010}", if self.is_hour() { 'h' } else { 'd' }, self.start)
    }
}

/// A text that is no [`Period`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no period: h or d and the hours since 1970 in ten digits")]
pub struct UnknownPeriod;

impl FromStr for Period {
    type Err = UnknownPeriod;

    fn from_str(text: &str) -> Result<Self, UnknownPeriod> {
        let hours = match text.get(..1) {
            Some("h") => 1,
            Some("d") => DAY_HOURS,
            _ => return Err(UnknownPeriod),
        };
        let start = text.get(1..).and_then(|digits| digits.parse().ok()).ok_or(UnknownPeriod)?;
        let period = Self { start, hours };
        (start % hours == 0 && start < u32::MAX - DAY_HOURS && period.to_string() == text).then_some(period).ok_or(UnknownPeriod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_reads_back_as_it_was_written() {
        let hour = Period::hour_of(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        for period in [hour, hour.day(), hour.before(3)] {
            assert_eq!(period.to_string().parse(), Ok(period));
            assert!(period.start() < period.end());
        }
        assert!(hour.day().start() <= hour.start() && hour.end() <= hour.day().end());
        for text in ["", "h", "x0000000001", "h1", "d0000000001", "h+000000001", "h4294967295", "é"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
