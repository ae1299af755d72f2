//! Pages are fetched at the same time and delivered one after the other.
//!
//! Promised: at most `concurrency` pages are asked for, held or waiting to be delivered at any time, so that memory is
//! bounded by as many pages, twice (as they came, and as lines); a page that has failed leaves its place empty and the
//! others whole. With `until_empty`, an empty page ends its series: pages of it that were asked for ahead are dropped.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio_util::task::AbortOnDropHandle;

use super::{
    address,
    entities::Lines,
    output::{Output, OutputError},
    page::{Asker, Failure},
    progress::Progress,
    signals::Signals,
    state::State,
    walk::{Place, Walk},
};

/// Failed pages that are worth remembering; with one more, something is wrong with all of them.
const MAX_FAILED: usize = 1000;

/// Failed pages in a row after which a walk that looks for an empty page ends: it might never find one.
const MAX_FAILED_IN_A_ROW: u32 = 5;

/// A fetch on its way.
pub(super) struct Order {
    pub(super) asker: Arc<Asker>,
    pub(super) walk: Walk,
    pub(super) state: State,
    pub(super) output: Output,
    pub(super) progress: Progress,
    pub(super) concurrency: usize,
    pub(super) until_empty: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All pages are delivered, or have failed.
    Complete,
    /// So many have failed that the rest was not asked for.
    GaveUp,
    /// By a signal.
    Interrupted(super::signals::Signal),
    /// Nobody reads any more.
    Closed,
}

struct Flight {
    place: Place,
    /// Whether an earlier run has passed it by, because it had failed.
    again: bool,
    page: AbortOnDropHandle<Result<Lines, Failure>>,
}

// === impl Order ===

impl Order {
    /// Fetches and delivers, until the end or a signal.
    pub(super) async fn run(mut self, signals: &mut Signals) -> Result<Ended, OutputError> {
        let mut again: VecDeque<Place> = self.state.failed.iter().copied().collect();
        let mut flights = VecDeque::with_capacity(self.concurrency);
        let mut failed_in_a_row = 0;
        loop {
            while flights.len() < self.concurrency
                && let Some((place, is_again)) =
                    again.pop_front().map(|place| (place, true)).or_else(|| Some((self.walk.step()?, false)))
            {
                flights.push_back(self.launch(place, is_again));
            }
            let Some(Flight { place, again: is_again, page }) = flights.pop_front() else { return Ok(Ended::Complete) };
            let page = tokio::select! {
                biased;
                signal = signals.next() => return Ok(Ended::Interrupted(signal)),
                // A page whose task has ended by itself without an outcome is lost with it.
                page = page => page.ok(),
            };
            let page = page.unwrap_or_else(|| Err(Failure::broken()));
            failed_in_a_row = if page.is_err() { failed_in_a_row + 1 } else { 0 };
            let is_end = self.until_empty && !is_again && page.as_ref().is_ok_and(|lines| lines.count == 0);
            let text = self.account(place, is_again, is_end, page);
            if is_end {
                self.walk.end_series(place);
                flights.retain(|flight| flight.again || !flight.place.is_in_series_of(place));
            }
            if let Some(ended) = self.deliver(text, signals).await? {
                return Ok(ended);
            }
            self.progress.advance();
            let is_lost = self.until_empty && failed_in_a_row >= MAX_FAILED_IN_A_ROW;
            if is_lost || self.state.failed.len() > MAX_FAILED {
                return Ok(Ended::GaveUp);
            }
        }
    }

    fn launch(&self, place: Place, again: bool) -> Flight {
        let (asker, url) = (Arc::clone(&self.asker), self.walk.url(place));
        let page = AbortOnDropHandle::new(tokio::spawn(async move { asker.page(&url).await }));
        Flight { place, again, page }
    }

    /// Notes what became of a page, and gives what is to be written of it.
    fn account(&mut self, place: Place, again: bool, is_end: bool, page: Result<Lines, Failure>) -> Vec<u8> {
        let tally = &self.asker.tally;
        if !again {
            self.state.next = if is_end { self.walk.after_series(place) } else { self.walk.after(place) };
        }
        self.state.failed.retain(|failed| *failed != place);
        match page {
            Ok(lines) => {
                tally.pages.fetch_add(1, Relaxed);
                tally.entities.fetch_add(lines.count, Relaxed);
                lines.text
            }
            Err(failure) => {
                tally.failed.fetch_add(1, Relaxed);
                self.progress.tell(&format!("cxgate: {}: {failure}", address::shown(&self.walk.url(place))));
                self.state.failed.push(place);
                Vec::new()
            }
        }
    }

    /// Delivers a page; a signal waits for that, a second one does not.
    async fn deliver(&mut self, text: Vec<u8>, signals: &mut Signals) -> Result<Option<Ended>, OutputError> {
        let bytes = text.len() as u64;
        let mut delivered = std::pin::pin!(self.output.deliver(text, self.state.clone()));
        let mut interrupted = None;
        let delivered = loop {
            tokio::select! {
                delivered = &mut delivered => break delivered,
                signal = signals.next() => match interrupted.replace(Ended::Interrupted(signal)) {
                    None => {}
                    second => return Ok(second),
                },
            }
        };
        match delivered {
            Ok(()) => self.state.bytes += bytes,
            Err(OutputError::Closed) => return Ok(interrupted.or(Some(Ended::Closed))),
            Err(error) => return Err(error),
        }
        Ok(interrupted)
    }
}
