//! Puts the screen on a terminal.
//!
//! Promised: nothing that does not fit is drawn over anything; on a terminal below [`WIDE`] columns what stood beside each
//! other stands below, where rows are few the overview goes first, and where columns are few the last of the table go.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, RenderDirection, Row, Sparkline, Tabs},
};

use super::{facts::Facts, screen::Screen, table::Subject};

/// Columns from which on requests and state stand side by side.
const WIDE: u16 = 72;

/// Rows of one block of the overview, its frame included.
const BLOCK_ROWS: u16 = 9;

/// Rows that stay for all else: heading, tabs, some of the table, keys.
const REST_ROWS: u16 = 8;

const KEYS: &str = "q quit  p pause  s sort  tab next  ? help";

const HELP: [&str; 8] = [
    "q, Ctrl-C    quit",
    "p            pause, go on",
    "s            sort by the next column",
    "tab, →       next table",
    "shift-tab, ← table before",
    "↑ ↓ PgUp PgDn Home  scroll",
    "",
    "refused/s and all rates: since the last sample",
];

impl Screen {
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let wide = area.width >= WIDE;
        let blocks = (area.height.saturating_sub(REST_ROWS) / BLOCK_ROWS).min(if wide { 1 } else { 2 });
        let overview = blocks * BLOCK_ROWS;
        let rows = [1, overview, 1].map(Constraint::Length);
        let rows = rows.into_iter().chain([Constraint::Min(0), Constraint::Length(1)]);
        let [heading, overview, tabs, table, keys] = Layout::vertical(rows).areas(area);
        self.draw_heading(frame, heading);
        if let Some(facts) = self.facts.as_ref().filter(|_| blocks > 0) {
            let [requests, state] = match (wide, blocks) {
                (true, _) => Layout::horizontal([Constraint::Fill(1); 2]).areas(overview),
                // One below the other, as far as there is room.
                _ => Layout::vertical([Constraint::Length(BLOCK_ROWS), Constraint::Fill(1)]).areas(overview),
            };
            self.draw_requests(frame, requests, facts);
            self.draw_state(frame, state, facts);
        }
        let titles = Subject::ALL.map(Subject::title);
        let chosen = Subject::ALL.iter().position(|subject| *subject == self.subject);
        frame.render_widget(Tabs::new(titles).select(chosen).highlight_style(Modifier::REVERSED).divider(" "), tabs);
        self.draw_table(frame, table);
        self.draw_keys(frame, keys);
        if self.helps {
            draw_help(frame, area);
        }
    }

    fn draw_heading(&self, frame: &mut Frame<'_>, area: Rect) {
        let heading = match &self.facts {
            Some(facts) => facts.heading(&self.address),
            None => format!("cxgate top  {}", self.address),
        };
        frame.render_widget(Paragraph::new(heading).style(Modifier::REVERSED), area);
    }

    fn draw_requests(&self, frame: &mut Frame<'_>, area: Rect, facts: &Facts) {
        let block = Block::bordered().title("Requests");
        let rows = [1, 3, 1, 2].map(Constraint::Length);
        let [requests, curve, refusals, refused] = Layout::vertical(rows).areas(block.inner(area));
        frame.render_widget(block, area);
        frame.render_widget(Paragraph::new(facts.requests()), requests);
        frame.render_widget(self.curve(self.requests.iter().rev().copied(), Color::Cyan), curve);
        frame.render_widget(Paragraph::new(format!("refused {}", facts.refusals())), refusals);
        frame.render_widget(self.curve(self.refusals.iter().rev().copied(), Color::Red), refused);
    }

    /// The newest on the right.
    fn curve(&self, values: impl Iterator<Item = u64>, color: Color) -> Sparkline<'static> {
        let values: Vec<u64> = values.collect();
        Sparkline::default().data(values).direction(RenderDirection::RightToLeft).style(self.color(color))
    }

    fn draw_state(&self, frame: &mut Frame<'_>, area: Rect, facts: &Facts) {
        let lines = facts.state().into_iter().map(|(label, words)| {
            let style = if label == "store" && facts.store.is_away() { self.color(Color::Red) } else { Style::new() };
            Line::from(vec![Span::raw(format!("{label:<9}")), Span::styled(words, style)])
        });
        frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(Block::bordered().title("State")), area);
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(table) = self.table() else {
            let waits = if self.trouble.is_some() { "" } else { "Two samples are needed; the second comes." };
            return frame.render_widget(Paragraph::new(waits), area);
        };
        let widths = table.widths(area.width.into());
        let aligned = |place: usize, text: String| {
            let line = Line::from(text);
            if table.is_of_text(place) { line.left_aligned() } else { line.right_aligned() }
        };
        let titles = table.columns.iter().enumerate().map(|(place, title)| aligned(place, title.clone()));
        let rows = table.rows.iter().skip(self.scrolled).map(|cells| {
            Row::new(cells.iter().enumerate().map(|(place, cell)| aligned(place, cell.to_string())).take(widths.len()))
        });
        let widths_of_columns = widths.iter().map(|width| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX)));
        let header = Row::new(titles.take(widths.len())).style(Modifier::BOLD);
        frame.render_widget(ratatui::widgets::Table::new(rows, widths_of_columns).header(header), area);
    }

    fn draw_keys(&self, frame: &mut Frame<'_>, area: Rect) {
        let line = match (&self.trouble, self.paused) {
            (Some(trouble), _) => Line::styled(format!("{} {trouble}; trying again", self.address), self.color(Color::Red)),
            (None, true) => Line::styled(format!("PAUSED  {KEYS}"), self.color(Color::Yellow)),
            (None, false) => Line::from(KEYS),
        };
        frame.render_widget(Paragraph::new(line), area);
    }

    fn color(&self, color: Color) -> Style {
        if self.coloured { Style::new().fg(color) } else { Style::new() }
    }
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let wide = HELP.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let [width, height] = [wide + 2, HELP.len() + 2].map(|size| u16::try_from(size).unwrap_or(u16::MAX));
    let [width, height] = [width.min(area.width), height.min(area.height)];
    let (x, y) = (area.x + (area.width - width) / 2, area.y + (area.height - height) / 2);
    let area = Rect { x, y, width, height };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP.map(Line::from).to_vec()).block(Block::bordered().title("Keys")), area);
}
