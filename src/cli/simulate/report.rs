//! What a simulation found: who would be refused, by what, and when.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use serde_json::{Value, json};

use super::{
    course::Outcome,
    target::{Change, Culprit},
    traffic::{Arrival, Traffic},
};
use crate::log::stamp;

/// A minute, in microseconds.
const MINUTE: u64 = 60_000_000;

/// The most minutes that are printed for people; those with the most refusals.
const MAX_MINUTES: usize = 30;

/// Counts while the traffic takes its course.
pub(super) struct Report<'a> {
    traffic: &'a Traffic,
    decided: u64,
    unavailable: u64,
    /// Requests that wait, and the longest wait.
    waited: (u64, Duration),
    /// By the number of the route and the place of the limit: refusals.
    limits: BTreeMap<(u16, usize), u64>,
    /// By number: refusals.
    clients: Vec<u64>,
    /// By the beginning of the minute: requests and refusals.
    minutes: BTreeMap<u64, (u64, u64)>,
    target: Option<(f64, Vec<Change>)>,
}

// === impl Report ===

impl<'a> Report<'a> {
    pub(super) fn new(traffic: &'a Traffic) -> Self {
        Self {
            traffic,
            decided: 0,
            unavailable: 0,
            waited: (0, Duration::ZERO),
            limits: BTreeMap::new(),
            clients: vec![0; traffic.clients.len()],
            minutes: BTreeMap::new(),
            target: None,
        }
    }

    pub(super) fn note(&mut self, arrival: &Arrival, outcome: Outcome) {
        self.decided += 1;
        let minute = self.minutes.entry(arrival.at / MINUTE * MINUTE).or_default();
        minute.0 += 1;
        match outcome {
            Outcome::Admitted { wait } if wait.is_zero() => {}
            Outcome::Admitted { wait } => self.waited = (self.waited.0 + 1, self.waited.1.max(wait)),
            Outcome::Unavailable => self.unavailable += 1,
            Outcome::Refused(place) => {
                minute.1 += 1;
                self.clients[arrival.client as usize] += 1;
                *self.limits.entry((arrival.route, place)).or_default() += 1;
            }
        }
    }

    /// Whether there was no room for a bucket.
    pub(super) fn is_full(&self) -> bool {
        self.unavailable > 0
    }

