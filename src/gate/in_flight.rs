//! How many requests of a route may be under way at once, of all clients together and of each: from before the limits are asked
//! until the answer's body has ended or was dropped.
//!
//! Promised: never more than that in this process, whatever is reloaded; where a reload allows fewer than are under way, no
//! other goes until they are. Where the route has requests wait, those that are too many wait in its queue:
//! clients take turns, one request each, and a client's own go in the order in which they came; whoever has as many under way as
//! it may holds nobody else up. A place that becomes free goes to whoever is next, at once. Whoever goes away leaves the queue.
//! The queue is bounded by the route's `queue`, and a wait by its `wait`, with what the limits then add. A place is taken before
//! the limits are asked, so that nothing they admitted goes later than they said, and one that is refused costs nothing.
//! Not promised: the number over all replicas. A request that ends elsewhere tells nobody here, so a common queue would have to
//! ask the store again and again; each replica counts for itself.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::waiting::Policy;
use crate::{config::MaxInFlight, limiter::key::Key};

/// How long to stay away where too many are under way: when one of them ends, nobody can say.
pub const RETRY_AFTER_SECONDS: u64 = 1;

/// The places of a route. Cheap to clone.
#[derive(Clone)]
pub struct Places(Arc<Shared>);

struct Shared {
    under_way: Gauge,
    line: Mutex<Line<oneshot::Sender<Place>>>,
}

/// How many are under way, and what becomes of one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// Requests of the route.
    pub under_way: u32,
    /// The most there may be of them.
    pub most: u32,
    /// Those of the client.
    pub client_under_way: u32,
    /// The most there may be of those.
    pub client_most: u32,
    /// Whether one more has a place at once.
    pub fits: bool,
}

/// One request's place; free when dropped.
pub struct Place {
    shared: Arc<Shared>,
    client: Key,
}

/// Why there is no place: as many requests are under way as may.
#[derive(Debug)]
pub struct TooMany;

/// What a waiter is called with.
struct Turn<'a> {
    policy: &'a Policy,
    call: oneshot::Receiver<Place>,
    number: u64,
}

/// A request that waits for its place. Dropped before it has one, it leaves the line.
struct Waiting<'a> {
    shared: &'a Shared,
    policy: &'a Policy,
    client: Key,
    number: u64,
    is_done: bool,
}

/// Who is under way and who waits, as pure arithmetic. `W` takes the place of a waiter.
struct Line<W> {
    most: MaxInFlight,
    under_way: u32,
    /// Those that have anything under way or waiting.
    clients: HashMap<Key, Own<W>>,
    /// Clients that wait and have fewer under way than they may, in the order of their turns.
    turns: VecDeque<Key>,
    /// Waiters so far.
    numbered: u64,
}

/// What one client has.
struct Own<W> {
    under_way: u32,
    /// In the order of arrival.
    waiting: VecDeque<(u64, W)>,
}

// === impl Places ===

impl Places {
    /// None taken; `under_way` shows how many are.
    pub fn new(most: MaxInFlight, under_way: Gauge) -> Self {
        Self(Arc::new(Shared { under_way, line: Mutex::new(Line::new(most)) }))
    }

    /// From now on there are so many. Whoever then may go, goes; whoever is under way beyond it ends as it would.
    pub fn allow(&self, most: MaxInFlight) {
        let called = self.0.lock().allow(most);
        for (client, call) in called {
            // Whoever has gone meanwhile drops its place, which is then the next one's.
            let _ = call.send(Place::new(&self.0, client));
        }
    }

    /// Whether anybody else knows them: a route, or whoever is under way.
    pub fn are_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// What would become of a request of `client`.
    pub fn foresee(&self, client: Key) -> Outlook {
        let line = self.0.lock();
        let client_under_way = line.clients.get(&client).map_or(0, |own| own.under_way);
        let MaxInFlight { route: most, client: client_most } = line.most;
        let fits = line.fits(client_under_way);
        Outlook { under_way: line.under_way, most, client_under_way, client_most, fits }
    }

