//! [`Declared`]: what an exporter has declared in its session, and declares again in the next one.

use zenoh::{Session, Wait, liveliness::LivelinessToken, pubsub::Publisher, qos::CongestionControl};

use crate::{
    error::{Error, Result},
    settings::{Settings, WhenBehind},
    wire::Keys,
};

/// See the module. It belongs to a [`Sender`](super::sender::Sender), which waits while another session is made.
pub(super) struct Declared {
    session: Session,
    pub(super) messages: Publisher<'static>,
    pub(super) beats: Publisher<'static>,
    /// The run that is there, and what says so.
    token: Option<(u64, Option<LivelinessToken>)>,
}

impl Declared {
    pub(super) fn new(session: &Session, keys: &Keys, settings: &Settings) -> Result<Self> {
        let congestion = match settings.when_behind {
            WhenBehind::Wait(_) => CongestionControl::Block,
            WhenBehind::DropOldest | WhenBehind::DropNewest => CongestionControl::Drop,
        };
        let publisher = |key: String| {
            let publisher = session.declare_publisher(key).congestion_control(congestion).wait();
            publisher.map_err(Error::zenoh("declaring a publisher"))
        };
        Ok(Self {
            session: session.clone(),
            messages: publisher(keys.messages().to_owned())?,
            beats: publisher(keys.beats())?,
            token: None,
        })
    }

    /// Declares the same in another session.
    pub(super) fn renew(&mut self, session: &Session, keys: &Keys, settings: &Settings) -> Result<()> {
        let run = self.token.as_ref().map(|(run, _)| *run);
        *self = Self::new(session, keys, settings)?;
        self.set_run(run, keys);
        Ok(())
    }

    /// Says that this run is there, and no other.
    pub(super) fn set_run(&mut self, run: Option<u64>, keys: &Keys) {
        self.token = run.map(|run| {
            let token = self.session.liveliness().declare_token(keys.token(run)).wait();
            let token =
                token.inspect_err(|why| log::error!("{}: no token of liveliness: {why}", keys.messages()));
            (run, token.ok())
        });
    }
}
