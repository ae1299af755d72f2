//! A day with a noisy load endpoint, through the code that runs in production: what its samples ask for, and what is in
//! force. `docs/load-day.svg` is drawn from it.

use std::{fmt::Write as _, fs, ops::RangeInclusive, path::Path, time::Duration};

use cxgate::{
    config::{self, Config},
    load::{course::Course, curve},
};

/// Seconds from sample to sample, and in a day.
const INTERVAL: u32 = 10;
const DAY: u32 = 24 * 3600;

/// Time from look to look at a signal, at each of which the factor may rise.
const LOOK: Duration = Duration::from_millis(500);
const REST: Duration = Duration::from_millis(INTERVAL as u64 * 1000 - 500);

/// Samples that share a column of the plot, two of its units wide.
const SAMPLES_PER_COLUMN: usize = 18;
const COLUMN_WIDTH: f64 = 2.0;

/// The plot's corners, and the factor at its top.
const LEFT: f64 = 48.0;
const TOP: f64 = 64.0;
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 280.0;
const FACTOR_AT_TOP: f64 = 1.6;

/// Busy by day, with a batch job at two, a lunch break, and trouble at three in the afternoon: hours to per cent.
const LOAD: [(f64, f64); 14] = [
    (0.0, 12.0),
    (1.9, 12.0),
    (2.0, 55.0),
    (2.6, 55.0),
    (2.7, 10.0),
    (6.0, 12.0),
    (10.0, 62.0),
    (12.0, 66.0),
    (13.0, 48.0),
    (14.9, 70.0),
    (15.0, 97.0),
    (15.4, 97.0),
    (15.5, 68.0),
    (24.0, 12.0),
];

/// The same noise on every machine.
struct Noise(u64);

/// The factors of a day, one for each sample.
struct Factors {
    asked: Vec<f64>,
    in_force: Vec<f64>,
}

// === impl Noise ===

impl Noise {
    /// A number from -1 to 1, most often in the middle.
    fn next(&mut self) -> f64 {
        let mut sum = 0;
        for _ in 0..4 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += u32::try_from(self.0 >> 48).unwrap();
        }
        f64::from(sum) / f64::from(2 * u32::from(u16::MAX)) - 1.0
    }
}

// === impl Factors ===

impl Factors {
    fn simulate(config: &config::Load) -> Self {
        let mut noise = Noise(1);
        let mut course: Option<Course> = None;
        let mut factors = Self { asked: Vec::new(), in_force: Vec::new() };
        for second in (0..DAY).step_by(INTERVAL as usize) {
            let load = load_at(f64::from(second) / 3600.0) + 6.0 * noise.next();
            let sample = curve::Sample { cpu_utilization: Some(load.clamp(0.0, 100.0)), queue_depth: None };
            let asked = curve::factor(config, sample);
            let aimed = course.map_or(Course::begin(asked), |course| course.aim(asked, config.hysteresis));
            let aimed = aimed.advance(LOOK, config.max_rise_per_second);
            factors.asked.push(asked.as_f64());
            factors.in_force.push(aimed.in_force().as_f64());
            course = Some(aimed.advance(REST, config.max_rise_per_second));
        }
        factors
    }
}

