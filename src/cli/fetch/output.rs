//! Where entities go: a file, or standard output. A thread of its own writes, so that a reader who takes his time holds up
//! nothing but the pages.
//!
//! Promised: a page is written whole and then counted as delivered, in this order: its lines, then (with `--state`) the
//! state. With a file, both are on disk when that is done, and what a killed run wrote of a page that its state does not name
//! is cut off by the next one, so that every page is there exactly once. Standard output cannot be cut off: what was flushed
//! is delivered, and a run that is killed in the moment between flush and state repeats one page.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use anyhow::{Context, ensure};
use tokio::sync::oneshot;

use super::{progress::Progress, state::State};

/// Takes pages, one at a time.
pub(super) struct Output(SyncSender<Job>);

/// Why a page could not be delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    /// Nobody reads any more.
    #[error("standard output is closed")]
    Closed,
    #[error("cannot write the output: {0}")]
    Write(io::Error),
    #[error("cannot write the state: {0}")]
    State(io::Error),
}

struct Job {
    text: Vec<u8>,
    state: State,
    done: oneshot::Sender<Result<(), OutputError>>,
}

/// What the thread writes to.
struct Files {
    output: Option<File>,
    state: Option<PathBuf>,
    progress: Progress,
}

// === impl Output ===

impl Output {
    /// Opens `output`, or takes standard output, and goes on where `state` says.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or is shorter than the state says.
    pub(super) fn open(
        output: Option<&Path>,
        state_file: Option<PathBuf>,
        state: &State,
        progress: Progress,
    ) -> anyhow::Result<Self> {
        let output = output.map(|path| reopen(path, state.bytes).with_context(|| format!("-o {}", path.display())));
        let mut files = Files { output: output.transpose()?, state: state_file, progress };
        let (sender, jobs) = sync_channel::<Job>(1);
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            for job in jobs {
                // Whoever does not wait for the answer is about to end.
                let _ = job.done.send(files.deliver(&job.text, job.state));
            }
        })?;
        Ok(Self(sender))
    }

    /// Writes a page, then how far that is; `state.bytes` is without it.
    pub(super) async fn deliver(&self, text: Vec<u8>, state: State) -> Result<(), OutputError> {
        let (done, answer) = oneshot::channel();
        let gone = || OutputError::Write(io::Error::other("the thread that writes has ended"));
        // There is room: one page is delivered at a time.
        self.0.try_send(Job { text, state, done }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn reopen(path: &Path, bytes: u64) -> anyhow::Result<File> {
    if bytes == 0 {
        return Ok(OpenOptions::new().write(true).create(true).truncate(true).open(path)?);
    }
    let mut file = OpenOptions::new().write(true).open(path)?;
    let length = file.metadata()?.len();
    ensure!(length >= bytes, "it has {length} bytes, of which the state says that there are {bytes}");
    file.set_len(bytes)?;
    file.seek(SeekFrom::Start(bytes))?;
    Ok(file)
}

// === impl Files ===

impl Files {
    fn deliver(&mut self, text: &[u8], mut state: State) -> Result<(), OutputError> {
        match &mut self.output {
            Some(file) => {
                file.write_all(text).map_err(OutputError::Write)?;
                if self.state.is_some() {
                    file.sync_data().map_err(OutputError::Write)?;
                    state.bytes += text.len() as u64;
                }
            }
            None => self.progress.beside(|| print(text))?,
        }
        let saved = self.state.as_deref().map(|file| state.save(file));
        saved.transpose().map_err(OutputError::State).map(|_| ())
    }
}

fn print(text: &[u8]) -> Result<(), OutputError> {
    let mut output = io::stdout().lock();
    output.write_all(text).and_then(|()| output.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Write(error),
    })
}
