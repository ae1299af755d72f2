//! An upstream of HTTP/2, scripted a connection at a time over [`RawUpstream`].

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    server::{Builder, Connection, SendResponse},
};
use hyper::{HeaderMap, Request, Response};
use tokio::net::TcpStream;

use super::{raw_upstream::RawUpstream, soon};

/// One request and where its answer goes.
pub type Exchange = (Request<RecvStream>, SendResponse<Bytes>);

/// The server's side of a connection that admits so many streams.
pub async fn admitting(streams: u32, stream: TcpStream) -> Connection<TcpStream, Bytes> {
    let handshake = Builder::new().max_concurrent_streams(streams).initial_window_size(1 << 20).handshake(stream).await;
    handshake.expect("a client of HTTP/2")
}

/// Answers every request on every connection in a task of its own, as `answer` says.
pub async fn answering<A, F>(streams: u32, answer: A) -> RawUpstream
where
    A: Fn(usize, Exchange) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    RawUpstream::start(move |number, connection| {
        let answer = answer.clone();
        async move {
            let mut connection = admitting(streams, connection.stream).await;
            while let Some(Ok(exchange)) = connection.accept().await {
                tokio::spawn(answer(number, exchange));
            }
        }
    })
    .await
}

/// The heads of requests, in the order they came.
pub type Heads = Arc<Mutex<Vec<Request<()>>>>;

/// Answers every request with 200 and `body`, and keeps its head.
pub async fn remembering(body: &'static str) -> (RawUpstream, Heads) {
    let heads = Heads::default();
    let seen = Arc::clone(&heads);
    let upstream = answering(100, move |_, (request, respond)| {
        seen.lock().unwrap().push(request.map(|_| ()));
        async move { say(respond, body) }
    });
    (upstream.await, heads)
}

/// Sends a whole response.
pub fn say(respond: SendResponse<Bytes>, body: &'static str) {
    // Whoever asked may be gone.
    if let Ok(mut stream) = begin(respond, Response::new(())) {
        let _ = stream.send_data(Bytes::from_static(body.as_bytes()), true);
    }
}

/// Sends the head of a response whose body follows.
pub fn begin(mut respond: SendResponse<Bytes>, head: Response<()>) -> Result<SendStream<Bytes>, h2::Error> {
    respond.send_response(head, false)
}

/// The whole of a request's body, and its trailers.
pub async fn body(mut stream: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut whole = Vec::new();
    while let Some(piece) = soon(stream.data()).await {
        let piece = piece.expect("a whole body");
        let _ = stream.flow_control().release_capacity(piece.len());
        whole.extend_from_slice(&piece);
    }
    (whole, soon(stream.trailers()).await.expect("whole trailers"))
}
