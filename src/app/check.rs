//! What a configuration names outside itself: files of certificates and keys.

use super::StartError;
use crate::{
    config::Config,
    metrics::Metrics,
    serve::Tls,
    tls::client_config,
    upstream::{Credentials, Upstream},
};

/// Reads every file of certificates that a start would read, also of upstreams and credentials that no route uses, and says
/// which cannot be used. Binds nothing, and asks nobody.
pub fn check(config: &Config) -> Vec<StartError> {
    let metrics = Metrics::default();
    let listener = config.listen.tls.as_ref().and_then(|tls| Tls::load(tls).err());
    let store = config.store.redis.as_ref().filter(|redis| redis.tls);
    let store = store.and_then(|_| client_config(config.store.ca.as_deref(), None).err());
    let upstreams = config.upstreams.iter().filter_map(|(name, upstream)| {
        let cause = Upstream::new(name, upstream, config.listen.body_idle_timeout, &metrics).err()?;
        Some(StartError::client(&format!("upstreams.{name}"), cause))
    });
    let credentials = config.oauth.iter().filter_map(|(name, oauth)| {
        let cause = Credentials::new(name, oauth, &metrics).err()?;
        Some(StartError::client(&format!("oauth.{name}"), cause))
    });
    let first = listener.map(StartError::from).into_iter().chain(store.map(|cause| StartError::client("store", cause)));
    first.chain(upstreams).chain(credentials).collect()
}
