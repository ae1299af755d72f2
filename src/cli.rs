//! The command line: what can be asked for, and with which exit code it ends.
//!
//! Exit codes: 0 for a clean end, 1 for a failure while running (an unhealthy answer, a page that was not had), 2 for a command
//! line that is not understood, 78 (`EX_CONFIG`) for an invalid configuration, before anything was bound, and 130 or 143 for a
//! fetch that SIGINT or SIGTERM ended.

use std::{
    future::Future,
    io::{self, Write},
    num::NonZero,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Builder;
use tracing::level_filters::LevelFilter;

use crate::{
    app::StartError,
    config::{ConfigError, Loaded, Log, LogFields, LogFormat, LogLevel, Sources, load},
    log::{self, Format, LogGuard, fields::Fields},
    workers::Workers,
};

mod check;
mod completions;
mod config;
mod demo;
mod fetch;
mod healthcheck;
mod man;
mod run;
mod simulate;
mod systemd;
#[cfg(feature = "top")]
mod top;

/// A reverse proxy that keeps every client of NICE CXone inside its limits. Without a command it runs the proxy.
#[derive(Debug, Parser)]
#[command(
    name = "cxgate",
    version,
    propagate_version = true,
    args_conflicts_with_subcommands = true,
    max_term_width = 100,
    after_help = ENDS
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    file: ConfigFile,
}

/// What the exit code and the signals mean, for help and manual.
const ENDS: &str =
    "Exit codes: 0 clean end, 1 failure while running, unhealthy or a page lost, 2 usage, 78 invalid configuration;
fetch: 130 interrupted, 143 terminated.
Signals: SIGTERM and SIGINT drain, a second one stops at once; SIGHUP reloads the configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    Run(ConfigFile),
    /// Validate the configuration, and name every mistake in it.
    Check(ConfigFile),
    /// Print the effective configuration, every key, without secrets.
    Config(ConfigFile),
    /// Run the proxy with everything it needs and some synthetic guests, to be looked at.
    Demo(demo::Arguments),
    /// Fetch pages through the limits of their route, and print their entities, one a line.
    Fetch(fetch::Arguments),
    /// Replay an access log against a configuration, and tell whom it would refuse.
    Simulate(simulate::Arguments),
    /// Ask a running proxy whether it is ready.
    Healthcheck(ConfigFile),
    /// Watch a running proxy in the terminal.
    #[cfg(feature = "top")]
    Top(top::Arguments),
    /// Print a completion script for a shell.
    Completions(completions::Arguments),
    /// Print the manual page, in roff.
    Man,
}

#[derive(Debug, Clone, Args)]
struct ConfigFile {
    /// Configuration file [default: the file that CXGATE_CONFIG names, or config/cxgate.toml, or built-in defaults].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The exit code of an invalid configuration.
const INVALID_CONFIG: u8 = 78;

/// Does what the arguments of this process ask for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Where nobody reads them there is nobody to tell.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    match cli.command.unwrap_or(Command::Run(cli.file)).execute() {
        Ok(code) => code,
        Err(error) if error.is::<ConfigError>() || is_of_configuration(&error) => {
            print_error(&error.to_string());
            ExitCode::from(INVALID_CONFIG)
        }
        Err(error) => {
            print_error(&format!("cxgate: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_of_configuration(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(StartError::is_of_configuration)
}

// === impl Command ===

impl Command {
    fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(file) => run::run(Sources::of_process(file.config)),
            Self::Check(file) => check::check(&file.load()?),
            Self::Config(file) => config::config(&file.load()?.config),
            Self::Demo(arguments) => block_on(demo::run(arguments))?.map(|()| ExitCode::SUCCESS),
            Self::Fetch(arguments) => block_on(fetch::run(arguments))?,
            Self::Simulate(arguments) => simulate::simulate(&arguments),
            Self::Healthcheck(file) => block_on(healthcheck::healthcheck(&file.load()?.config))?,
            #[cfg(feature = "top")]
            Self::Top(arguments) => block_on(top::run(arguments))?,
            Self::Completions(arguments) => completions::completions(&arguments),
            Self::Man => man::man(),
        }
    }
}

// === impl ConfigFile ===

impl ConfigFile {
    fn load(self) -> Result<Loaded, ConfigError> {
        load(&Sources::of_process(self.config))
    }
}

// === what commands share ===

/// Runs `future` on this thread. What serves clients is given to [workers](crate::workers) beside it.
fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// A thread for each processor that this process may use: those of its affinity, as far as the quota of its cgroup reaches.
fn workers() -> anyhow::Result<Workers> {
    let processors = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    Workers::start(processors).context("cannot start the threads that serve clients")
}

/// Starts the log as configured.
fn start_log(configured: &Log) -> anyhow::Result<LogGuard> {
    let fields = match configured.fields {
        LogFields::Cxgate => Fields::Cxgate,
        LogFields::Ecs => Fields::Ecs,
    };
    let format = match configured.format {
        LogFormat::Auto => Format::auto(fields),
        LogFormat::Json => Format::Json(fields),
        LogFormat::Text => Format::Text,
    };
    let level = match configured.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Ok(log::start(format, level)?)
}

/// Writes `text` to standard output. A reader that has had enough (`cxgate config | head -1`) is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a line to standard error; where nobody reads it there is nobody to tell.
fn print_error(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A duration as it is written in the configuration.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let (number, unit) = (digits.parse().ok(), &text[digits.len()..]);
    let duration = number.and_then(|number: u32| match unit {
        "ms" => Some(Duration::from_millis(number.into())),
        "s" => Some(Duration::from_secs(number.into())),
        "m" => Some(Duration::from_mins(number.into())),
        _ => None,
    });
    duration.ok_or("expected a number and a unit, such as 500ms, 30s or 2m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        for text in ["", "30", "s", "-1s", "1.5s", "99999999999s", "3 s", "3h"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }
}
