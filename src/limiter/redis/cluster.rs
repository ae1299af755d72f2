//! The primaries of a Redis Cluster: a link to each, and who of them is asked.
//!
//! Promised: a call goes to the server that holds its keys. Who does is asked once a second, and at once when a server sends
//! us elsewhere or is lost. A call that was sent elsewhere did not run; it is made there once, within the same deadline, if
//! there is a link to there already. Keys whose primary is away have no server; the others are decided on as ever.
//! Not promised: that the Cluster is up while it decides on some keys only: it is up when it decides on all of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use prometheus_client::metrics::gauge::Gauge;
use redis::{Cmd, Value};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    link::{Common, Link, Server, Up},
    script::{Change, KeySpace},
    session::{Call, Failure},
    slots::{GROUPS, SlotMap, groups},
};
use crate::{
    config::{Address, Factor},
    limiter::{StoreError, scale::ScaleName},
};

/// Time between questions who holds what, while all is well.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The same while something is amiss.
const REPAIR_INTERVAL: Duration = Duration::from_millis(250);

/// The shortest time between them: a storm of redirections must not become one of questions.
const REFRESH_PAUSE: Duration = Duration::from_millis(20);

/// The longest that one node is waited for.
const ASK_TIMEOUT: Duration = Duration::from_millis(200);

/// A Redis Cluster.
pub(super) struct Cluster {
    common: Arc<Common>,
    seeds: Vec<Address>,
    /// By group.
    spaces: Arc<[KeySpace]>,
    primaries: ArcSwap<Primaries>,
    /// Says that who holds what has to be asked anew.
    stale: Notify,
    up: Up,
}

/// The primaries that hold keys of ours.
#[derive(Default)]
struct Primaries {
    by_address: BTreeMap<Address, Arc<Link>>,
    /// By group; `None` while nobody holds it.
    by_group: Vec<Option<Arc<Link>>>,
}

/// The tasks that keep links up.
type Keepers = BTreeMap<Address, AbortOnDropHandle<()>>;

// === impl Cluster ===

impl Cluster {
    pub(super) fn new(common: Arc<Common>, seeds: Vec<Address>, spaces: Arc<[KeySpace]>, gauge: Gauge) -> Self {
        let (primaries, up) = (ArcSwap::default(), Up::new(gauge));
        Self { common, seeds, spaces, primaries, stale: Notify::new(), up }
    }

    /// Whether it decides on all keys, and when that changes.
    pub(super) fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Makes a call about keys of `group`.
    pub(super) async fn call<T>(&self, group: u8, call: &Call, read: impl Fn(&Value) -> Option<T>) -> Result<T, StoreError> {
        let primaries = self.primaries.load_full();
        let link = primaries.by_group.get(usize::from(group)).and_then(Option::as_ref);
        let session = link.ok_or(StoreError::Unreachable)?.session()?;
        let redirect = match session.call(call, false, &read).await {
            Err(Failure::Redirected(redirect)) => redirect,
            answer => return answer.map_err(Failure::final_error),
        };
        if !redirect.asking {
            self.stale.notify_one();
        }
        let link = primaries.by_address.get(&redirect.address).ok_or(StoreError::Refused)?;
        link.session()?.call(call, redirect.asking, &read).await.map_err(Failure::final_error)
    }

    /// Whether there is a session with who holds the keys of `group`.
    pub(super) fn reaches(&self, group: u8) -> bool {
        let primaries = self.primaries.load();
        let link = primaries.by_group.get(usize::from(group)).and_then(Option::as_ref);
        link.is_some_and(|link| link.session().is_ok())
    }

    /// Publishes a factor to every primary.
    pub(super) async fn publish(&self, scale: &ScaleName, factor: Factor) -> Result<(), StoreError> {
        let primaries = self.primaries.load_full();
        let mut published = if primaries.by_address.is_empty() { Err(StoreError::Unreachable) } else { Ok(()) };
        for link in primaries.by_address.values() {
            let publication = match link.session() {
                Ok(session) => link.publish(&session, scale, factor, Change::Switch).await,
                Err(error) => Err(error),
            };
            published = publication.and(published);
        }
        published
    }

