//! The whole daemon on one thread, with a client and an upstream that cost next to nothing.
//!
//! Promised: what is counted of an exchange is the daemon's own work and a few hundred instructions of both ends; the kernel's
//! is not counted at all. On one thread, one request at a time, every run takes the same steps.

use std::{collections::BTreeMap, fs, sync::mpsc};

use cxgate::{
    app::App,
    config::{Sources, load},
    shutdown::Shutdown,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};

/// Ends every answer of the upstream, so that the client need not parse it.
const END: &[u8] = b"the end\n";

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: stub\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n\
    Content-Length: 25\r\nConnection: keep-alive\r\n\r\n{\"status\": \"ok\"} the end\n";

/// The answer to the key of RFC 6455, section 1.3, which [`UPGRADE`] sends.
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const UPGRADE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: chat.example\r\nX-Client-Id: guest-1\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A text message of a client, masked with zeros, and the same of a server.
const FRAME: &[u8] = b"\x81\x97\0\0\0\0hello from the the end\n";
const ECHO: &[u8] = b"\x81\x17hello from the the end\n";

/// How often the rig exchanges before it is counted: connections are made and buffers have grown by then.
const WARM_UP: usize = 50;

/// A daemon, and a connection to it.
pub struct Rig {
    /// While this lives, the runtime has work, and does not turn the clock, which stands still: so the daemon does nothing by
    /// the clock, such as to read its own metrics once a second, while exchanges are counted.
    _still: mpsc::Sender<()>,
    runtime: Runtime,
    client: TcpStream,
    said: &'static [u8],
    heard: Vec<u8>,
}

impl Rig {
    /// A route with so many limits, none of which ever refuses.
    pub fn limited(limits: usize) -> Self {
        let limit = |number| {
            format!(
                "[[routes.limits]]\nname = \"limit-{number}\"\nper = [\"client\"]\n\
                 token_bucket = {{ capacity = 1000000, refill_per_second = 1000000 }}\n"
            )
        };
        let limits: String = (0..limits).map(limit).collect();
        let request = b"GET /api/v2/engage/webchat HTTP/1.1\r\nHost: chat.example\r\nX-Client-Id: guest-1\r\n\
            User-Agent: bench\r\nAccept: */*\r\n\r\n";
        Self::start(&limits, request, None)
    }

    /// A route whose limit refuses.
    pub fn refusing() -> Self {
        let limit = "[[routes.limits]]\nname = \"limit\"\nper = [\"client\"]\n\
            token_bucket = { capacity = 1, refill_per_second = 0.001 }\n";
        let request = b"GET /api HTTP/1.1\r\nHost: chat.example\r\nX-Client-Id: guest-1\r\n\r\n";
        let mut rig = Self::start(limit, request, Some(request));
        rig.heard.clear();
        rig
    }

    /// A socket whose messages are limited, and pass.
    pub fn socket() -> Self {
        let limit = "websocket = { sockets = 5, messages = { capacity = 1000000, refill_per_second = 1000000 } }\n";
        Self::start(limit, FRAME, Some(UPGRADE))
    }

    fn start(route: &str, said: &'static [u8], first: Option<&'static [u8]>) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (still, ended) = mpsc::channel();
        let client = runtime.block_on(async {
            tokio::task::spawn_blocking(move || ended.recv());
            tokio::time::pause();
            let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let url = format!("http://{}", upstream.local_addr().expect("an address"));
            tokio::spawn(answer_all(upstream));
            let app = App::bind(configured(&url, route)).expect("two free ports");
            let address = app.proxy_address();
            tokio::spawn(app.run(Shutdown::default()));
            let mut client = TcpStream::connect(address).await.expect("a connection");
            client.set_nodelay(true).expect("a socket option");
            if let Some(first) = first {
                client.write_all(first).await.expect("a connection");
                assert_ne!(client.read(&mut [0; 4096]).await.expect("an answer"), 0, "the daemon hung up");
            }
            client
        });
        let mut rig = Self { _still: still, runtime, client, said, heard: Vec::with_capacity(64 * 1024) };
        for _ in 0..WARM_UP {
            rig.exchange();
        }
        rig
    }

    /// Says what it has to say, and hears the answer.
    pub fn exchange(&mut self) {
        let Self { runtime, client, said, heard, .. } = self;
        heard.clear();
        runtime.block_on(async {
            client.write_all(said).await.expect("a connection");
            while !heard.ends_with(END) && !heard.ends_with(b"\"limit\":\"limit\"}") {
                assert_ne!(client.read_buf(heard).await.expect("a connection"), 0, "the daemon hung up");
            }
        });
    }
}

fn configured(upstream: &str, route: &str) -> cxgate::config::Config {
    let file = tempfile::NamedTempFile::with_suffix(".toml").expect("a temporary file");
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[upstreams.stub]\nurl = \"{upstream}\"\n\
         [[routes]]\nname = \"bench\"\npaths = [\"/\"]\nupstream = \"stub\"\n{route}"
    );
    fs::write(file.path(), text).expect("a temporary file");
    let sources = Sources { file: Some(file.path().to_owned()), environment: BTreeMap::new() };
    load(&sources).expect("a configuration").config
}

async fn answer_all(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream));
    }
}

/// Answers each head, and each message once the connection is a socket. One read brings a whole one, because whoever sends
/// it writes it at once and waits.
async fn answer(mut stream: TcpStream) {
    let mut heard = vec![0; 4096];
    let mut answer = ANSWER;
    while let Ok(length @ 1..) = stream.read(&mut heard).await {
        let heard = &heard[..length];
        let switches = heard.windows(10).any(|window| window.eq_ignore_ascii_case(b"websocket\r"));
        let said = if switches { SWITCHING } else { answer };
        if switches {
            answer = ECHO;
        }
        if stream.write_all(said).await.is_err() {
            return;
        }
    }
}
