//! What a socket may send: tokens for messages, taken from the client's bucket in the store.
//!
//! Promised: a message passes only when its tokens were taken. A socket whose messages come in quick succession reserves up to
//! [`Policy::ahead`] more in the same operation, and gives back what it has not used after a second of silence and at its
//! end; so in any stretch of time a client's messages exceed what the bucket alone would admit by at most `ahead` for each
//! of its sockets, and a bucket lacks at most as much. With `exact`, `ahead` is 0 and every message is decided by itself.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Close, Policy};
use crate::limiter::{Charge, Decision, Limiter, Receipt, Terms, key::Key};

/// How soon a message must follow another for the socket to count as busy.
pub(super) const BUSY_WITHIN: Duration = Duration::from_secs(1);

/// The tokens of one socket.
pub(super) struct Allowance {
    limiter: Arc<Limiter>,
    policy: Arc<Policy>,
    key: Key,
    /// Taken and not used, in micro-tokens; all of it by the operation of `receipt`.
    reserved: u64,
    receipt: Option<Receipt>,
    last_message: Option<Instant>,
}

/// How a message passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// Its tokens were taken.
    Paid,
    /// Without tokens, because the mode is shadow; it would have waited.
    Early,
    /// The same, but it would have closed its socket.
    Despite,
}

/// Why tokens could not be taken.
struct Short {
    /// When it is worth trying again.
    wait: Duration,
    /// How the socket ends where that is too long.
    close: Close,
}

// === impl Allowance ===

impl Allowance {
    pub(super) fn new(limiter: Arc<Limiter>, policy: Arc<Policy>, key: Key) -> Self {
        Self { limiter, policy, key, reserved: 0, receipt: None, last_message: None }
    }

    /// Whether there is something to give back.
    pub(super) fn is_ahead(&self) -> bool {
        self.reserved > 0
    }

    /// Waits until a message of `cost` may pass; the close with which the socket ends if that takes too long. In shadow, no
    /// message waits.
    pub(super) async fn take(&mut self, cost: u64) -> Result<Passage, Close> {
        let policy = Arc::clone(&self.policy);
        let began = Instant::now();
        let is_busy = self.last_message.is_some_and(|last| last.elapsed() < BUSY_WITHIN);
        let mut ahead = if is_busy { policy.ahead } else { 0 };
        let mut passed = &policy.counters.admitted;
        while self.reserved < cost {
            let Err(Short { wait, close }) = self.reserve(cost, ahead).await else { continue };
            let is_too_long = began.elapsed() + wait > policy.max_pause;
            if is_too_long || policy.is_shadow {
                let (counter, passage) = if is_too_long {
                    (&policy.counters.refused, Passage::Despite)
                } else {
                    (&policy.counters.paced, Passage::Early)
                };
                counter.inc();
                self.last_message = Some(Instant::now());
                // Where nobody can decide, no limit would have closed it.
                let passage = if close == Close::LimitExceeded { passage } else { Passage::Early };
                return if policy.is_shadow { Ok(passage) } else { Err(close) };
            }
            sleep(wait).await;
            // Where tokens are scarce, none are put by.
            ahead = 0;
            passed = &policy.counters.paced;
        }
        self.reserved -= cost;
        self.last_message = Some(Instant::now());
        passed.inc();
        Ok(Passage::Paid)
    }

    /// Takes what is missing to `cost`, and `ahead` beyond it where there is so much.
    async fn reserve(&mut self, cost: u64, ahead: u64) -> Result<(), Short> {
        let limit = &self.policy.messages;
        let missing = cost - self.reserved;
        let mut wanted = missing.saturating_add(ahead).min(limit.kind.most());
        loop {
            let charge = Charge { limit, key: self.key, cost: wanted, terms: Terms::Take };
            match self.limiter.decide(&[charge]).await {
                Decision::Admitted { receipt, .. } => {
                    self.receipt = Some(receipt);
                    self.reserved += wanted;
                    return Ok(());
                }
                Decision::Unlimited => {
                    self.receipt = None;
                    self.reserved = cost;
                    return Ok(());
                }
                Decision::Refused { standings } => {
                    let wait = standings.first().map_or(BUSY_WITHIN, |standing| limit.wait(standing, missing));
                    if wanted == missing || !wait.is_zero() {
                        return Err(Short { wait, close: Close::LimitExceeded });
                    }
                    wanted = missing;
                }
                Decision::Unavailable { retry_after } => {
                    return Err(Short { wait: retry_after, close: Close::TryAgainLater });
                }
            }
        }
    }

    /// Gives back what was reserved and not used.
    pub(super) async fn give_back(&mut self) {
        let unused = std::mem::take(&mut self.reserved);
        if let (Some(receipt), 1..) = (self.receipt.take(), unused) {
            let charge = Charge { limit: &self.policy.messages, key: self.key, cost: unused, terms: Terms::Take };
            self.limiter.refund(receipt, &[charge]).await;
        }
    }
}
