//! What sockets carry, and what carrying them takes.

use tokio::io::AsyncReadExt;

use super::*;
use crate::support::{daemon::Daemon, http::get, websocket::write};

/// One way through one socket.
const VOLUME: usize = 16 * 1024 * 1024;

/// In one message of the volume.
const MESSAGE: usize = 256 * 1024;

/// How much the daemon's memory may grow by: far less than is sent, far more than buffers take.
const FLAT: u64 = 8 * 1024 * 1024;

/// Idle sockets whose memory is measured; 5000 with TEST_SOCKETS=5000.
const SOCKETS: usize = 200;

async fn daemon(upstream: SocketAddr) -> Daemon {
    Daemon::start_listening(&format!(
        "max_connections = 12000\n[upstreams.cxone]\nurl = \"http://{upstream}\"\nmax_connections = 12000\n\
         [[routes]]\nname = \"chat\"\npaths = [\"/\"]\nupstream = \"cxone\"\n\
         websocket = {{ sockets = 12000, messages = {{ capacity = 1000000, refill_per_second = 1000000 }} }}\n"
    ))
    .await
}

async fn resident(daemon: &Daemon) -> u64 {
    let exported = get(daemon.admin, "/metrics", &[]).await;
    let line = exported.text().lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.expect("the daemon knows its memory").parse().unwrap()
}

#[tokio::test]
async fn sixteen_megabytes_each_way_arrive_unchanged_in_flat_memory() {
    let upstream = echoing().await;
    let daemon = daemon(upstream.address()).await;
    let stream = Socket::open(daemon.proxy, "/", "a").await.into_stream();
    let before = resident(&daemon).await;
    let (mut reader, mut writer) = stream.into_split();
    // Every message differs from every other.
    let payload = |number: usize| -> Vec<u8> {
        let mut state = number as u64 + 1;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..MESSAGE).map(next).collect()
    };
    let sending = tokio::spawn(async move {
        for number in 0..VOLUME / MESSAGE {
            write(&mut writer, &masked(BINARY, &payload(number))).await;
        }
        writer
    });
    let mut largest = before;
    for number in 0..VOLUME / MESSAGE {
        let mut message = vec![0; 10 + MESSAGE];
        soon(reader.read_exact(&mut message)).await.unwrap();
        assert_eq!(message[..2], [BINARY, 127]);
        assert!(message[10..] == payload(number), "message {number} came back changed");
        if number % 16 == 15 {
            largest = largest.max(resident(&daemon).await);
        }
    }
    drop(sending.await.unwrap());
    assert!(largest - before < FLAT, "{before} bytes grew to {largest}");
}

#[tokio::test]
async fn idle_sockets_take_little_memory() {
    let count = std::env::var("TEST_SOCKETS").map_or(SOCKETS, |count| count.parse().unwrap());
    let upstream = echoing().await;
    let daemon = daemon(upstream.address()).await;
    // The first ones pay for what all share.
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(Socket::open(daemon.proxy, "/", "a").await);
    }
    let before = resident(&daemon).await;
    for number in 0..count {
        sockets.push(Socket::open(daemon.proxy, "/", &format!("client-{number}")).await);
    }
    let each = (resident(&daemon).await.saturating_sub(before)) / count as u64;
    println!("{each} bytes of memory a socket, over {count} idle sockets");
    assert!(each < 128 * 1024, "{each} bytes a socket");
    for socket in &mut sockets {
        socket.send(TEXT, "still there").await;
        assert_eq!(socket.frame().await, text("still there"));
    }
}
