//! Bearer tokens (RFC 6749 and 6750): one task fetches them, and requests read what it published.
//!
//! Promised: one fetch at a time, however many wait; a token is replaced min(10 % of its life, 30 s) before it ends, in the
//! background; while the token endpoint fails, the token there is serves to its end, and without one requests fail at once;
//! failed fetches are repeated with capped back-off. A token that the upstream refused is thrown away, but a token that
//! replaced a refused one is given [`TRIAL`] first, so that an upstream that refuses everything costs the token endpoint
//! nothing. Secrets and tokens reach no log, error or metric.
//! Not promised: that a token that is live by its clock is believed by the upstream.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper::header::HeaderValue;
use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tracing::{info, warn};

use super::{Upstream, UpstreamSetupError, retry::ceiling};
use crate::{
    config,
    metrics::{CredentialsLabels, FetchLabels, FloatGauge, Metrics},
};

mod fetch;

use fetch::{FetchError, Fetcher, Granted};

/// How long a token that replaced a refused one is not thrown away.
const TRIAL: Duration = Duration::from_secs(10);
/// The longest wait after the first failed fetch; it doubles with each further one.
const BACK_OFF_BASE: Duration = Duration::from_millis(250);
/// The longest wait that doubling leads to.
const BACK_OFF_MAX: Duration = Duration::from_secs(15);
/// The longest time before its end at which a token is replaced.
const LONGEST_MARGIN: Duration = Duration::from_secs(30);

/// Where the tokens of one `[oauth.NAME]` table come from. Asked by requests, kept supplied by [`Self::keep_fresh`].
pub struct Credentials {
    name: String,
    fetcher: Fetcher,
    fetch_timeout: Duration,
    token_timeout: Duration,
    published: watch::Sender<Published>,
    counts: Counts,
}

/// A token that was granted.
pub(super) struct Token {
    /// `Bearer TOKEN`.
    authorization: HeaderValue,
    granted: Instant,
    ends: Instant,
    /// Whether it stands in for one that was refused.
    replaces_refused: bool,
}

/// There is no live token, and none came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unavailable;

/// What requests go by.
#[derive(Clone, Default)]
struct Published {
    token: Option<Arc<Token>>,
    /// Whether the last token was refused and is to be replaced at once.
    refused: bool,
    /// Whether the last fetch failed, so that there is nothing to wait for.
    failing: bool,
}

struct Counts {
    good: Counter,
    failed: [Counter; FetchError::COUNT],
    ends: FloatGauge,
}

// === impl Credentials ===

impl Credentials {
    /// Prepares the credentials `name`; nothing is fetched before [`Self::keep_fresh`] runs.
    pub fn new(name: &str, config: &config::OAuth, metrics: &Metrics) -> Result<Self, UpstreamSetupError> {
        let upstream = config::Upstream {
            url: config.token_url.origin.clone(),
            connect_timeout: config.timeout,
            response_timeout: config.timeout,
            // A token is asked for too seldom to keep a connection.
            idle_timeout: config.timeout,
            max_connections: 1,
            http2: config::Http2::Off,
            ca: config.ca.clone(),
            client_certificate: None,
        };
        let upstream = Upstream::new(&format!("oauth.{name}"), &upstream, config.timeout, metrics)?;
        Ok(Self {
            name: name.to_owned(),
            fetcher: Fetcher::new(config, upstream),
            fetch_timeout: config.timeout,
            token_timeout: config.token_timeout,
            published: watch::Sender::default(),
            counts: Counts::new(name, metrics),
        })
    }

