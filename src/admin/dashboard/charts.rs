//! Charts as SVG: stacked columns and lines, with a legend beside them and the same numbers as rows of a table.
//!
//! Promised: no number is told by colour alone, or by the picture alone. Axes and legend are HTML, so that they stay readable
//! where the picture is stretched; how things look is the style sheet's.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{history::COLUMNS, words};

/// The height of the picture in its own units; its width is a unit a column.
const HEIGHT: f64 = 100.0;

/// How values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// What adds up to a whole, as columns on top of each other.
    Stacked,
    /// What stands beside each other, as lines.
    Lines,
}

/// Values of one kind.
#[derive(Debug, Clone)]
pub struct Series {
    /// What they are called.
    pub name: String,
    /// How the style sheet calls them.
    pub class: &'static str,
    /// One for each column; `None` where there is none.
    pub values: Vec<Option<f64>>,
}

/// A chart.
pub struct Chart<'a> {
    /// What it shows.
    pub title: &'a str,
    /// How it is drawn.
    pub style: Style,
    /// How a value is written.
    pub unit: fn(f64) -> String,
    /// The least that the axis reaches up to.
    pub least: f64,
    /// When each column begins, in seconds of Unix time.
    pub begins: Vec<u64>,
    /// What is drawn, from the bottom up.
    pub series: Vec<Series>,
}

// === impl Chart ===

impl Chart<'_> {
    /// The picture with its axes and its legend.
    pub fn picture(&self, span: &str) -> Markup {
        let top = self.top();
        html! {
            div.plot {
                div.y aria-hidden="true" { @for share in [1.0, 0.5, 0.0] { span { ((self.unit)(share * top)) } } }
                svg role="img" aria-label=(self.summary(span)) viewBox={ "0 0 " (COLUMNS) " " (HEIGHT) } preserveAspectRatio="none" {
                    path.grid d={ "M0 0H" (COLUMNS) "M0 50H" (COLUMNS) "M0 100H" (COLUMNS) } {}
                    @match self.style {
                        Style::Stacked => (self.stacks(top)),
                        Style::Lines => (self.lines(top)),
                    }
                    (self.tips())
                }
                div.x aria-hidden="true" { span { "−" (span) } span { "now" } }
            }
            (self.legend())
        }
    }

    /// The numbers, the latest first; the column that still grows is left out.
    pub fn rows(&self) -> Markup {
        html! {
            @for column in (0..self.begins.len().saturating_sub(1)).rev().filter(|column| self.is_known(*column)) {
                tr {
                    th scope="row" { (words::clock(self.begins[column])) }
                    @for series in &self.series { td { (self.value(series, column)) } }
                }
            }
        }
    }

    /// What stands over the columns of [`rows`](Self::rows).
    pub fn head(&self) -> Markup {
        html! { tr { th scope="col" { "From (UTC)" } @for series in &self.series { th scope="col" { (series.name) } } } }
    }

    fn legend(&self) -> Markup {
        let last = self.begins.len().saturating_sub(1);
        html! {
            ul.legend {
                @for series in self.series.iter().rev() {
                    li { span.swatch.(series.class) aria-hidden="true" {} (series.name) " " b { (self.value(series, last)) } }
                }
                @if self.series.is_empty() { li { "none" } }
            }
        }
    }

    fn summary(&self, span: &str) -> String {
        let mut summary = format!("{}, the last {span}", self.title);
        for series in &self.series {
            let known = || series.values.iter().copied().flatten();
            if let Some(last) = known().last() {
                let most = (self.unit)(known().fold(last, f64::max));
                // Writing to a string cannot fail.
                let _ = write!(summary, "; {}: now {}, at most {most}", series.name, (self.unit)(last));
            }
        }
        summary
    }

    fn stacks(&self, top: f64) -> Markup {
        let mut floors = vec![0.0; self.begins.len()];
        html! {
            @for series in &self.series {
                path.(series.class) d=(stack(&series.values, &mut floors, top)) {}
            }
        }
    }

    fn lines(&self, top: f64) -> Markup {
        html! {
            @for series in &self.series {
                path.line.(series.class) d=(line(&series.values, top)) {}
            }
        }
    }

    /// What is told of a column where the pointer rests on it.
    fn tips(&self) -> Markup {
        html! {
            @for column in (0..self.begins.len()).filter(|column| self.is_known(*column)) {
                rect.tip x=(column) y="0" width="1" height=(HEIGHT) {
                    title {
                        (words::clock(self.begins[column])) " UTC"
                        @for series in self.series.iter().rev() { "\n" (series.name) ": " (self.value(series, column)) }
                    }
                }
            }
        }
    }

    fn is_known(&self, column: usize) -> bool {
        self.series.iter().any(|series| series.values.get(column).copied().flatten().is_some())
    }

    fn value(&self, series: &Series, column: usize) -> String {
        series.values.get(column).copied().flatten().map_or_else(|| "–".to_owned(), self.unit)
    }

    /// A round number that nothing exceeds.
    fn top(&self) -> f64 {
        let most = |column: usize| {
            let values = self.series.iter().filter_map(|series| series.values.get(column).copied().flatten());
            if self.style == Style::Stacked { values.sum() } else { values.fold(0.0, f64::max) }
        };
        round_up((0..self.begins.len()).map(most).fold(self.least, f64::max))
    }
}

