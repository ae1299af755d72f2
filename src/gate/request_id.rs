//! What a request is called.

use std::fmt;

use arrayvec::ArrayString;
use hyper::{HeaderMap, http::HeaderValue};

use super::headers::X_REQUEST_ID;

/// Tells one request from every other, in answers, logs and upstream: the caller's own `X-Request-Id` where that is one
/// field of 1 to 64 of `A-Z a-z 0-9 - _ . : + / =`, else 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(ArrayString<64>);

// === impl RequestId ===

impl RequestId {
    /// The caller's, or a new one.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value).unwrap_or_else(Self::random),
            _ => Self::random(),
        }
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let text = ArrayString::from(value.to_str().ok()?).ok()?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(&byte);
        (!text.is_empty() && text.bytes().all(allowed)).then_some(Self(text))
    }

    fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 64];
        for (two, byte) in digits.chunks_exact_mut(2).zip(fastrand::u128(..).to_ne_bytes()) {
            two.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        let mut text = ArrayString::from_byte_string(&digits).unwrap_or_default();
        text.truncate(32);
        Self(text)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(values: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_static(value));
        }
        RequestId::from_headers(&headers).to_string()
    }

    #[test]
    fn a_callers_own_request_id_is_kept_when_it_is_clean() {
        assert_eq!(id_of(&["0af7-651:9_A.z+/="]), "0af7-651:9_A.z+/=");
    }

    #[test]
    fn anything_else_is_replaced_by_a_new_one() {
        const LONG: &str = "00000000000000000000000000000000000000000000000000000000000000000";
        for bad in [&["a b"][..], &[""], &[LONG], &["one", "two"], &[], &["<script>"]] {
            let id = id_of(bad);
            assert_eq!(id.len(), 32, "{bad:?} gave {id}");
            assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{bad:?} gave {id}");
            assert_ne!(id, id_of(bad), "two requests share an id");
        }
    }
}
