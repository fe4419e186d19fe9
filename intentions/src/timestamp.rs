//! Times as RFC 3339 text, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The last second that RFC 3339 can write.
const LAST: &str = "9999-12-31T23:59:59Z";

/// The time as RFC 3339 text, to the nanosecond; a time past the year 9999 is written as its last second.
pub(crate) fn exact(time: SystemTime) -> String {
    let nanoseconds = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => i128::try_from(before.duration().as_nanos()).map_or(i128::MIN, |n| -n),
    };
    write(nanoseconds)
}

/// As [`exact`], to the second: for people.
pub(crate) fn to_the_second(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |after| after.as_secs());
    write(i128::from(seconds) * 1_000_000_000)
}

fn write(nanoseconds: i128) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| LAST.to_owned())
}

/// The time in an RFC 3339 text with any offset.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let nanoseconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    let magnitude = nanoseconds.unsigned_abs();
    let distance = Duration::new(u64::try_from(magnitude / 1_000_000_000).ok()?, u32::try_from(magnitude % 1_000_000_000).ok()?);
    if nanoseconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

/// For `#[serde(with)]` on `Option<SystemTime>`.
pub(crate) mod option {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&exact(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| {
                parse(&text).ok_or_else(|| {
                    serde::de::Error::custom(format!("time {text:?} is not valid: use RFC 3339, such as 2026-03-01T12:00:00Z"))
                })
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        for time in [UNIX_EPOCH, UNIX_EPOCH + Duration::new(1_772_366_400, 123_456_789), UNIX_EPOCH - Duration::from_millis(1)] {
            assert_eq!(parse(&exact(time)), Some(time));
        }
    }

    #[test]
    fn a_time_out_of_range_is_written_as_the_last_second() {
        assert_eq!(exact(UNIX_EPOCH + Duration::from_secs(1 << 60)), LAST);
    }

    #[test]
    fn people_get_seconds() {
        assert_eq!(to_the_second(UNIX_EPOCH + Duration::from_millis(1_772_366_400_999)), "2026-03-01T12:00:00Z");
    }
}
