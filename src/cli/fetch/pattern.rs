//! URLs with patterns, and the pages they stand for. Pure.
//!
//! `{1..12}` counts, `{0..500..100}` in steps, `{01..12}` with leading zeros, `{1..}` and `{0....100}` without end; `{a,b}`
//! is each of its words. Several patterns give every combination, the last one turning fastest: the pages it gives while the
//! others stand still are a *series*. A brace that is part of the URL itself is written `%7B` or `%7D`.
//!
//! Promised: pages are made when they are asked for, never listed; a URL stands for at most [`MAX_PAGES`] of them.

/// The most pages of one URL, also where it has no end of its own: what a mistyped number may cost.
pub(super) const MAX_PAGES: u64 = 10_000_000;

/// A URL that stands for pages.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    /// Text and pattern in turn, as they stand in the URL.
    pieces: Vec<(String, Pattern)>,
    /// What follows the last pattern.
    rest: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Words(Vec<String>),
    Numbers { first: u64, step: u64, count: Option<u64>, width: usize },
}

/// Why a URL stands for nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error("a `{{` without its `}}`, or the other way round (as part of the URL itself, they are written %7B and %7D)")]
    Unbalanced,
    #[error("{{{0}}} is neither numbers, as in {{1..12}}, {{1..}} or {{0..500..100}}, nor words, as in {{voice,chat}}")]
    Neither(String),
    #[error("{{{0}}} counts down: write the smaller number first")]
    CountsDown(String),
    #[error("{{{0}}} has a step of 0")]
    NoStep(String),
    #[error("{{{0}}} has no end, which only the last pattern of a URL may do")]
    OpenInside(String),
    #[error("more than {MAX_PAGES} pages")]
    TooMany,
    #[error("a pattern before the path: one URL goes to one server")]
    InOrigin,
}

// === impl Template ===

impl Template {
    /// Reads a URL, as far as patterns go.
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once('{') {
            let (inside, after) = behind.split_once('}').ok_or(PatternError::Unbalanced)?;
            if before.contains('}') || inside.contains('{') {
                return Err(PatternError::Unbalanced);
            }
            if pieces.is_empty() && !before.split_once("://").is_some_and(|(_, place)| place.contains(['/', '?'])) {
                return Err(PatternError::InOrigin);
            }
            pieces.push((before.to_owned(), Pattern::parse(inside)?));
            rest = after;
            if after.contains('{') && pieces.last().is_some_and(|(_, pattern)| pattern.count().is_none()) {
                return Err(PatternError::OpenInside(inside.to_owned()));
            }
        }
        if rest.contains('}') {
            return Err(PatternError::Unbalanced);
        }
        let template = Self { pieces, rest: rest.to_owned() };
        let pages = template.series().and_then(|series| series.checked_mul(template.length().unwrap_or(1)));
        if pages.is_none_or(|pages| pages > MAX_PAGES) {
            return Err(PatternError::TooMany);
        }
        Ok(template)
    }

    /// How many series there are.
    pub(super) fn series(&self) -> Option<u64> {
        let outer = self.pieces.iter().rev().skip(1);
        outer.map(|(_, pattern)| pattern.count()).try_fold(1, |product: u64, count| product.checked_mul(count?))
    }

    /// How many pages a series has; `None` where it has no end.
    pub(super) fn length(&self) -> Option<u64> {
        self.pieces.last().map_or(Some(1), |(_, pattern)| pattern.count())
    }

    /// The URL of a page, by its series and its place in it.
    pub(super) fn url(&self, mut series: u64, index: u64) -> String {
        let mut places = vec![index];
        for (_, pattern) in self.pieces.iter().rev().skip(1) {
            let count = pattern.count().unwrap_or(1);
            places.push(series % count);
            series /= count;
        }
        let mut url = String::new();
        for ((before, pattern), place) in self.pieces.iter().zip(places.into_iter().rev()) {
            url.push_str(before);
            pattern.write(place, &mut url);
        }
        url + &self.rest
    }
}

// === impl Pattern ===

