//! Stopping, in two steps: *drain* (take nothing new, finish what is there), then *stop* (drop what is left).
//!
//! One [`Shutdown`] is cloned into everything that runs. Nothing polls a flag: tasks await [`Shutdown::draining`] or
//! [`Shutdown::stopped`], and whoever stops the daemon awaits [`Shutdown::finished`], which resolves when every task that
//! was [spawned](Shutdown::spawn) here is gone.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The daemon's two-step stop and the tasks it waits for.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Asks everything to take nothing new and to finish what is there.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Asks everything to drop what it is doing. Implies [`drain`](Self::drain).
    pub fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Resolves when [`drain`](Self::drain) is called.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Resolves when [`stop`](Self::stop) is called.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Runs a task that [`finished`](Self::finished) waits for. The task itself must heed the two steps.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Resolves when every task is gone. To be called after [`drain`](Self::drain) or [`stop`](Self::stop).
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
