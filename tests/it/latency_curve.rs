//! `docs/load-latency.svg`: the curve of a measured signal at its default settings, drawn by the code that runs in production.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use cxgate::{
    config::{Factor, Latency},
    limiter::latency::{Counts, Slowdown},
};

/// The plot's corners, and how many thresholds its width shows.
const LEFT: f64 = 48.0;
const TOP: f64 = 48.0;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const THRESHOLDS: f64 = 5.0;

const STYLE: &str = "\
    text { font: 13px system-ui, sans-serif; fill: #374151 } .title { font-size: 16px; font-weight: 600 }\n\
    .page { fill: #ffffff } .grid { stroke: #e5e7eb } .factor { stroke: #1d4ed8; stroke-width: 2 } path { fill: none }\n\
    @media (prefers-color-scheme: dark) {\n\
      text { fill: #d1d5db } .page { fill: #0d1117 } .grid { stroke: #30363d } .factor { stroke: #7aa2ff }\n\
    }\n";

fn defaults() -> Latency {
    Latency {
        threshold: Duration::from_millis(800),
        slope: Factor::new(0.5).unwrap(),
        floor: Factor::new(0.2).unwrap(),
        window: Duration::from_mins(1),
        min_samples: 5,
    }
}

/// The factor where every answer takes so many times the threshold.
fn factor(config: &Latency, thresholds: f64) -> f64 {
    let mut counts = Counts::default();
    (0..config.min_samples).for_each(|_| counts.add(config.threshold.mul_f64(thresholds)));
    Slowdown::from(config).factor(&counts).as_f64()
}

fn draw() -> String {
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    let x = |thresholds: f64| LEFT + WIDTH * thresholds / THRESHOLDS;
    let y = |factor: f64| TOP + HEIGHT * (1.0 - factor);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\">\n\
         <title>The factor by the 95th percentile of the time to the response head</title>\n\
         <style>\n{STYLE}</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"24\">Factor by p95, in thresholds, at the default settings</text>\n",
        right + 24.0,
        bottom + 40.0,
    );
    for share in [0.0, 0.2, 0.5, 1.0] {
        writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {:.1}H{right}\"/>", y(share)).unwrap();
        let (x, y) = (LEFT - 8.0, y(share) + 4.0);
        writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{share:.1}</text>").unwrap();
    }
    for thresholds in [0.0, 1.0, 2.0, 2.6, 3.0, 4.0, 5.0] {
        let (x, y) = (x(thresholds), bottom + 24.0);
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{thresholds}</text>").unwrap();
    }
    let mut course = String::new();
    for step in 0..=250_u16 {
        let thresholds = f64::from(step) / 50.0;
        let command = if step == 0 { 'M' } else { 'L' };
        write!(course, "{command}{:.1} {:.1}", x(thresholds), y(factor(&defaults(), thresholds))).unwrap();
    }
    writeln!(svg, "<path class=\"factor\" d=\"{course}\"/>\n</svg>").unwrap();
    svg
}

#[test]
fn the_factor_is_one_up_to_the_threshold_and_at_its_floor_from_where_the_documentation_says() {
    let table = [(0.1, 1.0), (0.95, 1.0), (2.0, 0.5), (2.8, 0.2), (5.0, 0.2)];
    for (thresholds, expected) in table {
        let found = factor(&defaults(), thresholds);
        assert!((found - expected).abs() < 0.04, "{thresholds}: {found}");
    }
    assert!(factor(&defaults(), 2.4) > 0.2, "the floor is at 2.6 thresholds, give or take a class");
}

#[test]
fn the_committed_curve_is_what_the_code_draws() {
    let drawn = draw();
    if fs::read_to_string("docs/load-latency.svg").unwrap_or_default() != drawn {
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load-latency.svg");
        fs::write(&fresh, &drawn).unwrap();
        panic!("docs/load-latency.svg is out of date: replace it by {}", fresh.display());
    }
}
