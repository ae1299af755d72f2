//! Tables and laws of retrying.

use hyper::header::HeaderValue;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> config::Retry {
    config::Retry {
        attempts: 3,
        base: Duration::from_millis(100),
        max: Duration::from_millis(150),
        on: vec![429, 500, 502, 503],
        deadline: 60 * SECOND,
        replay_bytes: 0,
    }
}

fn answered(status: u16, after: Option<Duration>) -> Ended {
    Ended::Answered(StatusCode::from_u16(status).unwrap(), after)
}

#[test]
fn a_retry_after_is_seconds_or_a_fraction_or_a_date() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let cases: [(&[&str], Option<Duration>); 19] = [
        (&["0"], Some(Duration::ZERO)),
        (&["7"], Some(7 * SECOND)),
        (&[" 7 "], Some(7 * SECOND)),
        (&["0.5"], Some(SECOND / 2)),
        (&["1.25"], Some(Duration::from_millis(1250))),
        (&["99999999999999999999999999"], Some(Duration::MAX)),
        (&["Sun, 06 Nov 1994 08:49:47 GMT"], Some(10 * SECOND)),
        (&["Sunday, 06-Nov-94 08:49:47 GMT"], Some(10 * SECOND)),
        (&["Sun Nov  6 08:49:47 1994"], Some(10 * SECOND)),
        (&["Sun, 06 Nov 1994 08:49:00 GMT"], Some(Duration::ZERO)),
        (&[], None),
        (&[""], None),
        (&["-1"], None),
        (&["+1"], None),
        (&["."], None),
        (&["5."], None),
        (&["inf"], None),
        (&["soon"], None),
        (&["1", "2"], None),
    ];
    for (values, expected) in cases {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RETRY_AFTER, HeaderValue::from_static(value));
        }
        assert_eq!(retry_after(&headers, now), expected, "{values:?}");
    }
}

#[test]
fn what_may_have_been_done_is_not_done_again() {
    let unknown = |status| Ended::Unknown(StatusCode::from_u16(status).unwrap());
    let cases = [
        (Method::GET, answered(503, None), true),
        (Method::GET, answered(500, None), true),
        (Method::GET, answered(404, None), false),
        (Method::GET, answered(200, None), false),
        (Method::GET, unknown(502), true),
        (Method::GET, unknown(504), false),
        (Method::PUT, answered(500, None), true),
        (Method::POST, answered(429, None), true),
        (Method::POST, answered(503, None), true),
        (Method::POST, answered(500, None), false),
        (Method::PATCH, unknown(502), false),
        (Method::POST, Ended::Unsent, true),
        (Method::GET, Ended::Final, false),
    ];
    for (method, ended, expected) in cases {
        assert_eq!(may_repeat(&config(), &method, ended), expected, "{method} {ended:?}");
    }
}

#[test]
fn the_wait_doubles_up_to_its_cap_and_ends_with_the_tries() {
    let begun = Instant::now();
    let longest = |made, ended| wait(&config(), Tries { begun, made }, &Method::GET, ended, begun, 1.0);
    assert_eq!(longest(1, answered(503, None)), Some(Duration::from_millis(100)));
    assert_eq!(longest(2, answered(503, None)), Some(Duration::from_millis(150)));
    assert_eq!(longest(3, answered(503, None)), None, "no wait after the last try");
    assert_eq!(longest(1, answered(503, Some(7 * SECOND))), Some(7 * SECOND + Duration::from_millis(100)));
    assert_eq!(longest(1, answered(503, Some(61 * SECOND))), None, "beyond the deadline");
    assert_eq!(longest(1, answered(503, Some(Duration::MAX))), None);
}

#[test]
fn a_budget_has_a_floor_and_a_fifth_of_the_requests_of_ten_seconds() {
    let start = Instant::now();
    let mut budget = Budget::new(start);
    let granted = |budget: &mut Budget, now| (0..1000).filter(|_| budget.retry(now)).count();
    assert_eq!(granted(&mut budget, start), 10);
    for _ in 0..100 {
        budget.request(start + SECOND);
    }
    assert_eq!(granted(&mut budget, start + SECOND), 20);
    assert_eq!(granted(&mut budget, start + 9 * SECOND), 0);
    assert_eq!(granted(&mut budget, start + 10 * SECOND), 10, "the retries of the first second are forgotten");
    assert_eq!(granted(&mut budget, start + 30 * SECOND), 10, "and so is everything else");
}

proptest! {
    #[test]
    fn a_wait_is_bounded_and_never_passes_the_deadline(
        made in 1..10_u32,
        elapsed in 0..100_000_u64,
        asked in proptest::option::of(0..100_000_u64),
        chance in 0.0..=1.0_f64,
    ) {
        let config = config::Retry { attempts: 10, ..config() };
        let (begun, asked) = (Instant::now(), asked.map(Duration::from_millis));
        let now = begun + Duration::from_millis(elapsed);
        if let Some(wait) = wait(&config, Tries { begun, made }, &Method::GET, answered(503, asked), now, chance) {
            prop_assert!(now + wait <= begun + config.deadline);
            prop_assert!(wait >= asked.unwrap_or_default());
            prop_assert!(wait <= asked.map_or(config.max, |asked| asked + config.base));
        }
    }

    #[test]
    fn a_budget_agrees_with_a_list_of_everything_that_happened(
        steps in proptest::collection::vec((0..150_u64, any::<bool>()), 0..400),
    ) {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let (mut now, mut past) = (start, Vec::new());
        for (milliseconds, is_request) in steps {
            now += Duration::from_millis(milliseconds);
            let second = (now - start).as_secs();
            if is_request {
                budget.request(now);
                past.push((second, true));
                continue;
            }
            let recent = |kind| past.iter().filter(|(at, is_request)| at + 10 > second && *is_request == kind).count();
            let expected = recent(false) < 10 + recent(true) / 5;
            prop_assert_eq!(budget.retry(now), expected);
            if expected {
                past.push((second, false));
            }
        }
    }

    #[test]
    fn no_retry_after_panics(text in "[ -~]{0,40}") {
        let headers: HeaderMap = [(RETRY_AFTER, HeaderValue::try_from(text).unwrap())].into_iter().collect();
        let _ = retry_after(&headers, SystemTime::UNIX_EPOCH);
    }
}
