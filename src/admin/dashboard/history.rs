//! What the charts are drawn from: the last five minutes in seconds, the last hour in quarters of minutes, and the moments at
//! which something changed.
//!
//! Promised: at most [`RECENT`] + [`OLDER`] points of some 500 bytes, and [`MOMENTS`] moments.
//! Not promised: anything of before the start.

use std::{collections::VecDeque, fmt};

use super::reading::{Levels, OUTCOMES, Reading, Times};

/// Points of a second.
const RECENT: usize = 300;

/// Points of [`COARSE`] seconds.
const OLDER: usize = 240;

/// Seconds of an older point.
const COARSE: u64 = 15;

/// Moments that are remembered.
const MOMENTS: usize = 50;

/// Columns of a chart.
pub const COLUMNS: usize = 60;

/// How far back charts reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Five minutes, in columns of 5 s.
    Minutes,
    /// An hour, in columns of a minute.
    Hour,
}

/// What happened in some seconds.
#[derive(Debug, Clone, Default)]
pub struct Point {
    /// Its end, in seconds of Unix time.
    pub at: u64,
    /// What it covers.
    pub seconds: f64,
    /// Requests by how they ended.
    pub outcomes: [u64; OUTCOMES],
    /// By their places in [`History::limits`]: admitted, refused. Only where there were any.
    pub decisions: Vec<(usize, [u64; 2])>,
    /// From request head to response head.
    pub whole: Times,
    /// The upstream's part of it.
    pub upstream: Times,
    /// By their places in [`History::signals`], the lowest.
    pub factors: Vec<(usize, f64)>,
}

/// When something became what it then was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// In seconds of Unix time.
    pub at: u64,
    /// What changed.
    pub subject: &'static str,
    /// What it became.
    pub state: String,
    /// Why; empty where nobody knows.
    pub cause: String,
}

/// The recent past.
#[derive(Debug, Default)]
pub struct History {
    recent: VecDeque<Point>,
    older: VecDeque<Point>,
    last: Option<Reading>,
    /// Route and limit, as they turn up.
    pub limits: Vec<(String, String)>,
    /// Signals, as they turn up.
    pub signals: Vec<String>,
    moments: VecDeque<Moment>,
}

// === impl Span ===

impl Span {
    /// Seconds of one column.
    pub fn width(self) -> u64 {
        match self {
            Self::Minutes => 5,
            Self::Hour => 60,
        }
    }

    /// As it stands in addresses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minutes => "5m",
            Self::Hour => "1h",
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Minutes => "5 minutes",
            Self::Hour => "hour",
        })
    }
}

// === impl History ===

impl History {
    /// Adds what was read at `at`, `seconds` after what was read before.
    pub fn add(&mut self, at: u64, seconds: f64, reading: Reading) {
        let before = self.last.take().unwrap_or_else(|| reading.clone());
        let point = self.point(at, seconds, &reading, &before);
        match self.older.back_mut().filter(|last| last.at / COARSE == at / COARSE) {
            Some(last) => last.add(&point),
            None => push(&mut self.older, point.clone(), OLDER),
        }
        push(&mut self.recent, point, RECENT);
        self.last = Some(reading);
    }

    fn point(&mut self, at: u64, seconds: f64, reading: &Reading, before: &Reading) -> Point {
        let mut decisions = Vec::new();
        for (names, counts) in &reading.decisions {
            let earlier = before.decisions.get(names).copied().unwrap_or_default();
            let added = [0, 1].map(|kind| counts[kind].saturating_sub(earlier[kind]));
            let place = place(&mut self.limits, names);
            if added != [0, 0] {
                decisions.push((place, added));
            }
        }
        let factors = reading.factors.iter().map(|(signal, factor)| (place(&mut self.signals, signal), *factor));
        Point {
            at,
            seconds,
            outcomes: std::array::from_fn(|kind| reading.outcomes[kind].saturating_sub(before.outcomes[kind])),
            decisions,
            whole: reading.whole.since(&before.whole),
            upstream: reading.upstream.since(&before.upstream),
            factors: factors.collect(),
        }
    }

    /// Remembers that `subject` is in a state since `at`, where it was in another.
    pub fn note(&mut self, at: u64, subject: &'static str, state: String, cause: String) {
        let last = self.moments.iter().rev().find(|moment| moment.subject == subject);
        if last.is_none_or(|last| last.state != state) {
            push(&mut self.moments, Moment { at, subject, state, cause }, MOMENTS);
        }
    }

    /// What is remembered, the latest first.
    pub fn moments(&self) -> impl Iterator<Item = &Moment> {
        self.moments.iter().rev()
    }

    /// How much there is of what comes and goes.
    pub fn levels(&self) -> Levels {
        self.last.as_ref().map(|reading| reading.levels).unwrap_or_default()
    }

    /// The last `seconds`, as one.
    pub fn lately(&self, seconds: usize) -> Point {
        let mut lately = Point::default();
        self.recent.iter().rev().take(seconds).for_each(|point| lately.add(point));
        lately
    }

