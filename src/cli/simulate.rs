//! `cxgate simulate LOG`: whom a configuration would have refused, had it been in force when a log was written.
//!
//! Promised: routes, clients and buckets are found by the gate's own code, and decided about by the embedded store's, at the
//! times of the log; nothing is connected to. Not promised: that clients would have done the same. One that is told to wait
//! may ask again, or go away; here it does as it did. See docs/simulate.md.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

use super::{ConfigFile, block_on, print};
use crate::{app::replay::replay, log::stamp};

mod concerned;
mod course;
mod record;
mod report;
mod target;
mod traffic;

use concerned::concerned;
use course::{Outcome, run as course};
use report::Report;
use target::Target;
use traffic::Traffic;

/// Replays an access log against a configuration, and tells whom it would refuse.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    /// Access log, in JSON or the Common Log Format; - for standard input
    #[arg(value_name = "LOG")]
    log: PathBuf,
    #[command(flatten)]
    file: ConfigFile,
    /// Names, for each limit that refuses more than this share of all requests, the smallest change by which it does not
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    target: Option<f64>,
    /// Clients that are listed
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Host that requests were sent to, where the log does not say
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    host: String,
    /// File for every refusal, one JSON object a line
    #[arg(long, value_name = "FILE")]
    refusals: Option<PathBuf>,
    /// Prints the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn simulate(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.file.clone().load()?.config;
    let max_buckets = config.store.max_buckets;
    let traffic = block_on(async { read(arguments, config) })??;
    let mut refusals = arguments.refusals.as_deref().map(create).transpose()?;
    let (mut report, mut passed) = (Report::new(&traffic), Vec::with_capacity(traffic.arrivals.len()));
    let mut written = Ok(());
    course(&traffic, &traffic.arrivals, max_buckets, None, |arrival, outcome| {
        report.note(arrival, outcome);
        passed.push(matches!(outcome, Outcome::Admitted { .. }));
        if let (Some(file), Outcome::Refused(place)) = (&mut refusals, outcome) {
            let way = &traffic.routes[usize::from(arrival.route)];
            let refusal = serde_json::json!({
                "line": arrival.line,
                "timestamp": stamp::rfc3339(arrival.at),
                "client_id": &*traffic.clients[arrival.client as usize],
                "route": &*way.name,
                "limit": &*way.slots[place].name,
            });
            written = writeln!(file, "{refusal}");
        }
        written.is_ok()
    });
    let flushed = written.and_then(|()| refusals.map_or(Ok(()), |mut file| file.flush()));
    flushed.context("cannot write the refusals")?;
    if let Some(share) = arguments.target {
        let too_many = report.too_many(share);
        // Where buckets run out, whoever asks one concerns everybody.
        let arrivals = if report.is_full() { traffic.arrivals.clone() } else { concerned(&traffic, &passed) };
        let target = Target { traffic: &traffic, arrivals, max_buckets, too_many };
        let culprits = report.culprits(too_many);
        report.propose(share, culprits.iter().flat_map(|culprit| target.changes(culprit)).collect());
    }
    print(&if arguments.json { report.json(arguments.top) } else { report.text(arguments.top) })?;
    Ok(ExitCode::SUCCESS)
}

fn read(arguments: &Arguments, config: crate::config::Config) -> anyhow::Result<Traffic> {
    let replay = replay(config)?;
    if arguments.log == Path::new("-") {
        return Traffic::read(io::stdin().lock(), &replay, &arguments.host).context("cannot read standard input");
    }
    let name = arguments.log.display();
    let log = File::open(&arguments.log).with_context(|| format!("cannot open {name}"))?;
    let log = BufReader::with_capacity(1 << 18, log);
    Traffic::read(log, &replay, &arguments.host).with_context(|| format!("cannot read {name}"))
}

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(BufWriter::new(file))
}

/// A share typed as a percentage, as in `0.1%`.
fn share(text: &str) -> Result<f64, &'static str> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let percent = percent.filter(|percent| (0.0..100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or("expected a percentage from 0% to below 100%, such as 0.1%")
}