    /// A live token: at once where there is one, else when it has come, within the configured time.
    pub(super) async fn token(&self) -> Result<Arc<Token>, Unavailable> {
        let deadline = Instant::now() + self.token_timeout;
        let mut published = self.published.subscribe();
        loop {
            match published.borrow_and_update().token_at(Instant::now()) {
                Some(Ok(token)) => return Ok(token),
                Some(Err(unavailable)) => return Err(unavailable),
                None => {}
            }
            match timeout_at(deadline, published.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Unavailable),
            }
        }
    }

    /// Throws `refused` away, which an upstream has answered with 401, unless another has done so already. Returns whether
    /// there is, or will be, another token to try with.
    pub(super) fn refuse(&self, refused: &Arc<Token>) -> bool {
        let mut replaced = true;
        self.published.send_if_modified(|published| {
            let is_current = published.token.as_ref().is_some_and(|token| Arc::ptr_eq(token, refused));
            if !is_current {
                return false;
            }
            replaced = !refused.replaces_refused || refused.granted.elapsed() >= TRIAL;
            if replaced {
                *published = Published { token: None, refused: true, failing: published.failing };
                self.counts.ends.set(0.0);
            }
            replaced
        });
        replaced
    }

    /// Keeps a token at hand, for ever. To be run once.
    pub async fn keep_fresh(&self) {
        let mut published = self.published.subscribe();
        let mut failures = 0;
        loop {
            match timeout(self.fetch_timeout, self.fetcher.fetch()).await.unwrap_or(Err(FetchError::Timeout)) {
                Ok(granted) => {
                    self.counts.good.inc();
                    if failures > 0 {
                        info!(event = "oauth_fetched", credentials = self.name, "the token endpoint serves again");
                    }
                    failures = 0;
                    let renew = self.publish(granted);
                    tokio::select! {
                        () = sleep_until(renew) => {}
                        () = refusal(&mut published) => {}
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.counts.failed[error as usize].inc();
                    warn!(event = "oauth_fetch_failed", credentials = self.name, %error, "no token was granted");
                    self.published.send_modify(|published| published.failing = true);
                    let longest = ceiling(BACK_OFF_BASE, BACK_OFF_MAX, failures);
                    sleep_until(Instant::now() + longest / 2 + longest.mul_f64(fastrand::f64() / 2.0)).await;
                }
            }
        }
    }

    /// Publishes a token, and says when it is to be replaced.
    fn publish(&self, granted: Granted) -> Instant {
        let Granted { authorization, asked, lifetime } = granted;
        let ends = asked + lifetime;
        self.published.send_modify(|published| {
            self.counts.ends.set(unix_time_in(ends.saturating_duration_since(Instant::now())));
            let token = Token { authorization, granted: Instant::now(), ends, replaces_refused: published.refused };
            *published = Published { token: Some(Arc::new(token)), refused: false, failing: false };
        });
        ends - margin(lifetime)
    }
}

/// How long before its end a token is replaced.
fn margin(lifetime: Duration) -> Duration {
    (lifetime / 10).min(LONGEST_MARGIN)
}

/// Resolves when the published token is refused.
async fn refusal(published: &mut watch::Receiver<Published>) {
    // The sender lives as long as whoever awaits this.
    let _ = published.wait_for(|published| published.refused).await;
}

fn unix_time_in(time: Duration) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (now + time).as_secs_f64()
}

// === impl Token ===

impl Token {
    /// As an `Authorization` field; it is marked sensitive and not printed.
    pub(super) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }
}

// === impl Published ===

impl Published {
    /// A live token, or that there is none to be had; `None` where one is on its way.
    fn token_at(&self, now: Instant) -> Option<Result<Arc<Token>, Unavailable>> {
        match &self.token {
            Some(token) if now < token.ends => Some(Ok(Arc::clone(token))),
            _ if self.failing => Some(Err(Unavailable)),
            _ => None,
        }
    }
}

// === impl Counts ===

impl Counts {
    fn new(name: &str, metrics: &Metrics) -> Self {
        let counter =
            |result| metrics.oauth_fetches.get_or_create_owned(&FetchLabels { credentials: name.to_owned(), result });
        Self {
            good: counter("good"),
            failed: FetchError::RESULTS.map(counter),
            ends: metrics.oauth_token_end.get_or_create_owned(&CredentialsLabels { credentials: name.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_a_tenth_of_its_life_before_its_end_but_at_most_half_a_minute() {
        for (lifetime, expected) in [(1000, 100), (20_000, 2000), (300_000, 30_000), (3_600_000, 30_000)] {
            assert_eq!(margin(Duration::from_millis(lifetime)), Duration::from_millis(expected), "{lifetime}");
        }
    }

    #[test]
    fn a_live_token_serves_and_without_one_requests_wait_or_fail() {
        let now = Instant::now();
        let token =
            |ends| Token { authorization: HeaderValue::from_static("x"), granted: now, ends, replaces_refused: false };
        let asked = |ends: Option<Instant>, failing| {
            let published = Published { token: ends.map(|ends| Arc::new(token(ends))), refused: false, failing };
            published.token_at(now).map(|result| result.is_ok())
        };
        let later = now + Duration::from_millis(1);
        assert_eq!(asked(Some(later), false), Some(true));
        assert_eq!(asked(Some(later), true), Some(true), "the old token serves to its end");
        assert_eq!(asked(Some(now), true), Some(false));
        assert_eq!(asked(Some(now), false), None);
        assert_eq!(asked(None, false), None);
        assert_eq!(asked(None, true), Some(false));
    }
}
