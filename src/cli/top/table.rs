//! The tables: what stands in them, and in which order.

use std::{cmp::Ordering, fmt};

use super::{
    facts::{Client, Facts},
    words::{age, count, rate, seconds, share},
};

/// What there is a table of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Limits,
    Routes,
    Busiest,
    Refused,
    Upstreams,
}

/// Rows under titles. The columns that matter most come first: where room is short the last ones go.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// Their titles; the one that the rows are sorted by is marked.
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Clone)]
pub(super) enum Cell {
    Text(String),
    /// So many a second.
    Rate(f64),
    Share(Option<f64>),
    Seconds(Option<f64>),
    Count(Option<f64>),
}

// === impl Subject ===

impl Subject {
    pub(super) const ALL: [Self; 5] = [Self::Limits, Self::Routes, Self::Busiest, Self::Refused, Self::Upstreams];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Limits => "Limits",
            Self::Routes => "Routes",
            Self::Busiest => "Busiest clients",
            Self::Refused => "Most refused",
            Self::Upstreams => "Upstreams",
        }
    }

    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Limits => &["route", "limit", "admitted/s", "refused/s", "refused", "quota", "per"],
            Self::Routes => &["route", "requests/s", "4xx/s", "5xx/s", "p95", "waiting", "sockets"],
            Self::Busiest | Self::Refused => &["client", "requests/s", "refused/s", "route", "limit"],
            Self::Upstreams => &["upstream", "answered/s", "failed/s", "p95", "connections", "url"],
        }
    }

    /// The column it is sorted by until somebody wants another.
    pub(super) fn sorted_by(self) -> usize {
        match self {
            Self::Limits => 3,
            Self::Refused => 2,
            Self::Routes | Self::Busiest | Self::Upstreams => 1,
        }
    }

    /// Its table, by the column `sorted_by`: numbers descending, texts ascending.
    pub(super) fn table(self, facts: &Facts, sorted_by: usize) -> Table {
        let mut rows: Vec<Vec<Cell>> = match self {
            Self::Limits => facts
                .limits
                .iter()
                .map(|limit| {
                    let changed = limit.changed_for_seconds.map(|left| format!("{} for {}", limit.quota, age(left)));
                    let quota = Cell::Text(changed.unwrap_or_else(|| limit.quota.clone()));
                    let [route, name] = [&limit.route, &limit.limit].map(|text| Cell::Text(text.clone()));
                    let [admitted, refused] = [limit.admitted_per_second, limit.refused_per_second].map(Cell::Rate);
                    vec![
                        route,
                        name,
                        admitted,
                        refused,
                        Cell::Share(limit.refused_share),
                        quota,
                        Cell::Text(limit.per.join(" ")),
                    ]
                })
                .collect(),
            Self::Routes => facts
                .routes
                .iter()
                .map(|route| {
                    let rates = [route.requests_per_second, route.client_errors_per_second, route.server_errors_per_second];
                    let [requests, client_errors, server_errors] = rates.map(Cell::Rate);
                    let [waiting, sockets] = [route.waiting, route.sockets].map(Cell::Count);
                    let p95 = Cell::Seconds(route.p95_seconds);
                    vec![Cell::Text(route.route.clone()), requests, client_errors, server_errors, p95, waiting, sockets]
                })
                .collect(),
            Self::Busiest => facts.busiest.iter().map(client).collect(),
            Self::Refused => facts.most_refused.iter().map(client).collect(),
            Self::Upstreams => facts
                .upstreams
                .iter()
                .map(|upstream| {
                    let [name, url] = [&upstream.upstream, &upstream.url].map(|text| Cell::Text(text.clone()));
                    let [answered, failed] = [upstream.answered_per_second, upstream.failed_per_second].map(Cell::Rate);
                    let [p95, connections] = [Cell::Seconds(upstream.p95_seconds), Cell::Count(upstream.connections)];
                    vec![name, answered, failed, p95, connections, url]
                })
                .collect(),
        };
        // Stable, so that equal rows do not change places.
        rows.sort_by(|one, other| match (one.get(sorted_by), other.get(sorted_by)) {
            (Some(one), Some(other)) => one.before(other),
            _ => Ordering::Equal,
        });
        let mark = |place| if place == sorted_by { "▾" } else { "" };
        let columns = self.columns().iter().enumerate().map(|(place, title)| format!("{title}{}", mark(place)));
        Table { columns: columns.collect(), rows }
    }
}

fn client(Client { name, route, limit, per_second, refused_per_second }: &Client) -> Vec<Cell> {
    let [name, route, limit] = [name, route, limit].map(|text| Cell::Text(text.clone()));
    vec![name, Cell::Rate(*per_second), Cell::Rate(*refused_per_second), route, limit]
}

// === impl Table ===

impl Table {
    /// Whether a column holds texts, which begin where it does; numbers end where it ends.
    pub(super) fn is_of_text(&self, place: usize) -> bool {
        self.rows.first().and_then(|row| row.get(place)).is_none_or(|cell| matches!(cell, Cell::Text(_)))
    }

    /// How wide the columns are that fit into `room` beside each other, a space between two; there is always one.
    pub(super) fn widths(&self, room: usize) -> Vec<usize> {
        let mut left = room + 1;
        let wide = |place: usize| {
            let cells = self.rows.iter().filter_map(|row| Some(row.get(place)?.to_string().chars().count()));
            cells.chain([self.columns[place].chars().count()]).max().unwrap_or_default()
        };
        let mut widths: Vec<usize> = Vec::new();
        for place in 0..self.columns.len() {
            let width = wide(place) + 1;
            if width > left {
                break;
            }
            left -= width;
            widths.push(width - 1);
        }
        if widths.is_empty() { vec![room] } else { widths }
    }
}

// === impl Cell ===

impl Cell {
    fn before(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            _ => other.number().total_cmp(&self.number()),
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::Text(_) => 0.0,
            Self::Rate(number) => *number,
            Self::Share(number) | Self::Seconds(number) | Self::Count(number) => number.unwrap_or(-1.0),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Rate(per_second) => formatter.write_str(&rate(*per_second)),
            Self::Share(part) => formatter.write_str(&share(*part)),
            Self::Seconds(time) => formatter.write_str(&seconds(*time)),
            Self::Count(number) => formatter.write_str(&count(*number)),
        }
    }
}
