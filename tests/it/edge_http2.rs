//! HTTP/2 towards clients: the same requests by another protocol, and attacks that only this one knows.

mod attacks;
mod conformance;
mod limits;
mod requests;
