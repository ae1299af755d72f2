//! Waiting instead of refusing: a request over a limit reserves its place in the store, and goes when its turn comes.
//!
//! The store tells each request when a place is due, so all replicas share one queue without asking again. The places of one
//! replica that are for the same buckets are one [line](crate::limiter::queue), in which clients take turns. One task a line
//! calls whoever is next; it sleeps until the next place is due.
//!
//! Promised: a request waits at most [`WhenLimited::wait`](crate::config::WhenLimited::wait), and a moment ([`GRACE`]) beyond
//! for timers; one that cannot go so soon is refused at once. At most
//! [`queue`](crate::config::WhenLimited::queue) requests of a route wait, each with a place, so there are no more places than
//! that, and no more lines. Whoever goes away leaves its place to those behind, and the last place goes back to the store. A
//! request that need not wait costs one store operation, as without pacing.
//! Not promised: fairness between clients whose buckets differ: each set of buckets has a line of its own. That a factor, or
//! the loss of the store, changes a time that was told: at that time the request goes. That a place which is not the last of
//! all replicas' goes back: it is for the next who comes here, and lapses with its time. Where several limits hold a route,
//! each is charged as soon as it can pay, so those that are not waited for may see the requests of a moment ago beside those
//! of now.

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrayvec::ArrayVec;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{question::Question, waiting::Policy};
use crate::{
    config::Factor,
    limiter::{
        Charge, Decision, Limit, Limiter, MAX_CHARGES, Receipt, Standing, Standings, Terms,
        key::Key,
        queue::{Line, Place, Ticket},
        waiting,
    },
    shutdown::Shutdown,
};

/// What timers and a busy machine may add to a wait before it counts as too long.
const GRACE: Duration = Duration::from_millis(500);

/// The lines of all routes.
pub struct Pacing {
    limiter: Arc<Limiter>,
    shutdown: Shutdown,
    arrivals: AtomicU64,
    lines: Mutex<HashMap<LineKey, Open>>,
}

/// Which buckets a line waits for, and how much of each a request takes.
type LineKey = ArrayVec<(Key, u64), MAX_CHARGES>;

/// A line with its task.
#[derive(Default)]
struct Open {
    line: Line<oneshot::Sender<()>, Held>,
    /// Tells the task that something changed.
    changed: Arc<Notify>,
}

/// What a place was reserved with.
struct Held {
    receipt: Receipt,
    standings: Standings,
    reserved: Instant,
    /// Each limit, what it was charged under, and how much.
    charged: Vec<(Limit, Key, u64)>,
}

/// A request in a line. Dropped before its turn, it leaves its place to the others.
struct Waiter<'a> {
    pacing: &'a Pacing,
    policy: &'a Policy,
    line: LineKey,
    ticket: Ticket,
    /// Whether it has gone on, or was told that it cannot.
    is_done: bool,
}

// === impl Pacing ===

impl Pacing {
    /// No line yet. Their tasks belong to `shutdown`: while it drains, whoever waits is still served.
    pub fn new(limiter: Arc<Limiter>, shutdown: Shutdown) -> Arc<Self> {
        Arc::new(Self { limiter, shutdown, arrivals: AtomicU64::new(0), lines: Mutex::default() })
    }

    /// Admits a request of `client` when its turn comes, or refuses it at once where that is not before `until`.
    pub async fn admit(self: &Arc<Self>, policy: &Policy, question: &Question<'_>, client: Key, until: Instant) -> Decision {
        let asked = Instant::now();
        let line: LineKey = question.charges().iter().filter_map(line_part).collect();
        let number = self.arrivals.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { number, client, class: policy.configured.priority };
        let decision = match self.join_spare(policy, &line, ticket, until) {
            Some((waiter, turn)) => waiter.wait(turn, until, question.charges()).await,
            None => self.reserve(policy, question, line, ticket, until).await,
        };
        match decision {
            // Its place was reserved long ago; the upstream may have asked for a pause since.
            Decision::Admitted { receipt, standings } if question.cooldown().is_some() && asked.elapsed() > GRACE => {
                self.heed_pause(question, until, receipt, standings).await
            }
            decision => decision,
        }
    }

