//! Shares in hundredths of a percent.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// From 0 to 100 percent in steps of 0.01, written as a number: `90`, `0.05`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "f64")]
pub struct Percent(u16);

/// A number that is no [`Percent`].
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is no percentage; write 0 to 100 with at most two decimals")]
pub struct PercentError(f64);

impl Percent {
    /// All of it.
    pub const ALL: Self = Self(10_000);

    /// Whole percents, cut to 100.
    pub const fn of(percent: u16) -> Self {
        if percent > 100 { Self::ALL } else { Self(percent * 100) }
    }

    /// Hundredths of a percent, 0 to 10,000.
    pub const fn hundredths(self) -> u16 {
        self.0
    }

    /// As a fraction, 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl TryFrom<f64> for Percent {
    type Error = PercentError;

    fn try_from(number: f64) -> Result<Self, PercentError> {
        let hundredths = (number * 100.0).round();
        let is_exact = (hundredths - number * 100.0).abs() < 1e-6;
        if is_exact && (0.0..=10_000.0).contains(&hundredths) { Ok(Self(hundredths as u16)) } else { Err(PercentError(number)) }
    }
}

impl From<Percent> for f64 {
    fn from(percent: Percent) -> Self {
        Self::from(percent.0) / 100.0
    }
}

/// Whole percents as whole numbers, as people write them.
impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(100) { serializer.serialize_u16(self.0 / 100) } else { serializer.serialize_f64((*self).into()) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundredths_of_a_percent_are_kept_and_nothing_finer() {
        assert_eq!(Percent::try_from(0.01).map(Percent::hundredths), Ok(1));
        assert_eq!(Percent::try_from(33.33).map(Percent::hundredths), Ok(3_333));
        for number in [-0.01, 100.01, 0.001, f64::NAN, f64::INFINITY] {
            assert!(Percent::try_from(number).is_err(), "{number}");
        }
    }
}
