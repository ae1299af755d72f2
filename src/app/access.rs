//! The access log, joined to the listener: what is refused before it reaches the gate has its line too.

use std::{sync::Arc, time::Duration};

use hyper::{
    Request,
    header::{HOST, HeaderName, REFERER, USER_AGENT},
};

use crate::{
    gate::access::Access,
    log::{
        access::{Decision, Record, version},
        stamp,
    },
    serve::Tell,
    trace::{Context, TraceId},
};

/// Writes a line for each request that a listener refuses. It is there at once, so that it took no time.
pub(super) fn tell(access: Arc<Access>) -> Tell {
    Arc::new(move |refused| {
        let request = refused.request;
        let field = |name: HeaderName| request?.headers().get(name)?.to_str().ok();
        let trace_id = request.and_then(|request| Context::of(request.headers())).map(|caller| caller.trace);
        access.write(&Record {
            at: stamp::now(),
            request_id: refused.request_id,
            client: None,
            address: refused.peer.address.ip().to_canonical(),
            method: request.map(|request| request.method().as_str()),
            host: field(HOST),
            path: request.map(|request| request.uri().path()),
            version: version(request.map(Request::version).unwrap_or_default()),
            route: None,
            status: refused.code.status().as_u16(),
            bytes: refused.code.body().len() as u64,
            duration: Duration::ZERO,
            upstream: None,
            decision: Decision::None,
            limit: None,
            cost: None,
            retry_after: None,
            factor: None,
            code: Some(refused.code.as_str()),
            referer: field(REFERER),
            user_agent: field(USER_AGENT),
            headers: &[],
            trace_id: trace_id.map(TraceId::digits).as_deref(),
        });
    })
}
