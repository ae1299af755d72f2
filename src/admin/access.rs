//! Who may ask: the token, those who guess it, and pages of other origins.
//!
//! Promised: what changes anything needs the token, on every address; what only tells needs it where the listener is open to
//! more than this machine. Tokens are compared in constant time. After [`ATTEMPTS_MAX`] wrong ones from an address, nothing
//! that needs the token is answered to it until [`LOCKOUT`] has passed since the last. A browser that shows a page of another
//! origin, or was led here by another's name, is refused.
//! Not promised: that people behind one address do not lock each other out; on a loopback listener they share one.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HOST, HeaderName, ORIGIN},
};
use tokio::time::Instant;
use tracing::info;

use super::answer::{Code, Refusal};
use crate::config::{self, Secret};

/// Wrong tokens from one address before it is locked out.
const ATTEMPTS_MAX: u32 = 5;

/// How long a wrong token counts, and the last of too many keeps its address out.
const LOCKOUT: Duration = Duration::from_mins(1);

/// Addresses whose attempts are remembered; beyond it, those whose attempts end soonest are forgotten.
const ADDRESSES_MAX: usize = 1024;

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// To be told.
    Read,
    /// To change something.
    Write,
}

/// Lets operators in.
pub struct Access {
    token: ArcSwapOption<Secret>,
    /// Whether only this machine can reach the listener.
    loopback: bool,
    attempts: Mutex<HashMap<IpAddr, Attempts>>,
}

/// Wrong tokens of one address.
struct Attempts {
    count: u32,
    until: Instant,
}

// === impl Access ===

impl Access {
    /// Lets in whoever the configuration trusts.
    pub fn new(config: &config::Admin) -> Self {
        let token = ArcSwapOption::from_pointee(config.token.clone());
        Self { token, loopback: config.address.ip().is_loopback(), attempts: Mutex::default() }
    }

    /// Goes by another token from now on.
    pub fn replace_token(&self, token: Option<Secret>) {
        self.token.store(token.map(Arc::new));
    }

    /// Whether a request from `address` may have what it wants.
    pub fn admit(&self, address: IpAddr, headers: &HeaderMap, intent: Intent, now: Instant) -> Result<(), Refusal> {
        self.check_page(headers)?;
        self.check_token(address, headers, intent, now)
    }

    /// Whether a person's browser may be told: it sends the token as the password of Basic (RFC 7617), under any name. Changes
    /// are never admitted so, because browsers also send it with what a page of another origin makes them ask for.
    pub fn admit_browser(&self, address: IpAddr, headers: &HeaderMap, now: Instant) -> Result<(), Refusal> {
        self.check_page(headers)?;
        match password(headers) {
            Some(password) => self.check(address, Some(&password), Intent::Read, now),
            None => self.check_token(address, headers, Intent::Read, now),
        }
    }

    /// The same for what machines ask for, by whatever name they know this one.
    pub fn check_token(&self, address: IpAddr, headers: &HeaderMap, intent: Intent, now: Instant) -> Result<(), Refusal> {
        let claim = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        self.check(address, claim, intent, now)
    }

    fn check(&self, address: IpAddr, claim: Option<&[u8]>, intent: Intent, now: Instant) -> Result<(), Refusal> {
        if intent == Intent::Read && self.loopback {
            return Ok(());
        }
        let Some(token) = self.token.load_full() else {
            return Err(Refusal::new(Code::WritesDisabled, "set admin.token to allow changes; it is not configured"));
        };
        let address = subject(address);
        if let Some(left) = self.locked_out(address, now) {
            return Err(Refusal::too_many_attempts(left.as_secs() + 1));
        }
        match claim {
            Some(claim) if token.matches(claim) => Ok(()),
            Some(_) => {
                self.note_failure(address, now);
                // No more of these than attempts.
                info!(event = "audit", %address, result = "unauthorized", "a wrong token was sent");
                Err(Refusal::new(Code::Unauthorized, "the token is not the configured one"))
            }
            None => Err(Refusal::new(Code::Unauthorized, "send the token as Authorization: Bearer …")),
        }
    }

    /// Refuses browsers that were sent by a page of another origin, or reached a loopback listener by a name of the network
    /// (which whoever owns the name can have point anywhere).
    fn check_page(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(HOST).unwrap_or_default();
        if self.loopback && !is_local(host) {
            return Err(Refusal::new(Code::ForeignHost, "ask for this listener by its address or as localhost"));
        }
        let own = |origin: &str| origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        match headers.get(ORIGIN) {
            Some(_) if !text(ORIGIN).is_some_and(own) => {
                Err(Refusal::new(Code::ForeignOrigin, "pages of other origins may not ask here"))
            }
            _ => Ok(()),
        }
    }

    fn locked_out(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = attempts.get(&address).filter(|attempts| attempts.count >= ATTEMPTS_MAX && attempts.until > now)?;
        Some(of_address.until - now)
    }

