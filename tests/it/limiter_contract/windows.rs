//! Windows: memory, Redis and the specification agree to the microsecond, alone and mixed with buckets, on the grid too.

use std::time::Duration;

use cxgate::limiter::{
    bucket::AHEAD_MAX,
    waiting,
    window::{RESERVED_MARKS_MAX, Window},
};
use proptest::prelude::*;

use super::*;

/// A hundred a minute, down to five under load.
fn action() -> Limit {
    let window = Window { quota: 100 * MICRO, length: 60 * MICRO };
    Limit { kind: window.into(), scale: ScaleName::of(["latency"]), slowest: factor(0.05) }
}

fn take<'a>(limit: &'a Limit, name: &str, count: u64) -> Charge<'a> {
    Charge { limit, key: client(name), cost: count * MICRO, terms: Terms::Take }
}

/// Every check of windows against one subject.
pub(super) async fn keeps_windows(subject: &mut impl Subject) {
    kinds_are_charged_together_or_not_at_all(subject).await;
    a_full_window_admits_to_the_microsecond(subject).await;
    a_cut_quota_says_when_one_more_fits(subject).await;
    a_refund_frees_its_own_charge_and_no_later_one(subject).await;
    a_request_that_the_quota_in_force_cannot_hold_waits_for_an_empty_window(subject).await;
    only_a_window_that_is_not_there_is_new(subject).await;
    places_ahead_lie_a_window_apart_and_are_given_back_one_by_one(subject).await;
}

async fn kinds_are_charged_together_or_not_at_all(subject: &mut impl Subject) {
    let (window, bucket) = (action(), guest());
    let both = [take(&bucket, "mixed bucket", 4), take(&window, "mixed window", 40)];
    for (admitted, bucket_left, window_left) in [(true, 6, 60), (true, 2, 20), (false, 2, 20), (false, 2, 20)] {
        let verdict = subject.decide(&both, BEGIN).await;
        let left = verdict.standings.iter().map(|standing| standing.tokens / MICRO).collect::<Vec<_>>();
        assert_eq!((verdict.admitted, left), (admitted, vec![bucket_left, window_left]));
    }
    assert_eq!(tokens(subject, &window, both[1].key, BEGIN).await, 20 * MICRO);
}

async fn a_full_window_admits_to_the_microsecond(subject: &mut impl Subject) {
    let limit = action();
    let one = [take(&limit, "full", 1)];
    for number in 0..100 {
        assert!(subject.decide(&one, BEGIN + number * 1000).await.admitted);
    }
    let refused = subject.decide(&one, BEGIN + MICRO).await;
    assert_eq!(limit.wait(&refused.standings[0], MICRO), Duration::from_secs(59));
    assert!(!subject.decide(&one, BEGIN + 60 * MICRO - 1).await.admitted);
    assert!(subject.decide(&one, BEGIN + 60 * MICRO).await.admitted);
    let refused = subject.decide(&[take(&limit, "full", 3)], BEGIN + 60 * MICRO).await;
    assert_eq!(limit.wait(&refused.standings[0], 3 * MICRO), Duration::from_millis(3));
}

async fn a_cut_quota_says_when_one_more_fits(subject: &mut impl Subject) {
    let limit = action();
    let one = [take(&limit, "cut window", 1)];
    for second in 0..50 {
        assert!(subject.decide(&one, BEGIN + second * MICRO).await.admitted);
    }
    let scale = limit.scale.clone().unwrap();
    subject.publish(&scale, factor(0.2), BEGIN + 49 * MICRO).await;
    let refused = subject.decide(&one, BEGIN + 49 * MICRO).await.standings[0];
    assert_eq!((refused.tokens, refused.factor), (0, factor(0.2)));
    // Fifty of twenty are taken: the thirty-first has to cease to count.
    assert_eq!(limit.wait(&refused, MICRO), Duration::from_secs(60 + 30 - 49));
    assert!(!subject.decide(&one, BEGIN + 90 * MICRO - 1).await.admitted);
    assert!(subject.decide(&one, BEGIN + 90 * MICRO).await.admitted);
    subject.publish(&scale, Factor::ONE, BEGIN + 90 * MICRO).await;
    assert_eq!(tokens(subject, &limit, one[0].key, BEGIN + 90 * MICRO).await, 80 * MICRO);
}

