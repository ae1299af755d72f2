//! W3C Trace Context: who calls, in which trace, and whether it is sampled.
//!
//! Promised: what is malformed counts as absent, and then `tracestate` too (section 3.2.2 and 3.3); of flags we pass on those
//! that Level 2 defines. A `tracestate` beyond its bounds is cut by whole members, or goes no further.

use std::fmt;

use arrayvec::ArrayString;
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `traceparent` of version 00, in bytes.
const LENGTH: usize = 55;
/// The flag of a trace whose spans are wanted.
const SAMPLED: u8 = 1;
/// That, and the flag of an id that is random.
const KNOWN_FLAGS: u8 = 3;
/// Members of a list, at most (section 3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// What everyone has to pass on of a list, in bytes (section 3.3.1.5), and so the most that we do.
const MAX_STATE_BYTES: usize = 512;
/// Members that are longer go first.
const MAX_MEMBER_BYTES: usize = 128;

/// Tells a trace from every other; not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceId(u128);

/// Tells a span from every other of its trace; not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanId(u64);

/// A span that has, or will have, others below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// As in the last field of `traceparent`; none but those that are known.
    pub flags: u8,
}

// === impl TraceId ===

impl TraceId {
    /// A new one.
    pub fn random() -> Self {
        Self(fastrand::u128(1..))
    }

    /// So many of its last bits.
    pub(super) fn random_part(self, bits: u32) -> u64 {
        let last = self.0 & u128::from(u64::MAX >> (u64::BITS - bits));
        u64::try_from(last).unwrap_or_default()
    }

    /// 32 digits.
    pub fn digits(self) -> ArrayString<32> {
        digits(&self.0.to_be_bytes())
    }

    /// 16 bytes, the highest first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.digits())
    }
}

// === impl SpanId ===

impl SpanId {
    /// A new one.
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    /// 8 bytes, the highest first.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

// === impl Context ===

impl Context {
    /// What the one valid `traceparent` says.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }

    /// The flags of a trace that begins here.
    pub(super) fn flags_of(is_sampled: bool) -> u8 {
        u8::from(is_sampled)
    }

    /// Whether spans are wanted.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Reads version 00, and of later versions what they have in common with it.
    fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let version = number(&head[..2])?;
        let is_separated = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        let is_ended = rest.is_empty() || (version > 0 && rest[0] == b'-');
        let (trace, span, flags) = (number(&head[3..35])?, number(&head[36..52])?, number(&head[53..])?);
        let is_valid = version != 0xff && is_separated && is_ended && trace != 0 && span != 0;
        let flags = u8::try_from(flags).ok()? & KNOWN_FLAGS;
        is_valid.then_some(Self { trace: TraceId(trace), span: SpanId(u64::try_from(span).ok()?), flags })
    }