    /// A place for a request of `client`: now, or where there is a `policy` for waiting, once it is its turn, until then.
    ///
    /// # Errors
    ///
    /// [`TooMany`] where it must not wait, or not any longer.
    pub async fn enter(&self, client: Key, policy: Option<&Policy>, until: Instant) -> Result<Place, TooMany> {
        let Some(Turn { policy, call, number }) = self.join(client, policy)? else {
            return Ok(Place::new(&self.0, client));
        };
        policy.waiting.inc();
        let mut waiting = Waiting { shared: &self.0, policy, client, number, is_done: false };
        let began = Instant::now();
        let place = timeout_at(until, call).await;
        waiting.is_done = true;
        if let Ok(Ok(place)) = place {
            policy.served.inc();
            policy.waited.observe(began.elapsed().as_secs_f64());
            return Ok(place);
        }
        policy.refused.inc();
        Err(TooMany)
    }

    /// Takes a place (then nothing is answered), or joins the line.
    fn join<'a>(&self, client: Key, policy: Option<&'a Policy>) -> Result<Option<Turn<'a>>, TooMany> {
        let mut line = self.0.lock();
        if line.enter(client) {
            return Ok(None);
        }
        let Some(policy) = policy else { return Err(TooMany) };
        if !policy.has_room() {
            policy.refused.inc();
            return Err(TooMany);
        }
        let (caller, call) = oneshot::channel();
        let number = line.join(client, caller);
        Ok(Some(Turn { policy, call, number }))
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Line<oneshot::Sender<Place>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Place {
    /// A place that the line has counted.
    fn new(shared: &Arc<Shared>, client: Key) -> Self {
        shared.under_way.inc();
        Self { shared: Arc::clone(shared), client }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.under_way.dec();
        let next = self.shared.lock().end(self.client);
        if let Some((client, call)) = next {
            // Whoever has gone meanwhile drops its place, which is then the next one's.
            let _ = call.send(Self::new(&self.shared, client));
        }
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.policy.waiting.dec();
        if !self.is_done {
            self.policy.left.inc();
        }
        self.shared.lock().leave(self.client, self.number);
    }
}

// === impl Line ===

impl<W> Line<W> {
    fn new(most: MaxInFlight) -> Self {
        Self { most, under_way: 0, clients: HashMap::new(), turns: VecDeque::new(), numbered: 0 }
    }

    /// Counts one more request under way, where there is a place for it. Whoever could go already has, so nobody is overtaken.
    fn enter(&mut self, client: Key) -> bool {
        let fits = self.fits(self.clients.get(&client).map_or(0, |own| own.under_way));
        if fits {
            self.under_way += 1;
            self.clients.entry(client).or_default().under_way += 1;
        }
        fits
    }

    /// Whether there is a place for one more of a client that has so many under way.
    fn fits(&self, own: u32) -> bool {
        self.under_way < self.most.route && own < self.most.client
    }

    /// Takes in a waiter that could not enter; answers its number.
    fn join(&mut self, client: Key, waiter: W) -> u64 {
        self.numbered += 1;
        let own = self.clients.entry(client).or_default();
        own.waiting.push_back((self.numbered, waiter));
        if own.waiting.len() == 1 && own.under_way < self.most.client {
            self.turns.push_back(client);
        }
        self.numbered
    }

    /// Lets a waiter go that was not called.
    fn leave(&mut self, client: Key, number: u64) {
        let Some(own) = self.clients.get_mut(&client) else { return };
        let Ok(index) = own.waiting.binary_search_by_key(&number, |(number, _)| *number) else { return };
        own.waiting.remove(index);
        if own.waiting.is_empty() {
            self.turns.retain(|other| *other != client);
        }
        self.forget(client);
    }

    /// A request has ended: counts its place for whoever is next, and answers that one.
    fn end(&mut self, client: Key) -> Option<(Key, W)> {
        self.under_way -= 1;
        if let Some(own) = self.clients.get_mut(&client) {
            own.under_way -= 1;
            if own.under_way + 1 == self.most.client && !own.waiting.is_empty() {
                self.turns.push_back(client);
            }
        }
        self.forget(client);
        self.call()
    }

    /// There may be so many under way from now on; counts a place for each waiter that may go, and answers those.
    fn allow(&mut self, most: MaxInFlight) -> Vec<(Key, W)> {
        if most == self.most {
            return Vec::new();
        }
        self.most = most;
        let has_turn = |own: &Own<W>| own.under_way < most.client && !own.waiting.is_empty();
        self.turns.retain(|client| self.clients.get(client).is_some_and(has_turn));
        let mut others: Vec<(u64, Key)> = self
            .clients
            .iter()
            .filter(|(client, own)| has_turn(own) && !self.turns.contains(client))
            .filter_map(|(client, own)| Some((own.waiting.front()?.0, *client)))
            .collect();
        others.sort_unstable_by_key(|(number, _)| *number);
        self.turns.extend(others.into_iter().map(|(_, client)| client));
        std::iter::from_fn(|| self.call()).collect()
    }

