//! From an accepted connection to one that may speak HTTP: the TLS handshake, and which HTTP it is to be.
//!
//! Over TLS the handshake decides (ALPN, RFC 7301). Without it, and where `listen.h2c` allows, the first bytes do (RFC
//! 9113, section 3.3): they are looked at, not taken. The caller bounds the time.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpStream;

use super::tls::{self, Tls};
use crate::{peer::Peer, stream::Stream};

/// What a listener speaks.
#[derive(Debug, Clone, Default)]
pub(super) struct Protocols {
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) h2c: bool,
}

/// A connection that may speak HTTP.
pub(super) struct Greeted {
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    pub(super) http2: bool,
}

/// The beginning of HTTP/2's preface that no method of HTTP/1 shares.
const HTTP2_BEGINS: &[u8] = b"PRI";

/// How often a beginning that is still too short is looked at again: the bytes are left where they are, so that waiting for
/// more would not wait.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Shakes hands where TLS is spoken, and finds out the protocol.
pub(super) async fn greet(stream: TcpStream, address: SocketAddr, protocols: &Protocols) -> io::Result<Greeted> {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let Some(tls) = &protocols.tls else {
        let http2 = protocols.h2c && begins_http2(&stream).await?;
        let peer = Peer { address, secure: false, certificate: None };
        return Ok(Greeted { stream: Stream::Plain(stream), peer, http2 });
    };
    // In a box of its own, so that the room it needs is free again once it is done.
    let stream = Box::pin(tls.accept(stream)).await?;
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let certificate = session.peer_certificates().and_then(|chain| tls::subject(chain.first()?));
    let peer = Peer { address, secure: true, certificate };
    Ok(Greeted { stream: Stream::Tls(Box::new(stream.into())), peer, http2 })
}

async fn begins_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; HTTP2_BEGINS.len()];
    loop {
        let length = stream.peek(&mut begin).await?;
        if length == 0 || begin[..length] != HTTP2_BEGINS[..length] {
            return Ok(false);
        }
        if length == HTTP2_BEGINS.len() {
            return Ok(true);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
