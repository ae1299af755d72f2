//! What the admin API asks of those who decide. `app` joins the two, so that neither knows the other.

use std::{future::Future, time::Duration};

use hyper::Request;
use serde_json::Value;

use super::answer::Refusal;
use crate::{body::RequestBody, limiter::key::Key, peer::Peer};

/// Which bucket is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketName {
    /// The route; may be left out where there is no other.
    pub route: Option<String>,
    /// The limit; the same.
    pub limit: Option<String>,
    /// A value for each of what the limit counts by, in its order, `route` left out.
    pub values: Vec<String>,
    /// From which kind of source a client has its name.
    pub kind: String,
}

/// Which limit is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitName {
    /// The route; may be left out where there is no other.
    pub route: Option<String>,
    /// The limit; the same.
    pub limit: Option<String>,
}

/// How much there is to be of a limit. Of a bucket, what is left out stays as configured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Amounts {
    /// Tokens that a bucket holds.
    pub capacity: Option<u32>,
    /// Tokens that a bucket gains in a second.
    pub refill_per_second: Option<f64>,
    /// Tokens that may be taken in one window.
    pub quota: Option<u32>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The route; may be left out where there is no other.
    pub route: Option<String>,
    /// The limit; the same.
    pub limit: Option<String>,
    /// The last key of the page before.
    pub cursor: Option<Key>,
    /// The most entries.
    pub count: usize,
}

/// Knows routes, limits and buckets. Only [`reset`](Self::reset), [`amend`](Self::amend), [`restore`](Self::restore) and
/// [`reload`](Self::reload) change anything. Answers are what [`openapi.json`](super::OPENAPI) says.
pub trait Engine: Send + Sync + 'static {
    /// All routes with their limits.
    fn routes(&self) -> Value;

    /// Why a request from `peer` would be decided as it would.
    fn explain(&self, peer: Peer, request: Request<RequestBody>) -> impl Future<Output = Value> + Send;

    /// How a bucket stands.
    fn state(&self, bucket: &BucketName) -> impl Future<Output = Result<Value, Refusal>> + Send;

    /// How the bucket of a tenant and an action stands, in the words of the Data Actions' own reports.
    fn action(&self, bucket: &BucketName) -> impl Future<Output = Result<Value, Refusal>> + Send;

    /// Fills a bucket, for all replicas; answers how it stood before.
    fn reset(&self, bucket: &BucketName) -> impl Future<Output = Result<Value, Refusal>> + Send;

    /// The limits that have other parameters for a while.
    fn amended(&self) -> Value;

    /// Gives a limit other parameters for `lifetime`, for all replicas; answers those it had for a while before, and has now.
    fn amend(
        &self,
        limit: &LimitName,
        amounts: Amounts,
        lifetime: Duration,
    ) -> impl Future<Output = Result<(Value, Value), Refusal>> + Send;

    /// Has a limit be again what is configured, for all replicas; answers what it had for a while.
    fn restore(&self, limit: &LimitName) -> impl Future<Output = Result<Value, Refusal>> + Send;

    /// Which buckets of a limit are in use.
    fn usage(&self, page: &Page) -> impl Future<Output = Result<Value, Refusal>> + Send;

    /// Reads the configuration anew and has it take effect; answers what was before, and what is.
    fn reload(&self) -> impl Future<Output = Result<(Value, Value), Refusal>> + Send;

    /// How the at most `count` busiest buckets of a limit stand.
    fn busiest(&self, route: &str, limit: &str, count: usize) -> impl Future<Output = Result<Value, Refusal>> + Send;
}
