//! What a comparison showed: a table a scenario, and each target with what became of it.
//!
//! Promised: ratios are of two programs in one pass, one soon after the other, and of these the median; so that a machine which
//! is slower in one pass than in the next is slower for both.

use super::programs::{Program, SCENARIOS, Scenario};

/// What a fresh start showed.
#[derive(Clone, Copy)]
pub struct Figures {
    /// Microseconds of processor time a request, of the proxy and of Redis.
    pub proxy: f64,
    pub redis: f64,
    /// Calls of scripts a request.
    pub calls: f64,
    /// Microseconds that half of the requests took at a steady rate, and 99 and 99.9 of 100.
    pub half: f64,
    pub most: f64,
    pub nearly_all: f64,
    /// MiB of memory, resident.
    pub resident: f64,
    /// Requests a second as fast as it goes, how much of its processor the proxy had for them, and how many it refused.
    pub rate: f64,
    pub busy: f64,
    pub refused: f64,
    /// Answers that are neither.
    pub strange: f64,
}

type Reading = fn(&Figures) -> f64;

/// The columns of a table, with their decimals.
const COLUMNS: [(&str, usize, Reading); 11] = [
    ("CPU µs", 1, |figures| figures.proxy),
    ("Redis µs", 1, |figures| figures.redis),
    ("calls", 3, |figures| figures.calls),
    ("p50 µs", 0, |figures| figures.half),
    ("p99 µs", 0, |figures| figures.most),
    ("p99.9 µs", 0, |figures| figures.nearly_all),
    ("RSS MiB", 1, |figures| figures.resident),
    ("requests/s", 0, |figures| figures.rate),
    ("busy %", 0, |figures| figures.busy),
    ("refused %", 2, |figures| figures.refused),
    ("strange", 0, |figures| figures.strange),
];

/// Whose figures they are.
#[derive(Clone, Copy)]
pub struct Sample {
    pub program: Program,
    pub scenario: &'static str,
    pub figures: Figures,
}

/// What fresh starts showed, pass by pass.
pub struct Samples(pub Vec<Sample>);

/// A program in a scenario.
type Who = (Program, &'static str);

/// A figure that must not be above a multiple of another's, or of one.
struct Target {
    what: &'static str,
    figure: Reading,
    ours: Who,
    theirs: Option<Who>,
    most: f64,
}

const CPU: Reading = |figures| figures.proxy;
const MEMORY: Reading = |figures| figures.resident;

const TARGETS: [Target; 13] = [
    target("C: proxy CPU, to nginx", CPU, (Program::Cxgate, "C"), Some((Program::Nginx, "C")), 1.0),
    target("A: proxy CPU, to nginx limit_req", CPU, (Program::Cxgate, "A"), Some((Program::Nginx, "A")), 1.0),
    target("A, Redis: proxy CPU, to nginx limit_req", CPU, (Program::CxgateOnRedis, "A"), Some((Program::Nginx, "A")), 1.0),
    target("A, Redis: proxy CPU, to bare hyper", CPU, (Program::CxgateOnRedis, "A"), Some((Program::Bare, "C")), 1.0),
    target(
        "A, Redis: proxy CPU, to bare hyper and a call",
        CPU,
        (Program::CxgateOnRedis, "A"),
        Some((Program::BareOnRedis, "A")),
        1.0,
    ),
    target(
        "A, Redis: Redis CPU, to the plain script",
        |it| it.redis,
        (Program::CxgateOnRedis, "A"),
        Some((Program::BareOnRedis, "A")),
        0.5,
    ),
    target("B: proxy CPU, to nginx limit_req", CPU, (Program::Cxgate, "B"), Some((Program::Nginx, "B")), 1.0),
    target("B, Redis: proxy CPU, to nginx limit_req", CPU, (Program::CxgateOnRedis, "B"), Some((Program::Nginx, "B")), 1.0),
    target("B, Redis: proxy CPU, to HAProxy", CPU, (Program::CxgateOnRedis, "B"), Some((Program::Haproxy, "B")), 1.0),
    target("B, Redis: calls of Redis a request", |it| it.calls, (Program::CxgateOnRedis, "B"), None, 0.01),
    target("A, Redis: p50, to bare hyper", |it| it.half, (Program::CxgateOnRedis, "A"), Some((Program::Bare, "C")), 1.25),
    target("A: memory, to nginx", MEMORY, (Program::Cxgate, "A"), Some((Program::Nginx, "A")), 1.0),
    target("A, Redis: memory, to nginx", MEMORY, (Program::CxgateOnRedis, "A"), Some((Program::Nginx, "A")), 1.0),
];

const fn target(what: &'static str, figure: Reading, ours: Who, theirs: Option<Who>, most: f64) -> Target {
    Target { what, figure, ours, theirs, most }
}

/// The one in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A line of the table of targets.
pub fn print_target(what: &str, measured: Option<f64>, most: f64) {
    let (measured, verdict) = match measured {
        Some(measured) => (format!("{measured:.3}"), if measured <= most { "met" } else { "NOT met" }),
        None => ("-".to_owned(), "not measured"),
    };
    println!("{what:<48}{measured:>10}{most:>10}   {verdict}");
}

// === impl Samples ===

impl Samples {
    /// A table for each scenario, of medians.
    pub fn print_tables(&self) {
        for scenario in SCENARIOS {
            let Scenario { name, clients, limit } = scenario;
            let limit = limit.map_or("no limit".into(), |(capacity, rate)| {
                format!("each with {capacity} tokens and {rate} more a second")
            });
            println!("\n{name}: {clients} clients, {limit}");
            println!("{:<16}{:>8}{}", "", "ratio", COLUMNS.map(|(heading, ..)| format!("{heading:>12}")).concat());
            for program in Program::ALL.into_iter().filter(|program| program.takes_part(scenario)) {
                self.print_line(program, name);
            }
        }
    }

    fn print_line(&self, program: Program, scenario: &'static str) {
        let (who, name) = ((program, scenario), program.name());
        let cells: Option<String> = COLUMNS
            .iter()
            .map(|(_, decimals, figure)| Some(format!("{:>12.decimals$}", self.median(*figure, who)?)))
            .collect();
        match (cells, program.missing()) {
            (Some(cells), _) => {
                let ratio = self.ratio(CPU, who, (Program::Nginx, scenario));
                println!("{name:<16}{:>8.2}{cells}", ratio.unwrap_or(f64::NAN));
            }
            (None, missing) => println!("{name:<16}       - {} is not installed", missing.unwrap_or("it")),
        }
    }

    /// Each target, and whether it is met.
    pub fn print_targets(&self) {
        println!("\n{:<48}{:>10}{:>10}", "target", "measured", "at most");
        for Target { what, figure, ours, theirs, most } in &TARGETS {
            let measured = match theirs {
                Some(theirs) => self.ratio(*figure, *ours, *theirs),
                None => self.median(*figure, *ours),
            };
            print_target(what, measured, *most);
        }
    }

    fn of(&self, who: Who) -> impl Iterator<Item = &Figures> {
        self.0.iter().filter(move |sample| (sample.program, sample.scenario) == who).map(|sample| &sample.figures)
    }

    fn median(&self, figure: Reading, who: Who) -> Option<f64> {
        median(self.of(who).map(figure).collect())
    }

    fn ratio(&self, figure: Reading, ours: Who, theirs: Who) -> Option<f64> {
        median(self.of(ours).zip(self.of(theirs)).map(|(ours, theirs)| figure(ours) / figure(theirs)).collect())
    }
}