async fn a_refund_frees_its_own_charge_and_no_later_one(subject: &mut impl Subject) {
    let limit = action();
    let (first, second) = (BEGIN + 100 * MICRO, BEGIN + 130 * MICRO);
    let forty = [take(&limit, "refunded", 40)];
    let earlier = subject.decide(&forty, first).await;
    let later = subject.decide(&forty, second).await;
    assert_eq!((earlier.at, later.at), (first, second));
    subject.refund(&forty, later.at, second).await;
    // The earlier charge is there still, and counts as long as it should.
    assert_eq!(tokens(subject, &limit, forty[0].key, first + 60 * MICRO - 1).await, 60 * MICRO);
    assert!(subject.decide(&forty, second).await.admitted);
    subject.refund(&forty, earlier.at, first + 60 * MICRO).await;
    assert_eq!(tokens(subject, &limit, forty[0].key, first + 60 * MICRO).await, 60 * MICRO, "it counts no longer");
    subject.refund(&[take(&limit, "never charged", 1)], first, second).await;
    assert_eq!(tokens(subject, &limit, client("never charged"), second).await, 100 * MICRO);
}

async fn a_request_that_the_quota_in_force_cannot_hold_waits_for_an_empty_window(subject: &mut impl Subject) {
    let limit = action();
    let (ten, now) = ([take(&limit, "large", 10)], BEGIN + 200 * MICRO);
    subject.publish(limit.scale.as_ref().unwrap(), factor(0.01), now).await;
    assert!(subject.decide(&ten, now).await.admitted);
    let refused = subject.decide(&[take(&limit, "large", 1)], now).await;
    assert_eq!(limit.wait(&refused.standings[0], MICRO), Duration::from_mins(1));
    assert!(subject.decide(&ten, now + 60 * MICRO).await.admitted);
    subject.publish(limit.scale.as_ref().unwrap(), Factor::ONE, now).await;
}

async fn only_a_window_that_is_not_there_is_new(subject: &mut impl Subject) {
    let (limit, address) = (action(), guest());
    let now = BEGIN + 300 * MICRO;
    let first = Charge { terms: Terms::TakeIfNew(0), ..take(&address, "window's address", 1) };
    let charges = [take(&limit, "new window", 1), first];
    for left in [10, 10, 10] {
        let verdict = subject.decide(&charges, now).await;
        assert_eq!((verdict.admitted, verdict.standings[1].tokens / MICRO), (true, left));
    }
    assert_eq!(tokens(subject, &address, first.key, now).await, 9 * MICRO);
}

async fn places_ahead_lie_a_window_apart_and_are_given_back_one_by_one(subject: &mut impl Subject) {
    let limit = Limit { kind: Window { quota: 2 * MICRO, length: 10 * MICRO }.into(), scale: None, ..action() };
    let (one, now, within) = ([take(&limit, "ahead", 1)], BEGIN + 400 * MICRO, 25 * MICRO);
    for seconds in [0, 0, 10, 10, 20, 20] {
        let verdict = subject.reserve(&one, within, now).await;
        assert!(verdict.admitted);
        assert_eq!(waiting(&one, &verdict.standings), Duration::from_secs(seconds));
    }
    let refused = subject.reserve(&one, within, now).await;
    assert!(!refused.admitted);
    assert_eq!(limit.wait(&refused.standings[0], MICRO), Duration::from_secs(30));
    assert!(subject.give_back(&one, now + 20 * MICRO, 20 * MICRO, now).await);
    assert_eq!(waiting(&one, &subject.reserve(&one, within, now).await.standings), Duration::from_secs(20));
    // Whoever does not wait finds the places taken.
    for seconds in [10, 19, 20, 29] {
        assert!(!subject.decide(&one, now + seconds * MICRO).await.admitted, "{seconds} s");
    }
    assert!(subject.decide(&one, now + 30 * MICRO).await.admitted);
    let above = [take(&limit, "above", 3)];
    assert!(!subject.reserve(&above, AHEAD_MAX, now).await.admitted, "more than the quota is never there");
}

/// Some hundreds of charges in quick succession: limits, then the pause before each step, its cost, the cost of the bucket
/// beside it, how far ahead it may be, and whether it gives back what was charged so long ago instead.
type Flood = (Limit, Vec<(u64, u64, u64, u64, Option<u64>)>);

fn any_flood() -> impl Strategy<Value = Flood> {
    let window = (100..=2000_u64, 10 * MICRO..100 * MICRO)
        .prop_map(|(quota, length)| Limit { kind: Window { quota: quota * MICRO, length }.into(), ..action() });
    let pause = prop_oneof![4 => 0..100_000_u64, 1 => 0..2 * MICRO];
    let ago = prop_oneof![9 => Just(None), 1 => (0..3 * MICRO).prop_map(Some)];
    let within = prop_oneof![Just(0), 0..200 * MICRO];
    (window, prop::collection::vec((pause, 1..4 * MICRO, 1..=MICRO, within, ago), 150..500))
}

