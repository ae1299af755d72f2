//! What a fetch counts, and how that is told.

use std::{
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::Serialize;
use tokio::time::{Instant, sleep};

/// Counts while pages are fetched.
#[derive(Debug)]
pub(super) struct Tally {
    begun: Instant,
    pub(super) pages: AtomicU64,
    pub(super) entities: AtomicU64,
    /// Tries after the first, of all pages.
    pub(super) retries: AtomicU64,
    /// Tries that the limits sent back to wait.
    pub(super) refusals: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Pages that wait now.
    waiting: AtomicU64,
    /// Microseconds, by cause.
    waited: [AtomicU64; 3],
}

/// Why a page waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The limits.
    Limit,
    /// The upstream said when to come back.
    RetryAfter,
    /// It did not.
    BackOff,
}

/// What came of it, in the end.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pages: u64,
    entities: u64,
    failed: u64,
    retries: u64,
    refusals: u64,
    /// Summed over pages, which wait at the same time.
    waited_seconds: Waited,
    seconds: f64,
    /// The signal that ended it; `null` where it came to its end.
    interrupted: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Waited {
    limit: f64,
    retry_after: f64,
    back_off: f64,
}

/// Counts one page among those that wait, until dropped.
struct Waiting<'a> {
    tally: &'a Tally,
    cause: Cause,
    since: Instant,
}

// === impl Tally ===

impl Tally {
    pub(super) fn begin() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            begun: Instant::now(),
            pages: zero(),
            entities: zero(),
            retries: zero(),
            refusals: zero(),
            failed: zero(),
            waiting: zero(),
            waited: [zero(), zero(), zero()],
        }
    }

    /// Waits, and counts it, also where the wait is cut short.
    pub(super) async fn wait(&self, cause: Cause, wait: Duration) {
        self.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting { tally: self, cause, since: Instant::now() };
        sleep(wait).await;
    }

    /// Counts a wait that is over.
    pub(super) fn waited(&self, cause: Cause, wait: Duration) {
        self.waited[cause as usize].fetch_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What a progress bar says behind the pages.
    pub(super) fn figures(&self) -> String {
        let Summary { pages, entities, failed, retries, refusals, seconds, waited_seconds, .. } = self.summary(None);
        let rate = Rate(f64::from(u32::try_from(pages).unwrap_or(u32::MAX)) / seconds.max(0.1));
        let mut text = format!("{entities} entities, {rate}/s");
        let waited = waited_seconds.limit + waited_seconds.retry_after + waited_seconds.back_off;
        let waiting = self.waiting.load(Relaxed);
        // Writing to a string cannot fail.
        if waited > 0.05 || waiting > 0 {
            let _ = write!(text, ", waited {waited:.1}s ({waiting} now)");
        }
        for (count, what) in [(refusals, "refused"), (retries, "retried"), (failed, "failed")] {
            if count > 0 {
                let _ = write!(text, ", {count} {what}");
            }
        }
        text
    }

    pub(super) fn summary(&self, interrupted: Option<&'static str>) -> Summary {
        let waited = |cause: Cause| rounded(Duration::from_micros(self.waited[cause as usize].load(Relaxed)));
        Summary {
            pages: self.pages.load(Relaxed),
            entities: self.entities.load(Relaxed),
            failed: self.failed.load(Relaxed),
            retries: self.retries.load(Relaxed),
            refusals: self.refusals.load(Relaxed),
            waited_seconds: Waited {
                limit: waited(Cause::Limit),
                retry_after: waited(Cause::RetryAfter),
                back_off: waited(Cause::BackOff),
            },
            seconds: rounded(self.begun.elapsed()),
            interrupted,
        }
    }
}

/// Seconds, to the millisecond.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

struct Rate(f64);

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.*}", usize::from(self.0 < 100.0), self.0)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.tally.waiting.fetch_sub(1, Relaxed);
        self.tally.waited(self.cause, self.since.elapsed());
    }
}

// === impl Summary ===

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pages, entities, failed, retries, refusals, waited_seconds, seconds, interrupted } = self;
        let Waited { limit, retry_after, back_off } = waited_seconds;
        writeln!(
            formatter,
            "{pages} pages, {entities} entities, {failed} failed, {retries} retries, {refusals} refusals in {seconds:.1}s"
        )?;
        write!(
            formatter,
            "waited for limits {limit:.1}s, as the upstream asked {retry_after:.1}s, by back-off {back_off:.1}s"
        )?;
        if let Some(signal) = interrupted {
            write!(formatter, "\ninterrupted by {signal}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_counts_and_waits_by_cause() {
        let tally = Tally::begin();
        tally.waited(Cause::Limit, Duration::from_secs(2));
        tally.waited(Cause::RetryAfter, Duration::from_millis(500));
        tally.waited(Cause::BackOff, Duration::from_secs(1));
        tally.pages.store(7, Relaxed);
        tally.refusals.store(2, Relaxed);
        let summary = Summary { seconds: 3.5, ..tally.summary(Some("SIGINT")) };
        assert_eq!(
            summary.to_string(),
            "7 pages, 0 entities, 0 failed, 0 retries, 2 refusals in 3.5s\n\
             waited for limits 2.0s, as the upstream asked 0.5s, by back-off 1.0s\n\
             interrupted by SIGINT"
        );
        assert!(tally.figures().ends_with("/s, waited 3.5s (0 now), 2 refused"), "{}", tally.figures());
        let json = serde_json::to_value(summary).unwrap();
        assert_eq!(json["waited_seconds"], serde_json::json!({"limit": 2.0, "retry_after": 0.5, "back_off": 1.0}));
        assert_eq!(json["interrupted"], "SIGINT");
    }

    #[tokio::test]
    async fn a_wait_that_is_cut_short_counts_as_long_as_it_was() {
        let tally = Tally::begin();
        let cut = tokio::time::timeout(Duration::from_millis(20), tally.wait(Cause::BackOff, Duration::from_hours(1)));
        assert!(cut.await.is_err());
        let Waited { limit, retry_after, back_off } = tally.summary(None).waited_seconds;
        assert!((0.02..600.0).contains(&back_off) && limit + retry_after == 0.0, "{back_off}");
        assert_eq!(tally.waiting.load(Relaxed), 0);
    }
}
