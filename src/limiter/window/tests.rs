//! The window beside an oracle that keeps every single charge for ever and counts them again for each question.

use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60 * MICRO;

/// A hundred a minute: the numbers of a Data Action.
const ACTION: Window = Window { quota: 100 * MICRO, length: MINUTE };

/// Every charge that was ever made: when, and how much.
type Charges = Vec<(u64, u64)>;

/// What one step does after a pause: takes so many tokens under a factor, or gives an earlier charge back.
#[derive(Debug, Clone)]
enum Step {
    Take { tokens: u64, percent: u64 },
    GiveBack { which: prop::sample::Index },
}

fn factor(percent: u64) -> Factor {
    Factor::new(f64::from(u32::try_from(percent).unwrap()) / 100.0).unwrap()
}

fn lowest() -> Factor {
    factor(5)
}

/// What counts at `now`.
fn counted(charges: &Charges, length: u64, now: u64) -> u64 {
    charges.iter().filter(|(at, _)| at + length > now).map(|(_, amount)| amount).sum()
}

/// The first time from `now` on at which `cost` fits: by trying each moment at which something ceases to count.
fn fits_after(charges: &Charges, length: u64, now: u64, in_force: u64, cost: u64) -> u64 {
    let mut moments: Vec<u64> = charges.iter().map(|(at, _)| at + length).filter(|at| *at > now).collect();
    moments.push(now);
    moments.sort_unstable();
    let fits = |moment: &&u64| counted(charges, length, **moment) + cost <= in_force;
    moments.iter().find(fits).unwrap() - now
}

fn any_step() -> impl Strategy<Value = (u64, Step)> {
    let pause = prop_oneof![2 => Just(0), 2 => 1..10_u64, 2 => 0..MICRO, 2 => 0..20 * MICRO, 1 => 0..2 * MINUTE];
    let step = prop_oneof![
        8 => (1..=9_u64, 1..=150_u64).prop_map(|(tokens, percent)| Step::Take { tokens, percent }),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::GiveBack { which }),
    ];
    (pause, step)
}

#[test]
fn the_quota_in_force_is_whole_and_never_below_one_nor_below_a_request_that_fits() {
    // Factor in per cent, lowest, tokens of a request → tokens in force.
    let table =
        [(100, 5, 1, 100), (150, 5, 1, 150), (99, 5, 1, 99), (20, 5, 1, 20), (1, 5, 1, 5), (5, 5, 8, 8), (5, 5, 101, 5)];
    for (percent, lowest, tokens, expected) in table {
        assert_eq!(ACTION.in_force(factor(percent), factor(lowest), tokens * MICRO), expected * MICRO, "{percent} {tokens}");
    }
    let three = Window { quota: 3 * MICRO, length: 1 };
    assert_eq!(three.in_force(factor(20), factor(1), MICRO), MICRO);
    assert_eq!(three.in_force(factor(99), factor(1), MICRO), 2 * MICRO);
}

#[test]
fn a_charge_counts_for_the_length_of_the_window_and_not_a_microsecond_longer() {
    let (mut log, window) = (Log::default(), Window { quota: MICRO, length: 4 * MICRO });
    window.charge(&mut log, 7, MICRO);
    assert_eq!(window.room(&log, 7, MICRO, MICRO), Room { tokens: 0, wait: 4 * MICRO });
    assert_eq!(window.room(&log, 4 * MICRO + 6, MICRO, MICRO), Room { tokens: 0, wait: 1 });
    assert_eq!(window.room(&log, 4 * MICRO + 7, MICRO, MICRO), Room { tokens: MICRO, wait: 0 });
}

#[test]
fn a_cut_of_the_quota_waits_for_as_many_as_are_too_many_and_not_for_the_oldest() {
    let mut log = Log::default();
    for second in 0..60 {
        ACTION.charge(&mut log, second * MICRO, MICRO);
    }
    // Sixty are taken; of twenty in force, one more fits when the forty-first has ceased to count.
    let room = ACTION.room(&log, 59 * MICRO, ACTION.in_force(factor(20), lowest(), MICRO), MICRO);
    assert_eq!(room, Room { tokens: 0, wait: MINUTE + 40 * MICRO - 59 * MICRO });
}

