//! The access log: one line a request and its answer, when the answer has ended.
//!
//! Promised: it holds no query, no credential and no body; whoever writes to it never waits ([`lines`](super)). Not promised:
//! the order of requests. A line stands where its answer ended, and says when its request came.

use std::{
    fmt::Write as _,
    io,
    net::IpAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use hyper::Version;
use prometheus_client::metrics::counter::Counter;

use super::{
    fields::{Fields, Object},
    lines::{Lines, Rotated, Writer, unbuffered},
    stamp,
};

/// The longest path, field or agent that a line shows, in bytes.
const MAX_TEXT_BYTES: usize = 512;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, added to; made where there is none, and anew where it was renamed.
    File(PathBuf),
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object.
    Json(Fields),
    /// The combined format that web servers share.
    Combined,
}

/// Writes lines. Dropping it writes what is queued, for at most a second.
pub struct AccessLog {
    lines: Lines,
    _writer: Writer,
    form: Form,
    sample: u32,
    skipped: AtomicU32,
}

/// What became of a request's wish to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decision {
    /// Its limits admitted it, or its route has none.
    Admitted,
    /// A limit or a guard refused it.
    Refused,
    /// A limit would have refused it, had its route not been in shadow.
    Shadowed,
    /// Its client is trusted.
    Whitelisted,
    /// It was a preflight, which is no one's request.
    Preflight,
    /// Limits were not asked.
    #[default]
    None,
}

/// One request and its answer. Texts are as the client sent them: they are made harmless where they are written.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When its head was complete, in microseconds of Unix time.
    pub at: u64,
    /// Tells it from every other.
    pub request_id: &'a str,
    /// What the client is called, and by which kind of source; `None` where nobody asked.
    pub client: Option<(&'a str, &'static str)>,
    /// Its address.
    pub address: IpAddr,
    /// `None` where the head could not be read.
    pub method: Option<&'a str>,
    /// The host it was sent to.
    pub host: Option<&'a str>,
    /// Without its query.
    pub path: Option<&'a str>,
    /// As in `HTTP/1.1`.
    pub version: &'a str,
    /// The route that took it.
    pub route: Option<&'a str>,
    /// Of the answer; 499 where the client went away before there was one.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
    /// From sending it upstream to the head of the upstream's answer, all tries included.
    pub upstream: Option<Duration>,
    /// What limits said.
    pub decision: Decision,
    /// The limit that refused it.
    pub limit: Option<&'a str>,
    /// What it took, in tokens, of the limit of which it takes most.
    pub cost: Option<u64>,
    /// What it was told to wait, in seconds.
    pub retry_after: Option<u64>,
    /// The load factor that its limits went by, in millionths, where it was not 1.
    pub factor: Option<u32>,
    /// Why cxgate answered itself.
    pub code: Option<&'static str>,
    /// Where it says it was referred from, for the combined format.
    pub referer: Option<&'a str>,
    /// What it says it was sent by.
    pub user_agent: Option<&'a str>,
    /// Fields of the request that were asked for.
    pub headers: &'a [(String, String)],
    /// The trace that it is part of.
    pub trace_id: Option<&'a str>,
}

// === impl AccessLog ===

impl AccessLog {
    /// Begins to write. Of answers below 400, one in `sample` is written; `dropped` counts lines that are lost.
    ///
    /// # Errors
    ///
    /// Where the target cannot be opened.
    pub fn open(target: &Target, form: Form, sample: u32, dropped: Counter) -> io::Result<Self> {
        let (lines, writer) = match target {
            Target::Stdout => Lines::start(unbuffered(&io::stdout())?, dropped)?,
            Target::Stderr => Lines::start(unbuffered(&io::stderr())?, dropped)?,
            Target::File(path) => Lines::start(Rotated::open(path)?, dropped)?,
        };
        Ok(Self { lines, _writer: writer, form, sample, skipped: AtomicU32::new(0) })
    }

    /// Writes one line, or none where the sample leaves it out.
    pub fn write(&self, record: &Record<'_>) {
        if self.sample > 1
            && record.status < 400
            && !self.skipped.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.sample)
        {
            return;
        }
        let mut line = match self.form {
            Form::Json(fields) => json(record, fields),
            Form::Combined => combined(record),
        };
        line.push('\n');
        self.lines.push(line.into_bytes());
    }
}

// === impl Decision ===

impl Decision {
    /// Every decision.
    pub const ALL: [Self; 6] =
        [Self::Admitted, Self::Refused, Self::Shadowed, Self::Whitelisted, Self::Preflight, Self::None];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Shadowed => "shadowed",
            Self::Whitelisted => "whitelisted",
            Self::Preflight => "preflight",
            Self::None => "none",
        }
    }
}

/// A version as it is written in a request line.
pub fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

// === the forms ===

