//! The log: one line an event, written to standard error.
//!
//! Promised: whoever logs never waits, because lines queue for a thread that writes them, and a line that finds no room is
//! dropped and counted; no control character, line separator or text-direction override reaches the output as it is, whoever
//! sent it. Not promised: that every line arrives (see [`LogGuard::dropped`]).
//!
//! As JSON, the fields of an event stand beside `timestamp`, `level`, `target` and `message`, so no field may bear one of
//! these names. Other crates speak from `warn` up whatever the level is: their finer lines can hold what was sent to them.

use std::io::{self, IsTerminal, Write};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// One line of text.
    Text,
}

/// Keeps the log going; what is queued when it is dropped is still written, unless that takes more than a second.
#[derive(Debug)]
pub struct LogGuard {
    dropped: ErrorCounter,
    _worker: WorkerGuard,
}

/// Replaces what must not reach a terminal, or another line, by its JSON escape.
#[derive(Clone)]
struct Sanitised(NonBlocking);

/// Lines that wait to be written; at a usual 400 bytes they hold some 3 MiB.
const MAX_QUEUED_LINES: usize = 8192;

/// Starts the log of this process: `level` and above, to standard error.
///
/// # Errors
///
/// When it was started before.
pub fn start(format: Format, level: LevelFilter) -> Result<LogGuard, TryInitError> {
    let (subscriber, guard) = subscriber(format, level, io::stderr());
    subscriber.try_init()?;
    Ok(guard)
}

fn subscriber<W>(format: Format, level: LevelFilter, output: W) -> (impl Subscriber + Send + Sync, LogGuard)
where
    W: Write + Send + 'static,
{
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MAX_QUEUED_LINES).thread_name("log");
    let (writer, worker) = builder.finish(output);
    let guard = LogGuard { dropped: writer.error_counter(), _worker: worker };
    let layer = fmt::layer().with_ansi(false).with_writer(Sanitised(writer));
    let layer = match format {
        Format::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        Format::Text => layer.boxed(),
    };
    let levels = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(env!("CARGO_CRATE_NAME"), level);
    (tracing_subscriber::registry().with(layer.with_filter(levels)), guard)
}

// === impl Format ===

impl Format {
    /// Text where a person reads along, JSON elsewhere.
    pub fn auto() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

// === impl LogGuard ===

impl LogGuard {
    /// Lines that were lost because they could not be written fast enough.
    pub fn dropped(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }
}

// === impl Sanitised ===

impl<'a> MakeWriter<'a> for Sanitised {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Sanitised {
    /// Takes one event with the line end behind it, which is how the layer above writes.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        use std::fmt::Write;

        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.contains(is_unsafe) {
            let mut safe = String::with_capacity(text.len() + 64);
            for character in line.chars() {
                if is_unsafe(character) {
                    let _ = write!(safe, "\\u{:04x}", u32::from(character));
                } else {
                    safe.push(character);
                }
            }
            safe.push('\n');
            self.0.write_all(safe.as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Control characters (C0, DEL, C1), line and paragraph separators, and what turns the direction of text.
fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `log` runs.
    fn written(format: Format, level: LevelFilter, log: impl FnOnce()) -> String {
        let output = Output::default();
        let (subscriber, guard) = subscriber(format, level, output.clone());
        tracing::subscriber::with_default(subscriber, log);
        drop(guard);
        String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn the_fields_of_an_event_stand_at_the_top_of_its_json() {
        let line = written(Format::Json, LevelFilter::INFO, || {
            tracing::warn!(event = "rate_limit_violation", client_id = "Zoë \"x\"", retry_after = 3, "refused");
        });
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["level"], "WARN");
        assert_eq!(event["message"], "refused");
        assert_eq!(event["event"], "rate_limit_violation");
        assert_eq!(event["client_id"], "Zoë \"x\"");
        assert_eq!(event["retry_after"], 3);
        assert_eq!(event["target"], "cxgate::log::tests");
        assert!(event["timestamp"].is_string());
    }

    #[test]
    fn nothing_that_a_terminal_obeys_reaches_the_output() {
        let hostile: String = (0..=0x9f).chain(0x2028..=0x202e).chain(0x2066..=0x2069).filter_map(char::from_u32).collect();
        for format in [Format::Json, Format::Text] {
            let lines = written(format, LevelFilter::INFO, || {
                tracing::info!(shown = %hostile, debugged = ?hostile, plain = hostile, "{hostile}");
                tracing::info!("next");
            });
            assert_eq!(lines.lines().count(), 2, "{lines}");
            assert!(lines.ends_with('\n'));
            assert!(!lines.replace('\n', "").contains(is_unsafe), "{lines:?}");
            if format == Format::Json {
                let event: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
                assert_eq!(event["plain"], hostile);
            }
        }
    }

    #[test]
    fn other_crates_are_heard_from_warn_up_only() {
        let lines = written(Format::Text, LevelFilter::TRACE, || {
            tracing::trace!("ours");
            tracing::info!(target: "hyper::proto", "authorization: secret");
            tracing::warn!(target: "hyper::proto", "theirs");
        });
        assert!(lines.contains("ours") && lines.contains("theirs") && !lines.contains("secret"), "{lines}");
        let lines = written(Format::Text, LevelFilter::ERROR, || tracing::warn!(target: "hyper::proto", "theirs"));
        assert_eq!(lines, "");
    }

    #[test]
    fn a_blocked_output_slows_nobody_and_lost_lines_are_counted() {
        struct Blocked(mpsc::Receiver<()>);
        impl Write for Blocked {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                // Returns when the other end goes away.
                let _ = self.0.recv();
                Ok(text.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (unblock, blocked) = mpsc::channel();
        let (subscriber, guard) = subscriber(Format::Json, LevelFilter::INFO, Blocked(blocked));
        let lines = MAX_QUEUED_LINES + 100;
        tracing::subscriber::with_default(subscriber, || (0..lines).for_each(|line| tracing::info!(line, "line")));
        // One line may be with the writer, and it may have taken it early or late.
        assert!((98..=100).contains(&guard.dropped()), "{}", guard.dropped());
        drop(unblock);
    }
}
