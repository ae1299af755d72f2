//! URLs as they may be shown. Pure.
//!
//! Promised: the value of a query parameter whose name tells of a secret is not shown; all others are, because they tell
//! one page from another. Not promised: that a secret under a harmless name stays hidden.

use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

/// What the name of a secret contains, without `-` and `_`.
const SECRETS: [&str; 9] =
    ["token", "secret", "passw", "apikey", "accesskey", "signature", "credential", "authorization", "session"];

/// What the name of a secret is.
const SHORT_SECRETS: [&str; 6] = ["key", "sig", "code", "auth", "jwt", "sid"];

/// A URL without the values of secrets in its query.
pub(super) fn shown(url: &str) -> String {
    let Some((place, query)) = url.split_once('?') else { return url.to_owned() };
    let mut text = place.to_owned();
    for (number, parameter) in query.split('&').enumerate() {
        text.push(if number == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            // Writing to a string cannot fail.
            Some((name, _)) if is_secret(name) => _ = write!(text, "{name}=[redacted]"),
            _ => text.push_str(parameter),
        }
    }
    text
}

fn is_secret(name: &str) -> bool {
    let name = percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase().replace(['-', '_'], "");
    SHORT_SECRETS.contains(&name.as_str()) || SECRETS.iter().any(|secret| name.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_and_pages_can_be_told_apart() {
        for (url, expected) in [
            ("http://h/p", "http://h/p"),
            ("http://h/p?page=3&pageSize=100", "http://h/p?page=3&pageSize=100"),
            ("http://h/p?access_token=a=b&page=3", "http://h/p?access_token=[redacted]&page=3"),
            (
                "http://h/p?a=1&API-Key=x&sig=y&%74oken=z",
                "http://h/p?a=1&API-Key=[redacted]&sig=[redacted]&%74oken=[redacted]",
            ),
            ("http://h/p?keyword=x&token", "http://h/p?keyword=x&token"),
            ("http://h/p?", "http://h/p?"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
