//! Keeps a session with one server up: one task that finds it, connects, proves the session by a real decision, watches it,
//! and starts over when it ends.
//!
//! Promised: whoever asks gets a session that has proved itself, or none, at once and without touching a socket; there is
//! one again within a second after Redis serves again. With Sentinels the server is the master: they are asked anew for each
//! connection, and once a second whether it still is. One line is logged for each change.
//! Not promised: that the session outlives the answer.

use std::{
    collections::BTreeMap,
    fmt,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{
    dial::{Dialer, Driver},
    end::End,
    script::{self, Change, Flow, KeySpace, Script},
    sentinel::{Sentinels, check_role},
    session::{Call, Failure, Session},
};
use crate::{
    config::{Address, Factor},
    limiter::{
        Charge, Kind, Limit, StoreError, Terms, Verdict,
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
static PROBE: Limit =
    Limit { kind: Kind::Bucket(Bucket { capacity: MICRO, rate: MICRO * MICRO }), scale: None, slowest: Factor::ONE };

/// What connects to a server, and what the task has made of it.
pub(super) struct Link {
    common: Arc<Common>,
    server: Server,
    /// Whose keys it has; at least one. A session is proved by the first.
    spaces: ArcSwap<Vec<KeySpace>>,
    session: ArcSwapOption<Session>,
    up: Up,
}

/// What all links of a store have in common.
pub(super) struct Common {
    pub(super) dialer: Dialer,
    pub(super) deadline: Duration,
    /// The factors in force; a Redis that lost its state gets them before it decides anything.
    pub(super) factors: Mutex<BTreeMap<ScaleName, Factor>>,
    /// Why a link was lost the last time, or could not be made the first time.
    pub(super) last_cause: ArcSwapOption<String>,
    pub(super) connects: Counter,
    pub(super) duration: Histogram,
}

/// Which server a link is to.
pub(super) enum Server {
    /// This one.
    Fixed(Address),
    /// The one that Sentinels name.
    Named(Sentinels),
}

/// Whether somebody decides, for whoever wants to know.
pub(super) struct Up {
    sender: watch::Sender<bool>,
    gauge: Gauge,
}

// === impl Link ===

impl Link {
    pub(super) fn new(common: Arc<Common>, server: Server, spaces: Vec<KeySpace>, gauge: Gauge) -> Self {
        let (spaces, up) = (ArcSwap::from_pointee(spaces), Up::new(gauge));
        Self { common, server, spaces, session: ArcSwapOption::empty(), up }
    }

    /// A session to use now.
    pub(super) fn session(&self) -> Result<Arc<Session>, StoreError> {
        self.session.load_full().filter(|session| session.is_open()).ok_or(StoreError::Unreachable)
    }

    /// Whether there is a session, and when that changes.
    pub(super) fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// From now on it has the keys of `spaces`, of which there is at least one.
    pub(super) fn answer_for(&self, spaces: Vec<KeySpace>) {
        self.spaces.store(Arc::new(spaces));
    }

    /// Keeps a session up for as long as it is polled.
    pub(super) async fn keep_up(&self) {
        let mut attempt = 0;
        let mut was_up = true;
        loop {
            let end = match self.connect().await {
                Ok((session, driver, address)) => {
                    let began = Instant::now();
                    self.rise(&session);
                    was_up = true;
                    let end = self.watch(&session, driver, &address).await;
                    attempt = if began.elapsed() < GOOD_SESSION { attempt } else { 0 };
                    end
                }
                Err(end) => end,
            };
            // First the cause, so that whoever learns of the fall can also ask why.
            if was_up {
                self.common.last_cause.store(Some(Arc::new(end.to_string())));
            }
            self.fall();
            if was_up {
                tracing::warn!(event = "store_down", store = %self.server, cause = %end, "Redis is not deciding: {end}");
                was_up = false;
            }
            sleep(back_off(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Lets go of the session for good.
    pub(super) fn fall(&self) {
        self.session.store(None);
        self.up.set(false);
    }

    fn rise(&self, session: &Arc<Session>) {
        self.session.store(Some(session.clone()));
        self.common.connects.inc();
        self.up.set(true);
        tracing::info!(event = "store_up", store = %self.server, "Redis is deciding");
    }

    /// A session that has got the factors in force and decided once, and whom it is with.
    async fn connect(&self) -> Result<(Arc<Session>, Driver, Address), End> {
        let address = self.server.find().await?;
        let attempt = async {
            let (session, driver) = Session::open(&self.common.dialer, &address, self.common.duration.clone()).await?;
            self.server.check(&session).await?;
            self.publish_all(&session).await;
            match self.probe(&session).await {
                Ok(_) => Ok((session, driver)),
                Err(Failure::Redirected(redirect)) => Err(End::Moved(redirect.address)),
                Err(Failure::Store(error)) => Err(session.end().unwrap_or_else(|| End::connect(error))),
            }
        };
        let attempt = timeout(ATTEMPT_TIMEOUT.max(self.common.deadline), attempt).await;
        let (session, driver) = attempt.unwrap_or_else(|late| Err(End::connect(late)))?;
        Ok((session, driver, address))
    }

    /// Resolves when the session has ended, or is with the wrong server.
    async fn watch(&self, session: &Arc<Session>, mut driver: Driver, address: &Address) -> End {
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
            end = self.server.deposed(address) => end,
            never = probing => never,
        }
    }

    async fn probe(&self, session: &Arc<Session>) -> Result<Verdict, Failure> {
        let spaces = self.spaces.load_full();
        let Some(keys) = spaces.first() else { return Err(StoreError::Refused.into()) };
        let charge = [Charge { limit: &PROBE, key: Key::PROBE, cost: MICRO, terms: Terms::Take }];
        let call = Call::new(Script::Charge, self.common.until(), |digest| keys.charge(digest, Flow::Take, &charge));
        session.call(&call, false, |reply| script::verdict(reply, &charge)).await
    }

    /// Restores the factors in force where Redis has none. A failure counts against the session.
    async fn publish_all(&self, session: &Arc<Session>) {
        let factors = self.common.factors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (scale, factor) in factors {
            let _ = self.publish(session, &scale, factor, Change::Restore).await;
        }
    }

    /// Publishes a factor in all spaces at once.
    pub(super) async fn publish(
        &self,
        session: &Arc<Session>,
        scale: &ScaleName,
        factor: Factor,
        change: Change,
    ) -> Result<(), StoreError> {
        let mut publications = JoinSet::new();
        for keys in self.spaces.load().iter() {
            let session = session.clone();
            let make = |digest: &str| keys.publish(digest, scale, factor, change);
            let call = Call::new(Script::Publish, self.common.until(), make);
            publications.spawn(async move { session.call(&call, false, |_| Some(())).await });
        }
        let mut published = Ok(());
        while let Some(publication) = publications.join_next().await {
            published = publication.unwrap_or(Err(StoreError::Refused.into())).map_err(Failure::final_error).and(published);
        }
        published
    }
}

// === impl Common ===

impl Common {
    /// The latest moment at which a call that begins now may be answered.
    pub(super) fn until(&self) -> Instant {
        Instant::now() + self.deadline
    }
}

// === impl Server ===

impl Server {
    async fn find(&self) -> Result<Address, End> {
        match self {
            Self::Fixed(address) => Ok(address.clone()),
            Self::Named(sentinels) => sentinels.master().await,
        }
    }

    /// Whether the server agrees that it is the one.
    async fn check(&self, session: &Session) -> Result<(), End> {
        match self {
            Self::Fixed(_) => Ok(()),
            Self::Named(_) => check_role(session).await,
        }
    }

    /// Resolves when it is no longer the server at `address`. While no Sentinel can be asked, it is.
    async fn deposed(&self, address: &Address) -> End {
        let Self::Named(sentinels) = self else { return pending().await };
        loop {
            sleep(PROBE_INTERVAL).await;
            if sentinels.master().await.is_ok_and(|master| master != *address) {
                return End::Deposed;
            }
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => address.fmt(formatter),
            Self::Named(sentinels) => formatter.write_str(sentinels.name()),
        }
    }
}

// === impl Up ===

impl Up {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { sender: watch::Sender::new(false), gauge }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.sender.subscribe()
    }

    pub(super) fn set(&self, up: bool) {
        self.set_with(|| up);
    }

    /// Sets what `up` says. Of several at once the last has the last word.
    pub(super) fn set_with(&self, up: impl FnOnce() -> bool) {
        self.sender.send_if_modified(|known| {
            let before = std::mem::replace(known, up());
            self.gauge.set(i64::from(*known));
            *known != before
        });
    }
}

/// A pause before attempt number `attempt`, at random between half of its bound and the whole, so that replicas which lost
/// Redis together do not come back together.
fn back_off(attempt: u32) -> Duration {
    let bound = BACK_OFF_MIN.saturating_mul(2_u32.saturating_pow(attempt)).min(BACK_OFF_MAX);
    bound.mul_f64(0.5 + fastrand::f64() / 2.0)
}
