//! What the terminal shows, and what keys do to it. Knows no terminal: [`draw`](super::draw) puts it on one.

use std::{collections::VecDeque, ops::ControlFlow};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    facts::{Facts, Sample},
    link::Trouble,
    table::{Subject, Table},
};

/// Samples that the curves show: more than any terminal is wide.
const HISTORY_MAX: usize = 512;

/// The state of the view.
pub(super) struct Screen {
    pub(super) address: String,
    /// Whether colours may be used.
    pub(super) coloured: bool,
    pub(super) subject: Subject,
    pub(super) paused: bool,
    pub(super) helps: bool,
    /// `None` until there are two samples.
    pub(super) facts: Option<Facts>,
    /// Why there is nothing newer.
    pub(super) trouble: Option<String>,
    /// Requests and refusals of each second, the oldest first.
    pub(super) requests: VecDeque<u64>,
    pub(super) refusals: VecDeque<u64>,
    /// Rows of the table that are passed over.
    pub(super) scrolled: usize,
    /// The column that each table is sorted by, in the order of [`Subject::ALL`].
    sorted_by: [usize; Subject::ALL.len()],
    before: Option<Sample>,
}

// === impl Screen ===

impl Screen {
    pub(super) fn new(address: String, coloured: bool) -> Self {
        Self {
            address,
            coloured,
            subject: Subject::Limits,
            paused: false,
            helps: false,
            facts: None,
            trouble: None,
            requests: VecDeque::new(),
            refusals: VecDeque::new(),
            scrolled: 0,
            sorted_by: Subject::ALL.map(Subject::sorted_by),
            before: None,
        }
    }

    /// Takes in a sample, or why there is none. While paused the facts stay as they are, and the curves go on.
    pub(super) fn learn(&mut self, sample: Result<Sample, Trouble>) {
        let now = match sample {
            Ok(now) => now,
            Err(trouble) => {
                // What happened meanwhile is no rate.
                self.before = None;
                self.trouble = Some(trouble.to_string());
                return;
            }
        };
        self.trouble = None;
        if let Some(before) = &self.before {
            let facts = Facts::between(before, &now);
            remember(&mut self.requests, facts.requests_per_second);
            remember(&mut self.refusals, facts.refused_per_second());
            if !self.paused {
                self.facts = Some(facts);
            }
        }
        self.before = Some(now);
    }

    /// Does what a key is for.
    pub(super) fn press(&mut self, key: KeyEvent) -> ControlFlow<()> {
        let interrupts = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if interrupts || matches!(key.code, KeyCode::Char('q')) {
            return ControlFlow::Break(());
        }
        // Any other key takes the help away.
        let helped = std::mem::take(&mut self.helps);
        match key.code {
            KeyCode::Char('?' | 'h') => self.helps = !helped,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('s') => {
                let columns = self.subject.columns().len();
                let sorted_by = &mut self.sorted_by[self.place()];
                *sorted_by = (*sorted_by + 1) % columns;
            }
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Subject::ALL.len() - 1),
            KeyCode::Down => self.scroll(1),
            KeyCode::Up => self.scroll(-1),
            KeyCode::PageDown => self.scroll(10),
            KeyCode::PageUp => self.scroll(-10),
            KeyCode::Home => self.scrolled = 0,
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// The table that is looked at.
    pub(super) fn table(&self) -> Option<Table> {
        Some(self.subject.table(self.facts.as_ref()?, self.sorted_by[self.place()]))
    }

    fn place(&self) -> usize {
        Subject::ALL.iter().position(|subject| *subject == self.subject).unwrap_or_default()
    }

    fn turn(&mut self, by: usize) {
        self.subject = Subject::ALL[(self.place() + by) % Subject::ALL.len()];
        self.scrolled = 0;
    }

    fn scroll(&mut self, by: isize) {
        let last = self.table().map_or(0, |table| table.rows.len().saturating_sub(1));
        self.scrolled = self.scrolled.saturating_add_signed(by).min(last);
    }
}

fn remember(history: &mut VecDeque<u64>, per_second: f64) {
    if history.len() == HISTORY_MAX {
        history.pop_front();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates are not negative, and far below 2⁵³"
    )]
    // In thousandths: a curve of less than one a second is one.
    history.push_back((per_second * 1000.0).round() as u64);
}
