//! `cxgate fetch URL…`: pages through the gate, their entities to standard output, one a line, in the order of the pages.
//!
//! Promised: pages pass the same limits, credentials and upstream connections as a client's requests, charged to the same
//! store, so that a fetch and the daemon share every budget; a page that fails costs no other; with `--state`, a run that was
//! ended goes on where it was. Exit codes: 0 all pages, 1 a page was lost, 2 a URL that no page can come of, 130 and 143 ended
//! by a signal. Not promised: that a page which an earlier run had lost stands where it would have.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};
use tokio::time::timeout;

use super::{ConfigFile, duration, print_error, start_log};
use crate::{
    app::egress::Egress,
    config::{Config, LogLevel},
};

mod address;
mod entities;
mod order;
mod output;
mod page;
mod pattern;
mod progress;
mod signals;
mod state;
mod tally;
mod walk;

use entities::Field;
use order::{Ended, Order};
use output::Output;
use page::Asker;
use pattern::Template;
use progress::Progress;
use signals::Signals;
use state::{Fingerprint, State};
use tally::Tally;
use walk::Walk;

/// How long a fetch waits for its store before it begins without.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the end may take, when all is delivered.
const FAREWELL: Duration = Duration::from_secs(2);
/// The exit code of a command line that is not understood.
const USAGE: u8 = 2;

/// Fetches pages through the limits, retries and credentials of their route; prints their entities, one a line.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    /// URLs of pages; {1..12}, {1..}, {0..500..100} and {a,b} stand for many
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// Where a page has its entities: names separated by dots, or . where the page itself is the list
    #[arg(long, value_name = "FIELD", default_value = "entities", value_parser = Field::parse)]
    entities: Field,
    /// Ends a series of pages at the first one without entities; {1..} needs it
    #[arg(long)]
    until_empty: bool,
    /// Pages asked for at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Largest page; memory is bounded by twice this for each page asked for at the same time
    #[arg(long, value_name = "BYTES", default_value_t = 16 * 1024 * 1024, value_parser = clap::value_parser!(u32).range(1..))]
    max_page_bytes: u32,
    /// Longest wait of one page for its turn, such as 30s or 2m
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration)]
    max_wait: Duration,
    /// Field of every request, as in 'X-Tenant-Id: 42'; may be given several times [X-Client-Id is cxgate-fetch without]
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// File to write to instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// File that remembers how far it came; the same command line goes on there
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Prints the summary as JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Prints neither progress nor summary
    #[arg(long, short)]
    quiet: bool,
}

/// Fetches. The exit code tells whether every page was had.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let templates = match templates(&arguments) {
        Ok(templates) => templates,
        Err(mistake) => return Ok(misused(&mistake)),
    };
    let mut config = arguments.file.clone().load()?.config;
    // Refusals and retries are what a fetch is made of: the summary tells of them, and a page that is lost is named.
    config.log.level = LogLevel::Error;
    let _log = start_log(&config.log)?;
    let asker = asker(&arguments, config)?;
    for template in &templates {
        if let Err(reason) = asker.check(&template.url(0, 0)) {
            return Ok(misused(&format!("{}: {reason}", address::shown(&template.url(0, 0)))));
        }
    }
    if !asker.egress.store_decides(STORE_PATIENCE).await {
        print_error("cxgate: the store does not answer; `store.on_failure` decides until it does");
    }
    let ended = fetch(&arguments, templates.into(), &asker, &mut signals).await;
    // What is still open, nobody waits for.
    let _ = timeout(FAREWELL, asker.egress.stop()).await;
    Ok(exit_code(ended?, &asker.tally))
}

