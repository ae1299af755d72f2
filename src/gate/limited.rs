//! A refusal by a limit or a guard, and what it says.

use std::sync::Arc;

use hyper::{HeaderMap, header::ACCEPT};

use super::quota::QuotaFields;

/// A refusal, with all that is said about it.
#[derive(Debug)]
pub struct Limited {
    /// The limit, or the guard, to wait for.
    pub limit: Arc<str>,
    /// Seconds after which the same request would pass, if nothing else came.
    pub retry_after: u64,
    /// What is left of the quotas, where one of them refused.
    pub fields: Option<QuotaFields>,
    /// Whether the client asked for an RFC 9457 document.
    pub problem_json: bool,
}

// === impl Limited ===

impl Limited {
    /// A refusal of a request with `headers`, in the form they ask for.
    pub fn new(limit: Arc<str>, retry_after: u64, fields: Option<QuotaFields>, headers: &HeaderMap) -> Self {
        let mut accepted = headers.get_all(ACCEPT).iter();
        let problem_json =
            accepted.any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("application/problem+json")));
        Self { limit, retry_after, fields, problem_json }
    }

    /// Whole tokens left in the limit, where it has a quota.
    pub fn remaining(&self) -> Option<u64> {
        self.fields.as_ref().map(|fields| fields.remaining)
    }

    /// The body of the refusal: the contract's JSON, or a problem of the quota-exceeded type with the same members.
    pub fn body(&self) -> String {
        const ERROR: &str = r#""error":"rate_limit_exceeded","retry_after":"#;
        const LIMIT: &str = r#","limit":""#;
        const END: &str = r#""}"#;
        const PROBLEM: &str = concat!(
            r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","#,
            r#""title":"Request cannot be satisfied as assigned quota has been exceeded","status":429,"violated-policies":[""#,
        );
        let (limit, mut seconds) = (&*self.limit, itoa::Buffer::new());
        let seconds = seconds.format(self.retry_after);
        if self.problem_json {
            [PROBLEM, limit, r#""],"#, ERROR, seconds, LIMIT, limit, END].concat()
        } else {
            ["{", ERROR, seconds, LIMIT, limit, END].concat()
        }
    }
}
