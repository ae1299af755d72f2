//! One connection to Redis, from the moment it proved itself to the moment it failed.
//!
//! Promised: every call answers within the deadline; decisions that have to wait for each other are [sent
//! together](super::batch); a call is sent again only when Redis said that it did not run the script; the reply to a call whose caller went away reaches nobody else (the crate pairs replies with calls in the order
//! of sending and drops those nobody awaits). A session that ended says so at once and does not come back.
//! Not promised: that a call without an answer did not charge. It may have, so it is never repeated.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use prometheus_client::metrics::histogram::Histogram;
use redis::{Cmd, RedisError, ServerError, ServerErrorKind, Value, aio::MultiplexedConnection};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, oneshot},
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{
    batch::{Batch, Gathering, Waiting},
    dial::{Dialer, Driver},
    end::{End, FAILURES_MAX},
    eviction,
    script::{Decision, KeySpace, Script},
    slots::{GROUPS, Redirect},
};
use crate::{config::Address, limiter::StoreError, stream::turn, workers::Caller};

/// Calls that may await their answers. It bounds what a slow Redis can pile up here: callers beyond it are refused at once.
/// Those whose callers went away are bounded by what the socket takes.
const IN_FLIGHT_MAX: usize = 4096;

/// One connection to Redis.
pub(super) struct Session {
    connection: MultiplexedConnection,
    /// By the group whose keys they are about: one call reaches no other.
    gatherings: Vec<Mutex<Gathering>>,
    runtime: Handle,
    duration: Histogram,
    in_flight: Semaphore,
    /// Calls without a verdict since the last with one.
    failures: AtomicU32,
    end: OnceLock<End>,
    ended: Notify,
}

/// What is to be asked, and by when it has to be answered.
pub(super) struct Call {
    question: Question,
    until: Instant,
}

enum Question {
    /// A script, called with what it is to be told.
    Alone(Script, Cmd),
    /// May share a call with others about keys of the same group.
    Gathered { group: u8, keys: KeySpace, decision: Decision },
}

/// A call for decisions about keys of one group, while it is in flight. When it is over, what gathered meanwhile is next.
struct Flight<'a> {
    session: &'a Arc<Session>,
    group: u8,
    keys: &'a KeySpace,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys are elsewhere; the script did not run.
    #[error("the keys are at {}", .0.address)]
    Redirected(Redirect),
}

// === impl Session ===

impl Session {
    /// Connects and loads the scripts. The caller bounds the time it takes.
    pub(super) async fn open(dialer: &Dialer, address: &Address, duration: Histogram) -> Result<(Arc<Self>, Driver), End> {
        let (mut connection, driver) = dialer.dial(address).await?;
        for script in Script::ALL {
            if let Value::ServerError(error) = load(&mut connection, script).await.map_err(End::connect)? {
                return Err(End::Unable(error.to_string()));
            }
        }
        eviction::warn_of(&mut connection).await;
        let session = Self {
            connection,
            gatherings: (0..GROUPS).map(|_| Mutex::default()).collect(),
            runtime: Handle::current(),
            duration,
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            failures: AtomicU32::new(0),
            end: OnceLock::new(),
            ended: Notify::new(),
        };
        Ok((Arc::new(session), driver))
    }

    /// Whether it still answers.
    pub(super) fn is_open(&self) -> bool {
        self.end.get().is_none()
    }

    /// Why it ended; `None` while it has not.
    pub(super) fn end(&self) -> Option<End> {
        self.end.get().cloned()
    }

    /// Resolves when it has ended.
    pub(super) async fn ended(&self) -> End {
        loop {
            if let Some(end) = self.end() {
                return end;
            }
            self.ended.notified().await;
        }
    }

    /// Makes `call` and reads its answer; `None` is no answer. With `asking`, the keys are on their way to this server, and it
    /// is to answer already.
    pub(super) async fn call<T>(
        self: &Arc<Self>,
        call: &Call,
        asking: bool,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, Failure> {
        let Ok(_permit) = self.in_flight.try_acquire() else { return Err(StoreError::Busy.into()) };
        let begin = Instant::now();
        let answer = timeout_at(call.until, self.answer(call, asking)).await;
        self.duration.observe(begin.elapsed().as_secs_f64());
        let failure = match answer.unwrap_or(Err(StoreError::Deadline)) {
            Ok(Value::ServerError(error)) => match Redirect::parse(&error) {
                Some(redirect) => return Err(Failure::Redirected(redirect)),
                None => self.refused(&error),
            },
            Ok(value) => match read(&value) {
                Some(answer) => {
                    // Reading is cheaper than writing where threads share the counter.
                    if self.failures.load(Ordering::Relaxed) > 0 {
                        self.failures.store(0, Ordering::Relaxed);
                    }
                    return Ok(answer);
                }
                None => StoreError::Refused,
            },
            Err(error) => error,
        };
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            self.end_with(End::Failing);
        }
        Err(failure.into())
    }

    /// Asks something that is no script. The caller bounds the time it takes.
    pub(super) async fn query(&self, command: &Cmd) -> Result<Value, End> {
        self.connection.clone().send_packed_command(command).await.map_err(End::connect)
    }

    async fn answer(self: &Arc<Self>, call: &Call, asking: bool) -> Result<Value, StoreError> {
        let (group, keys, decision) = match &call.question {
            Question::Alone(script, command) => return Box::pin(self.send(*script, command, asking)).await,
            Question::Gathered { group, keys, decision } => (*group, keys, decision),
        };
        // In a box: most decisions share the calls of others, and are not to carry the room for one.
        let alone = || {
            let command = keys.decide(Script::Charge.digest(), [decision]);
            Box::pin(async move { self.send(Script::Charge, &command, asking).await })
        };
        if asking {
            return alone().await;
        }
        let waiting = |caller| Waiting { decision: decision.clone(), caller, until: call.until };
        let answer = if let Some(answer) = self.gather(group, waiting) {
            answer
        } else {
            let _flight = Flight { session: self, group, keys };
            // Those who ask in the same moment share the call.
            turn().await;
            let Some(answer) = self.lead(group, waiting) else {
                return alone().await;
            };
            answer
        };
        // Without an answer it was given up, or the connection is lost.
        answer.await.map_err(|_| if self.is_open() { StoreError::Deadline } else { StoreError::Unreachable })
    }