#[test]
fn a_refund_whose_charge_no_longer_counts_gives_nothing() {
    let (mut log, window) = (Log::default(), Window { quota: 2 * MICRO, length: 10 });
    window.charge(&mut log, 0, MICRO);
    window.charge(&mut log, 5, MICRO);
    window.settle(&mut log, 12);
    window.refund(&mut log, MICRO, 0);
    assert_eq!(window.taken(&log, 12), MICRO);
    window.refund(&mut log, MICRO, 5);
    assert_eq!(window.taken(&log, 12), 0);
}

#[test]
fn a_flood_is_held_in_few_marks_and_is_at_most_a_64th_of_the_window_late() {
    let (mut log, mut charges) = (Log::default(), Charges::new());
    let window = Window { quota: 10_000 * MICRO, length: MINUTE };
    for number in 0..40_000_u64 {
        let now = number * 5003;
        window.settle(&mut log, now);
        let room = window.room(&log, now, window.quota, MICRO);
        if room.tokens >= MICRO {
            window.charge(&mut log, now, MICRO);
            charges.push((now, MICRO));
        } else {
            // The ten-thousandth last has to cease to count.
            let exact = (charges[charges.len() - 10_000].0 + MINUTE).saturating_sub(now);
            assert!((exact..=exact + MINUTE.div_ceil(GRID)).contains(&room.wait), "{} for {exact}", room.wait);
        }
        assert!(log.marks.len() <= MARKS_MAX);
        if charges.len() > 10_200 {
            break;
        }
    }
    assert!(charges.len() > 10_200, "the window slides on");
    let too_soon = charges.windows(10_001).filter(|run| run[10_000].0 - run[0].0 < MINUTE).count();
    assert_eq!(too_soon, 0);
}

proptest! {
    #[test]
    fn no_window_holds_more_than_the_quota_of_what_goes_at_its_place(
        tokens in 1..=20_u64, seconds in 1..30_u64,
        steps in prop::collection::vec((0..3 * MICRO, 1..=9_u64, prop_oneof![Just(0), 0..200 * MICRO]), 1..150),
    ) {
        let window = Window { quota: tokens * MICRO, length: seconds * MICRO };
        let (mut log, mut gone, mut now) = (Log::default(), Charges::new(), 0);
        for (pause, tokens, within) in steps {
            now += pause;
            let cost = (tokens * MICRO).min(window.quota);
            window.settle(&mut log, now);
            let room = window.room(&log, now, window.quota, cost);
            if let Some(due) = window.place(&log, now, room, window.quota, cost, within) {
                prop_assert!(due - now <= within);
                window.charge(&mut log, due, cost);
                gone.push((due, cost));
            }
        }
        for (end, _) in &gone {
            let taken: u64 = gone.iter().filter(|(at, _)| at <= end && at + window.length > *end).map(|(_, cost)| cost).sum();
            prop_assert!(taken <= window.quota);
        }
    }

    #[test]
    fn no_window_holds_more_than_the_quota_and_every_wait_is_exact(
        tokens in 1..=40_u64, seconds in 1..90_u64, steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let window = Window { quota: tokens * MICRO, length: seconds * MICRO };
        // Since nothing given back is counted by the oracle of waits, it knows what stands where it was taken.
        let (mut log, mut charges, mut given_back) = (Log::default(), Charges::new(), false);
        let (mut now, mut most) = (0, 0);
        for (pause, step) in steps {
            now += pause;
            window.settle(&mut log, now);
            match step {
                Step::Take { tokens, percent } => {
                    let cost = (tokens * MICRO).min(window.quota);
                    let in_force = window.in_force(factor(percent), lowest(), cost);
                    let room = window.room(&log, now, in_force, cost);
                    prop_assert!(window.taken(&log, now) >= counted(&charges, window.length, now));
                    if !given_back {
                        let exact = fits_after(&charges, window.length, now, in_force, cost);
                        prop_assert_eq!(if room.tokens >= cost { 0 } else { room.wait }, exact);
                    }
                    if room.tokens >= cost {
                        window.charge(&mut log, now, cost);
                        charges.push((now, cost));
                        most = most.max(in_force);
                    }
                }
                Step::GiveBack { which } if !charges.is_empty() => {
                    let (at, amount) = charges.remove(which.index(charges.len()));
                    window.refund(&mut log, amount, at);
                    given_back = true;
                    // At no time to come does the log count less than what stands.
                    for later in charges.iter().map(|(at, _)| (at + window.length - 1).max(now)) {
                        prop_assert!(window.taken(&log, later) >= counted(&charges, window.length, later));
                    }
                }
                Step::GiveBack { .. } => {}
            }
            prop_assert!(counted(&charges, window.length, now) <= most);
        }
    }
}
