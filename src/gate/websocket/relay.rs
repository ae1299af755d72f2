//! One socket: what the client sends, frame by frame as its messages are admitted; what the upstream sends, as it comes.
//!
//! Both directions keep their state outside of their futures, so that wherever they are stopped, it is known which frame has
//! gone out how far, and a close frame stands between two frames or is not sent.

use std::{io, pin::pin, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, sink},
    time::{Duration, sleep, timeout},
};
use tracing::debug;

use super::{
    Close, Policy, Shared,
    allowance::{Allowance, BUSY_WITHIN, Passage},
    cost::PEEK_BYTES,
    frame::{Boundaries, Header, MAX_HEADER_BYTES, Role, Sequence},
};
use crate::{
    gate::{tunnel::Activity, violation::Seen},
    limiter::bucket::MICRO,
    stream::Tunnel,
};

/// The most bytes in flight in one direction: a message that is looked at must fit, with its header.
const BUFFER_BYTES: usize = 2 * PEEK_BYTES;
const _: () = assert!(BUFFER_BYTES >= PEEK_BYTES + MAX_HEADER_BYTES);

/// Room for them to begin with: most sockets carry heartbeats and little else, and there are many.
const FIRST_BUFFER_BYTES: usize = 512;

/// How long both sides are given to take a close frame, and what is on its way before it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a socket is carried with.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) policy: Arc<Policy>,
    pub(super) seen: Seen,
}

/// How a direction came to its end, other than by the end of what it reads.
enum End {
    Close(Close),
    Broken(io::Error),
}

/// From the client to the upstream.
struct Upward<'a> {
    session: &'a Session,
    activity: &'a Activity,
    allowance: Option<Allowance>,
    reader: ReadHalf<Tunnel>,
    writer: WriteHalf<Tunnel>,
    sequence: Sequence,
    buffer: Vec<u8>,
    /// What of the buffer was read and has not gone on.
    start: usize,
    end: usize,
    /// Bytes of the current frame that have not gone on; 0 between frames.
    due: u64,
}

/// From the upstream to the client.
struct Downward<'a> {
    activity: &'a Activity,
    reader: ReadHalf<Tunnel>,
    writer: WriteHalf<Tunnel>,
    boundaries: Boundaries,
    buffer: Vec<u8>,
    /// What of the buffer was read and has not gone on.
    start: usize,
    end: usize,
    /// Where in the buffer the last frame ends, if one does.
    frame_end: Option<usize>,
}

// === impl Session ===

impl Session {
    /// Relays until both sides have ended, one breaks, or the gate ends it.
    pub(super) async fn run(&self, client: Tunnel, upstream: Tunnel, allowance: Option<Allowance>) {
        let activity = Activity::begin();
        let (client_reader, client_writer) = tokio::io::split(client);
        let (upstream_reader, upstream_writer) = tokio::io::split(upstream);
        let mut upward = Upward::new(self, &activity, allowance, client_reader, upstream_writer);
        let mut downward = Downward::new(&activity, upstream_reader, client_writer);
        let end = tokio::select! {
            ended = both(&mut upward, &mut downward) => ended.err(),
            () = activity.ceases(self.policy.idle_timeout) => Some(End::Close(Close::GoingAway)),
            () = self.drained() => Some(End::Close(Close::GoingAway)),
        };
        if let Some(allowance) = &mut upward.allowance {
            allowance.give_back().await;
        }
        match end {
            None => {}
            Some(End::Broken(error)) => debug!(%error, "a socket broke"),
            Some(End::Close(close)) => {
                self.policy.counters.closes[close as usize].inc();
                if close == Close::LimitExceeded {
                    let (log, seen) = (&self.shared.violations, &self.seen);
                    log.refused(&seen.client, || seen.clone(), &log.messages_name, None, None);
                }
                // Whoever does not take it in time learns of the end from the connection's.
                let _ = timeout(FAREWELL, farewell(&mut upward, &mut downward, close)).await;
            }
        }
    }

