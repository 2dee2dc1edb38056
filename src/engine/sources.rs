//! How is a backend of the configuration made one of the catalog's?

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use tokio::sync::mpsc;

use super::{Fault, part};
use crate::{
    backend::{
        self, Notice, Notices,
        credential::{self, Desk},
        openrouter::Storeroom,
    },
    listener,
    middleware::cache,
    router::{
        catalog::Source,
        own::{self, Own},
        subscriptions::{Updated, Updates},
        view::Upstream,
    },
};

/// Notices that may wait for the catalog. Any one of them has it read all lists.
const NOTICES: usize = 256;

/// The gateway's own tools.
pub fn built_in(own: &Arc<Own>) -> Source {
    let (_, notices) = mpsc::channel(1);
    let upstream = Upstream {
        name: own::NAME.into(),
        prefix: own::NAME.into(),
        patience: Duration::ZERO,
        sampler: None,
        backend: Arc::clone(own) as Arc<dyn backend::Backend>,
    };
    Source { upstream: Arc::new(upstream), fingerprint: env!("CARGO_PKG_VERSION").into(), notices }
}

/// What backends are given of the gateway they are behind.
#[derive(Debug, Clone)]
pub struct Supplies {
    pub updates: Updates,
    pub replies: Arc<cache::Replies>,
    pub desk: Arc<Desk>,
    /// Where they find the store.
    pub storeroom: Storeroom,
}

pub fn source(name: &str, settings: backend::Settings, supplies: &Supplies) -> Result<Source, String> {
    let Supplies { updates, replies, desk, storeroom } = supplies;
    let (sender, receiver) = mpsc::channel(NOTICES);
    let (updates, backend, replies) = (updates.clone(), Arc::<str>::from(name), Arc::clone(replies));
    let (told, of) = (Arc::clone(&replies), Arc::clone(&backend));
    let tell = move |uri: String, caller: Option<String>| {
        told.updated(&of, &uri);
        let _ = updates.send(Updated { backend: Arc::clone(&of), uri, caller }); // Nobody may listen.
    };
    let notices: Notices = Arc::new(move |notice: Notice| match notice {
        Notice::Updated(uri) => tell(uri, None),
        Notice::UpdatedOf { caller, uri } => tell(uri, Some(caller)),
        notice => {
            if matches!(notice, Notice::Connected | Notice::Changed(_)) {
                replies.changed(&backend);
            }
            // Fails when the catalog has gone, or has to read everything anew anyway.
            let _ = sender.try_send(notice);
        }
    });
    let prefix = settings.prefix.clone().unwrap_or_else(|| name.to_owned());
    let patience = settings.connect_timeout.unwrap_or(backend::Settings::CONNECT_TIMEOUT).0;
    let (fingerprint, sampler) = (fingerprint(&settings), settings.sampler.clone());
    let backend = settings.build(name, notices, desk, storeroom)?;
    let upstream = Arc::new(Upstream { name: name.into(), prefix, patience, sampler, backend });
    Ok(Source { upstream, fingerprint, notices: receiver })
}

/// What makes a backend this one. Names of variables count and not what they hold.
fn fingerprint(settings: &backend::Settings) -> String {
    let text = serde_json::to_string(settings).unwrap_or_default();
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Where callers connect accounts. Browsers reach it where clients do, if nothing else is said.
pub fn desk(
    settings: &credential::DeskSettings,
    audience: Option<&str>,
    listen: &listener::Settings,
    faults: &mut Vec<Fault>,
) -> Option<Arc<Desk>> {
    let origin = |address: &str| {
        let address = address.parse::<http::Uri>().ok()?;
        Some(format!("{}://{}", address.scheme_str()?, address.authority()?))
    };
    let usual =
        audience.and_then(origin).unwrap_or_else(|| format!("{}://{}", listen.scheme(), listen.address));
    part("connect", Desk::new(settings, &usual).map(Some), faults)
}
