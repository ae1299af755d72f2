//! Whether an upstream has said something unasked.
//!
//! Promised: whatever the runtime has been told of by the kernel is found, without asking the kernel again. It clears its note of
//! bytes only when a read has left room, and so has taken all there was; of what comes later the kernel tells it; and of an end
//! the note stays. Not promised: what has come since the runtime last listened to the kernel, which under load it does
//! only every few dozen tasks. What is still on its way no question could find.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, Interest, ReadBuf},
    net::TcpStream,
};

use crate::{stream::Stream, wire::Fault};

/// Ready when the upstream has said nothing that nobody has read. Of TLS something may be there: session tickets, which are
/// read here; and what was decrypted together with the last answer, of which the kernel no longer knows.
pub(super) fn poll_quiet(stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    if let Stream::Plain(stream) = stream
        && !found(stream.try_io(Interest::READABLE, || peek(stream)))?
    {
        return Poll::Ready(Ok(()));
    }
    let mut bytes = [MaybeUninit::uninit(); 256];
    let mut buffer = ReadBuf::uninit(&mut bytes);
    match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
        Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        Poll::Ready(Ok(())) => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Fault::Unsolicited))),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        // The runtime has yet to hear of the bytes, and wakes us then.
        Poll::Pending if found(peek(stream.tcp()))? => Poll::Pending,
        // There were only tickets, if anything.
        Poll::Pending => Poll::Ready(Ok(())),
    }
}

/// Asks the kernel for a byte, and leaves it there.
fn peek(stream: &TcpStream) -> io::Result<usize> {
    SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])
}

/// Whether there are bytes, or the end of them.
fn found(peeked: io::Result<usize>) -> io::Result<bool> {
    match peeked {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
