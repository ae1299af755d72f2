//! What a path *means*, for matching and for keys: the bytes that go upstream are never changed.
//!
//! Promised: every spelling of a path that a server might take for another has the same canonical form, or is refused.
//! Percent-encoded characters are decoded, ASCII case is folded, `;parameters` of a segment are cut and one trailing slash
//! is ignored. Servers disagree about empty and dot segments, encoded slashes, backslashes and control characters, so a
//! path that holds one, however it is spelled, is [`Ambiguous`].

use std::borrow::Cow;

use crate::wire::byte_set;

/// Servers disagree about what this path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous;

/// The canonical form of a path: `/` or `/segment/segment`. Borrowed where the path already has that form.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    let body = path.strip_prefix('/').ok_or(Ambiguous)?;
    if body.is_empty() {
        return Ok(Cow::Borrowed("/"));
    }
    let body = body.strip_suffix('/').unwrap_or(body);
    if body.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        let are_clear = body.as_bytes().split(|byte| *byte == b'/').all(is_clear);
        return if are_clear { Ok(Cow::Borrowed(&path[..=body.len()])) } else { Err(Ambiguous) };
    }
    let mut canonical = String::with_capacity(path.len());
    for segment in body.split('/') {
        canonical.push('/');
        let start = canonical.len();
        decode(segment.split(';').next().unwrap_or_default(), &mut canonical)?;
        if !is_clear(&canonical.as_bytes()[start..]) {
            return Err(Ambiguous);
        }
    }
    Ok(Cow::Owned(canonical))
}

/// What stands for itself in every spelling.
const PLAIN: [bool; 256] = byte_set(b"abcdefghijklmnopqrstuvwxyz0123456789-_.~/:@!$&'()*+,=");

fn is_clear(segment: &[u8]) -> bool {
    !matches!(segment, b"" | b"." | b"..")
}

/// Appends a segment with its percent-encoding undone and its ASCII case folded. Bytes beyond ASCII stay encoded.
fn decode(segment: &str, canonical: &mut String) -> Result<(), Ambiguous> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = digit().zip(digit()).ok_or(Ambiguous)?;
                u8::try_from(high << 4 | low).map_err(|_| Ambiguous)?
            }
            other => other,
        };
        match byte {
            b'/' | b'\\' | b';' | 0..=0x1f | 0x7f => return Err(Ambiguous),
            0x80.. => encode(byte, canonical),
            ascii => canonical.push(char::from(ascii.to_ascii_lowercase())),
        }
    }
    Ok(())
}

fn encode(byte: u8, canonical: &mut String) {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    canonical.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_has_one_canonical_form() {
        for spelling in [
            "/api/web~chat",
            "/api/web~chat/",
            "/API/Web~Chat",
            "/%61pi/web%7Echat",
            "/api;v=1/web~chat;x",
            "/api/web%7echat;..",
        ] {
            assert_eq!(canonical(spelling).as_deref(), Ok("/api/web~chat"), "{spelling}");
        }
        assert_eq!(canonical("/").as_deref(), Ok("/"));
        assert_eq!(canonical("/caf%C3%A9").as_deref(), Ok("/caf%c3%a9"));
        assert_eq!(canonical("/a%252e").as_deref(), Ok("/a%2e"), "decoded once, as a server does");
    }

    #[test]
    fn a_path_that_servers_read_differently_is_refused() {
        for path in [
            "",
            "*",
            "api",
            "//",
            "//api",
            "/api//x",
            "/api/./x",
            "/api/../x",
            "/api/%2e%2E/x",
            "/api/.%2e",
            "/..;/x",
            "/api/a%2fb",
            "/api/a%5Cb",
            "/api/a\\b",
            "/api/%00",
            "/api/%0d%0a",
            "/api/%",
            "/api/%2",
            "/api/%zz",
            "/api/%7f",
            "/;x/api",
            "/a%3bb",
        ] {
            assert_eq!(canonical(path), Err(Ambiguous), "{path}");
        }
    }

    #[test]
    fn a_path_in_canonical_form_is_not_copied() {
        assert!(matches!(canonical("/api/v2/engage/webchat/1f-2"), Ok(Cow::Borrowed(_))));
    }
}