    /// The columns of a chart, each with the Unix time at which it begins. They begin at whole multiples of their width, so
    /// that none changes once it is complete. `None` is of before the start.
    pub fn columns(&self, span: Span) -> Vec<(u64, Option<Point>)> {
        let width = span.width();
        let points = if span == Span::Minutes { &self.recent } else { &self.older };
        let newest = points.back().map_or(0, |point| point.at / width);
        let first = (newest + 1).saturating_sub(COLUMNS as u64);
        let mut columns: Vec<(u64, Option<Point>)> = (first..=newest).map(|column| (column * width, None)).collect();
        for point in points.iter().filter(|point| point.at / width >= first) {
            let column = usize::try_from(point.at / width - first).unwrap_or_default();
            if let Some((_, column)) = columns.get_mut(column) {
                column.get_or_insert_default().add(point);
            }
        }
        columns
    }
}

// === impl Point ===

impl Point {
    fn add(&mut self, other: &Self) {
        self.at = self.at.max(other.at);
        self.seconds += other.seconds;
        for (kind, count) in other.outcomes.iter().enumerate() {
            self.outcomes[kind] += count;
        }
        for (limit, counts) in &other.decisions {
            match self.decisions.iter_mut().find(|(there, _)| there == limit) {
                Some((_, there)) => *there = [there[0] + counts[0], there[1] + counts[1]],
                None => self.decisions.push((*limit, *counts)),
            }
        }
        self.whole = self.whole.and(&other.whole);
        self.upstream = self.upstream.and(&other.upstream);
        for (signal, factor) in &other.factors {
            match self.factors.iter_mut().find(|(there, _)| there == signal) {
                Some((_, there)) => *there = there.min(*factor),
                None => self.factors.push((*signal, *factor)),
            }
        }
    }

    /// So many, a second.
    #[expect(clippy::cast_precision_loss, reason = "shown, and not computed with")]
    pub fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }

    /// What a limit admitted and refused.
    pub fn decided(&self, limit: usize) -> [u64; 2] {
        self.decisions.iter().find(|(there, _)| *there == limit).map(|(_, counts)| *counts).unwrap_or_default()
    }

    /// The factor of a signal.
    pub fn factor(&self, signal: usize) -> Option<f64> {
        self.factors.iter().find(|(there, _)| *there == signal).map(|(_, factor)| *factor)
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// Where a name stands; what is new stands at the end.
fn place<T: PartialEq + Clone>(names: &mut Vec<T>, name: &T) -> usize {
    names.iter().position(|there| there == name).unwrap_or_else(|| {
        names.push(name.clone());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(passed: u64, refused: u64) -> Reading {
        let names = ("chat".to_owned(), "per-client".to_owned());
        Reading {
            outcomes: [passed, refused, 0, 0, 0],
            decisions: [(names, [passed, refused])].into(),
            factors: [("backend".to_owned(), 1.0)].into(),
            ..Reading::default()
        }
    }

    #[test]
    fn counts_become_rates_of_columns_that_stay_what_they_were() {
        let mut history = History::default();
        for second in 0..=7 {
            history.add(1000 + second, 1.0, reading(500 + 10 * second, second));
        }
        let columns = history.columns(Span::Minutes);
        assert_eq!(columns.len(), COLUMNS);
        let (begin, first) = &columns[COLUMNS - 2];
        let first = first.as_ref().unwrap();
        assert_eq!((*begin, first.outcomes[0], first.decided(0)), (1000, 40, [40, 4]), "what was before the start is not");
        let last = columns[COLUMNS - 1].1.as_ref().unwrap();
        assert!((last.seconds - 3.0).abs() < 1e-9 && (last.per_second(last.outcomes[0]) - 10.0).abs() < 1e-9);
        assert!(columns[..COLUMNS - 2].iter().all(|(_, point)| point.is_none()));
        assert_eq!(history.lately(2).outcomes[1], 2);
    }

    #[test]
    fn two_hours_need_no_more_room_than_one() {
        let mut history = History::default();
        for second in 0..7200 {
            history.add(second, 1.0, reading(second, 0));
            history.note(second, "store", format!("{second}"), String::new());
        }
        assert_eq!((history.recent.len(), history.older.len(), history.moments.len()), (RECENT, OLDER, MOMENTS));
        let columns = history.columns(Span::Hour);
        assert!(columns.iter().all(|(_, point)| point.as_ref().is_some_and(|point| point.outcomes[0] == 60)));
    }

    #[test]
    fn a_moment_is_one_at_which_something_changed() {
        let mut history = History::default();
        for (at, state) in [(1, "redis"), (2, "redis"), (3, "local"), (4, "redis")] {
            history.note(at, "store", state.to_owned(), String::new());
            history.note(at, "configuration", "abc".to_owned(), String::new());
        }
        let told: Vec<(u64, &str)> = history.moments().map(|moment| (moment.at, moment.state.as_str())).collect();
        assert_eq!(told, [(4, "redis"), (3, "local"), (1, "abc"), (1, "redis")]);
    }
}
