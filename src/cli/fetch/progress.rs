//! The progress bar on standard error, where that is a terminal; elsewhere it is not there.

use std::{
    io::{IsTerminal, stderr},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::tally::Tally;
use crate::cli::print_error;

/// How often the figures are drawn anew.
const TICK: Duration = Duration::from_millis(200);

/// A progress bar, or none. Cheap to clone.
#[derive(Clone)]
pub(super) struct Progress(Option<ProgressBar>);

// === impl Progress ===

impl Progress {
    /// A bar for `pages` in all (`None` where nobody knows), none of them done.
    pub(super) fn begin(wanted: bool, pages: Option<u64>, tally: &Arc<Tally>) -> Self {
        if !wanted || !stderr().is_terminal() {
            return Self(None);
        }
        let bar =
            if pages.is_some() { "[{bar:10}] {pos}/{len} pages, {figures}" } else { "{spinner} {pos} pages, {figures}" };
        let tally = Arc::clone(tally);
        let figures = move |_: &ProgressState, text: &mut dyn std::fmt::Write| {
            // What cannot be drawn is drawn the next time.
            let _ = text.write_str(&tally.figures());
        };
        let style = ProgressStyle::with_template(bar).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.with_key("figures", figures).progress_chars("=> ").tick_chars("|/-\\ ");
        let bar = pages.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style);
        bar.enable_steady_tick(TICK);
        Self(Some(bar))
    }

    /// A page is done with.
    pub(super) fn advance(&self) {
        self.0.iter().for_each(|bar| bar.inc(1));
    }

    /// Does something that may write to the same terminal.
    pub(super) fn beside<T>(&self, act: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(act),
            None => act(),
        }
    }

    /// Writes a line to standard error.
    pub(super) fn tell(&self, line: &str) {
        self.beside(|| print_error(line));
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.0.iter().for_each(ProgressBar::finish_and_clear);
    }
}
