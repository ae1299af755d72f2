//! The threads that serve connections, each with a runtime of its own.
//!
//! A connection stays with the thread that it is given to, and so do the tasks that serve it, and the connections to
//! upstreams that those tasks open: no thread wakes another for them, and what one works with is in its processor's cache.
//! Promised: a connection goes to the thread that serves the fewest; where there is one processor, there is one thread.
//! Not promised: that connections move once some turn out to be busier than others.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tokio_util::sync::{CancellationToken, DropGuard};

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Threads that connections can be given to. The threads end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    workers: Box<[Worker]>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: AtomicUsize,
}

/// A connection's place at a thread, until it is dropped.
#[derive(Debug)]
pub struct Assignment {
    workers: Workers,
    worker: usize,
}

/// Somebody who waits for an answer, and the thread to be woken for it.
#[derive(Debug)]
pub struct Caller<T> {
    answer: oneshot::Sender<T>,
    worker: usize,
    /// `None` outside of any runtime, where nobody has to be woken.
    runtime: Option<Handle>,
}

/// Which of the threads this is, counted from 0, which is also what a thread is that serves no connections.
pub fn current() -> usize {
    CURRENT.get()
}

/// Has this thread be one of them, for tests.
#[cfg(test)]
pub(crate) fn pretend(worker: usize) {
    CURRENT.set(worker);
}

/// Gives each caller its answer. Those who wait on another thread get theirs together, because each time that a thread is
/// woken is a call of the kernel. Who has gone meanwhile needs no answer.
pub fn answer<T: Send + 'static>(answers: impl IntoIterator<Item = (Caller<T>, T)>) {
    let mut elsewhere = BTreeMap::new();
    for (caller, answer) in answers {
        match caller.runtime {
            Some(runtime) if caller.worker != current() => {
                let (_, answers) = elsewhere.entry(caller.worker).or_insert_with(|| (runtime, Vec::new()));
                answers.push((caller.answer, answer));
            }
            _ => drop(caller.answer.send(answer)),
        }
    }
    for (runtime, answers) in elsewhere.into_values() {
        runtime.spawn(async {
            for (caller, answer) in answers {
                let _ = caller.send(answer);
            }
        });
    }
}

// === impl Workers ===

impl Workers {
    /// So many threads: the one that calls, which must be inside a runtime of its own, and others beside it.
    pub fn start(count: NonZero<usize>) -> io::Result<Self> {
        let end = CancellationToken::new();
        // Whatever happens from here on, the threads end.
        let guard = end.clone().drop_guard();
        let mut runtimes = vec![Handle::current()];
        for number in 1..count.get() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let ended = end.clone().cancelled_owned();
            thread::Builder::new().name(format!("cxgate-{number}")).spawn(move || {
                CURRENT.set(number);
                runtime.block_on(ended);
            })?;
        }
        Ok(Self::of(runtimes, guard))
    }

    /// The thread that calls alone. It must be inside a runtime.
    pub fn alone() -> Self {
        Self::of(vec![Handle::current()], CancellationToken::new().drop_guard())
    }

    fn of(runtimes: Vec<Handle>, end: DropGuard) -> Self {
        let worker = |runtime| Worker { runtime, connections: AtomicUsize::new(0) };
        Self(Arc::new(Inner { workers: runtimes.into_iter().map(worker).collect(), _end: end }))
    }

    /// A place at the thread that serves the fewest connections.
    pub fn assign(&self) -> Assignment {
        let workers = self.0.workers.iter().map(|worker| worker.connections.load(Relaxed)).enumerate();
        let worker = workers.min_by_key(|(_, connections)| *connections).map_or(0, |(worker, _)| worker);
        let assignment = Assignment { workers: self.clone(), worker };
        assignment.worker().connections.fetch_add(1, Relaxed);
        assignment
    }
}

// === impl Caller ===

impl<T> Caller<T> {
    /// One who waits on this thread, and for what.
    pub fn here() -> (Self, oneshot::Receiver<T>) {
        let (answer, receiver) = oneshot::channel();
        (Self { answer, worker: current(), runtime: Handle::try_current().ok() }, receiver)
    }

    /// Whether nobody waits any more.
    pub fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }
}

// === impl Assignment ===

impl Assignment {
    /// The runtime of the thread.
    pub fn runtime(&self) -> &Handle {
        &self.worker().runtime
    }

    fn worker(&self) -> &Worker {
        &self.workers.0.workers[self.worker]
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.worker().connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_go_where_the_fewest_are_and_run_there() {
        let workers = Workers::start(NonZero::new(3).unwrap()).unwrap();
        let mut assigned: Vec<Assignment> = (0..6).map(|_| workers.assign()).collect();
        let places: Vec<usize> = assigned.iter().map(|assignment| assignment.worker).collect();
        assert_eq!(places, [0, 1, 2, 0, 1, 2]);
        for assignment in &assigned {
            let ran = assignment.runtime().spawn(async { current() }).await.unwrap();
            assert_eq!(ran, assignment.worker);
        }
        drop(assigned.remove(4));
        assert_eq!(workers.assign().worker, 1, "that one ended");
    }

    #[tokio::test]
    async fn callers_are_answered_wherever_they_wait() {
        let workers = Workers::start(NonZero::new(3).unwrap()).unwrap();
        let (mut callers, mut waiting) = (Vec::new(), Vec::new());
        for number in 0..9 {
            let (sender, caller) = oneshot::channel();
            waiting.push(workers.assign().runtime().spawn(async move {
                let (caller, answer) = Caller::here();
                sender.send(caller).unwrap();
                assert_eq!(answer.await, Ok(number));
            }));
            callers.push((caller.await.unwrap(), number));
        }
        let (gone, answer) = Caller::here();
        drop(answer);
        assert!(gone.is_gone() && callers.iter().all(|(caller, _)| !caller.is_gone()));
        callers.insert(4, (gone, 0));
        super::answer(callers);
        for waiting in waiting {
            waiting.await.unwrap();
        }
    }

    #[tokio::test]
    async fn threads_end_with_the_last_who_could_use_them() {
        let workers = Workers::start(NonZero::new(2).unwrap()).unwrap();
        let assignment = [workers.assign(), workers.assign()].into_iter().next_back().unwrap();
        let stays = assignment.runtime().spawn(std::future::pending::<()>());
        drop(workers);
        assert!(!stays.is_finished(), "a connection is still assigned");
        drop(assignment);
        assert!(stays.await.unwrap_err().is_cancelled());
    }
}
