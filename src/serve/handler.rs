//! Who answers what a listener takes in.

use bytes::Bytes;
use http_body::Body;
use hyper::{Request, Response};

use crate::{body::RequestBody, peer::Peer, wire::fields::BringsFields};

/// An error of a response body.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Answers the request of a peer. Every function that keeps to this is one.
pub trait Handler: Fn(Peer, Request<RequestBody>) -> <Self as Handler>::Answering + Clone + Send + Sync + 'static {
    /// The answer, as it is made.
    type Answering: Future<Output = Response<<Self as Handler>::Body>> + Send + 'static;
    /// What an answer carries.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + BringsFields + Unpin + Send + 'static;
}

impl<H, F, B> Handler for H
where
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + BringsFields + Unpin + Send + 'static,
{
    type Answering = F;
    type Body = B;
}
