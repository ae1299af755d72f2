//! From the factors that samples ask for to the factor in force: pure functions that keep a noisy endpoint from making limits
//! flap.
//!
//! - *Hysteresis*: a new factor counts only where it differs from the last that counted by more than a share of it.
//! - *Slew limit*: the factor falls at once, to spare a backend in trouble, and rises by at most so much a second, so that one
//!   that has just recovered is not run over.
//!
//! The first factor is in force at once.

use std::time::Duration;

use crate::config::Factor;

/// Where the factor is, and where it is going.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    target: Factor,
    /// Unrounded, so that small steps add up.
    in_force: f64,
}

impl Course {
    /// At rest at `factor`.
    pub fn begin(factor: Factor) -> Self {
        Self { target: factor, in_force: factor.as_f64() }
    }

    /// The factor in force, at most the target.
    pub fn in_force(self) -> Factor {
        Factor::new(self.in_force).unwrap_or(self.target).min(self.target)
    }

    /// The course after a sample asked for `found`.
    #[must_use]
    pub fn aim(self, found: Factor, hysteresis: f64) -> Self {
        let difference = f64::from(found.millionths().abs_diff(self.target.millionths()));
        if difference <= hysteresis * f64::from(self.target.millionths()) {
            return self;
        }
        Self { target: found, in_force: self.in_force.min(found.as_f64()) }
    }

    /// The course `elapsed` later.
    #[must_use]
    pub fn advance(self, elapsed: Duration, max_rise_per_second: Factor) -> Self {
        let rise = max_rise_per_second.as_f64() * elapsed.as_secs_f64();
        Self { in_force: (self.in_force + rise).min(self.target.as_f64()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factor(value: f64) -> Factor {
        Factor::new(value).unwrap()
    }

    #[test]
    fn a_factor_falls_at_once_rises_slowly_and_ignores_noise() {
        // Seconds that pass, then what a sample asks for → the factor in force. Hysteresis 0.05, at most 0.1 a second.
        let steps = [
            (10, 1.04, 1.0),
            (10, 0.95, 1.0),
            (10, 0.94, 0.94),
            (0, 0.2, 0.2),
            (1, 0.205, 0.2),
            (1, 1.5, 0.2),
            (1, 1.5, 0.3),
            (2, 1.5, 0.5),
            (1, 1.45, 0.6),
            (0, 0.55, 0.55),
            (60, 1.5, 0.55),
            (60, 1.5, 1.5),
        ];
        let mut course = Course::begin(factor(1.0));
        for (number, (seconds, found, expected)) in steps.into_iter().enumerate() {
            course = course.advance(Duration::from_secs(seconds), factor(0.1)).aim(factor(found), 0.05);
            assert_eq!(course.in_force(), factor(expected), "step {number}: {course:?}");
        }
    }

    #[test]
    fn with_both_turned_off_every_sample_is_in_force_at_once() {
        let mut course = Course::begin(factor(0.05));
        for found in [100.0, 0.000_001, 1.0, 1.000_001] {
            course = course.aim(factor(found), 0.0).advance(Duration::from_secs(1), factor(100.0));
            assert_eq!(course.in_force(), factor(found));
        }
    }

    #[test]
    fn a_rise_takes_as_long_in_small_steps_as_in_large_ones() {
        let up = Course::begin(factor(0.2)).aim(factor(1.5), 0.05);
        let large = up.advance(Duration::from_secs(5), factor(0.000_1));
        let small = (0..5_000_000).fold(up, |course, _| course.advance(Duration::from_micros(1), factor(0.000_1)));
        assert!(small.in_force().millionths().abs_diff(large.in_force().millionths()) <= 1, "{small:?} {large:?}");
    }
}
