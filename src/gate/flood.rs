//! Events that a client can cause at will, told without letting it fill the log: the first of a kind is one line, those that
//! follow within a second are counted, and one line a second sums them up.
//!
//! Promised: at most [`MAX_SUBJECTS`] first lines and as many sums a second, whoever attacks; what has no place of its own is
//! summed under one name. Counts are exact.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrayvec::ArrayString;
use tracing::{info, warn};

use super::client::{Client, MAX_IDENTITY_BYTES};

/// Most subjects that are told apart in one second. Bounds memory and lines a second.
const MAX_SUBJECTS: usize = 512;

/// Time from sum to sum.
const PERIOD: Duration = Duration::from_secs(1);

/// What is told apart: kind of event, client, and the limit or route it concerns.
#[derive(Clone, PartialEq, Eq)]
struct Subject {
    event: Event,
    client: ArrayString<MAX_IDENTITY_BYTES>,
    concerns: Arc<str>,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A limit, or the upstream, refused.
    Violation,
    /// A limit would have refused, if its route's mode were not shadow.
    ShadowViolation,
    /// A trusted client passed.
    Whitelisted,
}

/// Counts what is not told line by line.
#[derive(Default)]
pub struct Floods(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    subjects: HashMap<Subject, u64>,
    without_place: HashMap<Event, u64>,
}

// === impl Subject ===

/// By its client alone, which is enough to tell most apart, and costs the least.
impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.client.as_bytes());
    }
}

// === impl Floods ===

impl Floods {
    /// Whether this event gets a line of its own; otherwise it was counted for the next sum.
    pub fn tell(&self, event: Event, client: &Client, concerns: &Arc<str>) -> bool {
        let subject = Subject { event, client: client.identity.text, concerns: Arc::clone(concerns) };
        self.counts().tell(subject)
    }

    /// Tells that a trusted client passed the limits of `route`.
    pub fn whitelisted(&self, client: &Client, route: &Arc<str>) {
        if self.tell(Event::Whitelisted, client, route) {
            let (client_id, address) = (client.identity.text.as_str(), client.address);
            info!(event = "whitelist_bypass", client_id, %address, route = &**route, "whitelisted client passes the limits");
        }
    }

    /// Writes a sum a second, for ever.
    pub async fn sum_up(&self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.write_sums();
        }
    }

    /// Writes what was counted since the last time.
    pub fn write_sums(&self) {
        let sums = self.counts().take();
        for (event, client_id, concerns, count) in sums {
            let mode = if event == Event::ShadowViolation { "shadow" } else { "enforce" };
            match event {
                Event::Violation | Event::ShadowViolation => warn!(
                    event = "rate_limit_violations",
                    client_id,
                    limit = concerns,
                    count,
                    mode,
                    "rate limit violations in the last second"
                ),
                Event::Whitelisted => info!(
                    event = "whitelist_bypasses",
                    client_id,
                    route = concerns,
                    count,
                    "whitelisted requests in the last second"
                ),
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Counts ===

impl Counts {
    fn tell(&mut self, subject: Subject) -> bool {
        let full = self.subjects.len() >= MAX_SUBJECTS;
        match self.subjects.get_mut(&subject) {
            Some(count) => *count += 1,
            None if full => *self.without_place.entry(subject.event).or_default() += 1,
            None => return self.subjects.insert(subject, 0).is_none(),
        }
        false
    }

    /// What was counted. A subject with nothing to sum is forgotten: its next event is a first again.
    fn take(&mut self) -> Vec<(Event, String, String, u64)> {
        self.subjects.retain(|_, count| *count > 0);
        let mut sums: Vec<_> = self
            .subjects
            .iter_mut()
            .map(|(subject, count)| {
                (subject.event, subject.client.to_string(), subject.concerns.to_string(), std::mem::take(count))
            })
            .collect();
        let without_place =
            self.without_place.drain().map(|(event, count)| (event, "(others)".to_owned(), "(any)".to_owned(), count));
        sums.extend(without_place);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(client: &str) -> Subject {
        Subject { event: Event::Violation, client: ArrayString::from(client).unwrap(), concerns: "per-client".into() }
    }

    #[test]
    fn the_first_event_is_told_and_the_rest_are_summed_once_a_period() {
        let mut counts = Counts::default();
        assert!(counts.tell(subject("a")));
        assert!((0..9).all(|_| !counts.tell(subject("a"))));
        assert!(counts.tell(subject("b")), "another client has a line of its own");
        let sums: Vec<_> = counts.take().into_iter().map(|(_, client, _, count)| (client, count)).collect();
        assert_eq!(sums, [("a".to_owned(), 9)]);
        assert!(!counts.tell(subject("a")), "a flood that goes on gets no new first line");
        assert_eq!(counts.take()[0].3, 1);
        assert!(counts.take().is_empty());
        assert!(counts.tell(subject("a")), "after a quiet period the next event is a first again");
    }

    #[test]
    fn an_attack_with_many_names_is_bounded_and_still_counted_exactly() {
        let mut counts = Counts::default();
        let told = (0..10_000).filter(|number| counts.tell(subject(&format!("client-{number}")))).count();
        assert_eq!(told, MAX_SUBJECTS);
        let summed: u64 = counts.take().iter().map(|(_, _, _, count)| count).sum();
        assert_eq!(summed, 10_000 - MAX_SUBJECTS as u64);
    }
}
