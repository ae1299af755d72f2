//! Stopping, in three steps: *leave* (serve on, but say that we are going), *drain* (take nothing new, finish what is
//! there), then *stop* (drop what is left). Each implies those before it.
//!
//! One [`Shutdown`] is cloned into everything that runs. Nothing polls a flag: tasks await [`Shutdown::draining`] or
//! [`Shutdown::stopped`], and whoever stops the daemon awaits [`Shutdown::finished`], which resolves when every task that
//! was [spawned](Shutdown::spawn) here is gone.

use std::future::Future;

use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The daemon's stop in steps and the tasks it waits for.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    leave: CancellationToken,
    drain: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Asks everything to send those who come elsewhere from their next request on.
    pub fn leave(&self) {
        self.leave.cancel();
    }

    /// Asks everything to take nothing new and to finish what is there.
    pub fn drain(&self) {
        self.leave.cancel();
        self.drain.cancel();
    }

    /// Asks everything to drop what it is doing. Implies [`drain`](Self::drain).
    pub fn stop(&self) {
        self.drain();
        self.stop.cancel();
    }

    /// Whether [`leave`](Self::leave) was called.
    pub fn is_leaving(&self) -> bool {
        self.leave.is_cancelled()
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves when [`leave`](Self::leave) is called.
    pub async fn leaving(&self) {
        self.leave.cancelled().await;
    }

    /// Resolves when [`drain`](Self::drain) is called.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Resolves when [`stop`](Self::stop) is called.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Runs a task that [`finished`](Self::finished) waits for. The task itself must heed the steps.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// The same, on another thread's runtime.
    pub fn spawn_on<F>(&self, task: F, runtime: &Handle) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.tasks.spawn_on(task, runtime)
    }

    /// Resolves when every task is gone. To be called after [`drain`](Self::drain) or [`stop`](Self::stop).
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
