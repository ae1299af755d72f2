//! Keeps a session with Redis up: one task that connects, proves the session by a real decision, watches it, and starts
//! over when it ends.
//!
//! Promised: whoever asks gets a session that has proved itself, or none, at once and without touching a socket; there is
//! one again within a second after Redis serves again. One line is logged for each change.
//! Not promised: that the session outlives the answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};
use redis::ConnectionInfo;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{
    script::{self, Change, Flow, KeySpace, Script},
    session::{Driver, End, Session},
};
use crate::{
    config::Factor,
    limiter::{
        Charge, Limit, StoreError, Terms, Verdict,
        bucket::{Bucket, MICRO},
        key::Key,
        scale::ScaleName,
    },
};

/// Time from probe to probe of a session that is up.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The longest that one attempt to connect takes, unless the deadline of a single call is longer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// The first pause between attempts; each doubles it.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);

/// The longest pause between attempts: with an attempt's own time it keeps the way back under a second.
const BACK_OFF_MAX: Duration = Duration::from_millis(500);

/// A session that lived so long was a good one: the pauses begin anew.
const GOOD_SESSION: Duration = Duration::from_secs(1);

/// A bucket that is full again within a microsecond, so that a charge of it always writes: only a Redis that lets us write
/// is up.
static PROBE: Limit = Limit { bucket: Bucket { capacity: MICRO, rate: MICRO * MICRO }, scale: None, slowest: Factor::ONE };

/// What connects to Redis, and what the task has made of it.
pub(super) struct Link {
    pub(super) info: ConnectionInfo,
    pub(super) keys: KeySpace,
    pub(super) deadline: Duration,
    /// The factors in force; a Redis that lost its state gets them before it decides anything.
    pub(super) factors: Mutex<BTreeMap<ScaleName, Factor>>,
    pub(super) metrics: LinkMetrics,
    session: ArcSwapOption<Session>,
    up: watch::Sender<bool>,
}

/// What a link counts.
pub(super) struct LinkMetrics {
    pub(super) up: Gauge,
    pub(super) connects: Counter,
    pub(super) duration: Histogram,
}

// === impl Link ===

impl Link {
    pub(super) fn new(info: ConnectionInfo, keys: KeySpace, deadline: Duration, metrics: LinkMetrics) -> Self {
        Self {
            info,
            keys,
            deadline,
            factors: Mutex::default(),
            metrics,
            session: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
        }
    }

    /// A session to use now.
    pub(super) fn session(&self) -> Result<Arc<Session>, StoreError> {
        self.session.load_full().filter(|session| session.is_open()).ok_or(StoreError::Unreachable)
    }

    /// Whether there is a session, and when that changes.
    pub(super) fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Keeps a session up for as long as it is polled.
    pub(super) async fn keep_up(&self) {
        let mut attempt = 0;
        let mut was_up = true;
        loop {
            let end = match self.connect().await {
                Ok((session, driver)) => {
                    let began = Instant::now();
                    self.rise(&session);
                    was_up = true;
                    let end = self.watch(&session, driver).await;
                    attempt = if began.elapsed() < GOOD_SESSION { attempt } else { 0 };
                    end
                }
                Err(end) => end,
            };
            self.fall();
            if was_up {
                tracing::warn!(event = "store_down", cause = %end, "Redis is not deciding: {end}");
                was_up = false;
            }
            sleep(back_off(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Lets go of the session for good.
    pub(super) fn fall(&self) {
        self.session.store(None);
        self.metrics.up.set(0);
        self.up.send_replace(false);
    }

    fn rise(&self, session: &Arc<Session>) {
        self.session.store(Some(session.clone()));
        self.metrics.up.set(1);
        self.metrics.connects.inc();
        self.up.send_replace(true);
        tracing::info!(event = "store_up", "Redis is deciding");
    }

    /// A session that has got the factors in force and decided once.
    async fn connect(&self) -> Result<(Arc<Session>, Driver), End> {
        let attempt = async {
            let (session, driver) = Session::open(&self.info, self.deadline, self.metrics.duration.clone()).await?;
            self.publish_all(&session).await;
            match self.probe(&session).await {
                Ok(_) => Ok((Arc::new(session), driver)),
                Err(error) => Err(session.end().unwrap_or_else(|| End::connect(error))),
            }
        };
        timeout(ATTEMPT_TIMEOUT.max(self.deadline), attempt).await.unwrap_or_else(|late| Err(End::connect(late)))
    }

    /// Resolves when the session has ended.
    async fn watch(&self, session: &Session, mut driver: Driver) -> End {
        // Once more, for a factor that came into force while there was no session to restore it by.
        let probing = async {
            self.publish_all(session).await;
            let mut probes = interval_at(Instant::now() + PROBE_INTERVAL, PROBE_INTERVAL);
            probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                probes.tick().await;
                // Its failure counts against the session as any other call's.
                let _ = self.probe(session).await;
            }
        };
        tokio::select! {
            _ = &mut driver => End::Closed,
            end = session.ended() => end,
            never = probing => never,
        }
    }

    async fn probe(&self, session: &Session) -> Result<Verdict, StoreError> {
        let charge = [Charge { limit: &PROBE, key: Key::PROBE, cost: MICRO, terms: Terms::Take }];
        let make = |digest: &str| self.keys.charge(digest, Flow::Take, &charge);
        session.call(Script::Charge, make, |reply| script::verdict(reply, &charge)).await
    }

    /// Restores the factors in force where Redis has none. A failure counts against the session.
    async fn publish_all(&self, session: &Session) {
        let factors = self.factors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (scale, factor) in factors {
            let _ = self.publish(session, &scale, factor, Change::Restore).await;
        }
    }

    pub(super) async fn publish(
        &self,
        session: &Session,
        scale: &ScaleName,
        factor: Factor,
        change: Change,
    ) -> Result<(), StoreError> {
        session.call(Script::Publish, |digest| self.keys.publish(digest, scale, factor, change), |_| Some(())).await
    }
}

/// A pause before attempt number `attempt`, at random between half of its bound and the whole, so that replicas which lost
/// Redis together do not come back together.
fn back_off(attempt: u32) -> Duration {
    let bound = BACK_OFF_MIN.saturating_mul(2_u32.saturating_pow(attempt)).min(BACK_OFF_MAX);
    bound.mul_f64(0.5 + fastrand::f64() / 2.0)
}
