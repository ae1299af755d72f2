//! The path that goes upstream, where a route names it: literal segments, and segments of the path that was asked for.
//!
//! Promised: a captured segment goes on as it was spelled, without `;parameters`; where its spelling is not clean, its
//! meaning is encoded anew. It stays one segment: no spelling adds a segment, a query or a dot segment, because a path that
//! could is [refused](super::path) before.

use hyper::{Uri, http::uri::PathAndQuery};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::bad_request::BadRequest;

/// What a segment is made of as it is (RFC 3986, section 3.3), but for `;` and what is percent-encoded.
const CLEAN: &[u8] = b"-._~!$&'()*+,=:@";
/// What is encoded: all but the unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How the upstream path is made from the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// The segment of this number, counted from 0.
    Segment(usize),
}

// === impl Rewrite ===

impl Rewrite {
    /// Reads `template`, whose captures are those of `path`, a path of the same route.
    pub fn new(template: &str, path: &str) -> Self {
        let wanted = template.split('/').filter(|segment| !segment.is_empty());
        let number = |wanted: &str| segments(path).position(|segment| segment == wanted);
        let part = |wanted: &str| match number(wanted).filter(|_| wanted.starts_with('{')) {
            Some(number) => Part::Segment(number),
            None => Part::Literal(wanted.to_owned()),
        };
        Self(wanted.map(part).collect())
    }

    /// What to ask the upstream for instead of `asked`, which the route has taken: another path, the same query. Fails where
    /// that would be too long to be a target.
    pub fn target(&self, asked: &Uri) -> Result<Uri, BadRequest> {
        let path = self.path(asked.path());
        let target = asked.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        PathAndQuery::try_from(target).map(Uri::from).map_err(|_| BadRequest::PathAmbiguous)
    }

    fn path(&self, path: &str) -> String {
        let mut rewritten = String::with_capacity(path.len() + 32);
        for part in &self.0 {
            rewritten.push('/');
            match part {
                Part::Literal(literal) => rewritten.push_str(literal),
                Part::Segment(number) => push_segment(segments(path).nth(*number).unwrap_or_default(), &mut rewritten),
            }
        }
        if rewritten.is_empty() { "/".to_owned() } else { rewritten }
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn push_segment(segment: &str, rewritten: &mut String) {
    let segment = segment.split(';').next().unwrap_or_default();
    if segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'%' || CLEAN.contains(&byte)) {
        rewritten.push_str(segment);
    } else {
        let meant: Vec<u8> = percent_decode_str(segment).collect();
        rewritten.extend(percent_encode(&meant, RESERVED));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::path::canonical, *};

    #[test]
    fn a_path_is_built_of_captured_segments_as_they_were_spelled() {
        let cases = [
            ("/api/{id}/invoke", "/invoke/{id}", "/invoke/A-17", "/api/A-17/invoke"),
            ("/api/{id}/invoke", "/invoke/{id}", "/invoke/A-17/", "/api/A-17/invoke"),
            ("/api/{id}/invoke", "/invoke/{id}", "/INVOKE/a%20b%3f%C3%A9", "/api/a%20b%3f%C3%A9/invoke"),
            ("/api/{id}", "/invoke/{id}", "/invoke/a;v=1", "/api/a"),
            ("/api/{id}", "/invoke/{id}", "/invoke/a\"b%20", "/api/a%22b%20"),
            ("/api/{id}", "/invoke/{id}", "/invoke/a:b@c=d", "/api/a:b@c=d"),
            ("/api/{id}", "/invoke/{id}", "/invoke/%252e%252e", "/api/%252e%252e"),
            ("/{b}/{a}", "/{a}/x/{b}", "/1/x/2", "/2/1"),
            ("/fixed", "/x/{a}", "/x/1", "/fixed"),
            ("/", "/x/{a}", "/x/1", "/"),
        ];
        for (template, pattern, asked, expected) in cases {
            assert_eq!(Rewrite::new(template, pattern).path(asked), expected, "{template} {asked}");
        }
    }

    #[test]
    fn the_query_stays_and_no_target_is_too_long() {
        let target = |asked: &str| Rewrite::new("/api/{id}", "/invoke/{id}").target(&asked.parse().unwrap());
        assert_eq!(target("/invoke/a?x=%20&y").unwrap(), "/api/a?x=%20&y");
        assert_eq!(target("/invoke/a").unwrap(), "/api/a");
        // Each of these characters takes three once it is encoded, and then it is too much.
        assert_eq!(target(&format!("/invoke/{}", "\"".repeat(30_000))), Err(BadRequest::PathAmbiguous));
    }

    proptest! {
        #[test]
        fn no_spelling_leaves_its_segment(segment in r#"([a-zA-Z0-9%./;?#"{}\\ -]|%[0-9a-fA-F]{2}){1,12}"#) {
            let asked = format!("/invoke/{segment}");
            let uri = asked.parse::<Uri>();
            let taken = uri.ok().filter(|uri| canonical(uri.path()).is_ok_and(|path| path.split('/').count() == 3));
            if let Some(uri) = taken {
                let rewrite = Rewrite::new("/api/{id}/invoke", "/invoke/{id}");
                let rewritten = rewrite.path(uri.path());
                let inner = rewritten.strip_prefix("/api/").and_then(|rest| rest.strip_suffix("/invoke"));
                prop_assert!(inner.is_some_and(|inner| !inner.is_empty() && !inner.contains(['/', '?', '#', ';'])), "{rewritten}");
                prop_assert!(rewrite.target(&uri).is_ok());
                let meant = |path: &str| canonical(path).unwrap().split('/').nth(2).map(str::to_owned);
                prop_assert_eq!(meant(&rewritten), meant(uri.path()));
            }
        }
    }
}