    /// When a request of `client` would go whose buckets stand so: at once, later, or not before `until` (`None`).
    pub fn foresee(
        &self,
        policy: &Policy,
        charges: &[Charge<'_>],
        standings: &[Standing],
        client: Key,
        until: Instant,
    ) -> Option<Duration> {
        let (now, class) = (Instant::now(), policy.configured.priority);
        let wait = |(charge, standing): (&Charge<'_>, &Standing)| charge.limit.wait(standing, charge.cost);
        let wait = charges.iter().zip(standings).map(wait).max().unwrap_or_default();
        let lines = self.lock();
        let open = lines.get(&charges.iter().filter_map(line_part).collect::<LineKey>());
        let has_spare = policy.has_room() && open.is_some_and(|open| open.line.next_spare().is_some_and(|due| due <= until));
        let is_free = open.is_none_or(|open| open.line.waiting() == 0);
        if wait.is_zero() && is_free && !has_spare {
            return Some(wait);
        }
        let own = now + wait;
        if !policy.has_room() || (!has_spare && own > until) {
            return None;
        }
        let turn = open.and_then(|open| open.line.turn(client, class, (!has_spare).then_some(own)));
        Some(turn.unwrap_or(own).saturating_duration_since(now)).filter(|turn| now + *turn <= until + GRACE)
    }

    /// Asks the store for a place, and waits for the turn where it is not now.
    async fn reserve(
        self: &Arc<Self>,
        policy: &Policy,
        question: &Question<'_>,
        line: LineKey,
        ticket: Ticket,
        until: Instant,
    ) -> Decision {
        let charges = question.charges();
        let left = until.saturating_duration_since(Instant::now());
        let within = if policy.has_room() { left } else { Duration::ZERO };
        let (receipt, standings) = match self.limiter.reserve(charges, within).await {
            Decision::Admitted { receipt, standings } => (receipt, standings),
            Decision::Refused { standings } => {
                policy.refused.inc();
                return Decision::Refused { standings };
            }
            other => return other,
        };
        let (reserved, wait) = (Instant::now(), waiting(charges, &standings));
        if wait.is_zero() && self.is_free(&line) {
            return Decision::Admitted { receipt, standings };
        }
        let refusal = standings.clone();
        let charged = question.refundable().iter().map(|charge| (charge.limit.clone(), charge.key, charge.cost)).collect();
        let held = Held { receipt, standings, reserved, charged };
        match self.join_with(policy, line, ticket, Place { due: reserved + wait, proof: held }) {
            Some((waiter, turn)) => waiter.wait(turn, until, charges).await,
            None => Decision::Refused { standings: refusal },
        }
    }

    /// Whether nobody waits in a line.
    fn is_free(&self, line: &LineKey) -> bool {
        self.lock().get(line).is_none_or(|open| open.line.waiting() == 0)
    }

    /// Joins a line with a place. Where there is no room for another waiter, the place alone does, to be given back.
    fn join_with<'a>(
        self: &'a Arc<Self>,
        policy: &'a Policy,
        line: LineKey,
        ticket: Ticket,
        place: Place<Held>,
    ) -> Option<(Waiter<'a>, oneshot::Receiver<()>)> {
        let mut lines = self.lock();
        let open = lines.entry(line.clone()).or_insert_with(|| self.open(line.clone()));
        open.line.add(place);
        open.changed.notify_one();
        self.join(policy, open, line, ticket)
    }

    /// Joins a line that has a place which nobody waits for, and which is due in time.
    fn join_spare<'a>(
        &'a self,
        policy: &'a Policy,
        line: &LineKey,
        ticket: Ticket,
        until: Instant,
    ) -> Option<(Waiter<'a>, oneshot::Receiver<()>)> {
        let mut lines = self.lock();
        let open = lines.get_mut(line).filter(|open| open.line.next_spare().is_some_and(|due| due <= until))?;
        let joined = self.join(policy, open, line.clone(), ticket)?;
        open.changed.notify_one();
        Some(joined)
    }

