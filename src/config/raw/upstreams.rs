//! `[upstreams.NAME]`.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    Reader,
    kind::{choice, duration, integer, origin, path},
};
use crate::config::{ClientCertificate, Http2, Origin, Upstream};

/// What a wait may be. A shorter one could not be met, and a longer one is as good as none.
pub(super) const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);

pub(super) fn upstream(table: &mut Reader<'_, '_>) -> Upstream {
    let nowhere = Origin { tls: true, host: "invalid".to_owned(), port: 443 };
    let ways = [("auto", Http2::Auto), ("off", Http2::Off), ("prior-knowledge", Http2::PriorKnowledge)];
    let upstream = Upstream {
        url: table.required("url", nowhere, origin),
        connect_timeout: table.or("connect_timeout", Duration::from_secs(3), duration(WAIT)),
        response_timeout: table.or("response_timeout", Duration::from_secs(30), duration(WAIT)),
        idle_timeout: table.or("idle_timeout", Duration::from_mins(1), duration(WAIT)),
        max_connections: table.or("max_connections", 1000, integer(1..=100_000)),
        http2: table.or("http2", Http2::Auto, choice(&ways)),
        ca: table.optional("ca", path),
        client_certificate: table.has("client_certificate").then(|| table.table("client_certificate", client_certificate)),
    };
    if upstream.http2 == Http2::PriorKnowledge && upstream.url.tls {
        table.wrong("http2", "expected \"auto\" for an https:// url, where the two sides agree on it");
    }
    upstream
}

fn client_certificate(table: &mut Reader<'_, '_>) -> ClientCertificate {
    ClientCertificate {
        certificate: table.required("certificate", PathBuf::new(), path),
        key: table.required("key", PathBuf::new(), path),
    }
}
