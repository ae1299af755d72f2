//! What operators change for a while: clients that pass limits, or no longer do, limits that have other parameters, and
//! buckets that were filled anew. One record in the store, which every replica reads once a second; in the process where
//! there is no store to share.
//!
//! Promised: what is changed holds here at once, and on every replica that reaches the store within [`READ_INTERVAL`] and
//! one call; it ends by itself, everywhere at the same time by the store's clock. Requests read what was published, without
//! a lock. At most [`AMENDMENTS_MAX`].
//! Not promised: that a store which loses its state keeps it, or that a replica which is cut off hears of it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Limiter, Place, StoreError, parameters::Parameters};
use crate::config::Factor;

/// Time from one reading of the record to the next.
pub const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The most amendments at a time. It bounds the record, and what reading it once a second costs.
pub const AMENDMENTS_MAX: usize = 128;

/// The longest that an amendment holds.
pub const LIFETIME_MAX: Duration = Duration::from_hours(24);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Amendment {
    /// A client passes limits.
    Trust {
        /// What it is called, in lower case.
        client: String,
        /// Addresses from which it is believed; empty asks for none.
        networks: Vec<IpNet>,
    },
    /// A bucket was filled; what is remembered of it is to be forgotten.
    Reset {
        /// The text of its key.
        key: String,
        /// Tells one reset from the next.
        number: u64,
    },
    /// A limit has other parameters.
    Limit {
        /// Stands in the keys of its buckets.
        id: String,
        /// The route by which it was named.
        route: String,
        /// Its name there.
        limit: String,
        /// What it has.
        parameters: Parameters,
    },
    /// A client passes limits no more, whatever the configuration says.
    Suspend {
        /// What it is called, in lower case.
        client: String,
    },
}

/// What has been changed, as of the last reading.
#[derive(Debug, Default)]
pub struct Amendments {
    all: Vec<(Amendment, Instant)>,
    trusted: HashMap<String, Trust>,
    suspended: HashMap<String, Instant>,
    limits: HashMap<String, Change>,
}

/// What a limit has for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// In place of what is configured.
    pub parameters: Parameters,
    /// When that ends.
    pub until: Instant,
}

/// What a reading brought that is to be heeded at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The keys of buckets that were reset.
    pub(super) resets: Vec<String>,
    /// Whether a limit has other parameters than before.
    pub(super) has_other_limits: bool,
}

#[derive(Debug)]
struct Trust {
    networks: Vec<IpNet>,
    until: Instant,
}

/// An amendment as the record has it: its name, its text, and for how much longer it holds.
pub type Entry = (String, String, Duration);

/// Why an amendment was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmendError {
    /// There are as many as there may be.
    #[error("there is no room for more than {AMENDMENTS_MAX} changes at a time")]
    Full,
    /// The store cannot be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The amendments in force, and the record where this process keeps it itself.
#[derive(Default)]
pub(super) struct Amended {
    current: ArcSwap<Amendments>,
    record: Mutex<Record>,
}

/// The record, as pure arithmetic: the specification that `lua/amend.lua` follows. Times are in microseconds.
#[derive(Debug, Default)]
pub struct Record(BTreeMap<String, (String, u64)>);

// === impl Limiter ===

impl Limiter {
    /// What operators have changed.
    pub fn amendments(&self) -> Guard<Arc<Amendments>> {
        self.amended.current.load()
    }

    /// Makes a change for `lifetime`, at most [`LIFETIME_MAX`]; one of the same name is replaced.
    pub async fn amend(&self, amendment: &Amendment, lifetime: Duration) -> Result<(), AmendError> {
        self.write_amendment(&amendment.name(), Some(amendment), lifetime.min(LIFETIME_MAX)).await
    }

    /// Takes back the change of the same name.
    pub async fn withdraw(&self, amendment: &Amendment) -> Result<(), AmendError> {
        self.write_amendment(&amendment.name(), None, Duration::ZERO).await
    }

    async fn write_amendment(
        &self,
        name: &str,
        amendment: Option<&Amendment>,
        lifetime: Duration,
    ) -> Result<(), AmendError> {
        let text = amendment.map(Amendment::text).unwrap_or_default();
        match &self.place {
            Place::Process(memory) => {
                let mut record = self.amended.record.lock().unwrap_or_else(PoisonError::into_inner);
                let micros = u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX);
                let (fits, entries) = record.amend(name, &text, micros, AMENDMENTS_MAX, memory.now());
                self.amended.publish(&entries, Instant::now());
                if fits { Ok(()) } else { Err(AmendError::Full) }
            }
            Place::Redis(fleet) => fleet.amend(name, &text, lifetime).await,
        }
    }
}

// === impl Amended ===