    /// Keeps links to all primaries up for as long as it is polled.
    pub(super) async fn keep_up(self: &Arc<Self>) {
        let mut keepers = Keepers::new();
        let mut known = None;
        let mut is_silent = false;
        loop {
            let map = self.ask().await;
            if map.is_none() && !is_silent {
                let cause = "no node of the Cluster says who holds what";
                tracing::warn!(event = "store_down", cause, "Redis is not deciding: {cause}");
                self.common.last_cause.store(Some(Arc::new(cause.to_owned())));
            }
            is_silent = map.is_none();
            if let Some(map) = map.filter(|map| known.as_ref() != Some(map)) {
                self.assign(&map, &mut keepers);
                known = Some(map);
            }
            self.note();
            let pause = if *self.up().borrow() { REFRESH_INTERVAL } else { REPAIR_INTERVAL };
            sleep(REFRESH_PAUSE).await;
            let _ = timeout(pause, self.stale.notified()).await;
        }
    }

    /// Lets go of all links for good.
    pub(super) fn fall(&self) {
        self.primaries.store(Arc::default());
        self.up.set(false);
    }

    /// Who holds what, as the first says that can be asked: one that we have a session with, chosen at random, or anyone.
    async fn ask(&self) -> Option<SlotMap> {
        let question = redis::cmd("CLUSTER").arg("SLOTS").take();
        let primaries = self.primaries.load_full();
        let known = primaries.by_address.len();
        let first = fastrand::usize(..known.max(1));
        for (address, link) in primaries.by_address.iter().cycle().skip(first).take(known) {
            let Ok(session) = link.session() else { continue };
            let answer = timeout(ASK_TIMEOUT, session.query(&question)).await;
            if let Some(map) = answer.ok().and_then(Result::ok).and_then(|reply| SlotMap::parse(&reply, address)) {
                return Some(map);
            }
        }
        for address in primaries.by_address.keys().chain(&self.seeds) {
            let answer = timeout(ASK_TIMEOUT, self.ask_stranger(address, &question)).await;
            if let Some(map) = answer.ok().flatten() {
                return Some(map);
            }
        }
        None
    }

    async fn ask_stranger(&self, address: &Address, question: &Cmd) -> Option<SlotMap> {
        let (mut connection, _driver) = self.common.dialer.dial(address).await.ok()?;
        SlotMap::parse(&connection.send_packed_command(question).await.ok()?, address)
    }

    /// Gives each group to the link with who holds it; new holders get links, and those that hold nothing lose theirs.
    fn assign(self: &Arc<Self>, map: &SlotMap, keepers: &mut Keepers) {
        let mut held = BTreeMap::<&Address, Vec<KeySpace>>::new();
        for ((group, _), keys) in groups().zip(self.spaces.iter()) {
            if let Some(address) = map.holder(group) {
                held.entry(address).or_default().push(keys.clone());
            }
        }
        keepers.retain(|address, _| held.contains_key(address));
        let before = self.primaries.load_full();
        let by_address: BTreeMap<_, _> = held
            .into_iter()
            .map(|(address, spaces)| {
                let Some(link) = before.by_address.get(address) else {
                    return (address.clone(), self.connect(address, spaces, keepers));
                };
                link.answer_for(spaces);
                (address.clone(), link.clone())
            })
            .collect();
        let link_of = |group| by_address.get(map.holder(group)?).cloned();
        let by_group = groups().map(|(group, _)| link_of(group)).collect();
        self.primaries.store(Arc::new(Primaries { by_address, by_group }));
    }

    /// A link to `address`, with a task that keeps it up and says when it is lost.
    fn connect(self: &Arc<Self>, address: &Address, spaces: Vec<KeySpace>, keepers: &mut Keepers) -> Arc<Link> {
        let server = Server::Fixed(address.clone());
        let link = Arc::new(Link::new(self.common.clone(), server, spaces, Gauge::default()));
        let (cluster, kept) = (self.clone(), link.clone());
        let keeper = async move {
            let mut changes = kept.up();
            let noting = async {
                while changes.changed().await.is_ok() {
                    cluster.note();
                    cluster.stale.notify_one();
                }
            };
            tokio::select! {
                () = kept.keep_up() => {}
                () = noting => {}
            }
        };
        keepers.insert(address.clone(), AbortOnDropHandle::new(tokio::spawn(keeper)));
        link
    }

    /// Says whether it decides on all keys now.
    fn note(&self) {
        self.up.set_with(|| {
            let primaries = self.primaries.load();
            let is_whole = primaries.by_group.len() == GROUPS && primaries.by_group.iter().all(Option::is_some);
            is_whole && primaries.by_address.values().all(|link| link.session().is_ok())
        });
    }
}
