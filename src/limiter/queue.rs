//! Who goes next: the line of those who wait for the same buckets, and the places in time that were reserved for them.
//!
//! The store says *when* places come due; the line says *who* takes the next one. A place belongs to the line, not to whoever
//! reserved it: so all who wait move up when somebody leaves, and the place that is too many is the last.
//!
//! Promised: a class goes before those below it (strictly: what a lower class gets is what the higher ones leave). Within a
//! class clients take turns, one place each, so that a newcomer's first request waits for at most one place of each client
//! that was there before; every request costs the same here, which makes this deficit round robin with a quantum of one. A
//! client's own requests go in the order of their tickets. There are never fewer places than waiters.
//! Not promised: that whoever reserved a place is served by its time. Others may have gone before; whoever waits says for how
//! long.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasherDefault,
};

use tokio::time::Instant;

use super::key::{FirstWord, Key};
use crate::config::Priority;

/// How many classes there are.
const CLASSES: usize = Priority::ALL.len();

/// Those who wait for the same buckets. `W` tells a waiter that its turn has come, `P` is what proves a place.
pub struct Line<W, P> {
    /// The highest class first.
    classes: [Ring<W>; CLASSES],
    waiting: usize,
    /// In the order of their times.
    places: VecDeque<Place<P>>,
    /// Places of waiters that were called and have not come yet.
    called: HashMap<u64, Place<P>>,
    /// Places that are too many, and that the store does not take back.
    kept: usize,
}

/// A moment at which one request may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<P> {
    /// When.
    pub due: Instant,
    /// By what.
    pub proof: P,
}

/// Where a waiter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Rises with the time of arrival; no two are the same.
    pub number: u64,
    /// Who waits.
    pub client: Key,
    /// In which class.
    pub class: Priority,
}

/// The waiters of one class: clients that take turns.
struct Ring<W> {
    /// Who is next.
    turns: VecDeque<Key>,
    /// What each of them waits with, in the order of arrival; never empty.
    clients: HashMap<Key, VecDeque<(u64, W)>, BuildHasherDefault<FirstWord>>,
}

// === impl Line ===

impl<W, P> Default for Line<W, P> {
    fn default() -> Self {
        Self { classes: Default::default(), waiting: 0, places: VecDeque::new(), called: HashMap::new(), kept: 0 }
    }
}

impl<W, P> Line<W, P> {
    /// Takes in a place, and whoever reserved it, or would not wait for it.
    pub fn add(&mut self, place: Place<P>) {
        let behind = self.places.partition_point(|earlier| earlier.due <= place.due);
        self.places.insert(behind, place);
    }

    /// Takes in a waiter, for whom there is a place.
    pub fn join(&mut self, ticket: Ticket, waiter: W) {
        self.classes[ticket.class as usize].join(ticket.client, ticket.number, waiter);
        self.waiting += 1;
        self.kept = self.kept.min(self.spare());
    }

    /// Lets a waiter go, called or not; its place is for the others.
    pub fn leave(&mut self, ticket: Ticket) {
        if let Some(place) = self.called.remove(&ticket.number) {
            self.add(place);
        } else if self.classes[ticket.class as usize].leave(ticket.client, ticket.number) {
            self.waiting -= 1;
        }
    }

    /// Calls the next waiter, if there is a place for it at `now`.
    pub fn call(&mut self, now: Instant) -> Option<W> {
        let due = self.places.front().is_some_and(|place| place.due <= now);
        let (number, waiter) = self.classes.iter_mut().filter(|_| due).find_map(Ring::next)?;
        self.waiting -= 1;
        self.called.extend(self.places.pop_front().map(|place| (number, place)));
        Some(waiter)
    }

    /// The place of a waiter that was called.
    pub fn take(&mut self, ticket: Ticket) -> Option<Place<P>> {
        self.called.remove(&ticket.number)
    }

    /// When the first of its places is due.
    pub fn next_due(&self) -> Option<Instant> {
        Some(self.places.front()?.due)
    }

    /// When one more waiter's turn would come, if there is a place that nobody waits for.
    pub fn next_spare(&self) -> Option<Instant> {
        Some(self.places.get(self.waiting)?.due)
    }

    /// A place that nobody waits for, to be given back: the last, or one whose time is over at `now`.
    pub fn give_up(&mut self, now: Instant) -> Option<Place<P>> {
        if self.waiting == 0 && self.next_due().is_some_and(|due| due <= now) {
            self.kept = self.kept.saturating_sub(1);
            return self.places.pop_front();
        }
        if self.spare() > self.kept { self.places.pop_back() } else { None }
    }

    /// Takes in a place again that the store does not take back: it is for whoever comes next.
    pub fn keep(&mut self, place: Place<P>) {
        self.add(place);
        self.kept = self.spare();
    }

    /// When the turn of one more waiter would come, if nobody else does: with a place that is there, or with one of its own
    /// that is due at `own`.
    pub fn turn(&self, client: Key, class: Priority, own: Option<Instant>) -> Option<Instant> {
        let above: usize = self.classes[..class as usize].iter().map(Ring::len).sum();
        let before = above + self.classes[class as usize].before(client);
        let mut dues: Vec<Instant> = self.places.iter().map(|place| place.due).chain(own).collect();
        dues.sort_unstable();
        dues.get(before).copied()
    }

    /// How many wait, and were not called.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether nobody waits, or was called.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.called.is_empty()
    }

    /// Whether there is no place either.
    pub fn is_over(&self) -> bool {
        self.is_idle() && self.places.is_empty()
    }

    /// Places that nobody waits for.
    fn spare(&self) -> usize {
        self.places.len().saturating_sub(self.waiting)
    }
}

// === impl Ring ===

impl<W> Default for Ring<W> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), clients: HashMap::default() }
    }
}

impl<W> Ring<W> {
    fn join(&mut self, client: Key, number: u64, waiter: W) {
        let own = self.clients.entry(client).or_default();
        if own.is_empty() {
            self.turns.push_back(client);
        }
        let behind = own.partition_point(|(earlier, _)| *earlier < number);
        own.insert(behind, (number, waiter));
    }

    fn leave(&mut self, client: Key, number: u64) -> bool {
        let Some(own) = self.clients.get_mut(&client) else { return false };
        let Ok(index) = own.binary_search_by_key(&number, |(number, _)| *number) else { return false };
        own.remove(index);
        if own.is_empty() {
            self.clients.remove(&client);
            self.turns.retain(|other| *other != client);
        }
        true
    }

    fn len(&self) -> usize {
        self.clients.values().map(VecDeque::len).sum()
    }

    /// How many go before one more request of a client: one of each that has its turn before, for each of its own that waits.
    fn before(&self, client: Key) -> usize {
        let waits = |client: &Key| self.clients.get(client).map_or(0, VecDeque::len);
        let own = waits(&client);
        let place = self.turns.iter().position(|other| *other == client).unwrap_or(self.turns.len());
        let ahead = |other: usize| own + usize::from(other < place);
        let others = self.turns.iter().enumerate().filter(|(_, other)| **other != client);
        own + others.map(|(other, key)| waits(key).min(ahead(other))).sum::<usize>()
    }

    /// The first request of the client whose turn it is, which then goes to the end of the ring.
    fn next(&mut self) -> Option<(u64, W)> {
        let client = self.turns.pop_front()?;
        let own = self.clients.get_mut(&client)?;
        let next = own.pop_front();
        if own.is_empty() {
            self.clients.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        next
    }
}

#[cfg(test)]
mod tests;