impl Amended {
    /// From now on these are in force.
    pub(super) fn publish(&self, entries: &[Entry], now: Instant) -> News {
        let next = Amendments::read(entries, now);
        let before = self.current.swap(Arc::new(next));
        let after = self.current.load();
        let is_new = |amendment: &Amendment| !before.all.iter().any(|(known, _)| known == amendment);
        let resets = after.all.iter().filter_map(|(amendment, _)| match amendment {
            Amendment::Reset { key, .. } if is_new(amendment) => Some(key.clone()),
            _ => None,
        });
        News { resets: resets.collect(), has_other_limits: !after.has_same_limits(&before) }
    }
}

// === impl Amendments ===

impl Amendments {
    /// What is not understood (another version may have written it) is left out.
    fn read(entries: &[Entry], now: Instant) -> Self {
        let meant = |(_, text, left): &Entry| Some((serde_json::from_str(text).ok()?, now + *left));
        let all: Vec<(Amendment, Instant)> = entries.iter().filter_map(meant).collect();
        let (mut trusted, mut suspended, mut limits) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (amendment, until) in &all {
            let until = *until;
            match amendment {
                Amendment::Trust { client, networks } => {
                    trusted.insert(client.clone(), Trust { networks: networks.clone(), until });
                }
                Amendment::Suspend { client } => _ = suspended.insert(client.clone(), until),
                Amendment::Limit { id, parameters, .. } => {
                    limits.insert(id.clone(), Change { parameters: *parameters, until });
                }
                Amendment::Reset { .. } => {}
            }
        }
        Self { all, trusted, suspended, limits }
    }

    fn has_same_limits(&self, other: &Self) -> bool {
        let has = |(id, change): (&String, &Change)| {
            other.limits.get(id).is_some_and(|known| known.parameters == change.parameters)
        };
        self.limits.len() == other.limits.len() && self.limits.iter().all(has)
    }

    /// All that hold at `now`, and for how much longer.
    pub fn holding(&self, now: Instant) -> impl Iterator<Item = (&Amendment, Duration)> {
        let left = move |(_, until): &(Amendment, Instant)| until.saturating_duration_since(now);
        self.all.iter().map(move |entry| (&entry.0, left(entry))).filter(|(_, left)| !left.is_zero())
    }

    /// Whether a client of this name passes limits when it comes from `address`.
    pub fn trusts(&self, client: &str, address: IpAddr, now: Instant) -> bool {
        if self.trusted.is_empty() {
            return false;
        }
        let believed = |trust: &Trust| {
            trust.until > now
                && (trust.networks.is_empty() || trust.networks.iter().any(|network| network.contains(&address)))
        };
        self.trusted.get(&client.to_ascii_lowercase()).is_some_and(believed)
    }

    /// Whether a client of this name passes limits no more, whatever the configuration says.
    pub fn suspends(&self, client: &str, now: Instant) -> bool {
        !self.suspended.is_empty() && self.suspended.get(&client.to_ascii_lowercase()).is_some_and(|until| *until > now)
    }

    /// What the limit has for a while whose buckets have this in their keys.
    pub fn change(&self, id: &str, now: Instant) -> Option<&Change> {
        if self.limits.is_empty() {
            return None;
        }
        self.limits.get(id).filter(|change| change.until > now)
    }

    /// The longest that a bucket takes to fill under any of these while its time runs no slower than `slowest`.
    pub fn longest_fill(&self, slowest: Factor) -> Duration {
        self.limits.values().map(|change| change.parameters.longest_fill(slowest)).max().unwrap_or_default()
    }
}

// === impl Amendment ===

impl Amendment {
    /// Two of one name do not hold at once.
    fn name(&self) -> String {
        match self {
            Self::Trust { client, .. } => format!("trust/{client}"),
            Self::Reset { key, .. } => format!("reset/{key}"),
            Self::Limit { id, .. } => format!("limit/{id}"),
            Self::Suspend { client } => format!("suspend/{client}"),
        }
    }

