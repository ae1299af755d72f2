//! `cxgate run`: the daemon, from a configuration that was read to a clean end.
//!
//! Sockets that a service manager hands over are listened on instead of the configured addresses.
//!
//! The first SIGTERM or SIGINT drains, a second one stops at once. SIGHUP reloads the configuration.

use std::{convert::Infallible, io, process::ExitCode, time::Duration};

use anyhow::Context;
use prometheus_client::metrics::counter::Counter;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    block_on, start_log,
    systemd::{self, State},
    workers,
};
use crate::{
    app::{App, Inherited, ReloadError, Reloads},
    config::{Config, Loaded, Sources, load},
    log::LogGuard,
    shutdown::Shutdown,
};

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

pub(super) fn run(sources: Sources) -> anyhow::Result<ExitCode> {
    let Loaded { config, warnings, origin } = load(&sources)?;
    let log = start_log(&config.log)?;
    for warning in warnings {
        tracing::warn!(event = "config_warning", "{warning}");
    }
    let inherited = systemd::inherited().context("cannot listen on a socket that was handed over")?;
    block_on(serve(config, inherited, &origin, sources, &log)).context("cannot start the runtime")?
}

async fn serve(
    config: Config,
    inherited: Inherited,
    origin: &str,
    sources: Sources,
    log: &LogGuard,
) -> anyhow::Result<ExitCode> {
    // Listened for before anything is bound, so that whoever sees an open port can also stop the process cleanly.
    let signals = Signals::listen().context("cannot listen for signals")?;
    let app = App::bind_or_inherit(config, inherited)?.rereading(move || load(&sources)).served_by(workers()?);
    tracing::info!(event = "started", proxy = %app.proxy_address(), admin = %app.admin_address(), config = origin, "listening");
    systemd::notify(State::Ready);
    let shutdown = Shutdown::default();
    let watcher = tokio::spawn(signals.act_on(shutdown.clone(), app.reloads()));
    let dropped = app.metrics().log_dropped.clone();
    tokio::select! {
        () = app.run(shutdown) => {}
        never = count_dropped(log, &dropped) => match never {},
    }
    watcher.abort();
    tracing::info!(event = "stopped", "stopped");
    Ok(ExitCode::SUCCESS)
}

/// Keeps the metric of lost log lines up to date.
async fn count_dropped(log: &LogGuard, counter: &Counter) -> Infallible {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    // The access log counts its own by the same counter.
    let mut counted = 0;
    loop {
        ticks.tick().await;
        let dropped = log.dropped();
        counter.inc_by(dropped - counted);
        counted = dropped;
    }
}

/// Reloads; what comes of it stands in the log.
async fn reload(reloads: Reloads) {
    systemd::notify(State::Reloading);
    let reloaded = reloads.reload().await;
    if !matches!(reloaded, Err(ReloadError::Draining)) {
        systemd::notify(State::Ready);
    }
}

// === impl Signals ===

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Tells `shutdown` what was asked for, until there is no step left.
    async fn act_on(mut self, shutdown: Shutdown, reloads: Reloads) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hang_up.recv() => {
                    tokio::spawn(reload(reloads.clone()));
                    continue;
                }
            }
            if shutdown.is_leaving() {
                tracing::warn!(event = "stopping", "stopping at once");
                return shutdown.stop();
            }
            tracing::info!(event = "draining", "draining; a second signal stops at once");
            systemd::notify(State::Stopping);
            shutdown.leave();
        }
    }
}
