//! One signal as one replica of the fleet sees it: the replica that holds the signal's lease polls it, the others learn from
//! the store what it found.
//!
//! Promised: a lease lasts one interval and is renewed at least four times in it, during a poll too, so that another replica
//! polls within two intervals after its holder died, and at once after it stopped; a replica that hears nothing from the
//! store for an interval polls for itself. What was found last is no older for having changed hands.
//! Not promised: that nobody polls at the same time as a replica that is cut off from the store.

use std::{pin::pin, sync::Arc, time::Duration};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{course::Course, poll::Signal};
use crate::{
    config::{self, Factor},
    limiter::{
        Limiter, Status,
        lease::{Answer, Claim, Reading},
    },
};

/// The longest time between two looks at the store: how late a replica may learn of a change.
const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// The longest that a starting replica waits for the store before it polls for itself.
const START_GRACE: Duration = Duration::from_secs(1);

/// A replica's part in polling one signal.
pub(super) struct Member {
    signal: Arc<Signal>,
    limiter: Arc<Limiter>,
    /// Shows whether this replica polls.
    leader: Gauge,
    /// Tells this replica from every other.
    caller: u64,
    role: Role,
    /// From when on a silent store makes this replica poll for itself.
    alone_at: Instant,
    next_poll: Instant,
    known: Known,
}

/// Who polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// This replica, for the fleet.
    Leads,
    /// Another, as far as the store knows.
    Follows,
    /// This replica, for itself.
    Alone,
}

/// The last good sample, and what became of it.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// When the sample was taken; before the first, when the wait for it began.
    since: Instant,
    /// `None` before the first.
    course: Option<Course>,
    /// Up to when the course has advanced.
    advanced: Instant,
}

/// What is known of a signal.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    /// The factor in force; `None` before the first sample.
    pub(super) factor: Option<Factor>,
    /// Whether this replica polls the signal.
    pub(super) here: bool,
}

// === impl Member ===

impl Member {
    pub(super) fn new(signal: Signal, limiter: Arc<Limiter>, leader: Gauge, caller: u64) -> Self {
        let now = Instant::now();
        let grace = if limiter.status() == Status::Embedded { Duration::ZERO } else { START_GRACE };
        let alone_at = now + grace.min(signal.source.config.interval);
        let known = Known { since: now, course: None, advanced: now };
        Self { signal: signal.into(), limiter, leader, caller, role: Role::Follows, alone_at, next_poll: now, known }
    }

    /// Takes part for ever; `publish` learns at each look what is known.
    pub(super) async fn take_part(&mut self, publish: impl Fn(Found)) {
        let mut looks = interval(self.look_interval());
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look().await;
            let failed = self.polls() && Instant::now() >= self.next_poll && !self.poll().await;
            if self.polls() {
                self.known.advance(Instant::now(), &self.signal.source.config);
            }
            publish(Found { factor: self.known.factor(), here: self.polls() });
            if failed && self.role == Role::Leads && self.known.is_stale(Instant::now(), &self.signal.source.config) {
                // Another may be able to reach the endpoint; this one claims the lease again with its own next poll.
                self.role = Role::Follows;
            }
        }
    }

    /// Gives the lease up, so that another replica can poll at once.
    pub(super) async fn leave(&mut self) {
        if self.role == Role::Leads {
            let claim = Claim { lifetime: Duration::ZERO, ..self.claim(Instant::now()) };
            self.limiter.lead(&claim).await;
        }
        self.leader.set(0);
    }

    fn look_interval(&self) -> Duration {
        (self.signal.source.config.interval / 4).min(LOOK_INTERVAL_MAX)
    }

    fn polls(&self) -> bool {
        self.role != Role::Follows
    }

    /// Renews, claims or gives up the lease, and learns what the store says.
    async fn look(&mut self) {
        let now = Instant::now();
        match self.limiter.lead(&self.claim(now)).await {
            Some(answer) => self.heed(answer, now),
            None if now >= self.alone_at => self.role = Role::Alone,
            None => {}
        }
        self.leader.set(i64::from(self.polls()));
    }

    fn claim(&self, now: Instant) -> Claim<'_> {
        let wants = self.polls() || now >= self.next_poll;
        let lifetime = if wants { self.signal.source.config.interval } else { Duration::ZERO };
        Claim { signal: &self.signal.source.name, caller: self.caller, lifetime, reading: self.known.reading(now) }
    }

    fn heed(&mut self, answer: Answer, now: Instant) {
        self.alone_at = now + self.signal.source.config.interval;
        self.role = if answer.leads { Role::Leads } else { Role::Follows };
        // The holder of the lease hears its own words, unless another had later ones.
        if let Some(reading) = answer.reading
            && (!answer.leads || self.known.factor() != Some(reading.factor))
        {
            let since = now.checked_sub(reading.age).unwrap_or(now);
            self.known = Known { since, course: Some(Course::begin(reading.factor)), advanced: now };
        }
    }

    /// Takes one sample, and keeps the lease meanwhile. Says whether it was good.
    async fn poll(&mut self) -> bool {
        let signal = Arc::clone(&self.signal);
        let mut sampling = pin!(signal.sample_in_time());
        let found = loop {
            tokio::select! {
                found = &mut sampling => break found,
                () = sleep(self.look_interval()) => self.look().await,
            }
        };
        let now = Instant::now();
        self.next_poll = now + signal.source.config.interval;
        if let (Some(found), true) = (found, self.polls()) {
            self.known.learn(found, now, &signal.source.config);
        }
        found.is_some()
    }
}