    /// Has a decision wait for the call in flight; `None` where there is none, and now this one is.
    fn gather(&self, group: u8, waiting: impl FnOnce(Caller<Value>) -> Waiting) -> Option<oneshot::Receiver<Value>> {
        let mut gathering = self.gathering(group);
        if gathering.begin() {
            return None;
        }
        let (caller, answer) = Caller::here();
        gathering.add(waiting(caller));
        Some(answer)
    }

    /// Has the decision that a call is for wait with those who came meanwhile; `None` where nobody did.
    fn lead(&self, group: u8, waiting: impl FnOnce(Caller<Value>) -> Waiting) -> Option<oneshot::Receiver<Value>> {
        let (caller, answer) = Caller::here();
        self.gathering(group).lead(|| waiting(caller)).then_some(answer)
    }

    /// What the next call about keys of a group is to ask, now that the last is over.
    fn next(&self, group: u8) -> Option<Batch> {
        self.gathering(group).next()
    }

    fn gathering(&self, group: u8) -> MutexGuard<'_, Gathering> {
        self.gatherings[usize::from(group)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what gathered, call by call, until nobody waits.
    async fn send_gathered(self: Arc<Self>, group: u8, keys: KeySpace, first: Batch) {
        let mut next = Some(first);
        while let Some(batch) = next {
            let command = keys.decide(Script::Charge.digest(), batch.decisions());
            let until = batch.until().unwrap_or_else(Instant::now);
            // Who waited for what brought no answer learns that from its deadline, or as the batch is dropped.
            if let Ok(Ok(answer)) = timeout_at(until, self.send(Script::Charge, &command, false)).await {
                batch.answer(answer);
            }
            // Who is ready to ask by now shares the next call.
            yield_now().await;
            next = self.next(group);
        }
    }

    /// Sends a call; where Redis has forgotten the script, loads it and sends the call again. Only calls that were on their
    /// way when it forgot can load it, so there are never more such loads than calls in flight.
    async fn send(&self, script: Script, command: &Cmd, asking: bool) -> Result<Value, StoreError> {
        let mut connection = self.connection.clone();
        let sending = async {
            let answer = send_once(&mut connection, command, asking).await?;
            match &answer {
                Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript) => {
                    match load(&mut connection, script).await? {
                        Value::ServerError(error) => Ok(Value::ServerError(error)),
                        _ => send_once(&mut connection, command, asking).await,
                    }
                }
                _ => Ok(answer),
            }
        };
        sending.await.map_err(|_: RedisError| {
            self.end_with(End::Closed);
            StoreError::Unreachable
        })
    }

    fn refused(&self, error: &ServerError) -> StoreError {
        if cannot_serve(error.code()) {
            self.end_with(End::Unable(error.to_string()));
        }
        StoreError::Refused
    }

    /// Ends it, unless it has ended before.
    pub(super) fn end_with(&self, end: End) {
        if self.end.set(end).is_ok() {
            self.ended.notify_one();
        }
    }
}

// === impl Call ===

impl Call {
    /// Calls `script` with the command that `make` makes of its digest; it has to be answered by `until`.
    pub(super) fn new(script: Script, until: Instant, make: impl FnOnce(&str) -> Cmd) -> Self {
        Self { question: Question::Alone(script, make(script.digest())), until }
    }

    /// Asks for a decision about keys of `group`, which are those of `keys`.
    pub(super) fn decision(group: u8, keys: KeySpace, decision: Decision, until: Instant) -> Self {
        Self { question: Question::Gathered { group, keys, decision }, until }
    }
}

// === impl Flight ===

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.session.next(self.group) {
            let session = Arc::clone(self.session);
            self.session.runtime.spawn(session.send_gathered(self.group, self.keys.clone(), batch));
        }
    }
}

// === impl Failure ===

impl Failure {
    /// For callers that go nowhere else: a server that sends them elsewhere has refused.
    pub(super) fn final_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Redirected(_) => StoreError::Refused,
        }
    }
}

/// Has Redis keep a script.
async fn load(connection: &mut MultiplexedConnection, script: Script) -> Result<Value, RedisError> {
    let mut command = Cmd::new();
    command.arg("SCRIPT").arg("LOAD").arg(script.source());
    connection.send_packed_command(&command).await
}

async fn send_once(connection: &mut MultiplexedConnection, command: &Cmd, asking: bool) -> Result<Value, RedisError> {
    if !asking {
        return connection.send_packed_command(command).await;
    }
    // Nothing may come between the two, and nothing does in a pipeline.
    let mut both = redis::pipe();
    both.cmd("ASKING").add_command(command.clone());
    let answers = connection.send_packed_commands(&both, 0, 2).await?;
    Ok(answers.into_iter().last().unwrap_or(Value::Nil))
}

/// Whether an error code says that no call can succeed here for now, rather than that this one did not.
fn cannot_serve(code: &str) -> bool {
    const CODES: [&str; 11] = [
        "READONLY",
        "LOADING",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "NOAUTH",
        "NOPERM",
        "WRONGPASS",
        "OOM",
        "BUSY",
        "MISCONF",
        "NOREPLICAS",
    ];
    CODES.contains(&code)
}
