//! The command line: what can be asked for, and with which exit code it ends.
//!
//! Exit codes: 0 for a clean end, 1 for a failure while running (or an unhealthy answer), 2 for a command line that is not
//! understood, 78 (`EX_CONFIG`) for an invalid configuration, before anything was bound.

use std::{
    future::Future,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::{
    config::{ConfigError, Loaded, Log, LogFormat, LogLevel, Sources, load},
    log::{self, Format, LogGuard},
    serve::TlsError,
};

mod check;
mod completions;
mod config;
mod demo;
mod healthcheck;
mod man;
mod run;

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
const ENDS: &str = "Exit codes: 0 clean end, 1 failure while running or unhealthy, 2 usage, 78 invalid configuration.
Signals: SIGTERM and SIGINT drain, a second one stops at once.";

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
    /// Ask a running proxy whether it is ready.
    Healthcheck(ConfigFile),
    /// Print a completion script for a shell.
    Completions(completions::Arguments),
    /// Print the manual page, in roff.
    Man,
}

#[derive(Debug, Args)]
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
        Err(error) if error.is::<ConfigError>() || error.is::<TlsError>() => {
            print_error(&error.to_string());
            ExitCode::from(INVALID_CONFIG)
        }
        Err(error) => {
            print_error(&format!("cxgate: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

// === impl Command ===

impl Command {
    fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(file) => run::run(file.load()?),
            Self::Check(file) => check::check(&file.load()?),
            Self::Config(file) => config::config(&file.load()?.config),
            Self::Demo(arguments) => block_on(demo::run(arguments))?.map(|()| ExitCode::SUCCESS),
            Self::Healthcheck(file) => block_on(healthcheck::healthcheck(&file.load()?.config))?,
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

/// Runs `future` on a runtime with one worker for each processor this process may use (the cgroup's quota counts).
fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future))
}

/// Starts the log as configured.
fn start_log(configured: &Log) -> anyhow::Result<LogGuard> {
    let format = match configured.format {
        LogFormat::Auto => Format::auto(),
        LogFormat::Json => Format::Json,
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