    /// Resolves when a drain has left sockets the time to end by themselves.
    async fn drained(&self) {
        self.shared.shutdown.draining().await;
        sleep(self.shared.grace).await;
    }
}

/// Relays until both sides have ended. An upstream that has ended hears no more, so its client has little time to follow.
async fn both(upward: &mut Upward<'_>, downward: &mut Downward<'_>) -> Result<(), End> {
    let (mut up, mut down) = (pin!(upward.run()), pin!(downward.run()));
    tokio::select! {
        ended = &mut up => {
            ended?;
            down.await
        }
        ended = &mut down => {
            ended?;
            timeout(FAREWELL, up).await.unwrap_or(Ok(()))
        }
    }
}

/// Says to both sides that the socket ends, and hears them out so that no reset takes the words from them.
async fn farewell(upward: &mut Upward<'_>, downward: &mut Downward<'_>, close: Close) {
    let to_upstream = async {
        if upward.due == 0 {
            upward.writer.write_all(&close_frame(close, Some(fastrand::u32(..).to_be_bytes()))).await?;
        }
        upward.writer.shutdown().await
    };
    let to_client = async {
        downward.finish_frame().await?;
        downward.writer.write_all(&close_frame(close, None)).await?;
        downward.writer.shutdown().await
    };
    // Each side that is gone misses only its own.
    let _: (io::Result<()>, io::Result<()>) = tokio::join!(to_upstream, to_client);
    tokio::join!(hear_out(&mut upward.reader), hear_out(&mut downward.reader));
}

async fn hear_out(reader: &mut (impl AsyncRead + Unpin)) {
    let _ = tokio::io::copy(reader, &mut sink()).await;
}

/// A close frame (RFC 6455, section 5.5.1), masked as a client's is or not.
fn close_frame(close: Close, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut payload = close.code().to_be_bytes().to_vec();
    payload.extend(close.reason().as_bytes());
    let length = u8::try_from(payload.len()).unwrap_or_default();
    let mut frame = vec![0x88, length | if mask.is_some() { 0x80 } else { 0 }];
    if let Some(mask) = mask {
        frame.extend(mask);
        apply_mask(&mut payload, mask);
    }
    frame.extend(payload);
    frame
}

/// Masks, or unmasks (RFC 6455, section 5.3).
fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in payload.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

// === impl Upward ===

impl<'a> Upward<'a> {
    fn new(
        session: &'a Session,
        activity: &'a Activity,
        allowance: Option<Allowance>,
        reader: ReadHalf<Tunnel>,
        writer: WriteHalf<Tunnel>,
    ) -> Self {
        let (buffer, sequence) = (vec![0; FIRST_BUFFER_BYTES], Sequence::default());
        Self { session, activity, allowance, reader, writer, sequence, buffer, start: 0, end: 0, due: 0 }
    }

    async fn run(&mut self) -> Result<(), End> {
        while let Some(header) = self.header().await? {
            let role = self.sequence.next(&header).map_err(|_| End::Close(Close::ProtocolError))?;
            if let Role::Begin { is_text } = role {
                let cost = self.cost(&header, is_text).await?;
                if let Some(allowance) = &mut self.allowance {
                    if allowance.take(cost).await.map_err(End::Close)? == Passage::Despite {
                        self.session.shared.violations.would_close(&self.session.seen);
                    }
                    self.activity.mark();
                }
            }
            self.due = header.total();
            self.pass().await?;
        }
        Ok(self.writer.shutdown().await?)
    }

    /// The next frame's header, which stays in the buffer; `None` at the client's end.
    async fn header(&mut self) -> io::Result<Option<Header>> {
        loop {
            if let Some(header) = Header::parse(self.buffered()) {
                return Ok(Some(header));
            }
            if !self.fill().await? {
                // Whatever the client meant by a piece of a header, it goes on.
                self.due = self.buffered().len() as u64;
                self.pass().await?;
                return Ok(None);
            }
        }
    }

