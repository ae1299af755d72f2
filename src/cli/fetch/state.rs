//! How far a fetch has come, in a file, so that another run of the same command line goes on there.
//!
//! Promised: the file is replaced as a whole or not at all, and is on disk when [`State::save`] returns. It holds places and
//! sums, and no URL and nothing secret: the command line stands in it as a hash.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::walk::Place;

/// How far a fetch has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// What it was asked for.
    command: String,
    /// The first page that is not delivered, but for the failed ones before it.
    pub(super) next: Place,
    /// Pages before that which are still to be had.
    pub(super) failed: Vec<Place>,
    /// Bytes of the output file that belong to delivered pages; 0 for standard output.
    pub(super) bytes: u64,
}

/// A hash of what tells one fetch from another.
#[derive(Default)]
pub(super) struct Fingerprint(sha1_smol::Sha1);

// === impl Fingerprint ===

impl Fingerprint {
    pub(super) fn add(mut self, part: &[u8]) -> Self {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }
}

// === impl State ===

impl State {
    /// Nothing is delivered.
    pub(super) fn new(fingerprint: &Fingerprint) -> Self {
        Self { command: fingerprint.0.digest().to_string(), next: Place::FIRST, failed: Vec::new(), bytes: 0 }
    }

    /// As far as `file` says, where there is one.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is no state, or belongs to another command line.
    pub(super) fn load(file: &Path, fingerprint: &Fingerprint) -> anyhow::Result<Self> {
        let fresh = Self::new(fingerprint);
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(fresh),
            Err(error) => return Err(error).with_context(|| format!("--state {}", file.display())),
        };
        let Ok(state) = serde_json::from_slice::<Self>(&text) else {
            bail!("--state {}: this is not the state of a fetch", file.display());
        };
        if state.command != fresh.command {
            bail!(
                "--state {}: it belongs to another command line; name another file, or delete it to begin anew",
                file.display()
            );
        }
        Ok(state)
    }

    /// Replaces `file`.
    pub(super) fn save(&self, file: &Path) -> io::Result<()> {
        let new = beside(file);
        let mut written = File::create(&new)?;
        serde_json::to_writer(&mut written, self)?;
        written.write_all(b"\n")?;
        written.sync_all()?;
        fs::rename(&new, file)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

/// Where the next state is written before it takes the place of the last one.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_to_the_command_line_it_belongs_to_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        let fingerprint = Fingerprint::default().add(b"a").add(b"b");
        let mut state = State::load(&file, &fingerprint).unwrap();
        assert_eq!(state, State::new(&fingerprint));
        state.next = Place { url: 1, series: 2, index: 3 };
        state.failed = vec![Place::FIRST];
        state.bytes = 42;
        state.save(&file).unwrap();
        assert_eq!(State::load(&file, &fingerprint).unwrap(), state);
        assert!(!beside(&file).exists());
        let error = State::load(&file, &Fingerprint::default().add(b"ab")).unwrap_err().to_string();
        assert!(error.contains("another command line"), "{error}");
        fs::write(&file, "{}").unwrap();
        let error = State::load(&file, &fingerprint).unwrap_err().to_string();
        assert!(error.contains("not the state of a fetch"), "{error}");
    }
}