    fn note_failure(&self, address: IpAddr, now: Instant) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if !attempts.contains_key(&address) && attempts.len() >= ADDRESSES_MAX {
            attempts.retain(|_, attempts| attempts.until > now);
            let soonest = attempts.iter().min_by_key(|(_, attempts)| attempts.until).map(|(address, _)| *address);
            if let Some(soonest) = soonest.filter(|_| attempts.len() >= ADDRESSES_MAX) {
                attempts.remove(&soonest);
            }
        }
        let of_address = attempts.entry(address).or_insert(Attempts { count: 0, until: now });
        let count = if of_address.until > now { of_address.count + 1 } else { 1 };
        *of_address = Attempts { count, until: now + LOCKOUT };
    }
}

/// The password of Basic.
fn password(headers: &HeaderMap) -> Option<Vec<u8>> {
    let credentials = headers.get(AUTHORIZATION)?.as_bytes().strip_prefix(b"Basic ")?;
    let credentials = STANDARD.decode(credentials).ok()?;
    let colon = credentials.iter().position(|byte| *byte == b':')?;
    Some(credentials[colon + 1..].to_vec())
}

/// The address whose attempts are counted: whoever has one of IPv6 has the rest of its /64 too.
fn subject(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Whether a host cannot be anybody else's name for this machine.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn access(address: &str, token: Option<&str>) -> Access {
        let (token, show_clients) = (token.map(Secret::new), config::ShowClients::Hashed);
        Access::new(&config::Admin { address: address.parse().unwrap(), token, show_clients })
    }

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn five_wrong_tokens_lock_an_address_out_for_a_minute_and_no_other() {
        let (access, now) = (access("0.0.0.0:9901", Some("right")), Instant::now());
        let asks = |address: &str, token: &str, seconds| {
            let fields = headers(&[(HOST, "x"), (AUTHORIZATION, &format!("Bearer {token}"))]);
            let now = now + Duration::from_secs(seconds);
            access.admit(address.parse().unwrap(), &fields, Intent::Write, now).map_err(|refusal| refusal.code)
        };
        for second in 0..5 {
            assert_eq!(asks("2001:db8::1", "right", second), Ok(()));
            assert_eq!(asks("2001:db8::1", "wrong", second), Err(Code::Unauthorized));
        }
        assert_eq!(asks("2001:db8::2", "right", 63), Err(Code::TooManyAttempts), "the last was at 4");
        assert_eq!(asks("2001:db9::1", "right", 63), Ok(()));
        assert_eq!(asks("2001:db8::1", "right", 64), Ok(()));
        assert_eq!(asks("2001:db8::1", "wrong", 65), Err(Code::Unauthorized), "the count begins anew");
        assert_eq!(asks("2001:db8::1", "right", 65), Ok(()));
    }

    #[test]
    fn addresses_beyond_the_bound_push_out_the_oldest() {
        let (access, now) = (access("0.0.0.0:9901", Some("right")), Instant::now());
        for number in 0..3000_u32 {
            access.note_failure(IpAddr::from(number.to_be_bytes()), now + Duration::from_millis(number.into()));
        }
        assert_eq!(access.attempts.lock().unwrap().len(), ADDRESSES_MAX);
    }

    #[test]
    fn what_is_needed_depends_on_the_listener_and_on_what_is_wanted() {
        let asks = |address: &str, token: Option<&str>, intent, fields: &[(HeaderName, &str)]| {
            let client = "127.0.0.1".parse().unwrap();
            let admitted = access(address, token).admit(client, &headers(fields), intent, Instant::now());
            admitted.map_err(|refusal| refusal.code)
        };
        let (open, local) = ("0.0.0.0:9901", "127.0.0.1:9901");
        let (host, token) = ((HOST, "localhost:9901"), (AUTHORIZATION, "Bearer t"));
        assert_eq!(asks(local, None, Intent::Read, std::slice::from_ref(&host)), Ok(()));
        assert_eq!(asks(local, Some("t"), Intent::Read, std::slice::from_ref(&host)), Ok(()));
        assert_eq!(asks(local, None, Intent::Write, &[host.clone(), token.clone()]), Err(Code::WritesDisabled));
        assert_eq!(asks(local, Some("t"), Intent::Write, std::slice::from_ref(&host)), Err(Code::Unauthorized));
        assert_eq!(asks(local, Some("t"), Intent::Write, &[host.clone(), token.clone()]), Ok(()));
        assert_eq!(asks(open, Some("t"), Intent::Read, &[(HOST, "gate.example")]), Err(Code::Unauthorized));
        assert_eq!(asks(open, Some("t"), Intent::Read, &[(HOST, "gate.example"), token.clone()]), Ok(()));
        for name in ["evil.example", "evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert_eq!(asks(local, None, Intent::Read, &[(HOST, name)]), Err(Code::ForeignHost), "{name}");
        }
        for name in ["127.0.0.1:9901", "[::1]:9901", "[::1]", "LOCALHOST"] {
            assert_eq!(asks(local, None, Intent::Read, &[(HOST, name)]), Ok(()), "{name}");
        }
        let origin = |origin| asks(local, None, Intent::Read, &[host.clone(), (ORIGIN, origin)]);
        assert_eq!(origin("http://localhost:9901"), Ok(()));
        for foreign in ["null", "https://evil.example", "http://localhost:80", "localhost:9901"] {
            assert_eq!(origin(foreign), Err(Code::ForeignOrigin), "{foreign}");
        }
    }
}