async fn fetch(
    arguments: &Arguments,
    templates: Arc<[Template]>,
    asker: &Arc<Asker>,
    signals: &mut Signals,
) -> anyhow::Result<Ended> {
    let fingerprint = arguments.fingerprint();
    let state = match &arguments.state {
        Some(file) => State::load(file, &fingerprint)?,
        None => State::new(&fingerprint),
    };
    let walk = Walk::from(templates, state.next);
    let pages = walk.left().filter(|_| !arguments.until_empty).map(|pages| pages + state.failed.len() as u64);
    let progress = Progress::begin(!arguments.quiet, pages, &asker.tally);
    let output = Output::open(arguments.output.as_deref(), arguments.state.clone(), &state, progress.clone())?;
    let order = Order {
        asker: Arc::clone(asker),
        walk,
        state,
        output,
        progress: progress.clone(),
        concurrency: arguments.concurrency.into(),
        until_empty: arguments.until_empty,
    };
    let ended = order.run(signals).await;
    progress.end();
    let ended = ended?;
    let signal = if let Ended::Interrupted(signal) = ended { Some(signal.name()) } else { None };
    let summary = asker.tally.summary(signal);
    if ended == Ended::GaveUp {
        print_error("cxgate: too many pages failed; the rest was not asked for");
    }
    if arguments.json {
        print_error(&serde_json::to_string(&summary)?);
    } else if !arguments.quiet && ended != Ended::Closed {
        print_error(&summary.to_string());
    }
    Ok(ended)
}

fn exit_code(ended: Ended, tally: &Tally) -> ExitCode {
    let is_whole = tally.failed.load(std::sync::atomic::Ordering::Relaxed) == 0;
    match ended {
        Ended::Interrupted(signal) => signal.exit_code(),
        Ended::Complete | Ended::Closed if is_whole => ExitCode::SUCCESS,
        Ended::Complete | Ended::Closed | Ended::GaveUp => ExitCode::FAILURE,
    }
}

fn misused(mistake: &str) -> ExitCode {
    print_error(&format!("error: {mistake}"));
    ExitCode::from(USAGE)
}

/// What the URLs stand for; what is wrong with one of them otherwise.
fn templates(arguments: &Arguments) -> Result<Vec<Template>, String> {
    let template = |url: &String| {
        let template = Template::parse(url).map_err(|error| format!("{}: {error}", address::shown(url)))?;
        if template.length().is_none() && !arguments.until_empty {
            return Err(format!("{}: a range without end needs --until-empty", address::shown(url)));
        }
        Ok(template)
    };
    arguments.urls.iter().map(template).collect()
}

fn asker(arguments: &Arguments, config: Config) -> anyhow::Result<Arc<Asker>> {
    let mut headers = HeaderMap::new();
    for (name, value) in arguments.headers.clone() {
        headers.append(name, value);
    }
    Ok(Arc::new(Asker {
        egress: Arc::new(Egress::start(config)?),
        headers,
        field: arguments.entities.clone(),
        max_page_bytes: arguments.max_page_bytes.try_into()?,
        max_wait: arguments.max_wait,
        tally: Arc::new(Tally::begin()),
    }))
}

/// Reads a field of a request. Those that frame a message are not the command line's.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let (name, value) = text.split_once(':').ok_or("expected a name and a value, such as 'X-Tenant-Id: 42'")?;
    let name: HeaderName = name.parse().map_err(|_| "the name is no name of a field")?;
    let mut value: HeaderValue = value.trim().parse().map_err(|_| "the value is not printable")?;
    value.set_sensitive(true);
    let framing = ["connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"];
    if framing.contains(&name.as_str()) {
        return Err("this field is set by cxgate itself");
    }
    Ok((name, value))
}

// === impl Arguments ===

impl Arguments {
    /// What tells this fetch from another: what is asked for, and where it goes. A credential may change in between.
    fn fingerprint(&self) -> Fingerprint {
        let output = self.output.as_deref().map_or(&b""[..], |path| path.as_os_str().as_encoded_bytes());
        let fingerprint = Fingerprint::default().add(output).add(&[u8::from(self.until_empty)]);
        let fingerprint = self.urls.iter().fold(fingerprint, |fingerprint, url| fingerprint.add(url.as_bytes()));
        let fingerprint = fingerprint.add(format!("{:?}", self.entities).as_bytes());
        let headers = self.headers.iter().filter(|(name, _)| *name != AUTHORIZATION);
        headers
            .fold(fingerprint, |fingerprint, (name, value)| fingerprint.add(name.as_str().as_bytes()).add(value.as_bytes()))
    }
}
