//! Random traces: whatever is asked in whatever order, and whatever the clock does, all three answer the same.

use std::iter;

use cxgate::limiter::{bucket::AHEAD_MAX, window::Window};
use proptest::prelude::*;

use super::*;

/// How many limits a trace has, and the most that one request is charged against.
const LIMITS: usize = 5;

#[derive(Debug, Clone)]
enum Step {
    /// Within so many microseconds.
    Reserve(Vec<(usize, u64)>, Option<Terms>, u64),
    /// Of what was reserved so many microseconds ago, and is so far ahead.
    GiveBack(Vec<(usize, u64)>, u64, u64),
    /// Of what was charged so many microseconds ago.
    Refund(Vec<(usize, u64)>, u64),
    Publish(usize, Factor),
    Pause(u64),
}

/// Limits, then steps with the change of the clock before each, in microseconds.
type Trace = (Vec<Limit>, Vec<(i64, Step)>);

fn scales() -> [Option<ScaleName>; 3] {
    [None, ScaleName::of(["backend"]), ScaleName::of(["backend", "queue"])]
}

fn any_factor() -> impl Strategy<Value = Factor> {
    prop_oneof![0.05..1.5, 0.000_001..100.0, Just(1.0)].prop_map(factor)
}

fn any_limit() -> impl Strategy<Value = Limit> {
    prop_oneof![2 => any_bucket(), 1 => any_window()]
}

/// A window, no shorter than the run.
fn any_window() -> impl Strategy<Value = Limit> {
    let length = prop_oneof![10 * MICRO..100 * MICRO, 10 * MICRO..86_400 * MICRO];
    (1..=200_u64, length, 0..3_usize, prop_oneof![Just(0.05), Just(0.000_001)]).prop_map(
        |(quota, length, scale, slowest)| {
            let window = Window { quota: quota * MICRO, length };
            Limit { kind: window.into(), scale: scales()[scale].clone(), slowest: factor(slowest) }
        },
    )
}

fn any_bucket() -> impl Strategy<Value = Limit> {
    let micro_tokens = || prop_oneof![1..100_u64, 1..100 * MICRO, 1..=MICRO * MICRO];
    (micro_tokens(), micro_tokens(), 0..3_usize).prop_map(|(capacity, rate, scale)| {
        // Lifetimes in Redis pass in real time, so nothing may be full again within the run: not in 1 ms of the trace's time
        // and, at the lowest factor there is, not in 10 s of real time.
        let bucket = Bucket { capacity, rate: rate.min(capacity * 1000) };
        Limit { kind: bucket.into(), scale: scales()[scale].clone(), slowest: factor(0.000_001) }
    })
}

/// Some of the limits, each with a cost in per cent of its capacity.
fn any_charges() -> impl Strategy<Value = Vec<(usize, u64)>> {
    (prop::sample::subsequence((0..LIMITS).collect::<Vec<_>>(), 1..=LIMITS), prop::collection::vec(1..=100_u64, LIMITS))
        .prop_map(|(limits, costs)| limits.into_iter().zip(costs).collect())
}

/// The terms of the last of several charges, where they are not the usual ones.
fn any_terms() -> impl Strategy<Value = Option<Terms>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(Terms::Need)), 1 => Just(Some(Terms::TakeIfNew(0)))]
}

/// Changes of the clock.
fn pauses() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => Just(0),
        3 => 0..1000_i64,
        4 => 0..10_000_000_i64,
        1 => 0..1_000_000_000_000_i64,
        1 => -10_000_000..0_i64,
    ]
}

/// How far ahead is looked.
fn any_ahead() -> impl Strategy<Value = u64> {
    prop_oneof![1..100 * MICRO, 1..=AHEAD_MAX]
}

fn any_step() -> impl Strategy<Value = (i64, Step)> {
    let step = prop_oneof![
        6 => (any_charges(), any_terms()).prop_map(|(charges, last)| Step::Reserve(charges, last, 0)),
        4 => (any_charges(), any_terms(), any_ahead())
            .prop_map(|(charges, last, within)| Step::Reserve(charges, last, within)),
        1 => (any_charges(), pauses(), any_ahead())
            .prop_map(|(charges, ago, ahead)| Step::GiveBack(charges, ago.unsigned_abs(), ahead)),
        1 => (any_charges(), pauses()).prop_map(|(charges, ago)| Step::Refund(charges, ago.unsigned_abs())),
        1 => (5..=100_u64).prop_map(Step::Pause),
        1 => (1..3_usize, any_factor()).prop_map(|(scale, factor)| Step::Publish(scale, factor)),
    ];
    (pauses(), step)
}

/// The last of the limits is the one that is paused: it gains a micro-token a microsecond.
fn any_trace() -> impl Strategy<Value = Trace> {
    let limits = prop::collection::vec(any_limit(), LIMITS - 1).prop_map(|mut limits| {
        limits.push(Limit { kind: Bucket { capacity: 600 * MICRO, rate: MICRO }.into(), scale: None, slowest: Factor::ONE });
        limits
    });
    (limits, prop::collection::vec(any_step(), 1..60))
}