    fn text(&self) -> String {
        // Texts and numbers cannot fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

// === impl Record ===

impl Record {
    /// Sets an amendment, or removes it where `text` is empty; forgets those that have ended. Answers whether there was room,
    /// and what holds at `now`.
    pub fn amend(&mut self, name: &str, text: &str, lifetime: u64, most: usize, now: u64) -> (bool, Vec<Entry>) {
        self.0.retain(|known, (_, until)| known != name && *until > now);
        let fits = text.is_empty() || self.0.len() < most;
        if fits && !text.is_empty() {
            self.0.insert(name.to_owned(), (text.to_owned(), now.saturating_add(lifetime)));
        }
        let left = |until: u64| Duration::from_millis(until.saturating_sub(now).div_ceil(1000));
        (fits, self.0.iter().map(|(name, (text, until))| (name.clone(), text.clone(), left(*until))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(client: &str, networks: &[&str]) -> Amendment {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        Amendment::Trust { client: client.to_owned(), networks }
    }

    #[test]
    fn a_record_holds_what_was_set_until_it_ends_or_is_removed_and_no_more_than_fits() {
        let mut record = Record::default();
        let names =
            |entries: Vec<Entry>| entries.into_iter().map(|(name, _, left)| (name, left.as_millis())).collect::<Vec<_>>();
        assert!(record.amend("a", "1", 2_000_000, 2, 0).0);
        assert_eq!(names(record.amend("b", "2", 5_000_000, 2, 500).1), [("a".into(), 2000), ("b".into(), 5000)]);
        let (fits, entries) = record.amend("c", "3", 1, 2, 1000);
        assert_eq!((fits, names(entries)), (false, vec![("a".into(), 1999), ("b".into(), 5000)]));
        assert!(record.amend("a", "4", 1_000_000, 2, 1000).0, "one of the same name takes its place");
        assert!(record.amend("c", "3", 1_000_000, 2, 2_000_000).0, "what has ended makes room");
        assert_eq!(names(record.amend("b", "", 0, 2, 2_000_000).1), [("c".into(), 1000)]);
    }

    #[test]
    fn a_client_is_trusted_from_its_networks_for_as_long_as_was_said() {
        let (amended, now) = (Amended::default(), Instant::now());
        let entry = |amendment: Amendment| (amendment.name(), amendment.text(), Duration::from_secs(5));
        amended.publish(&[entry(trust("a", &[])), entry(trust("b", &["10.0.0.0/8"]))], now);
        let trusts = |client, address: &str, seconds| {
            amended.current.load().trusts(client, address.parse().unwrap(), now + Duration::from_secs(seconds))
        };
        assert!(trusts("a", "192.0.2.1", 0) && trusts("a", "192.0.2.1", 4) && !trusts("a", "192.0.2.1", 5));
        assert!(trusts("b", "10.1.1.1", 0) && !trusts("b", "192.0.2.1", 0) && !trusts("c", "10.1.1.1", 0));
    }

    #[test]
    fn each_reset_is_heeded_once_and_what_nobody_understands_is_left_out() {
        let (amended, now) = (Amended::default(), Instant::now());
        let reset = |number| {
            let amendment = Amendment::Reset { key: "k".to_owned(), number };
            (amendment.name(), amendment.text(), Duration::from_secs(5))
        };
        let strange = ("future/x".to_owned(), r#"{"kind":"future"}"#.to_owned(), Duration::from_secs(5));
        assert_eq!(amended.publish(&[reset(1), strange], now).resets, ["k"]);
        assert_eq!(amended.publish(&[reset(1)], now), News::default());
        assert_eq!(amended.publish(&[reset(2)], now).resets, ["k"]);
        assert_eq!(amended.current.load().holding(now).count(), 1);
    }

    #[test]
    fn a_limit_has_other_parameters_until_they_end_and_every_change_of_them_is_news() {
        let (amended, now) = (Amended::default(), Instant::now());
        let entry = |capacity, seconds| {
            let parameters = Parameters::TokenBucket { capacity, rate: 1 };
            let [id, route, limit] = ["routes/r/l", "r", "l"].map(str::to_owned);
            let amendment = Amendment::Limit { id, route, limit, parameters };
            (amendment.name(), amendment.text(), Duration::from_secs(seconds))
        };
        let news = |entries: &[Entry]| amended.publish(entries, now).has_other_limits;
        assert!(news(&[entry(7, 5)]) && !news(&[entry(7, 4)]), "only the time that is left");
        let has = |id: &str, seconds| {
            let change = amended.current.load().change(id, now + Duration::from_secs(seconds)).copied();
            change.map(|change| change.parameters)
        };
        assert_eq!(has("routes/r/l", 3), Some(Parameters::TokenBucket { capacity: 7, rate: 1 }));
        assert_eq!((has("routes/r/l", 4), has("routes/r/m", 0)), (None, None));
        assert!(news(&[entry(8, 4)]) && news(&[]) && !news(&[]));
    }

    #[test]
    fn a_client_is_suspended_for_as_long_as_was_said() {
        let (amended, now) = (Amended::default(), Instant::now());
        let amendment = Amendment::Suspend { client: "reports".to_owned() };
        amended.publish(&[(amendment.name(), amendment.text(), Duration::from_secs(5))], now);
        let suspends = |client, seconds| amended.current.load().suspends(client, now + Duration::from_secs(seconds));
        assert!(suspends("Reports", 4) && !suspends("reports", 5) && !suspends("other", 0));
    }
}