impl Pattern {
    fn parse(inside: &str) -> Result<Self, PatternError> {
        if inside.contains(',') {
            return Ok(Self::Words(inside.split(',').map(str::to_owned).collect()));
        }
        let neither = || PatternError::Neither(inside.to_owned());
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().ok_or_else(neither)
        };
        let mut parts = inside.split("..");
        let (Some(first), Some(last), step, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(neither());
        };
        let padded = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
        let width = if padded { first.len().max(last.len()) } else { 0 };
        let (first, step): (u64, u64) = (number(first)?, step.map_or(Ok(1), number)?);
        if step == 0 {
            return Err(PatternError::NoStep(inside.to_owned()));
        }
        // So far that no page of a series without end overflows.
        if first.max(step) > u64::MAX / (2 * MAX_PAGES) {
            return Err(PatternError::TooMany);
        }
        let count = match last {
            "" => None,
            last => {
                let distance = number(last)?.checked_sub(first);
                Some((distance.ok_or_else(|| PatternError::CountsDown(inside.to_owned()))? / step).saturating_add(1))
            }
        };
        Ok(Self::Numbers { first, step, count, width })
    }

    fn count(&self) -> Option<u64> {
        match self {
            Self::Words(words) => Some(words.len() as u64),
            Self::Numbers { count, .. } => *count,
        }
    }

    fn write(&self, place: u64, url: &mut String) {
        use std::fmt::Write as _;

        match self {
            Self::Words(words) => {
                let word = usize::try_from(place).ok().and_then(|place| words.get(place));
                url.push_str(word.map_or("", String::as_str));
            }
            // Writing to a string cannot fail.
            Self::Numbers { first, step, width, .. } => _ = write!(url, "{:0width$}", first + step * place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pages of a URL, the first few where it has no end.
    fn pages(text: &str) -> Vec<String> {
        let template = Template::parse(text).unwrap();
        let length = template.length().unwrap_or(3);
        let series = 0..template.series().unwrap();
        series.flat_map(|series| (0..length).map(move |index| (series, index))).map(|(s, i)| template.url(s, i)).collect()
    }

    #[test]
    fn a_url_stands_for_every_combination_the_last_pattern_turning_fastest() {
        let cases: [(&str, &[&str]); 11] = [
            ("http://h/p", &["http://h/p"]),
            ("http://h/{1..3}", &["http://h/1", "http://h/2", "http://h/3"]),
            ("http://h/?p={8..10}&q", &["http://h/?p=8&q", "http://h/?p=9&q", "http://h/?p=10&q"]),
            ("http://h?p={1..2}", &["http://h?p=1", "http://h?p=2"]),
            ("http://h/{08..10}", &["http://h/08", "http://h/09", "http://h/10"]),
            ("http://h/{0..25..10}", &["http://h/0", "http://h/10", "http://h/20"]),
            ("http://h/{1..}", &["http://h/1", "http://h/2", "http://h/3"]),
            ("http://h/{0....100}", &["http://h/0", "http://h/100", "http://h/200"]),
            ("http://h/{voice,chat,}", &["http://h/voice", "http://h/chat", "http://h/"]),
            ("http://h/{a,b}/{1..2}", &["http://h/a/1", "http://h/a/2", "http://h/b/1", "http://h/b/2"]),
            ("http://h/{5..5}", &["http://h/5"]),
        ];
        for (text, expected) in cases {
            assert_eq!(pages(text), expected, "{text}");
        }
        assert_eq!(pages("http://h/{1..2}{a,b}{3..4}").len(), 8);
        assert_eq!(pages("http://h/{1..2}{a,b}{3..4}")[5], "http://h/2a4");
    }

    #[test]
    fn what_stands_for_nothing_is_told() {
        let neither = |inside: &str| PatternError::Neither(inside.to_owned());
        for (text, expected) in [
            ("http://h/{1..3", PatternError::Unbalanced),
            ("http://h/1..3}", PatternError::Unbalanced),
            ("http://h/}{1..3}", PatternError::Unbalanced),
            ("http://h/{{1..3}}", PatternError::Unbalanced),
            ("http://h/{}", neither("")),
            ("http://h/{7}", neither("7")),
            ("http://h/{a..b}", neither("a..b")),
            ("http://h/{..3}", neither("..3")),
            ("http://h/{-1..3}", neither("-1..3")),
            ("http://h/{1..2..3..4}", neither("1..2..3..4")),
            ("http://h/{1..99999999999999999999}", neither("1..99999999999999999999")),
            ("http://h/{3..1}", PatternError::CountsDown("3..1".to_owned())),
            ("http://h/{1..3..0}", PatternError::NoStep("1..3..0".to_owned())),
            ("http://h/{1..}/{1..2}", PatternError::OpenInside("1..".to_owned())),
            ("http://h/{1..10000001}", PatternError::TooMany),
            ("http://h/{0..18446744073709551615}", PatternError::TooMany),
            ("http://h/{1..9999999}{a,b}", PatternError::TooMany),
            ("http://h/{18446744073709551615..}", PatternError::TooMany),
            ("http://{a,b}/x", PatternError::InOrigin),
            ("{http,https}://h/x", PatternError::InOrigin),
        ] {
            assert_eq!(Template::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn ten_million_pages_are_not_listed() {
        let template = Template::parse("http://h/{1..10000000}").unwrap();
        assert_eq!((template.length(), template.url(0, 9_999_999).as_str()), (Some(MAX_PAGES), "http://h/10000000"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_typed_no_page_of_it_panics(text in "[{}.,0-9a]{0,30}", index in 0..MAX_PAGES) {
            if let Ok(template) = Template::parse(&format!("http://h/{text}")) {
                let last = (template.series().unwrap() - 1, template.length().map_or(index, |length| length - 1));
                let url = template.url(last.0, last.1);
                let is_filled_in = !url.contains(['{', '}']);
                proptest::prop_assert!(is_filled_in, "{}", url);
            }
        }
    }
}
