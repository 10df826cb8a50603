//! [`Declared`]: what an exporter has declared in its session, and declares again in the next one.

use zenoh::{Session, Wait, liveliness::LivelinessToken, pubsub::Publisher, qos::CongestionControl};

use crate::{
    error::{Error, Result},
    settings::{Settings, WhenBehind},
    wire::Keys,
};

/// See the module. It belongs to a [`Sender`](super::sender::Sender), which waits while the session is replaced.
pub(super) struct Declared {
    pub(super) keys: Keys,
    congestion: CongestionControl,
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
        Self::declare(session, keys.clone(), congestion)
    }

    fn declare(session: &Session, keys: Keys, congestion: CongestionControl) -> Result<Self> {
        let publisher = |key: String| {
            let publisher = session.declare_publisher(key).congestion_control(congestion).wait();
            publisher.map_err(Error::zenoh("declaring a publisher"))
        };
        let (messages, beats) = (publisher(keys.messages().to_owned())?, publisher(keys.beats())?);
        Ok(Self { keys, congestion, session: session.clone(), messages, beats, token: None })
    }

    /// Declares the same in another session.
    pub(super) fn renew(&mut self, session: &Session) -> Result<()> {
        let run = self.token.as_ref().map(|(run, _)| *run);
        *self = Self::declare(session, self.keys.clone(), self.congestion)?;
        self.set_run(run);
        Ok(())
    }

    /// Says that this run is there, and no other.
    pub(super) fn set_run(&mut self, run: Option<u64>) {
        self.token = run.map(|run| {
            let token = self.session.liveliness().declare_token(self.keys.token(run)).wait();
            let token = token
                .inspect_err(|why| log::error!("{}: no token of liveliness: {why}", self.keys.messages()));
            (run, token.ok())
        });
    }
}
