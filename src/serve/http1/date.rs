//! The date of a response, put into words once a second.

use std::{
    cell::Cell,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use httpdate::HttpDate;

/// How long a date is (RFC 9110, section 5.6.7).
const LENGTH: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();

thread_local! {
    /// A second, since 1970, and its date.
    static LAST: Cell<(u64, [u8; LENGTH])> = const { Cell::new((0, *b"Thu, 01 Jan 1970 00:00:00 GMT")) };
}

/// Appends the date of now.
pub(super) fn append(buffer: &mut Vec<u8>) {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut last, mut date) = LAST.get();
    if last != second {
        last = second;
        // It is as long as all others.
        let _ = write!(&mut date[..], "{}", HttpDate::from(now));
        LAST.set((last, date));
    }
    buffer.extend_from_slice(&date);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_now_each_time_it_is_asked_for() {
        for _ in 0..2 {
            let mut written = Vec::new();
            append(&mut written);
            let date = httpdate::parse_http_date(std::str::from_utf8(&written).unwrap()).unwrap();
            assert!(date.elapsed().unwrap().as_secs() < 60, "{date:?}");
        }
    }
}
