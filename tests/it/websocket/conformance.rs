//! Every [case](super::cases) through the gate, between a raw client and a raw upstream, at once and byte by byte; and every
//! order in which the two may end a socket.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

use super::{
    cases::{Case, Sender, breaking, passing},
    *,
};
use crate::support::websocket::write;

/// The longest case that is also sent byte by byte.
const SHORT: usize = 300;

/// How the bytes of a case are cut: all at once and, where they are few, one by one.
fn cuts(case: &Case) -> impl Iterator<Item = usize> {
    let whole = case.bytes.len().max(1);
    [whole, 1].into_iter().take(if case.bytes.len() <= SHORT { 2 } else { 1 })
}

async fn send(stream: &mut TcpStream, bytes: &[u8], cut: usize) {
    stream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(cut) {
        write(stream, piece).await;
    }
}

/// All that a client hears until the gate ends the connection.
async fn heard(client: &mut Socket) -> Vec<u8> {
    let (bytes, in_order) = client.0.rest().await;
    assert!(in_order, "no reset");
    bytes
}

/// All that comes until the other side ends.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.expect("an end in order");
    bytes
}

/// An upstream that says what it received on each connection, up to the client's end.
async fn hearing() -> (RawUpstream, UnboundedReceiver<Vec<u8>>) {
    let (tell, told) = unbounded_channel();
    let upstream = RawUpstream::start(move |_, mut connection| {
        let tell = tell.clone();
        async move {
            if open(&mut connection).await.is_some() {
                tell.send(rest(&mut connection.stream).await).unwrap();
            }
        }
    })
    .await;
    (upstream, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_may_send_arrives_byte_for_byte() {
    let (upstream, mut told) = hearing().await;
    let gate = gate(upstream.address(), WebSocket { messages: bucket(100_000, 100_000.0), ..policy() });
    let cases = passing(Sender::Client);
    assert!(cases.len() >= 120, "{} cases", cases.len());
    for case in &cases {
        for cut in cuts(case) {
            let mut client = Socket::open(gate.proxy, CHAT, "a").await;
            send(&mut client.0.stream, &case.bytes, cut).await;
            client.0.stream.shutdown().await.unwrap();
            let arrived = soon(told.recv()).await.unwrap();
            assert!(arrived == case.bytes, "{}, {cut} at once: {arrived:02x?}", case.name);
            assert_eq!(heard(&mut client).await, b"", "{}, {cut} at once", case.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_may_not_send_goes_no_further_and_is_closed_with_1002_on_both_sides() {
    let (upstream, mut told) = hearing().await;
    let gate = gate(upstream.address(), WebSocket { messages: bucket(100_000, 100_000.0), ..policy() });
    let mut refused = 0;
    for case in &breaking() {
        for cut in cuts(case) {
            let mut client = Socket::open(gate.proxy, CHAT, "a").await;
            send(&mut client.0.stream, &case.bytes, cut).await;
            let closed = heard(&mut client).await;
            assert_eq!(closed[..4], [CLOSE, 16, 0x03, 0xEA], "{}, {cut} at once: {closed:02x?}", case.name);
            assert_eq!(closed.len(), 18, "{}, {cut} at once: nothing follows a close", case.name);
            drop(client);
            let arrived = soon(told.recv()).await.unwrap();
            let (before, close) = arrived.split_at_checked(case.passes).expect(&case.name);
            assert!(before == &case.bytes[..case.passes], "{}, {cut} at once: {arrived:02x?}", case.name);
            let [CLOSE, 0x90, one, two, _, _, first, second, ..] = *close else { panic!("{}: {close:02x?}", case.name) };
            assert_eq!([first ^ one, second ^ two], 1002_u16.to_be_bytes(), "{}, {cut} at once", case.name);
            refused += 1;
        }
    }
    assert!(refused >= 80, "{refused} times");
    assert_eq!(closes(&gate, 1002).await, refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_sends_arrives_byte_for_byte_whatever_it_is() {
    let cases = || {
        let clients = breaking().into_iter().map(|case| Case { passes: case.bytes.len(), ..case });
        passing(Sender::Server).into_iter().chain(clients)
    };
    let sent: Vec<_> =
        cases().flat_map(|case| cuts(&case).map(|cut| (case.bytes.clone(), cut)).collect::<Vec<_>>()).collect();
    // Sockets are opened one after the other, so that each finds its case by its number.
    let upstream = RawUpstream::start(move |number, mut connection| {
        let (bytes, cut) = sent[number].clone();
        async move {
            open(&mut connection).await.unwrap();
            send(&mut connection.stream, &bytes, cut).await;
        }
    })
    .await;
    let gate = gate(upstream.address(), policy());
    for case in cases() {
        for cut in cuts(&case) {
            let mut client = Socket::open(gate.proxy, CHAT, "a").await;
            let arrived = heard(&mut client).await;
            assert!(arrived == case.bytes, "{}, {cut} at once: {arrived:02x?}", case.name);
        }
    }
}

/// A close with 1000 and a reason, and what answers it.
fn handshake(sender: Sender) -> Vec<u8> {
    sender.frame(CLOSE, [&1000_u16.to_be_bytes()[..], b"done"].concat())
}

#[tokio::test]
async fn a_close_passes_and_so_does_its_answer_whoever_begins() {
    let (clients, servers) = (handshake(Sender::Client), handshake(Sender::Server));
    for begins in ["client", "upstream", "both"] {
        let (theirs, ours) = (servers.clone(), clients.clone());
        let upstream = RawUpstream::start(move |_, mut connection| {
            let (theirs, ours) = (theirs.clone(), ours.clone());
            async move {
                open(&mut connection).await.unwrap();
                if begins != "client" {
                    write(&mut connection.stream, &theirs).await;
                }
                let mut close = vec![0; ours.len()];
                soon(connection.stream.read_exact(&mut close)).await.unwrap();
                assert_eq!(close, ours);
                if begins == "client" {
                    write(&mut connection.stream, &theirs).await;
                }
            }
        })
        .await;
        let gate = gate(upstream.address(), policy());
        let mut client = Socket::open(gate.proxy, CHAT, "a").await;
        if begins != "upstream" {
            write(&mut client.0.stream, &clients).await;
        }
        assert_eq!(client.0.take(servers.len()).await, servers, "{begins}");
        if begins == "upstream" {
            write(&mut client.0.stream, &clients).await;
        }
        assert_eq!(heard(&mut client).await, b"", "{begins}: the server ends the connection");
        until(async || open_sockets(&gate).await == "0").await;
        let ours: u64 = [closes(&gate, 1001).await, closes(&gate, 1002).await, closes(&gate, 1008).await].iter().sum();
        assert_eq!(ours, 0, "{begins}: none was the gate's");
    }
}

#[tokio::test]
async fn a_client_that_has_ended_hears_the_upstream_out_and_one_that_does_not_end_is_let_go() {
    let late = Sender::Server.frame(BINARY, vec![7; 300_000]);
    let expected = late.clone();
    let upstream = RawUpstream::start(move |number, mut connection| {
        let late = late.clone();
        async move {
            open(&mut connection).await.unwrap();
            if number == 0 {
                assert_eq!(rest(&mut connection.stream).await, Sender::Client.frame(TEXT, "last words"));
            }
            write(&mut connection.stream, &late).await;
        }
    })
    .await;
    let gate = gate(upstream.address(), policy());
    let mut client = Socket::open(gate.proxy, CHAT, "a").await;
    write(&mut client.0.stream, &Sender::Client.frame(TEXT, "last words")).await;
    client.0.stream.shutdown().await.unwrap();
    assert!(heard(&mut client).await == expected);

    let mut client = Socket::open(gate.proxy, CHAT, "a").await;
    assert!(heard(&mut client).await == expected);
    until(async || open_sockets(&gate).await == "0").await;
}
