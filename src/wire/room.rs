//! Room for the fields of heads, kept from one message for the next: to make it anew for each costs more than to fill it.
//!
//! Promised: what is taken is empty, and a thread keeps at most [`MOST`] maps for at most [`LARGEST`] fields each, half a mebibyte
//! in all.

use std::cell::RefCell;

use hyper::HeaderMap;

/// As many as messages are read and written at once by turns.
const MOST: usize = 64;

/// Fields; few heads have more.
const LARGEST: usize = 64;

thread_local! {
    static KEPT: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
pub(super) fn take(fields: usize) -> HeaderMap {
    let mut headers = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    headers.reserve(fields);
    headers
}

/// Keeps the room of a map that was used.
pub fn keep(mut headers: HeaderMap) {
    if !(1..=LARGEST).contains(&headers.capacity()) {
        return;
    }
    headers.clear();
    KEPT.with_borrow_mut(|kept| {
        if kept.len() < MOST {
            kept.push(headers);
        }
    });
}

#[cfg(test)]
mod tests {
    use hyper::header::{HOST, HeaderValue};

    use super::*;

    fn used(fields: usize) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(fields);
        headers.insert(HOST, HeaderValue::from_static("chat.example"));
        headers
    }

    #[test]
    fn what_is_taken_is_empty_and_little_is_kept() {
        (0..2 * MOST).for_each(|_| keep(used(10)));
        keep(used(2 * LARGEST));
        keep(HeaderMap::new());
        let kept = KEPT.with_borrow(|kept| kept.iter().map(HeaderMap::capacity).collect::<Vec<_>>());
        assert_eq!(kept, [used(10).capacity(); MOST]);
        let taken = take(20);
        assert!(taken.is_empty() && taken.capacity() >= 20);
        assert_eq!(KEPT.with_borrow(Vec::len), MOST - 1);
    }
}
