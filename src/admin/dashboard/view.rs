//! What the dashboard shows at one moment, gathered from those who know.

use serde_json::Value;

use super::{
    charts::{Chart, Series, Style},
    history::{Moment, Point, Span},
    reading::Levels,
    words,
};

/// Limits that are told apart in the chart of refusals; the others are one.
const LIMITS_MAX: usize = 5;

/// The colours of what is not told apart by its meaning, as the style sheet calls them.
const COLOURS: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];

/// Everything that is shown.
pub struct View {
    /// How far back charts reach.
    pub span: Span,
    /// When it is, in seconds of Unix time.
    pub now: u64,
    /// The columns of the charts, with when they begin.
    pub columns: Vec<(u64, Option<Point>)>,
    /// Route and limit by their places in points.
    pub limits: Vec<(String, String)>,
    /// Signals by their places in points.
    pub signals: Vec<String>,
    /// The last ten seconds.
    pub lately: Point,
    /// The last second.
    pub newest: Point,
    /// How much there is of what comes and goes.
    pub levels: Levels,
    /// What changed, the latest first.
    pub moments: Vec<Moment>,
    /// What the API answers for `/api/v1/status`.
    pub status: Value,
    /// Routes, as the API tells of them.
    pub routes: Value,
    /// By route and limit, its busiest buckets.
    pub consumption: Vec<((String, String), Value)>,
    /// As the API tells of them.
    pub busiest: Value,
    /// The same of those refused most.
    pub refused: Value,
}

// === impl View ===

impl View {
    /// Requests by how they ended.
    pub fn requests(&self) -> Chart<'static> {
        let outcome = |kind: usize, name: &str, class| {
            let values = self.each(|point| Some(point.per_second(point.outcomes[kind])));
            Series { name: name.to_owned(), class, values }
        };
        self.chart(
            ("Requests a second by outcome", Style::Stacked, words::per_second, 1.0),
            vec![
                outcome(0, "passed", "passed"),
                outcome(1, "refused here", "here"),
                outcome(2, "refused by upstream", "upstream"),
                outcome(3, "other 4xx", "wrong"),
                outcome(4, "failed (5xx)", "failed"),
            ],
        )
    }

    /// Refusals by limit: those with most, and the rest as one.
    pub fn refusals(&self) -> Chart<'static> {
        let refused = |point: &Point, limit| point.decided(limit)[1];
        let points = || self.columns.iter().filter_map(|(_, point)| point.as_ref());
        let mut limits: Vec<(u64, usize)> =
            (0..self.limits.len()).map(|limit| (points().map(|point| refused(point, limit)).sum(), limit)).collect();
        limits.retain(|(refused, _)| *refused > 0);
        limits.sort_unstable_by_key(|(refused, limit)| (std::cmp::Reverse(*refused), *limit));
        let rest = limits.split_off(limits.len().min(LIMITS_MAX));
        let of = |wanted: &[(u64, usize)]| {
            self.each(|point| Some(point.per_second(wanted.iter().map(|(_, limit)| refused(point, *limit)).sum())))
        };
        let mut series: Vec<Series> = limits
            .iter()
            .zip(COLOURS)
            .map(|(limit, class)| {
                let (route, name) = &self.limits[limit.1];
                Series { name: format!("{route} · {name}"), class, values: of(&[*limit]) }
            })
            .collect();
        if !rest.is_empty() {
            series.push(Series { name: "other limits".to_owned(), class: COLOURS[LIMITS_MAX], values: of(&rest) });
        }
        self.chart(("Refusals a second by limit", Style::Stacked, words::per_second, 1.0), series)
    }

    /// How long answers took.
    pub fn latency(&self) -> Chart<'static> {
        let line = |name: &str, class, of: fn(&Point) -> Option<f64>| Series {
            name: name.to_owned(),
            class,
            values: self.each(of),
        };
        self.chart(
            (
                "Time to the response head: whole, of all answers, refusals too; upstream, its part where it was asked",
                Style::Lines,
                words::taken,
                0.001,
            ),
            vec![
                line("upstream p50", "half-upstream", |point| point.upstream.quantile(0.5)),
                line("whole p50", "half", |point| point.whole.quantile(0.5)),
                line("upstream p99", "most-upstream", |point| point.upstream.quantile(0.99)),
                line("whole p99", "most", |point| point.whole.quantile(0.99)),
            ],
        )
    }

    /// How load scales limits.
    pub fn load(&self) -> Chart<'static> {
        let signal = |(place, name): (usize, &String)| Series {
            name: name.clone(),
            class: COLOURS[place % COLOURS.len()],
            values: self.each(|point| point.factor(place)),
        };
        let signals = self.signals.iter().enumerate().map(signal).collect();
        self.chart(("Load factor by signal", Style::Lines, words::number, 1.0), signals)
    }

    fn chart(
        &self,
        (title, style, unit, least): (&'static str, Style, fn(f64) -> String, f64),
        series: Vec<Series>,
    ) -> Chart<'static> {
        Chart { title, style, unit, least, begins: self.columns.iter().map(|(begin, _)| *begin).collect(), series }
    }

    fn each(&self, value: impl Fn(&Point) -> Option<f64>) -> Vec<Option<f64>> {
        self.columns.iter().map(|(_, point)| point.as_ref().and_then(&value)).collect()
    }

    /// What a limit admitted and refused lately, a second.
    pub fn decided(&self, route: &str, limit: &str) -> [f64; 2] {
        let place = self.limits.iter().position(|(of_route, of_limit)| of_route == route && of_limit == limit);
        let counts = place.map(|place| self.lately.decided(place)).unwrap_or_default();
        counts.map(|count| self.lately.per_second(count))
    }
}
