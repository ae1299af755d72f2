//! Whether an upstream has said something unasked.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{stream::Stream, wire::Fault};

/// Ready when the upstream has said nothing that nobody has read. Of TLS something may be there: session tickets, which are
/// read here; and what was decrypted together with the last answer, of which the kernel no longer knows.
pub(super) fn poll_quiet(stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    if matches!(stream, Stream::Plain(_)) && !has_unread(stream)? {
        return Poll::Ready(Ok(()));
    }
    let mut bytes = [MaybeUninit::uninit(); 256];
    let mut buffer = ReadBuf::uninit(&mut bytes);
    match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
        Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        Poll::Ready(Ok(())) => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Fault::Unsolicited))),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        // The runtime has yet to hear of the bytes, and wakes us then.
        Poll::Pending if has_unread(stream)? => Poll::Pending,
        // There were only tickets, if anything.
        Poll::Pending => Poll::Ready(Ok(())),
    }
}

/// Whether the kernel holds bytes for us, or the end of them, whatever the runtime has heard of it so far.
fn has_unread(stream: &Stream) -> io::Result<bool> {
    match SockRef::from(stream.tcp()).peek(&mut [MaybeUninit::uninit()]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