fn stack(values: &[Option<f64>], floors: &mut [f64], top: f64) -> String {
    let mut path = String::new();
    for (column, (value, floor)) in values.iter().zip(floors).enumerate() {
        let height = value.unwrap_or_default() / top * HEIGHT;
        if height > 0.0 {
            let base = HEIGHT - *floor;
            let _ = write!(path, "M{column}.1 {base:.1}h.8v{:.1}h-.8z", -height);
            *floor += height;
        }
    }
    path
}

fn line(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for (column, value) in values.iter().enumerate() {
        if let Some(value) = value {
            let height = HEIGHT - value / top * HEIGHT;
            // A value with none beside it is a dot.
            let _ = write!(path, "{}{column}.5 {height:.1}", if is_drawing { "L" } else { "M" });
            path.push_str(if is_drawing { "" } else { "h0" });
        }
        is_drawing = value.is_some();
    }
    path
}

/// The next of 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15 and so on.
fn round_up(most: f64) -> f64 {
    let decade = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0].into_iter().map(|step| step * decade);
    steps.into_iter().find(|step| *step >= most * 0.999).unwrap_or(10.0 * decade)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (most, expected) in [(1.0, 1.0), (1.1, 1.5), (3.0, 3.0), (8.1, 10.0), (0.035, 0.04), (160.0, 200.0)] {
            assert!((round_up(most) - expected).abs() < 1e-9, "{most}: {}", round_up(most));
        }
    }

    #[test]
    fn stacks_stand_on_each_other_and_lines_break_where_nothing_is_known() {
        let mut floors = vec![0.0; 2];
        assert_eq!(stack(&[Some(1.0), None], &mut floors, 4.0), "M0.1 100.0h.8v-25.0h-.8z");
        assert_eq!(stack(&[Some(2.0), Some(4.0)], &mut floors, 4.0), "M0.1 75.0h.8v-50.0h-.8zM1.1 100.0h.8v-100.0h-.8z");
        let values = [Some(1.0), Some(2.0), None, Some(4.0)];
        assert_eq!(line(&values, 4.0), "M0.5 75.0h0L1.5 50.0M3.5 0.0h0");
    }

    #[test]
    fn what_is_drawn_is_also_told() {
        let series = Series { name: "a <b>".to_owned(), class: "s0", values: vec![Some(1.0), Some(0.5)] };
        let unit = |value| format!("{value}/s");
        let chart =
            Chart { title: "Requests", style: Style::Stacked, unit, least: 1.0, begins: vec![59, 60], series: vec![series] };
        let drawn = chart.picture("hour").into_string();
        assert!(drawn.contains(r#"aria-label="Requests, the last hour; a &lt;b&gt;: now 0.5/s, at most 1/s""#), "{drawn}");
        assert!(drawn.contains("<title>00:01:00 UTC\na &lt;b&gt;: 0.5/s</title>"), "{drawn}");
        assert_eq!(chart.rows().into_string(), r#"<tr><th scope="row">00:00:59</th><td>1/s</td></tr>"#);
    }
}