    fn to_header(self) -> HeaderValue {
        let mut text = ArrayString::<LENGTH>::from("00-").unwrap_or_default();
        for part in [&*self.trace.digits(), "-", &*digits::<16>(&self.span.to_bytes()), "-", &*digits::<2>(&[self.flags])] {
            // Its length is that of the parts.
            let _ = text.try_push_str(part);
        }
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Puts `context` in the place of what the caller told. Its `tracestate` goes on where the trace does.
pub(super) fn tell(headers: &mut HeaderMap, context: Context, goes_on: bool) {
    headers.insert(TRACEPARENT, context.to_header());
    if !headers.contains_key(TRACESTATE) {
        return;
    }
    let lists = headers.get_all(TRACESTATE).iter().map(|list| list.to_str().ok());
    let state = lists.collect::<Option<Vec<_>>>().map(|lists| lists.join(",")).filter(|_| goes_on);
    match state.and_then(|state| HeaderValue::try_from(within_bounds(&state)?).ok()) {
        Some(state) => _ = headers.insert(TRACESTATE, state),
        None => _ = headers.remove(TRACESTATE),
    }
}

/// A list within its bounds: long members go first, then the oldest, which stand last. `None` where nothing is left.
fn within_bounds(state: &str) -> Option<String> {
    let mut members: Vec<&str> = state.split(',').map(|member| member.trim_matches([' ', '\t'])).collect();
    members.retain(|member| !member.is_empty());
    if members.is_empty() || members.len() > MAX_MEMBERS {
        return None;
    }
    let length = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>() - 1;
    while !members.is_empty() && length(&members) > MAX_STATE_BYTES {
        let long = members.iter().rposition(|member| member.len() > MAX_MEMBER_BYTES);
        members.remove(long.unwrap_or(members.len() - 1));
    }
    (!members.is_empty()).then(|| members.join(","))
}

/// A number in hexadecimal digits, none of them a capital.
fn number(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Two digits a byte; `LENGTH` is twice the number of bytes.
fn digits<const LENGTH: usize>(bytes: &[u8]) -> ArrayString<LENGTH> {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut text = ArrayString::new();
    for digit in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        let _ = text.try_push(DIGITS[usize::from(digit)]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn read(values: &[&str]) -> Option<String> {
        let fields: Vec<_> = values.iter().map(|value| (TRACEPARENT, *value)).collect();
        Context::of(&headers(&fields)).map(|context| context.to_header().to_str().unwrap().to_owned())
    }

    #[test]
    fn what_is_valid_is_read_as_it_would_be_written_again() {
        assert_eq!(read(&[VALID]).as_deref(), Some(VALID));
        let ending = |end: &str| VALID.replace("-01", end);
        assert_eq!(read(&[&ending("-00")]), Some(ending("-00")));
        assert_eq!(read(&[&ending("-ff")]), Some(ending("-03")), "flags that nobody knows go no further");
        let later = VALID.replacen("00", "cc", 1);
        assert_eq!(read(&[&later]).as_deref(), Some(VALID));
        assert_eq!(read(&[&format!("{later}-what-the-future-will-be-like")]).as_deref(), Some(VALID));
        let sampled = |values: &[&str]| Context::of(&headers(&[(TRACEPARENT, values[0])])).unwrap().is_sampled();
        assert_eq!((sampled(&[VALID]), sampled(&[&ending("-02")])), (true, false));
    }

    #[test]
    fn what_is_malformed_counts_as_absent() {
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-010",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c+b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.x",
            "+0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(read(&[bad]), None, "{bad}");
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[VALID, VALID]), None, "two parents are none");
    }

    #[test]
    fn a_state_goes_on_within_its_bounds() {
        let member = |length: usize| format!("a={}", "x".repeat(length - 2));
        let of = |lengths: &[usize]| lengths.iter().map(|length| member(*length)).collect::<Vec<_>>().join(",");
        assert_eq!(within_bounds("a=1 ,, b=2").as_deref(), Some("a=1,b=2"));
        assert_eq!(within_bounds(&of(&[512])), Some(of(&[512])));
        assert_eq!(within_bounds(&of(&[513])), None);
        assert_eq!(within_bounds(&of(&[100, 129, 128, 128, 100])), Some(of(&[100, 128, 128, 100])), "the long one went");
        assert_eq!(within_bounds(&of(&[128; 5])), Some(of(&[128; 3])), "the oldest went");
        assert_eq!(within_bounds(&of(&[3; 32])), Some(of(&[3; 32])));
        assert_eq!(within_bounds(&of(&[3; 33])), None);
        assert_eq!(within_bounds(" , "), None);
    }

    #[test]
    fn a_state_goes_on_only_with_the_trace_that_it_is_of() {
        let context = Context::parse(VALID.as_bytes()).unwrap();
        let sent = [(TRACEPARENT, "junk"), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")];
        let mut went_on = headers(&sent);
        tell(&mut went_on, context, true);
        assert_eq!(went_on, headers(&[(TRACEPARENT, VALID), (TRACESTATE, "a=1,b=2")]));
        let mut begins = headers(&sent);
        tell(&mut begins, context, false);
        assert_eq!(begins, headers(&[(TRACEPARENT, VALID)]));
    }
}
