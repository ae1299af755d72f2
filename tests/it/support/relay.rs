//! A TCP relay in this process whose every connection can be delayed, frozen, half closed or cut.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// What the relay does to all of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: bytes pass.
    None,
    /// Bytes pass later, in both directions.
    Delay(Duration),
    /// Nothing passes and nothing ends, as if the network lost every packet; new connections are taken and go nowhere.
    BlackHole,
    /// What the server answers gets lost, and all that it answers later on the same connection; what is sent to it arrives.
    AnswersLost,
    /// The server's side is closed for writing; requests still arrive.
    HalfClosed,
    /// Connections end, and new ones at once.
    Cut,
}

/// A relay on a free port; ends when dropped.
pub struct Relay {
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    accepting: JoinHandle<()>,
}

// === impl Relay ===

impl Relay {
    /// Relays to `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = watch::Sender::new(Fault::None);
        let faults = fault.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server, faults.clone()));
            }
        });
        Self { address, fault, accepting }
    }

    /// From now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.fault.send_replace(Fault::Cut);
    }
}

/// Carries one connection both ways until it is cut or either side ends.
async fn relay(client: TcpStream, server: SocketAddr, faults: watch::Receiver<Fault>) {
    let carried = async {
        pass(&mut faults.clone()).await;
        let Ok(server) = TcpStream::connect(server).await else { return };
        // A buffered small write waits for no other.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            () = carry(from_client, to_server, faults.clone(), false) => {}
            () = carry(from_server, to_client, faults.clone(), true) => {}
        }
    };
    let mut cut = faults.clone();
    tokio::select! {
        () = carried => {}
        _ = cut.wait_for(|fault| *fault == Fault::Cut) => {}
    }
}

/// Waits until bytes may pass; answers the fault in force then.
async fn pass(faults: &mut watch::Receiver<Fault>) -> Fault {
    faults.wait_for(|fault| *fault != Fault::BlackHole).await.map_or(Fault::Cut, |fault| *fault)
}

/// Carries one direction; `answers` tells which.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut faults: watch::Receiver<Fault>, answers: bool) {
    let mut buffer = vec![0; 16 * 1024];
    // A stream has no holes: where bytes were lost, none may follow.
    let mut lost = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let read = Instant::now();
        match pass(&mut faults).await {
            Fault::Delay(delay) => sleep_until(read + delay).await,
            Fault::AnswersLost => lost |= answers,
            Fault::HalfClosed if answers => {
                let _ = to.shutdown().await;
                lost = true;
            }
            Fault::Cut => return,
            _ => {}
        }
        if !lost && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn the_relay_does_what_it_says() {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = echo.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let relay = Relay::start(address).await;
    let mut client = TcpStream::connect(relay.address).await.unwrap();
    let mut answer = [0; 4];

    client.write_all(b"ping").await.unwrap();
    super::soon(client.read_exact(&mut answer)).await.unwrap();

    relay.set(Fault::Delay(Duration::from_millis(50)));
    let begin = Instant::now();
    client.write_all(b"ping").await.unwrap();
    super::soon(client.read_exact(&mut answer)).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(100), "{:?}", begin.elapsed());

    relay.set(Fault::BlackHole);
    client.write_all(b"ping").await.unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(50), client.read_exact(&mut answer)).await;
    assert!(nothing.is_err());
    relay.set(Fault::None);
    super::soon(client.read_exact(&mut answer)).await.unwrap();

    relay.set(Fault::HalfClosed);
    client.write_all(b"ping").await.unwrap();
    assert_eq!(super::soon(client.read(&mut answer)).await.unwrap(), 0);

    relay.set(Fault::None);
    let mut client = TcpStream::connect(relay.address).await.unwrap();
    client.write_all(b"ping").await.unwrap();
    super::soon(client.read_exact(&mut answer)).await.unwrap();
    relay.set(Fault::Cut);
    assert!(matches!(super::soon(client.read(&mut answer)).await, Ok(0) | Err(_)));
}