    /// Puts a request in a line where there is a place for it; not where as many of its route wait as may.
    fn join<'a>(
        &'a self,
        policy: &'a Policy,
        open: &mut Open,
        line: LineKey,
        ticket: Ticket,
    ) -> Option<(Waiter<'a>, oneshot::Receiver<()>)> {
        if !policy.has_room() {
            policy.refused.inc();
            return None;
        }
        let (call, turn) = oneshot::channel();
        open.line.join(ticket, call);
        policy.waiting.inc();
        Some((Waiter { pacing: self, policy, line, ticket, is_done: false }, turn))
    }

    /// Waits for the end of a pause that the upstream has asked for since the place was reserved.
    async fn heed_pause(&self, question: &Question<'_>, until: Instant, receipt: Receipt, standings: Standings) -> Decision {
        let pause = question.charges().iter().find(|charge| charge.terms == Terms::Need);
        while let Some(pause) = pause {
            let Decision::Refused { standings: paused } = self.limiter.decide(&[*pause]).await else { break };
            let wait = waiting(&[*pause], &paused);
            if Instant::now() + wait > until {
                self.limiter.refund(receipt, question.refundable()).await;
                // All but the pause, which comes last, have admitted.
                let others = question.charges().len() - 1;
                let untouched = |charge: &Charge<'_>| charge.limit.untouched(Factor::ONE);
                let standings = question.charges()[..others].iter().map(untouched).chain(paused).collect();
                return Decision::Refused { standings };
            }
            sleep(wait).await;
        }
        Decision::Admitted { receipt, standings }
    }

    /// A line, with a task that calls whoever is next.
    fn open(self: &Arc<Self>, line: LineKey) -> Open {
        let open = Open::default();
        let (pacing, changed) = (Arc::clone(self), Arc::clone(&open.changed));
        self.shutdown.spawn(async move { pacing.keep(&line, &changed).await });
        open
    }

    /// Calls whoever is next, and gives back what nobody waits for, until the line is over.
    async fn keep(&self, line: &LineKey, changed: &Notify) {
        while let Some((next, spare)) = self.step(line) {
            let Some(place) = spare else {
                tokio::select! {
                    () = sleep_until_some(next) => {}
                    () = changed.notified() => {}
                    () = self.shutdown.draining(), if !self.shutdown.is_draining() => {}
                }
                continue;
            };
            let ahead = place.due.saturating_duration_since(Instant::now());
            let given = self.limiter.give_back(&place.proof.receipt, &place.proof.charges(), ahead).await;
            if let Some(open) = self.lock().get_mut(line).filter(|_| !given && !ahead.is_zero()) {
                open.line.keep(place);
            }
        }
    }

    /// Calls everyone whose place is due; returns when the next one is, and a place to give back. Nothing once the line is
    /// over, or nobody is to come any more.
    fn step(&self, line: &LineKey) -> Option<(Option<Instant>, Option<Place<Held>>)> {
        let mut lines = self.lock();
        let open = lines.get_mut(line)?;
        let now = Instant::now();
        while let Some(turn) = open.line.call(now) {
            // Whoever has gone meanwhile leaves its place by itself.
            let _ = turn.send(());
        }
        let spare = open.line.give_up(now);
        let is_over = open.line.is_over() || (open.line.is_idle() && self.shutdown.is_draining());
        if is_over && spare.is_none() {
            lines.remove(line);
            return None;
        }
        Some((open.line.next_due(), spare))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LineKey, Open>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has nothing to wait for is told of every change.
async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// A charge as a part of what a line waits for. Whether an identity is new does not tell lines apart.
fn line_part(charge: &Charge<'_>) -> Option<(Key, u64)> {
    match charge.terms {
        Terms::Take => Some((charge.key, charge.cost)),
        Terms::Need => Some((charge.key, 0)),
        Terms::TakeIfNew(_) => None,
    }
}

// === impl Held ===

impl Held {
    /// What its limits were charged.
    fn charges(&self) -> ArrayVec<Charge<'_>, MAX_CHARGES> {
        self.charged.iter().map(|(limit, key, cost)| Charge { limit, key: *key, cost: *cost, terms: Terms::Take }).collect()
    }

    /// How its buckets stand now.
    fn standings(&self) -> Standings {
        let elapsed = self.reserved.elapsed();
        let later = |(place, standing): (usize, &Standing)| {
            self.charged.get(place).map_or(*standing, |(limit, ..)| limit.later(standing, elapsed))
        };
        self.standings.iter().enumerate().map(later).collect()
    }
}

// === impl Waiter ===

impl Waiter<'_> {
    /// Waits for its turn. Whoever others have pushed beyond its time asks the store once more, and learns when to come back.
    async fn wait(mut self, turn: oneshot::Receiver<()>, until: Instant, charges: &[Charge<'_>]) -> Decision {
        let began = Instant::now();
        // Called or not, there is a place or there is none.
        let _ = timeout_at(until + GRACE, turn).await;
        let place = self.pacing.lock().get_mut(&self.line).and_then(|open| open.line.take(self.ticket));
        self.is_done = true;
        if let Some(Place { proof, .. }) = place {
            self.policy.served.inc();
            self.policy.waited.observe(began.elapsed().as_secs_f64());
            return Decision::Admitted { standings: proof.standings(), receipt: proof.receipt };
        }
        self.policy.refused.inc();
        let pacing = self.pacing;
        drop(self);
        pacing.limiter.decide(charges).await
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.policy.waiting.dec();
        if !self.is_done {
            self.policy.left.inc();
        }
        if let Some(open) = self.pacing.lock().get_mut(&self.line) {
            open.line.leave(self.ticket);
            open.changed.notify_one();
        }
    }
}
