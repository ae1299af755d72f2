//! An upstream that reads requests as strictly as can be, and remembers whatever is not strictly clean.
//!
//! It shares no code with what it checks.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Answers every request with 200 and its target.
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _connections: JoinSet<()>,
}

/// What has come.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Request heads, whether or not their body came whole.
    pub heads: Vec<String>,
    /// What no request should be.
    pub unclean: Vec<String>,
}

// === impl Recorder ===

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let record = Arc::clone(&seen);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(converse(stream, address, Arc::clone(&record)));
            }
        });
        Self { address, seen, _connections: accepting }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

async fn converse(mut stream: TcpStream, address: SocketAddr, seen: Arc<Mutex<Seen>>) {
    let mut read = Vec::new();
    loop {
        let Some(head) = until(&mut stream, &mut read, b"\r\n\r\n").await else {
            if !read.is_empty() {
                seen.lock().unwrap().unclean.push(format!("bytes that are no request: {}", read.escape_ascii()));
            }
            return;
        };
        {
            let mut seen = seen.lock().unwrap();
            seen.unclean.extend(complaints(&head, &address.to_string()));
            seen.heads.push(head.to_lowercase());
        }
        let fields = head.to_lowercase();
        let length = fields.lines().find_map(|line| line.strip_prefix("content-length: "));
        if let Some(length) = length {
            let length: usize = length.parse().unwrap_or_default();
            while read.len() < length {
                if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                    return;
                }
            }
            read.drain(..length);
        } else if fields.contains("\r\ntransfer-encoding:") {
            while let Some(size) = until(&mut stream, &mut read, b"\r\n").await {
                let Ok(size) = usize::from_str_radix(size.trim_end(), 16) else {
                    return seen.lock().unwrap().unclean.push(format!("a bad chunk size: {size:?}"));
                };
                while read.len() < size + 2 {
                    if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                        return;
                    }
                }
                if read.drain(..size + 2).skip(size).ne(*b"\r\n") {
                    return seen.lock().unwrap().unclean.push("a bad end of a chunk".to_owned());
                }
                if size == 0 {
                    break;
                }
            }
        }
        let target = head.split(' ').nth(1).unwrap_or_default();
        let body = if head.starts_with("HEAD ") { "" } else { target };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Takes what comes up to the end of `pattern`.
async fn until(stream: &mut TcpStream, read: &mut Vec<u8>, pattern: &[u8]) -> Option<String> {
    loop {
        if let Some(position) = read.windows(pattern.len()).position(|window| window == pattern) {
            let taken = read.drain(..position + pattern.len()).collect::<Vec<u8>>();
            return Some(String::from_utf8_lossy(&taken).into_owned());
        }
        if !matches!(stream.read_buf(read).await, Ok(1..)) {
            return None;
        }
    }
}

/// What is wrong with a head.
fn complaints(head: &str, host: &str) -> Vec<String> {
    let body = head.replace("\r\n", "");
    let lower = head.to_lowercase();
    let fields: Vec<(&str, &str)> =
        lower.trim_end().split("\r\n").skip(1).map(|line| line.split_once(": ").unwrap_or((line, ""))).collect();
    let count = |name: &str| fields.iter().filter(|(field, _)| *field == name).count();
    let value = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte));
    let words: Vec<&str> = head.split("\r\n").next().unwrap_or_default().split(' ').collect();
    let upgrades = count("upgrade") == 1 && value("connection") == Some("upgrade");
    let checks = [
        (body.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'), "control characters"),
        (words.len() != 3 || words[2] != "HTTP/1.1" || !words[1].starts_with('/'), "its request line"),
        (!words.get(1).is_some_and(|target| target.to_lowercase().contains("chat")), "a target of no route"),
        (fields.iter().any(|(name, _)| name.is_empty() || !is_name(name)), "a field name"),
        (count("host") != 1 || value("host") != Some(host), "its host"),
        (count("content-length") + count("transfer-encoding") > 1, "its framing"),
        (
            value("content-length").is_some_and(|value| value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit())),
            "its length",
        ),
        (value("transfer-encoding").is_some_and(|value| value != "chunked"), "its transfer coding"),
        (!upgrades && count("connection") + count("upgrade") > 0, "fields of a connection"),
        (["te", "trailer", "keep-alive", "proxy-connection"].iter().any(|name| count(name) > 0), "hop-by-hop fields"),
    ];
    checks.into_iter().filter(|(bad, _)| *bad).map(|(_, what)| format!("{what}: {head:?}")).collect()
}
