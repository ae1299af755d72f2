//! The latency signal: from times to the response head to a factor. Pure: `now` is an argument.
//!
//! A sample is counted in one of [`BUCKETS`] classes, 16 to each doubling, in one of [`SLOTS`] slots, each a tenth of the
//! window long. The factor is that of the 95th percentile of all slots that are not too old.
//!
//! Promised: the percentile (nearest rank) is off by at most 1/32 of itself, or by 125 µs below 4 ms; a sample counts for 70
//! to 80 per cent of the window, so that with the time from look to look, on its way in and out, it is never heeded for
//! longer than the window. At most [`SLOTS`] × [`BUCKETS`] × 8 bytes are held, 21 KiB; 2 KiB where times are alike.
//! `lua/observe.lua` does the same, to the millionth.
//! Not promised: anything about times of more than an hour: they count as one.

use std::{collections::VecDeque, time::Duration};

use crate::config::{Factor, Latency};

/// Classes of times: exact to a unit up to 16 units, then 16 to each doubling, up to an hour.
pub const BUCKETS: u16 = 336;

/// Slots of the window whose samples count.
pub const SLOTS: u64 = 8;

/// Parts of the window, each as long as a slot. The two that do not count are for the way of a sample in and out.
pub const SLOTS_PER_WINDOW: u32 = 10;

/// The unit of times, in microseconds.
const UNIT: u64 = 250;

/// Classes in each doubling.
const PER_DOUBLING: u64 = 16;

/// How many samples there are of each class; in rising order of class, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(Vec<(u16, u32)>);

/// The samples of the last while.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    /// By number of the slot, rising.
    slots: VecDeque<(u64, Counts)>,
}

/// What makes a factor of samples, as the store takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slowdown {
    /// In microseconds, at least 1.
    pub threshold: u64,
    /// How far the factor falls for each further threshold.
    pub slope: Factor,
    /// The lowest factor.
    pub floor: Factor,
    /// The fewest samples that count.
    pub min_samples: u32,
    /// Length of a slot in microseconds, at least 1.
    pub slot: u64,
}

// === impl Counts ===

impl Counts {
    /// Counts one sample.
    pub fn add(&mut self, took: Duration) {
        self.add_class(class(took), 1);
    }

    /// Counts what another did.
    pub fn merge(&mut self, other: &Self) {
        for (class, count) in &other.0 {
            self.add_class(*class, *count);
        }
    }

    /// Classes and how many samples each has, in rising order.
    pub fn classes(&self) -> impl ExactSizeIterator<Item = (u16, u32)> {
        self.0.iter().copied()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many samples there are.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The middle of the class in which the 95th percentile (nearest rank) lies, in microseconds; `None` without samples.
    pub fn p95(&self) -> Option<u64> {
        let rank = (self.total() * 95).div_ceil(100);
        let mut passed = 0;
        let class = self.0.iter().find(|(_, count)| {
            passed += u64::from(*count);
            passed >= rank
        });
        class.map(|(class, _)| middle(*class))
    }

    fn add_class(&mut self, class: u16, more: u32) {
        match self.0.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(place) => self.0[place].1 = self.0[place].1.saturating_add(more),
            Err(place) => self.0.insert(place, (class, more)),
        }
    }
}

/// The class of a time.
fn class(took: Duration) -> u16 {
    let units = u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / UNIT;
    let doublings = u64::from(units.max(PER_DOUBLING).ilog2()) - 4;
    let class = PER_DOUBLING * doublings + (units >> doublings);
    u16::try_from(class).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The middle of a class, in microseconds.
fn middle(class: u16) -> u64 {
    let class = u64::from(class);
    let doublings = (class / PER_DOUBLING).saturating_sub(1);
    let low = (class - PER_DOUBLING * doublings) << doublings;
    low * UNIT + (UNIT << doublings) / 2
}

// === impl Recent ===

impl Recent {
    /// Counts samples at `now`, in microseconds.
    pub fn add(&mut self, counts: &Counts, slowdown: &Slowdown, now: u64) {
        self.forget(slowdown, now);
        let current = now / slowdown.slot;
        match self.slots.back_mut() {
            Some((number, known)) if *number == current => known.merge(counts),
            _ => self.slots.push_back((current, counts.clone())),
        }
    }

    /// The factor at `now`.
    pub fn factor(&mut self, slowdown: &Slowdown, now: u64) -> Factor {
        self.forget(slowdown, now);
        let mut all = Counts::default();
        self.slots.iter().for_each(|(_, counts)| all.merge(counts));
        slowdown.factor(&all)
    }

    /// Drops what is too old, and what lies in the future because the clock has stepped back.
    fn forget(&mut self, slowdown: &Slowdown, now: u64) {
        let current = now / slowdown.slot;
        self.slots.retain(|(number, _)| *number <= current && current - *number < SLOTS);
    }
}

// === impl Slowdown ===

impl Slowdown {
    /// The length of the window in microseconds.
    pub fn window(&self) -> u64 {
        self.slot * u64::from(SLOTS_PER_WINDOW)
    }

    /// The factor of so many samples: 1 − slope · (p95 − threshold) / threshold, from the floor to 1.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "an hour in µs is far below 2⁵³, and what is cast back lies within the bounds of a factor"
    )]
    pub fn factor(&self, counts: &Counts) -> Factor {
        let Some(p95) = counts.p95().filter(|_| counts.total() >= u64::from(self.min_samples)) else { return Factor::ONE };
        let excess = p95.saturating_sub(self.threshold) as f64;
        // In this order, because that is Lua's.
        let fall = f64::from(self.slope.millionths()) * excess / self.threshold as f64;
        let millionths = (1e6 - fall).floor().max(f64::from(self.floor.millionths()));
        Factor::new((millionths as i64) as f64 / 1e6).map_or(self.floor, |factor| factor.min(Factor::ONE))
    }
}

