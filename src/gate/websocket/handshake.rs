//! The opening handshake (RFC 6455, section 4): whether a socket is asked for, and whether it is granted.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, Method, Request,
    header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY},
};

use crate::gate::headers::upgrade_wanted;

/// What every server adds to the key (RFC 6455, section 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a request asks for a WebSocket.
pub fn is_asked_for<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET && is_websocket(request.headers())
}

/// What a server must answer to the one key of a request; `None` where there is not one, and no answer could be right.
pub fn expected_accept(headers: &HeaderMap) -> Option<String> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return None };
    Some(accept(key.as_bytes()))
}

/// Whether the fields of a 101 grant a WebSocket to whoever expects `accept`.
pub(super) fn is_granted(headers: &HeaderMap, accept: Option<&str>) -> bool {
    let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    let (Some(granted), None) = (accepts.next(), accepts.next()) else { return false };
    is_websocket(headers) && granted.to_str().ok() == accept
}

/// The answer to a key.
pub fn accept(key: &[u8]) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_SUFFIX);
    STANDARD.encode(hash.digest().bytes())
}

fn is_websocket(headers: &HeaderMap) -> bool {
    upgrade_wanted(headers).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_answered_as_the_standard_has_it() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_socket_is_granted_only_by_the_answer_to_its_key() {
        const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let cases: [(&[(&str, &str)], bool); 6] = [
            (&[("connection", "Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-accept", ACCEPT)], true),
            (&[("connection", "Upgrade"), ("upgrade", "h2c"), ("sec-websocket-accept", ACCEPT)], false),
            (&[("upgrade", "websocket"), ("sec-websocket-accept", ACCEPT)], false),
            (&[("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")], false),
            (&[("connection", "Upgrade"), ("upgrade", "websocket")], false),
            (
                &[
                    ("connection", "Upgrade"),
                    ("upgrade", "websocket"),
                    ("sec-websocket-accept", ACCEPT),
                    ("sec-websocket-accept", ACCEPT),
                ],
                false,
            ),
        ];
        for (fields, expected) in cases {
            let answer = fields.iter().fold(Request::builder(), |answer, (name, value)| answer.header(*name, *value));
            assert_eq!(is_granted(answer.body(()).unwrap().headers(), Some(ACCEPT)), expected, "{fields:?}");
        }
    }
}
