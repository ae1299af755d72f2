//! `[upstreams.NAME]`.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    Reader,
    kind::{duration, integer, origin, path},
};
use crate::config::{ClientCertificate, Origin, Upstream};

/// What a wait may be. A shorter one could not be met, and a longer one is as good as none.
pub(super) const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);

pub(super) fn upstream(table: &mut Reader<'_, '_>) -> Upstream {
    let nowhere = Origin { tls: true, host: "invalid".to_owned(), port: 443 };
    Upstream {
        url: table.required("url", nowhere, origin),
        connect_timeout: table.or("connect_timeout", Duration::from_secs(3), duration(WAIT)),
        response_timeout: table.or("response_timeout", Duration::from_secs(30), duration(WAIT)),
        idle_timeout: table.or("idle_timeout", Duration::from_mins(1), duration(WAIT)),
        max_connections: table.or("max_connections", 1000, integer(1..=100_000)),
        ca: table.optional("ca", path),
        client_certificate: table.has("client_certificate").then(|| table.table("client_certificate", client_certificate)),
    }
}

fn client_certificate(table: &mut Reader<'_, '_>) -> ClientCertificate {
    ClientCertificate {
        certificate: table.required("certificate", PathBuf::new(), path),
        key: table.required("key", PathBuf::new(), path),
    }
}