impl From<&Latency> for Slowdown {
    fn from(config: &Latency) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1);
        Self {
            threshold: micros(config.threshold),
            slope: config.slope,
            floor: config.floor,
            min_samples: config.min_samples,
            slot: micros(config.window / SLOTS_PER_WINDOW),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLOT: u64 = 6_000_000;

    fn slowdown() -> Slowdown {
        let [slope, floor] = [0.5, 0.2].map(|factor| Factor::new(factor).unwrap());
        Slowdown { threshold: 800_000, slope, floor, min_samples: 5, slot: SLOT }
    }

    fn of(times: impl IntoIterator<Item = Duration>) -> Counts {
        let mut counts = Counts::default();
        times.into_iter().for_each(|took| counts.add(took));
        counts
    }

    fn millis(millis: u64, samples: usize) -> impl Iterator<Item = Duration> {
        std::iter::repeat_n(Duration::from_millis(millis), samples)
    }

    #[test]
    fn the_factor_falls_from_the_threshold_to_the_floor() {
        // Samples of so many milliseconds → the factor, within what classes are wide.
        let table = [(1, 1.0), (780, 1.0), (1200, 0.75), (1600, 0.5), (2080, 0.2), (4000, 0.2), (3_600_000, 0.2)];
        for (took, expected) in table {
            let factor = slowdown().factor(&of(millis(took, 5))).as_f64();
            assert!((factor - expected).abs() <= 0.05, "{took} ms: {factor}");
        }
        assert_eq!(slowdown().factor(&of(millis(4000, 4))), Factor::ONE, "too few");
        let mixed = |slow| of(millis(100, 100 - slow).chain(millis(4000, slow)));
        assert_eq!(slowdown().factor(&mixed(5)), Factor::ONE);
        assert_eq!(slowdown().factor(&mixed(6)), slowdown().floor);
    }

    #[test]
    fn a_sample_counts_for_most_of_the_window_and_never_for_all_of_it() {
        let (mut recent, slot) = (Recent::default(), SLOT);
        recent.add(&of(millis(4000, 5)), &slowdown(), slot);
        assert_eq!(recent.factor(&slowdown(), 9 * slot - 1), slowdown().floor);
        assert_eq!(recent.factor(&slowdown(), 9 * slot), Factor::ONE);
        recent.add(&of(millis(4000, 5)), &slowdown(), 10 * slot - 1);
        assert_eq!(recent.clone().factor(&slowdown(), 17 * slot - 1), slowdown().floor, "seven tenths at least");
        assert_eq!(recent.factor(&slowdown(), 8 * slot), Factor::ONE, "the clock has stepped back");
    }

    proptest! {
        #[test]
        fn the_percentile_is_that_of_all_samples_within_a_thirty_second(
            mut micros in prop::collection::vec(prop_oneof![0..4000_u64, 4000..5_000_000_u64, 0..3_600_000_000_u64], 1..300),
        ) {
            let found = of(micros.iter().copied().map(Duration::from_micros)).p95().unwrap();
            micros.sort_unstable();
            let exact = micros[(micros.len() * 95).div_ceil(100) - 1];
            prop_assert!(found.abs_diff(exact) <= (exact / 32).max(125) + 1, "{} instead of {}", found, exact);
        }

        #[test]
        fn samples_are_those_of_the_last_slots(
            trace in prop::collection::vec((0..3 * SLOT, 1..10_000_u64), 1..100),
        ) {
            let (mut recent, mut now, mut all) = (Recent::default(), 0, Vec::new());
            for (pause, took) in trace {
                now += pause;
                let took = Duration::from_millis(took);
                all.push((now / SLOT, took));
                recent.add(&of([took]), &slowdown(), now);
                let first = (now / SLOT + 1).saturating_sub(SLOTS);
                let counted = all.iter().filter(|(slot, _)| *slot >= first).map(|(_, took)| *took);
                prop_assert_eq!(recent.factor(&slowdown(), now), slowdown().factor(&of(counted)));
            }
        }
    }
}