async fn answers(subject: &mut impl Subject, (window, steps): &Flood) -> Vec<Verdict> {
    let bucket = Limit { kind: Bucket { capacity: 100 * MICRO, rate: 10 * MICRO }.into(), ..guest() };
    let (mut now, mut verdicts) = (BEGIN, Vec::new());
    for (pause, cost, beside, within, ago) in steps {
        now += pause;
        let charges =
            [Charge { cost: *cost, ..take(window, "flood", 1) }, Charge { cost: *beside, ..take(&bucket, "beside", 1) }];
        match ago {
            Some(ago) => subject.refund(&charges[..1], now - ago, now).await,
            None => verdicts.push(subject.reserve(&charges, *within, now).await),
        }
    }
    verdicts
}

#[test]
fn a_flood_gets_the_same_answers_from_all_three() {
    in_random_cases(ProptestConfig { cases: 12, ..ProptestConfig::default() }, &any_flood(), &async |redis, flood| {
        let expected = answers(&mut Specification::default(), &flood).await;
        prop_assert_eq!(&answers(&mut Memory::new(1000, Gauge::default()), &flood).await, &expected, "memory");
        prop_assert_eq!(&answers(redis, &flood).await, &expected, "Redis");
        Ok(())
    });
}

#[tokio::test]
async fn a_window_is_as_large_as_it_may_be_and_lives_as_long_as_it_counts() {
    let server = RedisServer::start();
    let mut redis = Scripted::new(&server).await;
    let limit = Limit { kind: Window { quota: 100_000 * MICRO, length: 60 * MICRO }.into(), ..action() };
    let one = [take(&limit, "size", 1)];
    let name = format!("test:1:{}", String::from_utf8(one[0].key.text().to_vec()).unwrap());
    let mut largest = 0;
    for number in 0..1000 {
        assert!(redis.decide(&one, BEGIN + number * 50_000).await.admitted);
        let length: usize = redis::cmd("STRLEN").arg(&name).query_async(&mut redis.connection).await.unwrap();
        largest = largest.max(length);
    }
    assert_eq!(largest, 7 + 128 * 13);
    // The last mark may be rounded up by a 64th, and all of it to whole seconds with one to spare.
    assert!((55_000..=62_000).contains(&redis.lifetime_ms(one[0].key).await));
}

#[tokio::test]
async fn no_more_places_lie_ahead_than_a_window_may_have_marks() {
    let server = RedisServer::start();
    let (mut redis, mut specification) = (Scripted::new(&server).await, Specification::default());
    let limit = Limit { kind: Window { quota: MICRO, length: 10_000 }.into(), scale: None, ..action() };
    let one = [take(&limit, "far", 1)];
    let mut admitted = 0;
    for _ in 0..RESERVED_MARKS_MAX + 10 {
        let verdict = redis.reserve(&one, AHEAD_MAX, BEGIN).await;
        assert_eq!(verdict, specification.reserve(&one, AHEAD_MAX, BEGIN).await);
        admitted += usize::from(verdict.admitted);
    }
    assert_eq!(admitted, RESERVED_MARKS_MAX);
    // Some ten seconds lie ahead, and the key lives as long.
    assert!((8_000..12_000).contains(&redis.lifetime_ms(one[0].key).await));
}

#[tokio::test]
async fn a_debt_is_taken_whole_and_leaves_of_what_is_older_no_more_than_fits_beside_it() {
    let server = RedisServer::start();
    let mut redis = Scripted::new(&server).await;
    let limit = action();
    for second in 0..10 {
        assert!(redis.decide(&[take(&limit, "debt", 10)], BEGIN + second * MICRO).await.admitted);
    }
    let debt = [take(&limit, "debt", 25)];
    let command = redis.keys.charge(redis.digest(Script::Charge), Flow::Pay, &debt);
    redis.call(command, BEGIN + 30 * MICRO).await;
    // The oldest twenty have gone for it; five more than the quota are taken, until the next ten go.
    for (seconds, left) in [(30, 0), (61, 0), (62, 5), (63, 15), (69, 75), (89, 75), (90, 100)] {
        assert_eq!(tokens(&mut redis, &limit, debt[0].key, BEGIN + seconds * MICRO).await, left * MICRO, "{seconds} s");
    }
}
