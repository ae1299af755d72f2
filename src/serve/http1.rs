//! One client's HTTP/1.1 connection: one task that rests, reads a head, has it answered, writes the answer, and rests again.
//!
//! Promised: requests are answered in their order, each before the next is read; nothing is read that the step at hand does not
//! need, but for one piece, by which a client that goes away is noticed while its answer is made, and which then waits. Each step
//! has its limit and its end, so that the client learns how; a connection that waits for a request costs its socket and little
//! else.
//! Not promised: that a client which is gone is noticed while it has more requests waiting, or a body that nobody reads.

use std::{future::poll_fn, mem, pin::pin, task::Poll, time::Duration};

use hyper::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::timeout,
};

mod connection;
mod date;
mod link;
mod reply;
mod upload;

use connection::Connection;
use reply::Reply;

use super::{
    Handler,
    exchange::Exchanges,
    overload::{Room, Slot},
    refusal,
};
use crate::{
    code::Code,
    peer::Peer,
    shutdown::Shutdown,
    stream::{Stream, Tunnel, turn},
    wire::{Fault, connection_options, fields::BringsFields, request::Head, room},
};

/// How long a client is heard out, unheeded, after the answer that ends its connection. Closing on unread bytes makes the
/// kernel send a reset, which can overtake the answer and take it from the client (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// How a connection comes to its end.
enum End {
    /// In order: the client has all it asked for.
    Closed,
    /// The same, but the client may not have been heard out.
    Unheard,
    /// What comes next is not to be read, or did not come in time.
    Refused(Code),
    /// The client is gone, takes nothing, or must not take what it has for a whole answer.
    Broken,
    /// It is a tunnel now.
    Switched(oneshot::Sender<Tunnel>),
}

/// Serves requests until the client, a cap or the shutdown ends the connection.
pub(super) async fn run<H: Handler>((stream, slot): (Stream, Slot), peer: Peer, exchanges: &Exchanges<H>, room: &Room) {
    let mut connection = Connection::new(stream, &exchanges.caps);
    let end = until_stopped(&exchanges.shutdown, serve(&mut connection, &peer, exchanges, room)).await;
    // In a box, as it is needed once.
    Box::pin(finish(end, connection, slot, &peer, exchanges)).await;
}

/// Runs `serving` to its end, or to the stop. A task is woken several times a request, and wakes for the stop in the same way each
/// time, so that it is enough to wait for that once.
async fn until_stopped(shutdown: &Shutdown, serving: impl Future<Output = End>) -> End {
    let (mut serving, mut stopped) = (pin!(serving), pin!(shutdown.stopped()));
    let mut waits = false;
    poll_fn(|context| {
        if (!mem::replace(&mut waits, true) || shutdown.is_stopped()) && stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(End::Broken);
        }
        serving.as_mut().poll(context)
    })
    .await
}

/// Has the connection rest and converse by turns.
async fn serve<H: Handler>(connection: &mut Connection<'_>, peer: &Peer, exchanges: &Exchanges<H>, room: &Room) -> End {
    loop {
        if let Some(end) = connection.rest(room, &exchanges.shutdown).await {
            return end;
        }
        // In a box, so that the room it needs is there only for as long as it is needed.
        if let Some(end) = Box::pin(converse(connection, peer, exchanges)).await {
            return end;
        }
    }
}

/// Answers requests until the client leaves it at that for now, or for good.
async fn converse<H: Handler>(connection: &mut Connection<'_>, peer: &Peer, exchanges: &Exchanges<H>) -> Option<End> {
    loop {
        let head = match connection.head().await {
            Ok(Some(head)) => head,
            Ok(None) => return None,
            Err(end) => return Some(end),
        };
        if let Err(end) = exchange(connection, head, peer, exchanges).await {
            return Some(end);
        }
    }
}

/// Has one request answered, and writes the answer.
async fn exchange<H: Handler>(
    connection: &mut Connection<'_>,
    head: Head,
    peer: &Peer,
    exchanges: &Exchanges<H>,
) -> Result<(), End> {
    let (request, asked) = connection.receive(head);
    let mut responding = pin!(exchanges.respond(peer.clone(), request, ()));
    let response = poll_fn(|context| match responding.as_mut().poll(context) {
        Poll::Ready(response) => Poll::Ready(Ok(response)),
        Poll::Pending => connection.poll_gone(context).map(Err),
    })
    .await?;
    turn().await;

    let (head, mut body) = response.into_parts();
    let is_unheard = connection.leaves_body().await;
    if asked.switching.is_some() && head.status == StatusCode::SWITCHING_PROTOCOLS && connection.has_spoken().await {
        return Err(refused(Fault::Early));
    }
    let closes = connection_options(&head.headers).any(|option| option.eq_ignore_ascii_case("close"));
    let fields = body.take_fields();
    let mut reply = Reply::new(&asked, &head, body);
    let persists = asked.persists && !closes && !is_unheard && reply.has_end() && !exchanges.shutdown.is_leaving();
    connection.begin(|buffer| reply.write_head(&asked, persists, &head, &fields, buffer));
    room::keep(head.headers);
    poll_fn(|context| connection.poll_reply(&mut reply, context)).await?;
    drop(reply);

    match asked.switching {
        Some(switching) if head.status == StatusCode::SWITCHING_PROTOCOLS => return Err(End::Switched(switching)),
        // What follows may have been meant for another protocol.
        Some(_) if connection.has_more() => return Err(refused(Fault::Early)),
        _ => {}
    }
    connection.pass_body().await;
    if persists && !connection.is_unheard() {
        connection.idle();
        return Ok(());
    }
    Err(if connection.is_unheard() || connection.has_more() { End::Unheard } else { End::Closed })
}

/// How a connection ends on which that was found.
fn refused(fault: Fault) -> End {
    tracing::debug!(%fault, "a request is refused");
    End::Refused(refusal::of_fault(fault))
}

/// Ends the connection so that the client learns how.
async fn finish<H: Handler>(end: End, connection: Connection<'_>, slot: Slot, peer: &Peer, exchanges: &Exchanges<H>) {
    let (mut stream, received) = connection.into_parts();
    let last_words = match end {
        End::Closed => return stream.close().await,
        End::Broken => return abort(&stream),
        // Nobody may want it any more; then it is closed.
        End::Switched(switching) => return drop(switching.send(Tunnel::new(stream, received, slot))),
        End::Unheard => String::new(),
        End::Refused(code) => exchanges.refuse_head(code, peer),
    };
    tokio::select! {
        () = say(&mut stream, last_words.as_bytes()) => {}
        () = exchanges.shutdown.stopped() => {}
    }
}

/// Writes the last words of a connection and waits a moment for the client to take them.
async fn say(stream: &mut Stream, words: &[u8]) {
    let farewell = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut unheeded = vec![0; 4096];
        while stream.read(&mut unheeded).await? > 0 {}
        std::io::Result::Ok(())
    };
    // However it ends, the connection is over: the client has the answer or does not want it.
    let _ = timeout(LINGER, farewell).await;
}

/// Makes the coming close a reset: a response cut short must not look like one that ended, and a client that takes nothing
/// must not hold memory in the kernel.
fn abort(stream: &Stream) {
    // It fails only where the connection is gone already.
    let _ = stream.tcp().set_zero_linger();
}
