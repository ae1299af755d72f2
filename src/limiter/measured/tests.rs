//! What counts, who is forgotten, and when there is something to tell.

use super::*;

fn signal() -> Measured {
    let config = Latency {
        threshold: Duration::from_millis(800),
        slope: Factor::new(0.5).unwrap(),
        floor: Factor::new(0.2).unwrap(),
        window: Duration::from_mins(1),
        min_samples: 5,
    };
    Measured::new("latency", &config, Duration::ZERO, &Metrics::default())
}

fn key(number: u32) -> Key {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&number.to_le_bytes());
    Key(key)
}

#[test]
fn failures_count_as_slow_and_never_as_fast() {
    let table = [
        (Ended::Answered, 10, true),
        (Ended::Answered, 4000, true),
        (Ended::Failed, 10, false),
        (Ended::Failed, 4000, true),
        (Ended::TimedOut, 500, true),
        (Ended::Abandoned, 700, false),
        (Ended::Abandoned, 800, true),
    ];
    for (ended, millis, counts) in table {
        let signal = signal();
        let tenant = signal.tenant(key(1));
        signal.record(&tenant, ended, Duration::from_millis(millis));
        assert_eq!(lock(&tenant.state).unsent.total(), u64::from(counts), "{ended:?} after {millis} ms");
        assert_eq!(signal.samples[4].get(), u64::from(!counts));
    }
}

#[test]
fn there_are_so_many_tenants_and_those_in_use_stay() {
    let signal = signal();
    let kept = signal.tenant(key(u32::MAX));
    for number in 0..2 * u32::try_from(TENANTS_MAX).unwrap() {
        // Each at a time of its own.
        lock(&signal.tenant(key(number)).state).seen = u64::from(number);
        lock(&kept.state).seen = u64::MAX;
    }
    let tenants = lock(&signal.tenants);
    assert!(tenants.len() <= TENANTS_MAX, "{}", tenants.len());
    assert!(tenants.contains_key(&key(u32::MAX)));
    assert!(!tenants.contains_key(&key(0)));
}

#[test]
fn a_tenant_has_news_while_its_factor_is_low_and_is_forgotten_when_it_is_quiet() {
    let (signal, slow) = (signal(), Duration::from_secs(4));
    let tenant = signal.tenant(key(1));
    (0..5).for_each(|_| tenant.record(slow, &signal.slowdown, 0));
    let mut state = lock(&tenant.state);
    state.seen = 0;
    assert!(state.has_news());
    let (counts, own, before) = state.news(&signal.slowdown, 1);
    assert_eq!((counts.total(), own.as_f64(), before), (5, 0.2, Factor::ONE));
    assert!(!state.has_news());
    state.factor = own;
    assert!(state.has_news() && !state.is_quiet(&signal.slowdown, u64::MAX));
    let window = signal.slowdown.window();
    assert_eq!(state.news(&signal.slowdown, window).1, Factor::ONE, "by itself");
    state.factor = Factor::ONE;
    assert!(!state.is_quiet(&signal.slowdown, window) && state.is_quiet(&signal.slowdown, 3 * window));
}
