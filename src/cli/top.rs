//! `cxgate top`: a running proxy in the terminal, from its admin API and its metrics.
//!
//! Promised: it only reads. Where standard output is no terminal it prints one look as text. Rates are those between two
//! samples, so that even one look takes an interval.

use std::{
    io::{IsTerminal as _, stdout},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::builder::{StringValueParser, TypedValueParser as _};
use tokio::time::sleep;

use super::{ConfigFile, duration, healthcheck::reachable, print};
use crate::config::Secret;

mod draw;
mod exposition;
mod facts;
mod link;
mod live;
mod plain;
mod screen;
mod table;
#[cfg(test)]
mod tests;
mod words;

use facts::Facts;
use link::Link;

/// The shortest time between two samples.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Watch a running proxy: requests, refusals, limits, clients.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Admin listener, as HOST:PORT [default: address and token of the configuration, at this host]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Token of the admin listener
    #[arg(long, env = "CXGATE_ADMIN_TOKEN", hide_env_values = true, value_parser = StringValueParser::new().map(Secret::new))]
    token: Option<Secret>,
    /// Time between two samples
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print one look as text, as is done wherever the output is no terminal
    #[arg(long)]
    once: bool,
    /// Print one look as JSON
    #[arg(long)]
    json: bool,
}

/// Watches until it is told to end, or prints one look.
///
/// # Errors
///
/// An invalid configuration; for one look, a proxy that does not answer.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { file, address, token, interval, once, json } = arguments;
    let link = if let Some(address) = address {
        Link::new(address, token.as_ref())?
    } else {
        let admin = file.load()?.config.admin;
        Link::new(reachable(admin.address).to_string(), token.or(admin.token).as_ref())?
    };
    if once || json || !stdout().is_terminal() {
        let facts = look(&link, interval).await.with_context(|| link.address.clone())?;
        print(&if json { format!("{}\n", serde_json::to_string(&facts)?) } else { plain::text(&facts, &link.address) })?;
    } else {
        live::watch(link, interval).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn look(link: &Link, interval: Duration) -> Result<Facts, link::Trouble> {
    let before = link.sample().await?;
    sleep(interval).await;
    Ok(Facts::between(&before, &link.sample().await?))
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    let interval = duration(text)?;
    if interval < INTERVAL_MIN { Err("expected 100ms or more") } else { Ok(interval) }
}
