//! `[telemetry]`.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

use super::{
    Reader,
    kind::{any_text, duration, endpoint, path, share},
};
use crate::config::Telemetry;

pub(super) fn telemetry(table: &mut Reader<'_, '_>) -> Telemetry {
    Telemetry {
        endpoint: table.optional("endpoint", endpoint),
        ca: table.optional("ca", path),
        timeout: table.or("timeout", Duration::from_secs(10), duration(Duration::from_millis(100)..=Duration::from_mins(1))),
        sample_ratio: table.or("sample_ratio", 1.0, share),
        service_name: table.or("service_name", "cxgate".to_owned(), any_text),
        headers: table.table("headers", |headers| headers.secrets("a value of a header field", is_field)),
        resource: table.table("resource", |resource| resource.every(any_text)),
    }
}

fn is_field(name: &str, value: &str) -> bool {
    HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok()
}
