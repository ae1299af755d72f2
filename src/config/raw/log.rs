//! `[log]`.

use hyper::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION};

use super::{
    Reader,
    kind::{choice, integer, parsed},
};
use crate::config::{AccessClients, AccessFormat, AccessLog, AccessTarget, Log, LogFields, LogFormat, LogLevel};

/// The field by which trusted clients prove themselves.
const SECRET: HeaderName = HeaderName::from_static("x-client-secret");

pub(super) fn log(table: &mut Reader<'_, '_>) -> Log {
    let formats = [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let fields = [("cxgate", LogFields::Cxgate), ("ecs", LogFields::Ecs)];
    Log {
        format: table.or("format", LogFormat::Auto, choice(&formats)),
        level: table.or("level", LogLevel::Info, choice(&levels)),
        fields: table.or("fields", LogFields::Cxgate, choice(&fields)),
        access: table.table("access", access),
    }
}

fn access(table: &mut Reader<'_, '_>) -> AccessLog {
    let formats = [("json", AccessFormat::Json), ("combined", AccessFormat::Combined)];
    let clients = [("plain", AccessClients::Plain), ("hashed", AccessClients::Hashed)];
    let target = |text: &str| (!text.is_empty()).then(|| AccessTarget::from(text));
    let field = "the name of a header field that carries no credentials";
    AccessLog {
        to: table.optional("to", parsed("\"stdout\", \"stderr\" or the path of a file", target)),
        format: table.or("format", AccessFormat::Json, choice(&formats)),
        clients: table.or("clients", AccessClients::Plain, choice(&clients)),
        sample: table.or("sample", 1, integer(1..=1_000_000)),
        headers: table.list("headers", Vec::new(), parsed(field, harmless_field)),
    }
}

fn harmless_field(text: &str) -> Option<String> {
    let name = HeaderName::try_from(text).ok()?;
    (![AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SECRET].contains(&name)).then(|| name.as_str().to_owned())
}
