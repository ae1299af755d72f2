//! Trusted clients: exempts a client from limits where its claim to a whitelisted name is believed.
//!
//! Promised: a claim is believed only with all the proof its entry asks for (an address in its networks, a certificate
//! of its subject, the secret in `X-Client-Secret`, compared in constant time). An entry that asks for none is believed from
//! anyone; the start warns of it.

use std::sync::Arc;

use hyper::header::HeaderValue;

use super::{
    Outcome,
    call::Call,
    client::Client,
    flood::Floods,
    headers::X_CLIENT_SECRET,
    stage::{Next, Stage},
};
use crate::{config::Trusted, limiter::Limiter};

/// Lets trusted clients pass limits; they are still counted and logged.
#[derive(Clone)]
pub struct Whitelist {
    /// Who is trusted, with what proof.
    pub entries: Arc<[Trusted]>,
    /// Bounds the log.
    pub floods: Arc<Floods>,
    /// Knows whom operators trust for a while, and whom they do not.
    pub limiter: Arc<Limiter>,
}

impl Stage for Whitelist {
    async fn handle(&self, call: &mut Call, next: &impl Next) -> Outcome {
        let secret = call.request.headers_mut().remove(X_CLIENT_SECRET);
        let secret = secret.as_ref().map(HeaderValue::as_bytes);
        if self.exempts(call, secret).is_some() {
            call.exempt = true;
            call.notes.whitelisted();
            call.route.counters.whitelisted.inc();
            self.floods.whitelisted(&call.client, &call.route.name);
        }
        next.call(call).await
    }
}

impl Whitelist {
    /// By what a call that shows this secret passes limits: `configuration`, or `runtime` where operators said so for a while.
    pub fn exempts(&self, call: &Call, secret: Option<&[u8]>) -> Option<&'static str> {
        let Call { client, peer, received, .. } = call;
        let (name, amendments) = (client.identity.text.as_str(), self.limiter.amendments());
        if self.entries.iter().any(|entry| believes(entry, client, peer.certificate.as_deref(), secret))
            && !amendments.suspends(name, *received)
        {
            return Some("configuration");
        }
        amendments.trusts(name, client.address, *received).then_some("runtime")
    }
}

/// Whether all the proof that an entry asks for is there.
pub(super) fn believes(entry: &Trusted, client: &Client, certificate: Option<&str>, secret: Option<&[u8]>) -> bool {
    let named = client.identity.text.eq_ignore_ascii_case(&entry.client);
    let located = entry.networks.is_empty() || entry.networks.iter().any(|network| network.contains(&client.address));
    let proven = entry.secret.as_ref().is_none_or(|wanted| secret.is_some_and(|claim| wanted.matches(claim)));
    let certified = entry.certificate.as_ref().is_none_or(|subject| certificate == Some(subject));
    named && located && certified && proven
}

#[cfg(test)]
mod tests {
    use arrayvec::ArrayString;

    use super::*;
    use crate::{config::Secret, gate::client::Identity};

    fn client(name: &str, address: &str) -> Client {
        let identity = Identity { text: ArrayString::from(name).unwrap(), kind: "name" };
        let address = address.parse().unwrap();
        Client { identity, peer: address, address, network: address.into(), through_trusted_proxy: false }
    }

    #[test]
    fn a_claim_is_believed_only_with_all_the_proof_its_entry_asks_for() {
        let entry = |networks: &[&str], secret: Option<&str>| Trusted {
            client: "analytics".into(),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            certificate: None,
            secret: secret.map(Secret::new),
        };
        let inside = client("analytics", "10.1.2.3");
        let outside = client("analytics", "192.0.2.1");
        let cases = [
            (entry(&[], None), outside, None, true),
            (entry(&[], None), client("other", "10.1.2.3"), None, false),
            (entry(&["10.0.0.0/8"], None), inside, None, true),
            (entry(&["10.0.0.0/8"], None), outside, None, false),
            (entry(&[], Some("s3cret")), outside, Some("s3cret"), true),
            (entry(&[], Some("s3cret")), outside, Some("s3creT"), false),
            (entry(&[], Some("s3cret")), outside, None, false),
            (entry(&["10.0.0.0/8"], Some("s3cret")), inside, None, false),
            (entry(&["10.0.0.0/8"], Some("s3cret")), outside, Some("s3cret"), false),
            (entry(&["10.0.0.0/8"], Some("s3cret")), inside, Some("s3cret"), true),
        ];
        let certified = Trusted { certificate: Some("CN=analytics".into()), ..entry(&[], None) };
        for (certificate, expected) in [(Some("CN=analytics"), true), (Some("CN=other"), false), (None, false)] {
            assert_eq!(believes(&certified, &outside, certificate, None), expected, "{certificate:?}");
        }
        for (entry, client, secret, expected) in cases {
            assert_eq!(
                believes(&entry, &client, None, secret.map(str::as_bytes)),
                expected,
                "{entry:?} {} {secret:?}",
                client.address
            );
        }
    }
}
