//! Numbers and times as people read them.

/// The time of day (UTC) of a Unix time.
pub fn clock(at: u64) -> String {
    let second = at % 86_400;
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// A rate.
pub fn per_second(rate: f64) -> String {
    format!("{}/s", number(rate))
}

/// A number with no more digits than say something.
pub fn number(value: f64) -> String {
    match value {
        value if value == 0.0 || value >= 99.5 => format!("{value:.0}"),
        value if value >= 9.95 => trimmed(format!("{value:.1}")),
        value => trimmed(format!("{value:.2}")),
    }
}

/// A time that something took, in seconds.
pub fn taken(seconds: f64) -> String {
    match seconds * 1000.0 {
        0.0 => "0".to_owned(),
        millis if millis < 999.5 => format!("{} ms", number(millis)),
        millis => format!("{} s", number(millis / 1000.0)),
    }
}

/// How long something lasts, in seconds.
pub fn lasting(seconds: u64) -> String {
    let (whole, unit, rest, rest_unit) = match seconds {
        0..60 => (seconds, "s", 0, ""),
        60..3600 => (seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => (seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => (seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    };
    if rest == 0 { format!("{whole} {unit}") } else { format!("{whole} {unit} {rest} {rest_unit}") }
}

fn trimmed(number: String) -> String {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.').to_owned() } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_say_something() {
        let table =
            [(0.0, "0"), (0.004, "0"), (0.5, "0.5"), (1.234, "1.23"), (12.34, "12.3"), (99.96, "100"), (1234.5, "1234")];
        for (value, expected) in table {
            assert_eq!(number(value), expected, "{value}");
        }
    }

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        assert_eq!([0.0, 0.0004, 0.0123, 1.5].map(taken), ["0", "0.4 ms", "12.3 ms", "1.5 s"]);
        assert_eq!([7, 61, 3_660, 90_000].map(lasting), ["7 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"].map(str::to_owned));
        assert_eq!(clock(86_400 + 3_661), "01:01:01");
    }
}
