//! The log: one line an event, written to standard error. And beside it the [`access`] log, one line a request.
//!
//! Promised: whoever logs never waits, because lines queue for a thread that writes them, and a line that finds no room is
//! dropped and counted; no control character, line separator or text-direction override reaches the output as it is, whoever
//! sent it. Not promised: that every line arrives (see [`LogGuard::dropped`]).
//!
//! As JSON, the fields of an event stand beside `timestamp`, `level`, `target` and `message`, so no field may bear one of
//! these names. Other crates speak from `warn` up whatever the level is: their finer lines can hold what was sent to them.

use std::{
    fmt as text,
    io::{self, IsTerminal, Write},
};

use prometheus_client::metrics::counter::Counter;
use tracing::{Event, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{self, FmtContext, FormatEvent, FormatFields, MakeWriter, format},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

pub mod access;
pub mod fields;
mod lines;
pub mod stamp;

use fields::{Fields, Object, is_unsafe};
use lines::{Lines, Writer};

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json(Fields),
    /// One line of text.
    Text,
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Its thread could not be.
    #[error("cannot start the log: {0}")]
    Thread(#[from] io::Error),
    /// It was started before.
    #[error("the log was started before")]
    Started,
}

/// Keeps the log going; what is queued when it is dropped is still written, unless that takes more than a second.
pub struct LogGuard {
    lines: Lines,
    _writer: Writer,
}

/// Replaces what must not reach a terminal, or another line, by its JSON escape.
#[derive(Clone)]
struct Sanitised(Lines);

/// Writes events in JSON.
struct Objects(Fields);

/// Starts the log of this process: `level` and above, to standard error.
///
/// # Errors
///
/// When it was started before, or when its thread cannot be.
pub fn start(format: Format, level: LevelFilter) -> Result<LogGuard, LogError> {
    let (subscriber, guard) = subscriber(format, level, lines::unbuffered(&io::stderr())?)?;
    subscriber.try_init().map_err(|_| LogError::Started)?;
    Ok(guard)
}

fn subscriber<W>(format: Format, level: LevelFilter, output: W) -> io::Result<(impl Subscriber + Send + Sync, LogGuard)>
where
    W: Write + Send + 'static,
{
    let (lines, writer) = Lines::start(output, Counter::default())?;
    let guard = LogGuard { lines: lines.clone(), _writer: writer };
    let layer = fmt::layer().with_ansi(false).with_writer(Sanitised(lines));
    let layer = match format {
        Format::Json(fields) => layer.event_format(Objects(fields)).boxed(),
        Format::Text => layer.boxed(),
    };
    let levels = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(env!("CARGO_CRATE_NAME"), level);
    Ok((tracing_subscriber::registry().with(layer.with_filter(levels)), guard))
}

// === impl Format ===

impl Format {
    /// Text where a person reads along, JSON elsewhere.
    pub fn auto(fields: Fields) -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json(fields) }
    }
}

// === impl LogGuard ===

impl LogGuard {
    /// Lines that were lost because they could not be written fast enough.
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
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
            self.0.push(safe.into_bytes());
        } else {
            self.0.push(event.to_vec());
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Objects ===

impl<S, N> FormatEvent<S, N> for Objects
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: format::Writer<'_>, event: &Event<'_>) -> text::Result {
        let mut object = Object::new(self.0);
        object.text("timestamp", &stamp::rfc3339(stamp::now()));
        object.text("level", event.metadata().level().as_str());
        event.record(&mut object);
        let speaker = object.speaker();
        object.text("target", speaker.as_deref().unwrap_or_else(|| event.metadata().target()));
        writeln!(writer, "{}", object.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

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
        let (subscriber, guard) = subscriber(format, level, output.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        drop(guard);
        String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn the_fields_of_an_event_stand_at_the_top_of_its_json() {
        let line = written(Format::Json(Fields::Cxgate), LevelFilter::INFO, || {
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
        for format in [Format::Json(Fields::Cxgate), Format::Text] {
            let lines = written(format, LevelFilter::INFO, || {
                tracing::info!(shown = %hostile, debugged = ?hostile, plain = hostile, "{hostile}");
                tracing::info!("next");
            });
            assert_eq!(lines.lines().count(), 2, "{lines}");
            assert!(lines.ends_with('\n'));
            assert!(!lines.replace('\n', "").contains(is_unsafe), "{lines:?}");
            if format != Format::Text {
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
}
