//! Moments as logs write them, and back again: RFC 3339, and the form of the Common Log Format.
//!
//! A moment is a number of microseconds since the beginning of 1970 in UTC. Promised: whatever text is read, there is an
//! answer or none, and no panic; what was written is read as the same moment, to the microsecond and the second.

use std::time::SystemTime;

use time::{Date, Month, OffsetDateTime};

const SECOND: u64 = 1_000_000;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Now.
pub fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// As in `2026-11-22T04:38:15.000001Z`.
pub fn rfc3339(at: u64) -> String {
    let (date, (hour, minute, second)) = parts(at);
    let (year, month, day, micros) = (date.year(), u8::from(date.month()), date.day(), at % SECOND);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// As in `22/Nov/2026:04:38:15 +0000`.
pub fn common(at: u64) -> String {
    let (date, (hour, minute, second)) = parts(at);
    let month = MONTHS[usize::from(u8::from(date.month()) - 1)];
    format!("{:02}/{month}/{:04}:{hour:02}:{minute:02}:{second:02} +0000", date.day(), date.year())
}

/// Reads RFC 3339: any fraction of a second, cut to the microsecond, and any offset.
pub fn from_rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = (text.get(..10)?, text.get(11..)?);
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) || !is_at(date, &[4, 7], b'-') {
        return None;
    }
    let month = Month::try_from(number::<u8>(date.get(5..7)?)?).ok()?;
    let seconds = moment(number(date.get(..4)?)?, month, number(date.get(8..10)?)?, rest.get(..8)?)?;
    let rest = rest.get(8..)?;
    let digits = rest.strip_prefix('.').map_or("", |rest| &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()]);
    let fraction = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = fraction.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let zone = rest.get(digits.len() + usize::from(rest.starts_with('.'))..)?;
    let seconds = if zone.eq_ignore_ascii_case("z") { seconds } else { seconds - offset(&zone.replacen(':', "", 1))? };
    u64::try_from(seconds).ok()?.checked_mul(SECOND)?.checked_add(micros)
}

/// Reads what stands between the brackets of the Common Log Format.
pub fn from_common(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(':')?;
    if !is_at(date, &[2, 6], b'/') {
        return None;
    }
    let month = MONTHS.iter().position(|name| date.get(3..6).is_some_and(|month| name.eq_ignore_ascii_case(month)))?;
    let month = Month::try_from(u8::try_from(month + 1).ok()?).ok()?;
    let (time, zone) = rest.split_once(' ')?;
    let seconds = moment(number(date.get(7..)?)?, month, number(date.get(..2)?)?, time)? - offset(zone)?;
    u64::try_from(seconds).ok()?.checked_mul(SECOND)
}

fn parts(at: u64) -> (Date, (u8, u8, u8)) {
    let seconds = i64::try_from(at / SECOND).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (moment.date(), moment.time().as_hms())
}

/// Seconds since the beginning of 1970 of a date and a time such as `04:38:15`.
fn moment(year: i32, month: Month, day: u8, time: &str) -> Option<i64> {
    if time.len() != 8 || !is_at(time, &[2, 5], b':') {
        return None;
    }
    let [hour, minute, second]: [u8; 3] = [number(time.get(..2)?)?, number(time.get(3..5)?)?, number(time.get(6..)?)?];
    // A leap second is the last moment of its minute.
    let moment = Date::from_calendar_date(year, month, day)
        .ok()?
        .with_hms(hour, minute, if second == 60 { 59 } else { second })
        .ok()?;
    Some(moment.assume_utc().unix_timestamp())
}

/// Seconds of an offset such as `+0130`.
fn offset(text: &str) -> Option<i64> {
    let (sign, digits) = (text.get(..1)?, text.get(1..)?);
    let (hours, minutes): (i64, i64) = (number(digits.get(..2)?)?, number(digits.get(2..4)?)?);
    let seconds = (hours < 24 && minutes < 60 && digits.len() == 4).then_some(hours * 3600 + minutes * 60)?;
    match sign {
        "+" => Some(seconds),
        "-" => Some(-seconds),
        _ => None,
    }
}

fn is_at(text: &str, places: &[usize], byte: u8) -> bool {
    places.iter().all(|place| text.as_bytes().get(*place) == Some(&byte))
}

/// A number of digits alone.
fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: u64 = 1_795_322_295_000_001;

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(rfc3339(AT), "2026-11-22T04:38:15.000001Z");
        assert_eq!(common(AT), "22/Nov/2026:04:38:15 +0000");
    }

    #[test]
    fn both_forms_are_read_with_any_offset() {
        let table = [
            (from_rfc3339("2026-11-22T04:38:15.000001Z"), Some(AT)),
            (from_rfc3339("2026-11-22T06:08:15.0000019+01:30"), Some(AT)),
            (from_rfc3339("2026-11-22T04:38:15Z"), Some(AT - 1)),
            (from_rfc3339("2026-11-22T04:38:15.5Z"), Some(AT + 499_999)),
            (from_rfc3339("2026-11-31T04:38:15Z"), None),
            (from_rfc3339("2026-11-22 04:38"), None),
            (from_rfc3339("2026-11-22T04:38:15"), None),
            (from_rfc3339("1969-12-31T23:59:59Z"), None),
            (from_common("22/Nov/2026:04:38:15 +0000"), Some(AT - 1)),
            (from_common("21/Nov/2026:20:38:15 -0800"), Some(AT - 1)),
            (from_common("22/Nov/2026:04:38:61 +0000"), None),
            (from_common("22/Nov/2026:04:38:15"), None),
            (from_common("22/Nie/2026:04:38:15 +0000"), None),
        ];
        for (row, (read, expected)) in table.into_iter().enumerate() {
            assert_eq!(read, expected, "row {row}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(at in 0..4_000_000_000_000_000_u64) {
            prop_assert_eq!(from_rfc3339(&rfc3339(at)), Some(at));
            prop_assert_eq!(from_common(&common(at)), Some(at / SECOND * SECOND));
        }

        #[test]
        fn no_text_makes_reading_panic(text in r"[0-9TtZ:/+. é-]{0,40}") {
            let _ = (from_rfc3339(&text), from_common(&text));
        }
    }
}