    /// Counts a place for the waiter whose turn it is, where there is one, and answers that one.
    fn call(&mut self) -> Option<(Key, W)> {
        if self.under_way >= self.most.route {
            return None;
        }
        let next = self.turns.pop_front()?;
        let own = self.clients.get_mut(&next)?;
        let (_, waiter) = own.waiting.pop_front()?;
        own.under_way += 1;
        self.under_way += 1;
        if own.under_way < self.most.client && !own.waiting.is_empty() {
            self.turns.push_back(next);
        }
        Some((next, waiter))
    }

    /// Forgets a client that has nothing here any more.
    fn forget(&mut self, client: Key) {
        if self.clients.get(&client).is_some_and(|own| own.under_way == 0 && own.waiting.is_empty()) {
            self.clients.remove(&client);
        }
    }
}

// === impl Own ===

impl<W> Default for Own<W> {
    fn default() -> Self {
        Self { under_way: 0, waiting: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::key::KeyHasher;

    fn client(name: &str) -> Key {
        KeyHasher::new(None, "tests").start("client").part(name.as_bytes()).finish()
    }

    fn line(route: u32, client: u32) -> Line<&'static str> {
        Line::new(MaxInFlight { route, client })
    }

    #[test]
    fn clients_take_turns_and_whoever_has_all_it_may_holds_nobody_up() {
        let ([a, b, c], mut line) = (["a", "b", "c"].map(client), line(3, 2));
        assert!(line.enter(a) && line.enter(a) && !line.enter(a), "two of one client");
        for waiter in ["a1", "a2"] {
            line.join(a, waiter);
        }
        assert!(line.enter(b) && !line.enter(c), "three of all");
        line.join(b, "b1");
        line.join(c, "c1");
        assert_eq!(line.end(b).map(|(_, waiter)| waiter), Some("b1"), "a has all it may");
        assert_eq!(line.end(a).map(|(_, waiter)| waiter), Some("c1"), "a's turn came after c's");
        assert_eq!(line.end(a).map(|(_, waiter)| waiter), Some("a1"));
        assert_eq!(line.end(b).map(|(_, waiter)| waiter), Some("a2"));
        assert_eq!((line.end(a), line.end(a), line.end(c)), (None, None, None));
        assert!(line.clients.is_empty() && line.turns.is_empty() && line.under_way == 0);
    }

    #[test]
    fn more_places_are_taken_at_once_and_fewer_as_requests_end() {
        let ([a, b, c], mut line) = (["a", "b", "c"].map(client), line(2, 1));
        assert!(line.enter(a) && line.enter(b));
        for (client, waiter) in [(a, "a1"), (c, "c1"), (b, "b1"), (a, "a2")] {
            line.join(client, waiter);
        }
        let most = |route, client| MaxInFlight { route, client };
        assert_eq!(line.allow(most(2, 1)), []);
        assert_eq!(line.allow(most(4, 2)), [(c, "c1"), (a, "a1")], "c had its turn already, a has waited longer than b");
        assert_eq!(line.allow(most(2, 1)), []);
        assert_eq!((line.end(a), line.end(c)), (None, None), "two are under way still");
        assert_eq!((line.end(b), line.end(b)), (Some((b, "b1")), None), "a has all it may");
        assert_eq!(line.end(a), Some((a, "a2")));
        assert_eq!(line.end(a), None);
        assert!(line.clients.is_empty() && line.turns.is_empty() && line.under_way == 0);
    }

    #[test]
    fn whoever_leaves_is_not_called_and_leaves_nothing() {
        let ([a, b], mut line) = (["a", "b"].map(client), line(1, 1));
        assert!(line.enter(a));
        let first = line.join(b, "b1");
        line.join(b, "b2");
        line.leave(b, first);
        line.leave(b, first);
        assert_eq!(line.end(a), Some((b, "b2")));
        let last = line.join(a, "a1");
        line.leave(a, last);
        assert_eq!(line.end(b), None);
        assert!(line.clients.is_empty() && line.turns.is_empty());
    }
}
