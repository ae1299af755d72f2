//! Reading and removing parameters of a query string, without changing the bytes of the others.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A parameter stands in the query more than once, or is no UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// The value of parameter `name`, decoded (`+` is a space), if it is there exactly once.
pub(super) fn value<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, Ambiguous> {
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key)? == name && found.replace(decode(value)?).is_some() {
            return Err(Ambiguous);
        }
    }
    Ok(found)
}

/// The query without parameter `name`; `None` where nothing changes.
pub(super) fn without(query: &str, names: &[String]) -> Option<String> {
    let named = |pair: &&str| {
        let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
        decode(key).is_ok_and(|key| names.iter().any(|name| *name == key))
    };
    if !query.split('&').any(|pair| named(&pair)) {
        return None;
    }
    Some(query.split('&').filter(|pair| !named(pair)).collect::<Vec<_>>().join("&"))
}

fn decode(text: &str) -> Result<Cow<'_, str>, Ambiguous> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(|decoded| Cow::Owned(decoded.into_owned())).map_err(|_| Ambiguous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_once_however_it_is_spelled() {
        let cases: [(&str, Result<Option<&str>, Ambiguous>); 9] = [
            ("", Ok(None)),
            ("a=1&b=2", Ok(None)),
            ("client_id=alice", Ok(Some("alice"))),
            ("a=1&client_id=al%20ice+x&b", Ok(Some("al ice x"))),
            ("%63lient_id=bob", Ok(Some("bob"))),
            ("client_id", Ok(Some(""))),
            ("client_id=a&client_id=b", Err(Ambiguous)),
            ("client_id=a&client%5Fid=b", Err(Ambiguous)),
            ("client_id=%ff", Err(Ambiguous)),
        ];
        for (query, expected) in cases {
            assert_eq!(
                value(query, "client_id").map(|found| found.as_deref().map(str::to_owned)),
                expected.map(|e| e.map(str::to_owned)),
                "{query}"
            );
        }
    }

    #[test]
    fn removing_a_parameter_leaves_every_other_byte() {
        let names = ["client_id".to_owned()];
        assert_eq!(without("a=%7e&b=1", &names), None);
        assert_eq!(without("a=%7e&client_id=x&b=+1", &names).as_deref(), Some("a=%7e&b=+1"));
        assert_eq!(without("%63lient_id=x", &names).as_deref(), Some(""));
    }
}