    /// The fewest refusals that are not fewer than a share of all decisions; at least one.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of lines are far below 2⁵³, and shares positive"
    )]
    pub(super) fn too_many(&self, share: f64) -> u64 {
        ((share * self.decided as f64).ceil() as u64).max(1)
    }

    /// The limits that refuse so many, over all routes that share them.
    pub(super) fn culprits(&self, too_many: u64) -> Vec<Culprit<'a>> {
        let mut by_id: BTreeMap<&str, (u64, Culprit<'a>)> = BTreeMap::new();
        for ((route, place), refused) in &self.limits {
            let slot = &self.traffic.routes[usize::from(*route)].slots[*place];
            let culprit = || Culprit { name: self.name(*route, *place), id: &slot.id, kind: slot.limit.kind };
            by_id.entry(&slot.id).or_insert_with(|| (0, culprit())).0 += refused;
        }
        by_id.into_values().filter(|(refused, _)| *refused >= too_many).map(|(_, culprit)| culprit).collect()
    }

    pub(super) fn propose(&mut self, share: f64, changes: Vec<Change>) {
        self.target = Some((share, changes));
    }

    fn refused(&self) -> u64 {
        self.limits.values().sum()
    }

    fn name(&self, route: u16, place: usize) -> String {
        let way = &self.traffic.routes[usize::from(route)];
        format!("{}/{}", way.name, way.slots[place].name)
    }

    /// The most refused clients.
    fn top(&self, count: usize) -> Vec<(&str, u64)> {
        let refused = self.traffic.clients.iter().zip(&self.clients).filter(|(_, refused)| **refused > 0);
        let mut clients: Vec<(&str, u64)> = refused.map(|(name, refused)| (&**name, *refused)).collect();
        clients.sort_unstable_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
        clients.truncate(count);
        clients
    }

    /// Minutes in which somebody was refused.
    fn refusing_minutes(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.minutes.iter().filter(|(_, (_, refused))| *refused > 0).map(|(at, (asked, refused))| (*at, *asked, *refused))
    }

    // === as JSON ===

    pub(super) fn json(&self, top: usize) -> String {
        let Traffic { lines, others, bad, named, unasked, .. } = self.traffic;
        let refused = self.refused();
        let limits = self.limits.iter().map(|((route, place), refused)| {
            let way = &self.traffic.routes[usize::from(*route)];
            let limit = &way.slots[*place].name;
            json!({"route": &*way.name, "limit": &**limit, "refused": refused, "share": share(*refused, self.decided)})
        });
        let clients =
            self.top(top).into_iter().map(|(client_id, refused)| json!({"client_id": client_id, "refused": refused}));
        let minutes = self
            .refusing_minutes()
            .map(|(at, asked, refused)| json!({"minute": minute(at), "requests": asked, "refused": refused}));
        let target = self.target.as_ref().map(|(share, changes)| {
            let change =
                |change: &Change| json!({"limit": change.limit, "key": change.key, "from": change.from, "to": change.to});
            json!({"share": share, "changes": changes.iter().map(change).collect::<Vec<_>>()})
        });
        let report = json!({
            "lines": lines,
            "other_lines": others,
            "bad_lines": bad,
            "first_bad_lines": named.iter().map(|(line, why)| json!({"line": line, "why": why})).collect::<Vec<_>>(),
            "not_asked": unasked,
            "decided": self.decided,
            "refused": refused,
            "share": share(refused, self.decided),
            "unavailable": self.unavailable,
            "waited": self.waited.0,
            "longest_wait_ms": u64::try_from(self.waited.1.as_millis()).unwrap_or(u64::MAX),
            "limits": limits.collect::<Vec<Value>>(),
            "clients": clients.collect::<Vec<Value>>(),
            "minutes": minutes.collect::<Vec<Value>>(),
            "target": target,
        });
        format!("{report:#}\n")
    }

    // === for people ===

    pub(super) fn text(&self, top: usize) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(top, &mut text);
        text
    }

    fn write(&self, top: usize, text: &mut String) -> std::fmt::Result {
        let Traffic { lines, others, bad, named, unasked, arrivals, .. } = self.traffic;
        writeln!(
            text,
            "{lines} lines: {} requests that limits were asked about, {others} others, {bad} not understood",
            self.decided
        )?;
        for (line, why) in named {
            writeln!(text, "  line {line}: {why}")?;
        }
        if let (Some(first), Some(last)) = (arrivals.first(), arrivals.last()) {
            writeln!(text, "from {} to {}", stamp::rfc3339(first.at), stamp::rfc3339(last.at))?;
        }
        for (why, count) in unasked {
            writeln!(text, "not asked about: {count} {why}")?;
        }
        let refused = self.refused();
        writeln!(text, "refused: {refused} ({})", percent(refused, self.decided))?;
        if self.unavailable > 0 {
            writeln!(text, "no room for another bucket: {} (store.max_buckets)", self.unavailable)?;
        }
        for ((route, place), refused) in &self.limits {
            writeln!(text, "  by {}: {refused} ({})", self.name(*route, *place), percent(*refused, self.decided))?;
        }
        let (waited, longest) = self.waited;
        if waited > 0 {
            let share = percent(waited, self.decided);
            writeln!(text, "made to wait: {waited} ({share}), for at most {:.3} s", longest.as_secs_f64())?;
        }
        self.write_clients(top, text)?;
        self.write_minutes(text)?;
        self.write_target(text)
    }

    fn write_clients(&self, top: usize, text: &mut String) -> std::fmt::Result {
        let clients = self.top(top);
        if !clients.is_empty() {
            let all = self.clients.iter().filter(|refused| **refused > 0).count();
            writeln!(text, "clients refused: {all} of {}", self.clients.len())?;
        }
        clients.into_iter().try_for_each(|(client, refused)| writeln!(text, "  {client:?}: {refused}"))
    }

    fn write_minutes(&self, text: &mut String) -> std::fmt::Result {
        let mut minutes: Vec<_> = self.refusing_minutes().collect();
        let all = minutes.len();
        minutes.sort_unstable_by_key(|(_, _, refused)| std::cmp::Reverse(*refused));
        minutes.truncate(MAX_MINUTES);
        minutes.sort_unstable();
        if all > 0 {
            let shown = if all > MAX_MINUTES { format!(", the worst {MAX_MINUTES} of {all}") } else { String::new() };
            writeln!(text, "minutes with refusals{shown}:")?;
        }
        minutes.into_iter().try_for_each(|(at, asked, refused)| {
            writeln!(text, "  {}: {refused} of {asked} ({})", minute(at), percent(refused, asked))
        })
    }

    fn write_target(&self, text: &mut String) -> std::fmt::Result {
        let Some((share, changes)) = &self.target else { return Ok(()) };
        let share = share * 100.0;
        if changes.is_empty() {
            return writeln!(text, "every limit refuses fewer than {share}% already");
        }
        writeln!(text, "what would refuse fewer than {share}%, each change by itself:")?;
        changes.iter().try_for_each(|Change { limit, key, from, to }| match to {
            Some(to) => writeln!(text, "  {limit}: {key} {from} -> {to}"),
            None => writeln!(text, "  {limit}: no {key}"),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of lines are far below 2⁵³")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.3} %", share(part, whole) * 100.0)
}

/// As in `2026-11-22T04:38Z`.
fn minute(at: u64) -> String {
    format!("{}Z", &stamp::rfc3339(at)[..16])
}
