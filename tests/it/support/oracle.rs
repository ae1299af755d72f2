//! What was really admitted, and by how much that was too much.

use std::sync::{Arc, Mutex};

use cxgate::limiter::bucket::MICRO;
use tokio::time::Instant;

/// Notes admissions from any number of callers.
#[derive(Clone)]
pub struct Oracle {
    begin: Instant,
    admissions: Arc<Mutex<Vec<Admission>>>,
}

/// One request of one token that was admitted; times in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Admission {
    pub sent: u64,
    pub answered: u64,
}

// === impl Oracle ===

impl Oracle {
    pub fn new() -> Self {
        Self { begin: Instant::now(), admissions: Arc::default() }
    }

    /// Notes a request that was sent then and has been admitted now.
    pub fn admitted(&self, sent: Instant) {
        let micros = |moment: Instant| u64::try_from((moment - self.begin).as_micros()).unwrap();
        let admission = Admission { sent: micros(sent), answered: micros(Instant::now()) };
        self.admissions.lock().unwrap().push(admission);
    }

    /// How many were admitted.
    pub fn count(&self) -> usize {
        self.admissions.lock().unwrap().len()
    }

    /// All of them.
    pub fn admissions(&self) -> Vec<Admission> {
        self.admissions.lock().unwrap().clone()
    }

    /// E of a limit of `capacity` tokens and `rate` a second.
    pub fn excess(&self, capacity: u64, rate: f64) -> f64 {
        excess(&self.admissions.lock().unwrap(), capacity, rate)
    }
}

/// E, in tokens: the most that was provably admitted beyond capacity + rate × time. It is the maximum over all windows of
/// the admissions that were sent at or after its begin and answered by its end, less the capacity, less rate × length.
/// Where E is 0 or less, no window proves anything.
pub fn excess(admissions: &[Admission], capacity: u64, rate: f64) -> f64 {
    let mut by_answer = admissions.to_vec();
    by_answer.sort_unstable_by_key(|admission| admission.answered);
    let mut most = f64::NEG_INFINITY;
    // The widest excess begins where a request was sent and ends where one was answered.
    for begin in admissions.iter().map(|admission| admission.sent) {
        let mut inside = 0.0;
        for admission in by_answer.iter().filter(|admission| admission.sent >= begin) {
            inside += 1.0;
            let seconds = std::time::Duration::from_micros(admission.answered - begin).as_secs_f64();
            most = f64::max(most, inside - f64::from(u32::try_from(capacity).unwrap()) - rate * seconds);
        }
    }
    most
}

/// The most that was provably admitted in one window of a length: sent at or after its begin and answered before its end.
pub fn most_within(admissions: &[Admission], window: std::time::Duration) -> usize {
    let inside = |begin: u64| {
        let end = begin + u64::try_from(window.as_micros()).unwrap();
        admissions.iter().filter(|admission| admission.sent >= begin && admission.answered < end).count()
    };
    admissions.iter().map(|admission| inside(admission.sent)).max().unwrap_or_default()
}

/// Micro-tokens of so many tokens.
pub const fn tokens(count: u64) -> u64 {
    count * MICRO
}

#[test]
fn the_oracle_proves_what_can_be_proved_and_nothing_else() {
    // Capacity 2, two a second; sent and answered in milliseconds → E.
    let table: [(&[(u64, u64)], f64); 7] = [
        (&[(0, 0)], -1.0),
        (&[(0, 0), (0, 0)], 0.0),
        (&[(0, 0), (0, 0), (0, 0)], 1.0),
        (&[(0, 0), (0, 0), (500, 500)], 0.0),
        (&[(0, 0), (0, 0), (250, 250)], 0.5),
        // A request under way for a second may have been charged at any moment of it.
        (&[(0, 1000), (0, 0), (0, 0)], 0.0),
        // Idle time before does not hide a burst behind it.
        (&[(0, 0), (10_000, 10_000), (10_000, 10_000), (10_000, 10_000), (10_000, 10_000)], 2.0),
    ];
    for (admissions, expected) in table {
        let admission = |&(sent, answered): &(u64, u64)| Admission { sent: sent * 1000, answered: answered * 1000 };
        let admissions: Vec<_> = admissions.iter().map(admission).collect();
        let found = excess(&admissions, 2, 2.0);
        assert!((found - expected).abs() < 1e-9, "{admissions:?}: {found}, not {expected}");
    }
}