    /// What the message costs that begins with this frame.
    async fn cost(&mut self, header: &Header, is_text: bool) -> io::Result<u64> {
        let costs = &self.session.policy.costs;
        if costs.is_empty() || !is_text || header.is_extended {
            return Ok(MICRO);
        }
        let payload = match (usize::try_from(header.payload), header.mask) {
            (Ok(payload @ 0..=PEEK_BYTES), Some(mask)) if header.is_final => {
                while self.buffered().len() < header.length + payload {
                    if !self.fill().await? {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                let mut text = self.buffered()[header.length..][..payload].to_vec();
                apply_mask(&mut text, mask);
                text
            }
            _ => return Ok(costs.dearest),
        };
        Ok(costs.of(&payload))
    }

    /// Sends the current frame on.
    async fn pass(&mut self) -> io::Result<()> {
        while self.due > 0 {
            if self.start == self.end && !self.fill().await? {
                return Ok(());
            }
            let due = usize::try_from(self.due).unwrap_or(usize::MAX).min(self.end - self.start);
            let written = write(&mut self.writer, &self.buffer[self.start..self.start + due]).await?;
            self.activity.mark();
            self.start += written;
            self.due -= written as u64;
        }
        Ok(())
    }

    /// Reads more into the buffer, which must have room, or room to grow; false at the client's end.
    async fn fill(&mut self) -> io::Result<bool> {
        self.writer.flush().await?;
        grow_if_full(&mut self.buffer, self.end);
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = &mut self.buffer[self.end..];
        let mut read = None;
        if let Some(allowance) = self.allowance.as_mut().filter(|allowance| allowance.is_ahead()) {
            read = timeout(BUSY_WITHIN, self.reader.read(room)).await.ok();
            if read.is_none() {
                allowance.give_back().await;
            }
        }
        let length = match read {
            Some(length) => length?,
            None => self.reader.read(room).await?,
        };
        self.activity.mark();
        self.end += length;
        Ok(length > 0)
    }

    fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }
}

// === impl Downward ===

impl<'a> Downward<'a> {
    fn new(activity: &'a Activity, reader: ReadHalf<Tunnel>, writer: WriteHalf<Tunnel>) -> Self {
        let (buffer, boundaries) = (vec![0; FIRST_BUFFER_BYTES], Boundaries::default());
        Self { activity, reader, writer, boundaries, buffer, start: 0, end: 0, frame_end: Some(0) }
    }

    async fn run(&mut self) -> Result<(), End> {
        loop {
            while self.start < self.end {
                self.start += write(&mut self.writer, &self.buffer[self.start..self.end]).await?;
                self.activity.mark();
            }
            self.writer.flush().await?;
            if !self.fill().await? {
                return Ok(self.writer.shutdown().await?);
            }
        }
    }

    /// Sends on what is left of the frame that has begun to go out; nothing where none has.
    async fn finish_frame(&mut self) -> io::Result<()> {
        loop {
            if let Some(frame_end) = self.frame_end.filter(|frame_end| *frame_end >= self.start) {
                return self.writer.write_all(&self.buffer[self.start..frame_end]).await;
            }
            self.writer.write_all(&self.buffer[self.start..self.end]).await?;
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads into the buffer, all of which has gone on; false at the upstream's end.
    async fn fill(&mut self) -> io::Result<bool> {
        grow_if_full(&mut self.buffer, self.end);
        let length = self.reader.read(&mut self.buffer).await?;
        self.activity.mark();
        (self.start, self.end) = (0, length);
        self.frame_end = self.boundaries.feed(&self.buffer[..length]);
        Ok(length > 0)
    }
}

/// Doubles a buffer that the last read has filled, up to [`BUFFER_BYTES`].
fn grow_if_full(buffer: &mut Vec<u8>, filled: usize) {
    if filled == buffer.len() {
        buffer.resize((2 * filled).min(BUFFER_BYTES), 0);
    }
}

/// Writes some of `bytes`, at least one of which there is. Where it is dropped while it waits, none was written.
async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    match writer.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

// === impl End ===

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}
