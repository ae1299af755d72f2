//! Everything that a log holds, as far as it takes to decide about it again and again.
//!
//! Promised: memory is some 50 bytes a request and the name of each client once; the text of a log is not kept, nor a line
//! beyond [`MAX_LINE_BYTES`].

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead, Read},
    sync::Arc,
};

use super::record::{NoRecord, Record};
use crate::{
    config::{Factor, WhenLimited},
    gate::{
        replay::{Replay, Slot, slots},
        route::Route,
    },
    limiter::key::Key,
};

/// The longest line that is read.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// How many lines that are not understood are named.
const MAX_NAMED_LINES: usize = 5;

/// Requests in the order of their times.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) arrivals: Vec<Arrival>,
    keys: Vec<Key>,
    /// By their number.
    pub(super) clients: Vec<Arc<str>>,
    /// By their number.
    pub(super) routes: Vec<Way>,
    pub(super) lines: u64,
    /// Lines that are no requests.
    pub(super) others: u64,
    pub(super) bad: u64,
    /// The first lines that are not understood, and why.
    pub(super) named: Vec<(u64, &'static str)>,
    /// Requests that no limit was asked about, by why.
    pub(super) unasked: BTreeMap<&'static str, u64>,
}

/// A route, and what its requests are charged to.
pub(super) struct Way {
    pub(super) name: Arc<str>,
    pub(super) slots: Vec<Slot>,
    /// How they wait; `None` refuses them.
    pub(super) when_limited: Option<WhenLimited>,
}

/// One request that limits are asked about.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    /// In microseconds of Unix time.
    pub(super) at: u64,
    /// The line it stands in, from 1.
    pub(super) line: u32,
    pub(super) client: u32,
    pub(super) route: u16,
    keys: u8,
    first_key: u32,
    pub(super) factor: Factor,
}

/// Numbers what is named.
#[derive(Default)]
struct Numbers {
    clients: HashMap<Arc<str>, u32>,
    routes: HashMap<Arc<str>, u16>,
}

// === impl Traffic ===

impl Traffic {
    /// Reads a log. Requests whose record names no host were sent to `host`.
    pub(super) fn read(mut log: impl BufRead, replay: &Replay, host: &str) -> io::Result<Self> {
        let (mut traffic, mut numbers, mut line) = (Self::default(), Numbers::default(), Vec::new());
        loop {
            line.clear();
            if log.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            traffic.lines += 1;
            if line.len() as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
                log.skip_until(b'\n')?;
                traffic.is_bad("too long");
                continue;
            }
            match Record::parse(&line) {
                Ok(record) => traffic.take(&record, replay, host, &mut numbers),
                Err(NoRecord::Other) => traffic.others += 1,
                Err(NoRecord::Bad(reason)) => traffic.is_bad(reason),
            }
        }
        traffic.arrivals.sort_by_key(|arrival| (arrival.at, arrival.line));
        Ok(traffic)
    }

    /// The buckets that a request is charged to, with their limits.
    pub(super) fn keys(&self, arrival: &Arrival) -> &[Key] {
        let first = arrival.first_key as usize;
        &self.keys[first..first + usize::from(arrival.keys)]
    }

    fn take(&mut self, record: &Record<'_>, replay: &Replay, host: &str, numbers: &mut Numbers) {
        let asked = match replay.ask(&record.recorded(host)) {
            _ if record.preflight => return self.is_unasked("preflight"),
            Err(code) => return self.is_unasked(code.as_str()),
            Ok(asked) if asked.keys.is_empty() && !asked.route.limits.is_empty() => return self.is_unasked("whitelisted"),
            Ok(asked) => asked,
        };
        let client = match record.client.as_deref() {
            Some(name) => self.client(name, numbers),
            None => self.client(&record.address.to_string(), numbers),
        };
        let numbered = (u32::try_from(self.keys.len()), u32::try_from(self.lines), client);
        let (Ok(first_key), Ok(line), Some(client), Some(route)) =
            (numbered.0, numbered.1, numbered.2, self.route(&asked.route, numbers))
        else {
            return self.is_bad("one line more than can be counted");
        };
        let keys = u8::try_from(asked.keys.len()).unwrap_or_default();
        self.keys.extend(asked.keys);
        let factor = Factor::new(record.factor).unwrap_or(Factor::ONE);
        self.arrivals.push(Arrival { at: record.at, line, client, route, keys, first_key, factor });
    }

    fn client(&mut self, name: &str, numbers: &mut Numbers) -> Option<u32> {
        if let Some(number) = numbers.clients.get(name) {
            return Some(*number);
        }
        let (name, number) = (Arc::<str>::from(name), u32::try_from(self.clients.len()).ok()?);
        self.clients.push(Arc::clone(&name));
        numbers.clients.insert(name, number);
        Some(number)
    }

    fn route(&mut self, route: &Route, numbers: &mut Numbers) -> Option<u16> {
        if let Some(number) = numbers.routes.get(&route.name) {
            return Some(*number);
        }
        let number = u16::try_from(self.routes.len()).ok()?;
        let when_limited = route.pacing.as_ref().map(|policy| policy.configured);
        self.routes.push(Way { name: Arc::clone(&route.name), slots: slots(route), when_limited });
        numbers.routes.insert(Arc::clone(&route.name), number);
        Some(number)
    }

    fn is_unasked(&mut self, why: &'static str) {
        *self.unasked.entry(why).or_default() += 1;
    }

    fn is_bad(&mut self, reason: &'static str) {
        self.bad += 1;
        if self.named.len() < MAX_NAMED_LINES {
            self.named.push((self.lines, reason));
        }
    }
}
