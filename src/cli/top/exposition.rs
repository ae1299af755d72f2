//! Reads pages of `/metrics`, and what happened between two of them.
//!
//! Promised: a line that is no sample is passed over; a counter that fell began anew at zero, as after a restart.
//! Not promised: exemplars and timestamps, which the proxy does not write.

use std::collections::{BTreeMap, BTreeSet};

/// A label and the value it must have.
pub(super) type Matcher<'a> = (&'a str, &'a str);

/// What a page says.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// Two pages of one proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Between<'a> {
    pub(super) before: &'a Page,
    pub(super) now: &'a Page,
    /// The time from one to the other, above 0.
    pub(super) seconds: f64,
}

// === impl Page ===

impl Page {
    pub(super) fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter(|line| !line.starts_with('#')).filter_map(Sample::parse).collect() }
    }

    /// The sum of all samples that fit; `None` where there is none.
    pub(super) fn sum(&self, name: &str, matchers: &[Matcher<'_>]) -> Option<f64> {
        let mut fitting = self.fitting(name, matchers).peekable();
        fitting.peek().is_some().then(|| fitting.map(|sample| sample.value).sum())
    }

    /// The values that a label of a metric has.
    fn values(&self, name: &str, label: &str) -> BTreeSet<&str> {
        self.samples.iter().filter(|sample| sample.name == name).filter_map(|sample| sample.label(label)).collect()
    }

    /// The sum of a metric for each value of a label.
    pub(super) fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let values = self.values(name, label).into_iter();
        values.filter_map(|value| Some((value.to_owned(), self.sum(name, &[(label, value)])?))).collect()
    }

    fn fitting<'a>(&'a self, name: &'a str, matchers: &'a [Matcher<'_>]) -> impl Iterator<Item = &'a Sample> {
        let fits = |sample: &Sample| matchers.iter().all(|(label, value)| sample.label(label) == Some(value));
        self.samples.iter().filter(move |sample| sample.name == name && fits(sample))
    }

    /// The counts of a histogram's buckets by their upper bounds, ascending; each counts what those below it count.
    fn buckets(&self, histogram: &str, matchers: &[Matcher<'_>]) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.fitting(&format!("{histogram}_bucket"), matchers) {
            let Some(bound) = sample.label("le").and_then(|bound| bound.parse::<f64>().ok()) else { continue };
            match buckets.binary_search_by(|(other, _)| other.total_cmp(&bound)) {
                Ok(place) => buckets[place].1 += sample.value,
                Err(place) => buckets.insert(place, (bound, sample.value)),
            }
        }
        buckets
    }
}

// === impl Between ===

impl Between<'_> {
    /// By how much a counter grew in a second; 0 where there is none.
    pub(super) fn rate(&self, name: &str, matchers: &[Matcher<'_>]) -> f64 {
        let of = |page: &Page| page.sum(name, matchers).unwrap_or_default();
        growth(of(self.before), of(self.now)) / self.seconds
    }

    /// The same for each value of a label.
    pub(super) fn rates(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let values = self.now.values(name, label).into_iter();
        values.map(|value| (value.to_owned(), self.rate(name, &[(label, value)]))).collect()
    }

    /// The value that a `share` of what a histogram counted meanwhile did not exceed, linear inside a bucket; `None` where
    /// it counted nothing.
    pub(super) fn quantile(&self, histogram: &str, matchers: &[Matcher<'_>], share: f64) -> Option<f64> {
        let before: Vec<(f64, f64)> = self.before.buckets(histogram, matchers);
        let count_before =
            |bound: f64| before.iter().find(|(other, _)| other.total_cmp(&bound).is_eq()).map_or(0.0, |(_, count)| *count);
        let buckets = self.now.buckets(histogram, matchers).into_iter();
        let counts: Vec<(f64, f64)> = buckets.map(|(bound, count)| (bound, growth(count_before(bound), count))).collect();
        let wanted = counts.last().map(|(_, all)| all * share).filter(|wanted| *wanted > 0.0)?;
        let mut below = (0.0, 0.0);
        for (bound, count) in counts {
            if count >= wanted {
                let part = (wanted - below.1) / (count - below.1);
                // What lies above all bounds is told by the highest.
                return Some(if bound.is_finite() { below.0 + (bound - below.0) * part } else { below.0 });
            }
            below = (bound, count);
        }
        None
    }
}

fn growth(before: f64, now: f64) -> f64 {
    if now >= before { now - before } else { now }
}

// === impl Sample ===

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, quoted) = rest.split_once("=\"")?;
                let (value, after) = unquote(quoted)?;
                labels.push((label.to_owned(), value));
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }

    fn label(&self, wanted: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == wanted).map(|(_, value)| value.as_str())
    }
}

/// What stands before the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    loop {
        match characters.next()? {
            (end, '"') => return Some((value, &text[end + 1..])),
            (_, '\\') => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            (_, other) => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_what_is_escaped_in_them() {
        let sample = Sample::parse(r#"a_total{b="c\"}, d\\",e=""} 1.5"#).unwrap();
        let labels = [("b", r#"c"}, d\"#), ("e", "")].map(|(label, value)| (label.to_owned(), value.to_owned()));
        assert_eq!(sample, Sample { name: "a_total".to_owned(), labels: labels.into(), value: 1.5 });
        for no_sample in ["", "a", "a{", "a{b=\"c\" 1", "a{b=\"c} 1", "a{b} 1", "a x", "a{}"] {
            assert_eq!(Sample::parse(no_sample), None, "{no_sample:?}");
        }
        assert_eq!(Page::parse("# EOF\na 1\na{b=\"c\"} 2\n").sum("a", &[]), Some(3.0));
        assert_eq!(Page::parse("a 1\n").sum("b", &[]), None);
    }

    #[test]
    fn a_counter_that_fell_began_anew() {
        let (before, now) = (Page::parse("a{b=\"c\"} 10\na{b=\"d\"} 2"), Page::parse("a{b=\"c\"} 4\na{b=\"d\"} 8"));
        let between = Between { before: &before, now: &now, seconds: 2.0 };
        assert_eq!(between.rates("a", "b"), BTreeMap::from([("c".to_owned(), 2.0), ("d".to_owned(), 3.0)]));
        assert!(between.rate("x", &[]).abs() < f64::EPSILON);
    }

    #[test]
    fn quantiles_are_of_what_came_meanwhile() {
        let page = |counts: [u32; 3]| {
            let bounds = ["1.0", "2.0", "+Inf"].iter().zip(counts);
            Page::parse(
                &bounds.map(|(bound, count)| format!("h_bucket{{le=\"{bound}\"}} {count}\n")).collect::<Vec<_>>().concat(),
            )
        };
        let quantile = |before, now, share| {
            let (before, now) = (page(before), page(now));
            Between { before: &before, now: &now, seconds: 1.0 }.quantile("h", &[], share)
        };
        for (before, now, share, expected) in [
            ([0, 0, 0], [10, 10, 10], 0.5, Some(0.5)),
            ([10, 10, 10], [10, 20, 20], 0.5, Some(1.5)),
            ([0, 0, 0], [5, 10, 20], 0.99, Some(2.0)),
            ([5, 10, 20], [5, 10, 20], 0.5, None),
            ([90, 90, 90], [0, 4, 4], 1.0, Some(2.0)),
        ] {
            assert_eq!(quantile(before, now, share), expected, "{before:?} {now:?} {share}");
        }
    }
}
