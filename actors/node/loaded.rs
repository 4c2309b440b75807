//! What a node reads from files before it touches its store: certificates, passwords, and what needs them.
//!
//! Apart because it fails for reasons that lie outside, so it is to fail early: at the rehearsal of a program that is to take
//! over, before the one that serves has let anything go. And because a node that takes everything back needs it once more, when
//! the files may have been spoiled since: it goes on with what it has.

use std::sync::{Arc, OnceLock};

use posthouse_conf::Settings;
use posthouse_conf::storage::Engine;
use posthouse_net::certificate::Files;
use posthouse_net::{Resolver, TlsAcceptor};

use super::StartError;
use super::store_link::Link;
use crate::relay::Outbound;

/// Clones share it all.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) resolver: Resolver,
    /// To the node that serves the store, where that is another one.
    pub(super) link: Option<Link>,
    /// A command on a stopped node needs none of it.
    serving: Arc<OnceLock<Serving>>,
}

/// What only a node needs that serves.
pub(super) struct Serving {
    pub(super) outbound: Outbound,
    /// For other nodes that use the store.
    pub(super) store_tls: Option<TlsAcceptor>,
}

impl Loaded {
    pub(super) fn read(settings: &Settings) -> Result<Self, StartError> {
        posthouse_net::tls::install_provider();
        Ok(Self {
            tls: match settings.tls.certificate.as_os_str().is_empty() {
                true => None,
                false => Some(TlsAcceptor::load(&settings.tls)?),
            },
            resolver: Resolver::new(&settings.resolver)?,
            link: match settings.storage.engine {
                Engine::Served => Some(Link::new(settings)?),
                _ => None,
            },
            serving: Arc::default(),
        })
    }

    /// Read when it is asked for first.
    pub(super) fn serving(&self, settings: &Settings) -> Result<&Serving, StartError> {
        if let Some(serving) = self.serving.get() {
            return Ok(serving);
        }
        let serving = Serving::read(settings)?;
        Ok(self.serving.get_or_init(|| serving))
    }
}

impl Serving {
    fn read(settings: &Settings) -> Result<Self, StartError> {
        let outbound = Outbound::read(&settings.queue).map_err(|error| StartError::Sending(error.to_string()))?;
        let serve = &settings.storage.serve;
        if serve.listen.is_empty() {
            return Ok(Self { outbound, store_tls: None });
        }
        let files = Files {
            ca: serve.ca.clone(),
            certificate: serve.certificate.clone(),
            private_key: serve.private_key.clone(),
        };
        Ok(Self { outbound, store_tls: Some(TlsAcceptor::mutual(&files, &settings.tls)?) })
    }
}
