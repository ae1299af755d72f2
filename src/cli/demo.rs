//! `cxgate demo`: the whole thing with nothing else installed.
//!
//! The real proxy, on the embedded store, in front of a stand-in for CXone whose load swings; ordinary guests and one who
//! abuses; and a live account of who passes and who is refused. Everything listens on loopback, in this process.

use std::{
    io::{IsTerminal as _, stdout},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use super::{duration, start_log, workers};
use crate::{
    app::App,
    config::{Config, Endpoint, LimitKind, LogLevel, Origin, ShowClients},
    shutdown::Shutdown,
};

mod account;
mod client;
mod cxone;
mod guests;
mod load;
mod screen;
mod websocket;

use account::Account;
use guests::Crowd;
use load::Wave;
use screen::{Heading, Screen};

/// Port of the admin listener, where it can be had.
const ADMIN_PORT: u16 = 9901;

/// Runs the proxy, a stand-in for CXone and synthetic guests on this machine, with nothing else installed.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    /// Port of the proxy on 127.0.0.1; a free one replaces it where it is taken, 0 takes free ports throughout
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Ordinary guests, beside the one who abuses
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(..=500))]
    guests: u16,
    /// Ends after this long, such as 30s or 2m; left out, it runs until Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<Duration>,
}

/// Runs until Ctrl-C, or for the time that was asked for.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (scenery, shutdown) = (Shutdown::default(), Shutdown::default());
    let cxone = TcpListener::bind(local(0)).await.context("no free port for the stand-in")?;
    let cxone_address = cxone.local_addr()?;
    let wave = Wave::begin();
    scenery.spawn(cxone::serve(cxone, wave, scenery.clone()));

    let wanted = [arguments.port, if arguments.port == 0 { 0 } else { ADMIN_PORT }];
    let ports = [available(wanted[0]).await, available(wanted[1]).await];
    let config = configuration(ports, cxone_address);
    let limit = config.routes.first().and_then(|route| route.limits.first());
    let Some(LimitKind::TokenBucket(bucket)) = limit.map(|limit| limit.limit.kind) else {
        bail!("the built-in configuration has no token bucket")
    };
    let rate = bucket.refill_per_second;
    let _log = start_log(&config.log)?;

    let app = App::bind(config)?.served_by(workers()?);
    let (proxy, admin) = (app.proxy_address(), app.admin_address());
    let mut proxy_task = tokio::spawn(app.run(shutdown.clone()));
    let unavailable = wanted.into_iter().zip(ports).filter(|(wanted, port)| wanted != port).map(|(wanted, _)| wanted);
    let heading =
        Heading { proxy, admin, cxone: cxone_address, unavailable: unavailable.collect(), capacity: bucket.capacity, rate };
    let crowd = Crowd::invite(arguments.guests, proxy, &scenery);
    let account = Account::open(crowd, wave, admin, rate);

    tokio::select! {
        () = tell(heading, account, ended(arguments.length)?) => {}
        _ = &mut proxy_task => bail!("the proxy ended by itself"),
    }
    scenery.drain();
    shutdown.drain();
    proxy_task.await.context("the proxy did not end cleanly")?;
    scenery.stop();
    scenery.finished().await;
    Ok(())
}

/// The built-in configuration, pointed at the stand-in.
fn configuration([proxy, admin]: [u16; 2], cxone: SocketAddr) -> Config {
    let origin = Origin { tls: false, host: cxone.ip().to_string(), port: cxone.port() };
    let mut config = Config::default();
    config.listen.address = local(proxy);
    config.listen.drain_timeout = Duration::from_secs(2);
    config.admin.address = local(admin);
    // Nobody is behind these names.
    config.admin.show_clients = ShowClients::Plain;
    // Violations are warnings, and here daily bread: the table tells of them.
    config.log.level = LogLevel::Error;
    for upstream in config.upstreams.values_mut() {
        upstream.url = origin.clone();
    }
    for signal in config.load.values_mut() {
        signal.endpoint = Some(Endpoint { origin: origin.clone(), path_and_query: load::PATH.to_owned() });
        signal.interval = Duration::from_secs(2);
    }
    config
}

/// Prints the heading, a line a second and the sum. Somebody who no longer reads (`| head`) has seen enough.
async fn tell(heading: Heading, mut account: Account, ended: impl Future<Output = ()>) {
    let mut screen = Screen::new(stdout(), stdout().is_terminal());
    let live = async {
        screen.begin(&heading)?;
        let mut seconds = interval_at(Instant::now() + Duration::from_secs(1), Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            seconds.tick().await;
            screen.show(&account.now().await)?;
        }
    };
    let told: std::io::Result<()> = tokio::select! {
        told = live => told,
        () = ended => Ok(()),
    };
    if told.is_ok() {
        // The last word; where it cannot be written, nobody waits for it.
        let _ = screen.end(&account.now().await);
    }
}

/// Resolves on Ctrl-C, on SIGTERM, or when the demo has lasted long enough.
fn ended(length: Option<Duration>) -> anyhow::Result<impl Future<Output = ()>> {
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let timer = sleep(length.unwrap_or(Duration::MAX));
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
            () = timer => {}
        }
    })
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The port, or 0 where it cannot be had.
async fn available(port: u16) -> u16 {
    TcpListener::bind(local(port)).await.map_or(0, |_| port)
}