fn json(record: &Record<'_>, fields: Fields) -> String {
    let mut object = Object::new(fields);
    object.text("timestamp", &stamp::rfc3339(record.at));
    object.text("event", "access");
    object.text("request_id", record.request_id);
    if let Some((client, kind)) = record.client {
        object.text("client_id", client);
        object.text("client_kind", kind);
    }
    object.text("address", &record.address.to_string());
    let texts = [
        ("method", record.method),
        ("host", record.host.map(cut)),
        ("path", record.path.map(cut)),
        ("route", record.route),
        ("decision", Some(record.decision.as_str())),
        ("limit", record.limit),
        ("code", record.code),
        ("trace_id", record.trace_id),
        ("user_agent", record.user_agent.map(cut)),
    ];
    texts.into_iter().filter_map(|(name, value)| Some((name, value?))).for_each(|(name, value)| object.text(name, value));
    let numbers = [
        ("status", Some(record.status.into())),
        ("bytes", Some(record.bytes)),
        ("duration_us", Some(micros(record.duration))),
        ("upstream_us", record.upstream.map(micros)),
        ("cost", record.cost),
        ("retry_after", record.retry_after),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name, value?)));
    numbers.for_each(|(name, value)| object.number(name, value));
    if let Some(factor) = record.factor {
        object.decimal("factor", f64::from(factor) / 1e6);
    }
    if !record.headers.is_empty() {
        object.texts("headers", record.headers);
    }
    object.finish()
}

/// The client stands in the place of the user, where it is more than its address.
fn combined(record: &Record<'_>) -> String {
    let mut line = String::with_capacity(256);
    let client = record.client.filter(|(_, kind)| *kind != "address").map_or("-", |(client, _)| client);
    let _ = write!(line, "{} - ", record.address);
    quote(client, true, &mut line);
    let _ = write!(line, " [{}] \"", stamp::common(record.at));
    match (record.method, record.path) {
        (Some(method), Some(path)) => {
            let _ = write!(line, "{method} ");
            quote(cut(path), true, &mut line);
            let _ = write!(line, " {}", record.version);
        }
        _ => line.push('-'),
    }
    let _ = write!(line, "\" {} {} \"", record.status, record.bytes);
    quote(record.referer.map_or("-", cut), false, &mut line);
    line.push_str("\" \"");
    quote(record.user_agent.map_or("-", cut), false, &mut line);
    line.push('"');
    line
}

/// Writes what may not stand between quotes, or at a place that a space ends, the way web servers do.
fn quote(text: &str, is_word: bool, line: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => line.extend(['\\', char::from(byte)]),
            b' ' if !is_word => line.push(' '),
            byte if byte.is_ascii_graphic() => line.push(char::from(byte)),
            byte => {
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record<'_> = Record {
        at: 1_795_322_295_000_001,
        request_id: "id-7",
        client: Some(("al \"ice", "name")),
        address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        method: Some("GET"),
        host: Some("chat.example"),
        path: Some("/api/\u{202e}x"),
        version: "HTTP/1.1",
        route: Some("guest-webchat"),
        status: 429,
        bytes: 70,
        duration: Duration::from_micros(1234),
        upstream: None,
        decision: Decision::Refused,
        limit: Some("per-client"),
        cost: None,
        retry_after: Some(1),
        factor: Some(500_000),
        code: Some("rate_limit_exceeded"),
        referer: None,
        user_agent: Some("curl/8 \"x\"\n"),
        headers: &[],
        trace_id: Some("0af7651916cd43dd8448eb211c80319c"),
    };

    #[test]
    fn a_line_is_one_json_object_or_one_combined_line() {
        let line = json(&RECORD, Fields::Cxgate);
        let expected = serde_json::json!({
            "timestamp": "2026-11-22T04:38:15.000001Z", "event": "access", "request_id": "id-7", "client_id": "al \"ice",
            "client_kind": "name", "address": "127.0.0.1", "method": "GET", "host": "chat.example", "path": "/api/\u{202e}x",
            "route": "guest-webchat", "decision": "refused", "limit": "per-client", "code": "rate_limit_exceeded",
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "user_agent": "curl/8 \"x\"\n", "status": 429, "bytes": 70,
            "duration_us": 1234, "retry_after": 1, "factor": 0.5,
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), expected);
        assert_eq!(
            combined(&RECORD),
            concat!(
                r#"127.0.0.1 - al\x20\"ice [22/Nov/2026:04:38:15 +0000] "GET /api/\xe2\x80\xaex HTTP/1.1" 429 70 "-" "#,
                r#""curl/8 \"x\"\x0a""#
            )
        );
    }

    #[test]
    fn of_good_answers_one_in_so_many_is_written_and_every_other_answer_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::open(&Target::File(path.clone()), Form::Combined, 10, Counter::default()).unwrap();
        for _ in 0..30 {
            log.write(&RECORD);
            log.write(&Record { status: 200, ..RECORD });
        }
        drop(log);
        let text = std::fs::read_to_string(path).unwrap();
        let count = |status: &str| text.lines().filter(|line| line.contains(status)).count();
        assert_eq!((count("\" 429 "), count("\" 200 ")), (30, 3));
    }

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let dropped = Counter::default();
        let log = AccessLog::open(&Target::File("/dev/full".into()), Form::Combined, 1, dropped.clone()).unwrap();
        (0..100).for_each(|_| log.write(&RECORD));
        drop(log);
        assert_eq!(dropped.get(), 100);
    }
}
