//! `[listen]` and `[admin]`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    Reader,
    kind::{boolean, choice, duration, integer, network, path, socket_address},
    upstreams::WAIT,
};
use crate::config::{Admin, ClientCertificates, Listen, ListenTls, ShowClients};

pub(super) fn listen(table: &mut Reader<'_, '_>) -> Listen {
    Listen {
        address: table.or("address", SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)), socket_address),
        trusted_proxies: table.list("trusted_proxies", Vec::new(), network),
        proxy_protocol: table.or("proxy_protocol", false, boolean),
        max_connections: table.or("max_connections", 10_000, integer(1..=1_000_000)),
        header_timeout: table.or("header_timeout", Duration::from_secs(10), duration(WAIT)),
        body_idle_timeout: table.or("body_idle_timeout", Duration::from_secs(30), duration(WAIT)),
        idle_timeout: table.or("idle_timeout", Duration::from_mins(2), duration(WAIT)),
        max_header_bytes: table.or("max_header_bytes", 32_768, integer(8192..=1_048_576)),
        max_body_bytes: table.or("max_body_bytes", 10_485_760, integer(0..=1_099_511_627_776)),
        drain_timeout: table.or("drain_timeout", Duration::from_secs(10), duration(WAIT)),
        drain_delay: table.or("drain_delay", Duration::ZERO, duration(Duration::ZERO..=*WAIT.end())),
        max_requests_in_flight: table.or("max_requests_in_flight", 10_000, integer(1..=1_000_000)),
        reuse_port: table.or("reuse_port", false, boolean),
        h2c: table.or("h2c", false, boolean),
        tls: table.has("tls").then(|| table.table("tls", tls)),
    }
}

fn tls(table: &mut Reader<'_, '_>) -> ListenTls {
    let choices = [
        ("none", ClientCertificates::None),
        ("request", ClientCertificates::Request),
        ("require", ClientCertificates::Require),
    ];
    let tls = ListenTls {
        certificate: table.required("certificate", PathBuf::new(), path),
        key: table.required("key", PathBuf::new(), path),
        client_certificates: table.or("client_certificates", ClientCertificates::None, choice(&choices)),
        client_ca: table.optional("client_ca", path),
    };
    if tls.client_ca.is_none() && tls.client_certificates != ClientCertificates::None {
        table.wrong("client_certificates", "expected client_ca beside it, or \"none\"");
    }
    tls
}

pub(super) fn admin(table: &mut Reader<'_, '_>) -> Admin {
    Admin {
        address: table.or("address", SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)), socket_address),
        token: table.secret("token", "at least one character", |token| !token.is_empty()),
        show_clients: table.or(
            "show_clients",
            ShowClients::Hashed,
            choice(&[("hashed", ShowClients::Hashed), ("cut", ShowClients::Cut), ("plain", ShowClients::Plain)]),
        ),
    }
}
