//! The view on a terminal.
//!
//! Promised: the terminal is as it was when this ends, by a key, a signal or a panic. A proxy that is gone is asked again at
//! every interval.

use std::{env, io, ops::ControlFlow, time::Duration};

use ratatui::crossterm::event::{Event, KeyEventKind, poll, read};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{self, Receiver, Sender},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::{
    facts::Sample,
    link::{Link, Trouble},
    screen::Screen,
};

/// Events that may wait while the screen is drawn.
const EVENTS_MAX: usize = 64;

/// How soon the reader of keys learns that nobody wants more.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Gives the terminal back when dropped. A panic gives it back before it is told.
struct Restored;

// === impl Restored ===

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows the proxy until a key or a signal ends it; a sample each `period`.
pub(super) async fn watch(link: Link, period: Duration) -> anyhow::Result<()> {
    let (mut terminated, mut hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let coloured = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::new(link.address.clone(), coloured);
    let mut terminal = ratatui::try_init()?;
    let _restored = Restored;
    let (mut samples, mut events) = (samples(link, period), events());
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        tokio::select! {
            Some(sample) = samples.recv() => screen.learn(sample),
            event = events.recv() => match event {
                Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                    if screen.press(key) == ControlFlow::Break(()) {
                        return Ok(());
                    }
                }
                // Another size: what is drawn next fits it.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

/// A sample each `period`, or why there is none.
fn samples(link: Link, period: Duration) -> Receiver<Result<Sample, Trouble>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if sender.send(link.sample().await).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// What is typed, from a thread that may block.
fn events() -> Receiver<io::Result<Event>> {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    spawn_blocking(move || forward_events(&sender));
    receiver
}

fn forward_events(sender: &Sender<io::Result<Event>>) {
    while !sender.is_closed() {
        let event = match poll(KEY_WAIT) {
            Ok(false) => continue,
            Ok(true) => read(),
            Err(error) => Err(error),
        };
        let failed = event.is_err();
        if sender.blocking_send(event).is_err() || failed {
            return;
        }
    }
}