fn load_at(hour: f64) -> f64 {
    let above = LOAD.iter().position(|(at, _)| *at >= hour).unwrap_or(LOAD.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (LOAD[above - 1], LOAD[above]);
    y0 + (y1 - y0) * (hour - x0) / (x1 - x0)
}

/// How often a factor is another than the one before.
fn changes(factors: &[f64]) -> usize {
    factors.windows(2).filter(|pair| (pair[0] - pair[1]).abs() > 1e-9).count()
}

// === drawing ===

const STYLE: &str = "\
    text { font: 13px system-ui, sans-serif; fill: #374151 } .title { font-size: 16px; font-weight: 600 }\n\
    .page { fill: #ffffff } .grid { stroke: #e5e7eb } .asked { stroke: #f0a36b } .in-force { stroke: #1d4ed8 }\n\
    path { fill: none; stroke-width: 1.5 } .in-force { stroke-width: 2; stroke-linejoin: round }\n\
    @media (prefers-color-scheme: dark) {\n\
      text { fill: #d1d5db } .page { fill: #0d1117 } .grid { stroke: #30363d }\n\
      .asked { stroke: #8a5a35 } .in-force { stroke: #7aa2ff }\n\
    }\n";

fn draw(factors: &Factors) -> String {
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\">\n\
         <title>A simulated day: the factor that samples ask for, and the factor in force</title>\n\
         <style>\n{STYLE}</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"24\">A simulated day on a noisy load endpoint</text>\n",
        right + 24.0,
        bottom + 40.0,
    );
    for (place, class, name, factors) in
        [(0, "asked", "asked for by samples", &factors.asked), (1, "in-force", "in force", &factors.in_force)]
    {
        let x = LEFT + 300.0 * f64::from(place);
        let changes = changes(factors);
        line(&mut svg, &format!("<path class=\"{class}\" d=\"M{x} 44h24\"/>"));
        line(&mut svg, &format!("<text x=\"{}\" y=\"48\">{name}: {changes} changes</text>", x + 32.0));
    }
    for factor in [0.0, 0.5, 1.0, 1.5] {
        let y = height_of(factor);
        line(&mut svg, &format!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>"));
        line(&mut svg, &format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{factor:.1}</text>", LEFT - 8.0, y + 4.0));
    }
    for hour in (0..=24).step_by(3) {
        let x = LEFT + WIDTH * f64::from(hour) / 24.0;
        line(&mut svg, &format!("<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{hour:02}:00</text>", bottom + 24.0));
    }
    line(&mut svg, &format!("<path class=\"asked\" d=\"{}\"/>", bars(&factors.asked)));
    line(&mut svg, &format!("<path class=\"in-force\" d=\"{}\"/>", course(&factors.in_force)));
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, element: &str) {
    writeln!(svg, "{element}").unwrap();
}

fn height_of(factor: f64) -> f64 {
    TOP + HEIGHT * (1.0 - factor / FACTOR_AT_TOP)
}

/// Each column of samples, with the place where it stands and what lies between its lowest and its highest.
fn columns(factors: &[f64]) -> impl Iterator<Item = (f64, RangeInclusive<f64>)> {
    (0_u16..).zip(factors.chunks(SAMPLES_PER_COLUMN)).map(|(place, column)| {
        let lowest = column.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = column.iter().copied().fold(0.0, f64::max);
        (LEFT + COLUMN_WIDTH * f64::from(place), lowest..=highest)
    })
}

/// A bar from the lowest to the highest of each column.
fn bars(factors: &[f64]) -> String {
    columns(factors).fold(String::new(), |mut path, (x, column)| {
        write!(path, "M{x} {:.1}V{:.1}", height_of(*column.start()), height_of(*column.end())).unwrap();
        path
    })
}

/// A line through the lowest of each column, so that no fall is missing.
fn course(factors: &[f64]) -> String {
    columns(factors).fold(String::new(), |mut path, (x, column)| {
        let command = if path.is_empty() { 'M' } else { 'L' };
        write!(path, "{command}{x} {:.1}", height_of(*column.start())).unwrap();
        path
    })
}

// === what holds ===

#[test]
fn a_noisy_day_makes_few_changes_and_none_that_comes_too_late() {
    let config = Config::default().load["backend"].clone();
    let factors = Factors::simulate(&config);
    let (asked, in_force) = (changes(&factors.asked), changes(&factors.in_force));
    assert!(in_force * 2 < asked, "{in_force} changes of {asked}");
    let undamped =
        config::Load { hysteresis: 0.0, max_rise_per_second: config::Factor::new(100.0).unwrap(), ..config.clone() };
    assert_eq!(changes(&Factors::simulate(&undamped).in_force), asked, "undamped, every sample counts");
    for (asked, in_force) in factors.asked.iter().zip(&factors.in_force) {
        // A sample that asks for less is heeded at once, but for what hysteresis leaves out.
        assert!(*in_force <= asked / (1.0 - config.hysteresis) + 1e-6, "{in_force} in force where {asked} was asked for");
    }
}

#[test]
fn the_committed_plot_is_what_the_code_draws() {
    let drawn = draw(&Factors::simulate(&Config::default().load["backend"]));
    let committed = fs::read_to_string("docs/load-day.svg").unwrap_or_default();
    if committed != drawn {
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load-day.svg");
        fs::write(&fresh, &drawn).unwrap();
        panic!("docs/load-day.svg is out of date: replace it by {}", fresh.display());
    }
}
