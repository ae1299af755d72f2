//! Numbers as text, for answers: those below a hundred, which most are, are there already.

use std::fmt::Write as _;

use hyper::header::HeaderValue;

/// Two digits of each number below a hundred.
const DIGITS: &str = "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
                      5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/// The value of a field that is a number.
pub(super) fn field(number: u64) -> HeaderValue {
    small(number).map_or_else(|| HeaderValue::from(number), HeaderValue::from_static)
}

/// Writes a number.
pub(super) fn push(text: &mut String, number: u64) {
    match small(number) {
        Some(digits) => text.push_str(digits),
        // Writing to a string cannot fail.
        None => _ = write!(text, "{number}"),
    }
}

fn small(number: u64) -> Option<&'static str> {
    let end = 2 * usize::try_from(number).ok().filter(|number| *number < 100)? + 2;
    DIGITS.get(end - if number < 10 { 1 } else { 2 }..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_written_as_it_is_read() {
        for number in (0..1000).chain([999_999_999_999_999, u64::MAX]) {
            let mut text = "=".to_owned();
            push(&mut text, number);
            assert_eq!(text, format!("={number}"));
            assert_eq!(field(number), number.to_string());
        }
    }
}