// === impl Known ===

impl Known {
    fn factor(&self) -> Option<Factor> {
        self.course.map(Course::in_force)
    }

    fn reading(&self, now: Instant) -> Option<Reading> {
        Some(Reading { factor: self.factor()?, age: now.saturating_duration_since(self.since) })
    }

    fn is_stale(&self, now: Instant, config: &config::Load) -> bool {
        now.saturating_duration_since(self.since) >= config.stale_after
    }

    /// Takes in a good sample.
    fn learn(&mut self, found: Factor, now: Instant, config: &config::Load) {
        self.since = now;
        self.aim(found, now, config);
    }

    /// Goes on to `now`: the factor rises on, and the last good sample grows stale.
    fn advance(&mut self, now: Instant, config: &config::Load) {
        if self.is_stale(now, config) {
            self.aim(config.stale_factor.max(config.min_refill_share), now, config);
        }
        let elapsed = now.saturating_duration_since(self.advanced);
        self.course = self.course.map(|course| course.advance(elapsed, config.max_rise_per_second));
        self.advanced = now;
    }

    fn aim(&mut self, factor: Factor, now: Instant, config: &config::Load) {
        if self.course.is_none() {
            self.advanced = now;
        }
        self.course = Some(self.course.map_or(Course::begin(factor), |course| course.aim(factor, config.hysteresis)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_last_good_sample_stays_until_it_is_stale() {
        let config = config::Load { stale_factor: Factor::new(0.7).unwrap(), ..Config::default().load["backend"].clone() };
        let began = Instant::now();
        let good = Factor::new(0.3).unwrap();
        let nearly = config.stale_after.saturating_sub(Duration::from_millis(1));
        let later = config.stale_after + Duration::from_mins(1);
        // The first sample, the times at which the course is looked at → the factor then.
        let cases: [(Option<Factor>, &[Duration], Option<Factor>); 6] = [
            (Some(good), &[Duration::ZERO], Some(good)),
            (Some(good), &[nearly], Some(good)),
            (Some(good), &[nearly, later], Some(config.stale_factor)),
            (None, &[nearly], None),
            (None, &[nearly, config.stale_after], Some(config.stale_factor)),
            (None, &[nearly, config.stale_after, later], Some(config.stale_factor)),
        ];
        for (first, ages, expected) in cases {
            let mut known = Known { since: began, course: first.map(Course::begin), advanced: began };
            for age in ages {
                known.advance(began + *age, &config);
            }
            assert_eq!(known.factor(), expected, "{first:?} after {ages:?}");
        }
    }
}
