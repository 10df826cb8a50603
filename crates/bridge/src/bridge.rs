//! [`Bridge`]: a session of Zenoh, and the topics that are carried over it.

use std::{path::Path, sync::Arc};

use zenoh::Wait;

use crate::{
    counts::{Counts, Role, TopicStatus},
    error::{Error, Result},
    export::Exporter,
    import::Importer,
    network::Network,
    renewal::{Carried, Renewal},
    settings::{Settings, WhenBehind},
};

/// Topics that are carried, until it is dropped. A drop ends each topic in order: what was exported is still sent, and importers are told
/// where the source ended.
///
/// See the [example](crate) of the crate.
#[must_use = "a bridge that is dropped carries nothing"]
pub struct Bridge {
    counts: Vec<Arc<Counts>>,
    // Ends before what it renews.
    renewal: Renewal,
    carried: Arc<Carried>,
}

impl Bridge {
    /// Starts Zenoh. Does not wait until others are reached.
    ///
    /// # Errors
    /// [`Error::Config`]; [`Error::Zenoh`], for instance if an endpoint to listen at is taken.
    pub fn open(network: &Network) -> Result<Self> {
        let carried = Arc::new(Carried::open(network.config()?)?);
        let renewal = Renewal::start(&carried, !network.has_id()?)?;
        Ok(Self { counts: Vec::new(), renewal, carried })
    }

    /// Exports what is published at a path or abstract name (`@name`). The publisher need not be there yet, and may be started again.
    ///
    /// # Errors
    /// [`Error::Topic`], [`Error::Setting`], [`Error::Zenoh`], [`Error::Io`].
    pub fn export(mut self, topic: &str, path: impl AsRef<Path>, settings: &Settings) -> Result<Self> {
        settings.check()?;
        check_topic(topic)?;
        let start = |session: &_| Exporter::start(session, topic, path.as_ref(), settings);
        self.counts.push(self.carried.export(start)?);
        Ok(self)
    }

    /// Publishes what others export at a path or abstract name on this machine.
    ///
    /// # Errors
    /// [`Error::Topic`], [`Error::Setting`], [`Error::Zenoh`], [`Error::Io`]; [`Error::Publish`] if the path is taken or cannot be made.
    pub fn import(mut self, topic: &str, path: impl AsRef<Path>, settings: &Settings) -> Result<Self> {
        settings.check()?;
        check_topic(topic)?;
        if let WhenBehind::Wait(_) = settings.when_behind {
            return Err(Error::Setting(
                "when behind, an import drops the oldest or the newest: to wait would hold up the network for all other topics"
                    .into(),
            ));
        }
        let wish = self.renewal.wish();
        let start = |session: &_| Importer::start(session, topic, path.as_ref(), settings, wish);
        self.counts.push(self.carried.import(start)?);
        Ok(self)
    }

    /// Its own identifier in Zenoh. Another one after a renewal, see [`Count::renewals`](crate::Count::renewals).
    #[must_use]
    pub fn id(&self) -> String {
        self.carried.session().get().info().zid().wait().to_string()
    }

    /// How each topic does, exports first.
    #[must_use]
    pub fn status(&self) -> Vec<TopicStatus> {
        let mut status: Vec<_> = self.counts.iter().map(|counts| counts.status()).collect();
        status.sort_by_key(|topic| topic.role == Role::Import);
        status
    }

    /// The bridges and routers that this one is connected to, by Zenoh's identifiers. A bridge that listens nowhere counts as a router
    /// to the others. Zenoh does not tell of its clients.
    #[must_use]
    pub fn peers(&self) -> Vec<String> {
        let session = self.carried.session().get();
        let info = session.info();
        let peers = info.peers_zid().wait().map(|id| id.to_string());
        peers.chain(info.routers_zid().wait().map(|id| format!("{id} (router)"))).collect()
    }
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("topics", &self.status()).finish_non_exhaustive()
    }
}

/// A topic is a key without wildcards, and without parts that are ours.
fn check_topic(topic: &str) -> Result<()> {
    let refuse = |why: String| Err(Error::Topic { topic: topic.to_owned(), why });
    let key = match zenoh::key_expr::KeyExpr::new(topic) {
        Ok(key) => key,
        Err(why) => return refuse(why.to_string()),
    };
    if key.is_wild() {
        return refuse("it has wildcards (*), but names one topic".into());
    }
    if topic.split('/').any(|part| part.starts_with('@')) {
        return refuse("a part begins with @, which bridges keep for themselves".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_keys_without_wildcards() {
        for good in ["stats", "camera/0/stats"] {
            check_topic(good).unwrap();
        }
        for wrong in ["", "/stats", "stats/", "camera/*", "**", "camera/@beat", "a//b", "a?b"] {
            assert!(check_topic(wrong).is_err(), "{wrong:?}");
        }
    }
}
