//! Counts of store operations without an answer.

use prometheus_client::metrics::counter::Counter;

use super::StoreError;
use crate::metrics::{CauseLabels, Metrics};

/// Counts of operations without an answer.
#[derive(Clone)]
pub(super) struct Failures {
    deadline: Counter,
    unreachable: Counter,
    refused: Counter,
    full: Counter,
    busy: Counter,
}

impl Failures {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counter = |cause| metrics.store_failures.get_or_create(&CauseLabels { cause }).clone();
        Self {
            deadline: counter("deadline"),
            unreachable: counter("unreachable"),
            refused: counter("refused"),
            full: counter("full"),
            busy: counter("busy"),
        }
    }

    pub(super) fn count(&self, error: StoreError) {
        match error {
            StoreError::Deadline => self.deadline.inc(),
            StoreError::Unreachable => self.unreachable.inc(),
            StoreError::Refused => self.refused.inc(),
            StoreError::Full => self.full.inc(),
            StoreError::Busy => self.busy.inc(),
        };
    }

    pub(super) fn count_if(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            self.count(error);
        }
    }
}
