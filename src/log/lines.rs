//! Lines on their way to an output that may be slow, full or gone.
//!
//! Promised: whoever hands a line over never waits for the output; a line that finds no room, or that the output does not
//! take, is counted, and no other is. A file that was renamed or removed is made anew under its name within a second of the
//! next line, so that rotating it needs no signal; whatever lines were written in that second are in the old file.
//! Not promised: that lines handed over in the last second of a process are written where the output takes none.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

/// Lines that wait to be written; at a usual 400 bytes they hold some 3 MiB.
pub(super) const MAX_QUEUED_LINES: usize = 8192;

/// Lines that are written by one call.
pub(super) const MAX_BATCH_LINES: usize = 64;

/// How often a file is looked for under its name.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long the end waits for what is queued.
const FAREWELL: Duration = Duration::from_secs(1);

/// Takes lines. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

/// Keeps lines being written; what is queued when it is dropped is still written, unless that takes more than a second.
pub(super) struct Writer(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// Something is there to be written, or the end has come, or everything is written.
    changed: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    closed: bool,
    finished: bool,
}

/// A file that may be renamed or removed while it is written to.
pub(super) struct Rotated {
    path: PathBuf,
    file: File,
    looked: Instant,
}

// === impl Lines ===

impl Lines {
    /// Lines for `output`, written by a thread of their own; `dropped` counts those that are lost.
    pub(super) fn start(output: impl Write + Send + 'static, dropped: Counter) -> io::Result<(Self, Writer)> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), dropped });
        let own = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || own.write_to(output))?;
        Ok((Self(Arc::clone(&shared)), Writer(shared)))
    }

    /// Hands over a line with its end.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut queue = self.0.queue();
        if queue.closed || queue.lines.len() >= MAX_QUEUED_LINES {
            drop(queue);
            self.0.dropped.inc();
            return;
        }
        queue.lines.push_back(line);
        let was_empty = queue.lines.len() == 1;
        drop(queue);
        if was_empty {
            self.0.changed.notify_all();
        }
    }

    /// Lines that were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }
}

// === impl Writer ===

impl Drop for Writer {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        self.0.changed.notify_all();
        let waited = self.0.changed.wait_timeout_while(queue, FAREWELL, |queue| !queue.finished);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

// === impl Shared ===

impl Shared {
    /// Writes until the end.
    fn write_to(&self, mut output: impl Write) {
        let mut is_torn = false;
        loop {
            let mut queue = self.queue();
            while queue.lines.is_empty() && !queue.closed {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let count = queue.lines.len().min(MAX_BATCH_LINES);
            let batch: Vec<Vec<u8>> = queue.lines.drain(..count).collect();
            if batch.is_empty() {
                queue.finished = true;
                self.changed.notify_all();
                return;
            }
            drop(queue);
            self.dropped.inc_by(write_batch(&mut output, &batch, &mut is_torn));
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes whole lines; returns how many were lost. Where the output took the beginning of one and no more, what is written
/// next begins on a line of its own.
fn write_batch(output: &mut impl Write, batch: &[Vec<u8>], is_torn: &mut bool) -> u64 {
    let mut text = if *is_torn { b"\n".to_vec() } else { Vec::new() };
    text.extend(batch.iter().flatten());
    let mut written = 0;
    while written < text.len() {
        match output.write(&text[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = output.flush();
    if written > 0 {
        *is_torn = text[written - 1] != b'\n';
    }
    let own = text.len() - batch.iter().map(Vec::len).sum::<usize>();
    let ends = batch.iter().scan(own, |end, line| {
        *end += line.len();
        Some(*end)
    });
    ends.filter(|end| *end > written).count() as u64
}

// === impl Rotated ===

impl Rotated {
    /// Opens a file to add to it, or makes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append_to(path)?, looked: Instant::now() })
    }

    /// Makes the file anew where another, or none, has its name. As long as that fails, the old one is written to.
    fn look(&mut self) {
        if self.looked.elapsed() < LOOK_INTERVAL {
            return;
        }
        self.looked = Instant::now();
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let named = std::fs::metadata(&self.path).map(identity).ok();
        let is_named = named.is_some() && named == self.file.metadata().map(identity).ok();
        if !is_named && let Ok(file) = append_to(&self.path) {
            self.file = file;
        }
    }
}

impl Write for Rotated {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.look();
        self.file.write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Who asked for what is not for everyone to read.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// A stream of this process, without the buffer that the standard library keeps in front of it: what is counted as written
/// has been.
pub(super) fn unbuffered(stream: &impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes so many bytes, then fails, until told otherwise.
    #[derive(Default)]
    struct Full {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Full {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let count = text.len().min(self.room);
            self.taken.extend_from_slice(&text[..count]);
            self.room -= count;
            if count == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(lines: &[&str]) -> Vec<Vec<u8>> {
        lines.iter().map(|line| format!("{line}\n").into_bytes()).collect()
    }

    #[test]
    fn lines_that_a_full_output_does_not_take_are_counted_and_the_next_is_whole() {
        let (mut output, mut is_torn) = (Full { room: 7, ..Full::default() }, false);
        assert_eq!(write_batch(&mut output, &batch(&["one", "two", "six"]), &mut is_torn), 2);
        assert_eq!(write_batch(&mut output, &batch(&["ten"]), &mut is_torn), 1);
        output.room = 100;
        assert_eq!(write_batch(&mut output, &batch(&["new", "end"]), &mut is_torn), 0);
        assert_eq!(write_batch(&mut output, &batch(&["more"]), &mut is_torn), 0);
        assert_eq!(String::from_utf8(output.taken).unwrap(), "one\ntwo\nnew\nend\nmore\n");
    }

    #[test]
    fn a_blocked_output_slows_nobody_and_every_line_is_either_written_or_counted() {
        struct Blocked(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);
        impl Write for Blocked {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                // Returns when the other end goes away.
                let _ = self.0.recv();
                let _ = self.1.send(text.to_vec());
                Ok(text.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let ((unblock, blocked), (write, written)) = (mpsc::channel(), mpsc::channel());
        let (lines, writer) = Lines::start(Blocked(blocked, write), Counter::default()).unwrap();
        let count = MAX_QUEUED_LINES + 1000;
        (0..count).for_each(|_| lines.push(b"x\n".to_vec()));
        let dropped = usize::try_from(lines.dropped()).unwrap();
        assert!((1000 - MAX_BATCH_LINES..=1000).contains(&dropped), "{dropped}");
        drop(unblock);
        drop(writer);
        let written: usize = written.try_iter().map(|text| text.len() / 2).sum();
        assert_eq!(written + dropped, count);
        lines.push(b"late\n".to_vec());
        assert_eq!(lines.dropped(), dropped as u64 + 1, "what comes after the end is lost, and counted");
    }

    #[test]
    fn a_file_that_was_renamed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let mut file = Rotated::open(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        file.looked -= LOOK_INTERVAL;
        file.write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(old).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "two\n");
    }
}