/// The charges of a step.
fn charges<'a>(limits: &'a [Limit], asked: &[(usize, u64)], last: Option<Terms>) -> Vec<Charge<'a>> {
    let charge = |&(limit, percent): &(usize, u64)| {
        let limit = &limits[limit];
        let cost = (limit.kind.most() * percent).div_ceil(100);
        Charge { limit, key: client(&format!("{:p}", std::ptr::from_ref(limit))), cost, terms: Terms::Take }
    };
    let mut charges: Vec<_> = asked.iter().map(charge).collect();
    if let ([_, .., charge], Some(terms)) = (&mut charges[..], last) {
        charge.terms = terms;
    }
    charges
}

/// What a subject answers to a trace.
async fn answers(subject: &mut impl Subject, (limits, steps): &Trace) -> Vec<Verdict> {
    let mut now = BEGIN;
    let mut verdicts = Vec::new();
    for (pause, step) in steps {
        now = now.saturating_add_signed(*pause);
        match step {
            Step::Reserve(asked, last, within) => {
                verdicts.push(subject.reserve(&charges(limits, asked, *last), *within, now).await);
            }
            Step::GiveBack(asked, ago, ahead) => {
                let charges = charges(limits, asked, None);
                let admitted = subject.give_back(&charges, now - ago + ahead, *ahead, now).await;
                verdicts.push(Verdict { admitted, at: 0, standings: ArrayVec::new() });
            }
            Step::Refund(asked, ago) => subject.refund(&charges(limits, asked, None), now - ago, now).await,
            Step::Pause(percent) => subject.pause(&charges(limits, &[(LIMITS - 1, *percent)], None)[0], now).await,
            Step::Publish(scale, factor) => {
                subject.publish(scales()[*scale].as_ref().unwrap(), *factor, now).await;
            }
        }
    }
    verdicts
}

/// What Redis answers to a trace where all that is asked at the same time is asked in one call.
async fn answers_together(redis: &mut Scripted, (limits, steps): &Trace) -> Vec<Verdict> {
    let mut now = BEGIN;
    let (mut verdicts, mut gathered) = (Vec::new(), Vec::new());
    for (pause, step) in steps {
        if *pause != 0 || matches!(step, Step::Pause(_) | Step::Publish(..)) {
            verdicts.extend(flush(redis, &mut gathered, now).await);
        }
        now = now.saturating_add_signed(*pause);
        match step {
            Step::Reserve(asked, last, within) => {
                gathered.push((Flow::take(Duration::from_micros(*within)), charges(limits, asked, *last)));
            }
            Step::GiveBack(asked, ago, ahead) => {
                let flow = Flow::GiveBack { at: now - ago + ahead, ahead: Duration::from_micros(*ahead) };
                gathered.push((flow, charges(limits, asked, None)));
            }
            Step::Refund(asked, ago) => gathered.push((Flow::Give(now - ago), charges(limits, asked, None))),
            Step::Pause(percent) => redis.pause(&charges(limits, &[(LIMITS - 1, *percent)], None)[0], now).await,
            Step::Publish(scale, factor) => redis.publish(scales()[*scale].as_ref().unwrap(), *factor, now).await,
        }
    }
    verdicts.extend(flush(redis, &mut gathered, now).await);
    verdicts
}

async fn flush(redis: &mut Scripted, gathered: &mut Vec<(Flow, Vec<Charge<'_>>)>, now: u64) -> Vec<Verdict> {
    let gathered = std::mem::take(gathered);
    if gathered.is_empty() { Vec::new() } else { redis.decide_together(&gathered, now).await }
}

/// A trace in which most steps come together, and some ask the same as those before them.
fn in_bursts((limits, steps): Trace) -> Trace {
    let steps = steps.into_iter().enumerate().flat_map(|(number, (pause, step))| {
        let pause = if number % 8 == 0 { pause } else { 0 };
        iter::once((pause, step.clone())).chain(iter::repeat_n((0, step), number % 3))
    });
    (limits, steps.collect())
}

#[test]
fn random_traces_get_the_same_answers_from_all_three() {
    in_random_cases(ProptestConfig::default(), &any_trace(), &async |redis, trace| {
        let expected = answers(&mut Specification::default(), &trace).await;
        prop_assert_eq!(&answers(&mut Memory::new(1000, Gauge::default()), &trace).await, &expected, "memory");
        prop_assert_eq!(&answers(redis, &trace).await, &expected, "Redis");
        Ok(())
    });
}

#[test]
fn decisions_in_one_call_are_the_same_as_one_after_another() {
    in_random_cases(ProptestConfig::default(), &any_trace().prop_map(in_bursts), &async |redis, trace| {
        let expected = answers(&mut Specification::default(), &trace).await;
        prop_assert_eq!(&answers_together(redis, &trace).await, &expected);
        Ok(())
    });
}
