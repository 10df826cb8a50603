//! The pipeline that publishes: one publisher, and subscribers that come and go.
//!
//! A frame is published once, its statistics as the payload, its buffer as a descriptor. Each subscriber that was there then has a
//! share in the buffer ([`Shares`]), until it gives that back or leaves. Where buffers run short, those of subscribers that may be
//! overrun are taken back; those who are waited for have their time ([`Account`]), and are then ended.

use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sealane::{Builder, Control, Event, Message, Publisher, Slow, SubscriberId, SubscriberInfo};

use crate::camera::{Camera, Frame};
use crate::crew::{Act, Actor, Script};
use crate::picture::Album;
use crate::pipeline::{CONTROLS_DEADLINE, describe, open_camera, progress, ring_capacity};
use crate::protocol::{BUFFERS, Controls, FrameReady, Free, Published, Settings, Share};
use crate::report::{Ending, Facts, Fate, Publishing, Report, Streaming, Subscribed};
use crate::shares::{Account, PATIENCE, Shares};
use crate::statistics::{Grid, Meter};
use crate::temporary::Folder;
use crate::viewers::Counts;
use crate::{Options, Result};

/// Buffers that the camera has at least when it takes a frame, as far as subscribers that may be overrun are concerned.
const SPARE: usize = 2;
/// How long subscribers that may be overrun may look at the last frames.
const LAST_LOOK: Duration = Duration::from_millis(200);
/// Events that are handled before a frame. A subscriber that sends without end does not keep the next frame back.
const EVENTS: usize = 256;
/// How long a subscriber's process may take to join.
const JOINING: Duration = Duration::from_secs(20);
/// The script's frames, where nobody knows how many there will be.
const USUAL: u64 = 300;

/// Starts subscribers, publishes, and sees the subscribers off.
pub(crate) fn run(options: &Options, path: Option<&Path>) -> Result<Facts> {
    let mut camera = open_camera(options)?;
    let album = options.save.as_deref().map(Album::create).transpose()?;
    // Nobody else may look into a folder of ours.
    let folder = path.is_none().then(Folder::new).transpose()?;
    let path = match (&folder, path) {
        (Some(folder), _) => folder.path().join("frames"),
        (None, path) => path.map_or_else(PathBuf::new, Path::to_owned),
    };
    let grid = Grid::for_length(options.stats_size);
    let mut publisher = Builder::default()
        .ring_capacity(ring_capacity(options, grid, 2))
        .max_fds(1)
        .slow(Slow::Wait(PATIENCE))
        .publish(&path)?;
    // Strangers who may reach the path can look, but nobody waits for them.
    let own = rustix::process::getuid().as_raw();
    publisher.admit(move |newcomer| {
        let is_ours = newcomer.credentials().uid == own;
        Some(if is_ours { Slow::Wait(PATIENCE) } else { Slow::Overrun })
    });
    let mut command = Actor::command(options)?;
    command.args(["--publish", "--algorithm"]);
    if options.sandbox {
        command.arg("--sandbox");
    }
    let (algorithm, child) = publisher.spawn(command)?;
    let report = Report::new(progress(&*camera, options));
    let stage = Stage {
        publisher,
        camera: &mut *camera,
        shares: Shares::new(),
        algorithm,
        cast: vec![Member::new("algorithm".into(), Some(Actor::new(child)))],
        report,
        settings: Settings::WRONG,
        next: 0,
        buffers_taken_back: 0,
        path,
        options,
    };
    stage.perform(grid, album)
}

/// A subscriber, and what has become of it.
struct Member {
    name: String,
    /// `None` until it has joined.
    id: Option<SubscriberId>,
    policy: Slow,
    /// The first frame that was published to it.
    joined: u64,
    /// Frames that were published to it.
    published: u64,
    /// Its own word.
    counts: Counts,
    held_at_most: usize,
    account: Account,
    fate: Fate,
    actor: Option<Actor>,
}

impl Member {
    fn new(name: String, actor: Option<Actor>) -> Self {
        Self {
            name,
            id: None,
            policy: Slow::Overrun,
            joined: 0,
            published: 0,
            counts: Counts::default(),
            held_at_most: 0,
            account: Account::new(),
            fate: Fate::Stayed,
            actor,
        }
    }

    /// Waits for its process, if that is ours and lives, and notes what it has counted.
    fn see_off(mut self) -> Result<Subscribed> {
        if let Some(actor) = &mut self.actor
            && !matches!(self.fate, Fate::Killed { .. })
        {
            self.counts = actor.see_off().map_err(|error| format!("{}: {error}", self.name))?;
        }
        let Self { name, policy, joined, published, counts, held_at_most, fate, .. } = self;
        Ok(Subscribed { name, policy, joined, published, counts, held_at_most, fate })
    }
}

/// A run.
struct Stage<'c> {
    publisher: Publisher,
    camera: &'c mut dyn Camera,
    shares: Shares<SubscriberId, BUFFERS>,
    /// The one whose controls are applied: this process has started it, over a socket pair.
    algorithm: SubscriberId,
    cast: Vec<Member>,
    report: Report,
    settings: Settings,
    /// The number of the next frame.
    next: u64,
    buffers_taken_back: u64,
    path: PathBuf,
    options: &'c Options,
}

impl Stage<'_> {
    fn perform(mut self, grid: Grid, mut album: Option<Album>) -> Result<Facts> {
        self.take_note();
        self.start("preview", "--preview")?;
        self.start("recorder", "--record")?;
        let limit = self.options.frame_limit().map(u64::from);
        let mut script = Script::new(limit.or(self.camera.expected_length()).unwrap_or(USUAL));
        let size = self.camera.size();
        let (mut pixels, mut meter) = (vec![0; size.frame_bytes()], Meter::new(size.width));
        let mut first_settings = None;
        let start = Instant::now();
        while limit.is_none_or(|limit| self.next < limit) {
            self.hear_all()?;
            self.make_room()?;
            let mut is_to_be_killed = false;
            while let Some(act) = script.next(self.next) {
                is_to_be_killed |= act == Act::KillRecorder;
                self.play(act)?;
            }
            let Some(frame) = self.camera.take(&mut pixels)? else { break };
            first_settings.get_or_insert(frame.taken_with);
            if let Some(album) = &mut album {
                album.keep(&pixels);
            }
            self.publish(&frame, grid, |statistics| meter.measure(&pixels, size, grid, statistics))?;
            if is_to_be_killed {
                self.kill_recorder()?;
            }
            self.wait_for_controls()?;
        }
        self.wait_for_all_shares()?;
        let elapsed = start.elapsed();
        // Nothing is written over the last frame: the camera has taken none since.
        let saved = album.map_or(Ok(Vec::new()), |album| album.save(&pixels, size, self.camera.is_linear()));

        let channel = self.publisher.stats();
        // The subscribers end when they have received all.
        drop(self.publisher);
        let subscribers = self.cast.into_iter().map(Member::see_off).collect::<Result<_>>()?;
        let publishing =
            Publishing { path: self.path, subscribers, buffers_taken_back: self.buffers_taken_back };
        Ok(self.report.facts(
            Streaming::between(&sealane::Stats::default(), &channel),
            Ending {
                elapsed,
                statistics_bytes: grid.length(),
                first_settings: first_settings.unwrap_or(self.settings),
                settings: self.settings,
                has_colour_gains: self.camera.has_colour_gains(),
                channel,
                played: self.camera.played(),
                saved: saved.map_err(|error| error.to_string()),
                publishing: Some(publishing),
            },
        ))
    }

    /// Publishes a frame, whose statistics `measure` writes, and gives each subscriber a share in its buffer.
    fn publish(&mut self, frame: &Frame, grid: Grid, measure: impl FnOnce(&mut [u8])) -> Result<()> {
        let Frame { buffer, taken_with } = *frame;
        let published = Published {
            camera: describe(self.camera)?,
            ready: FrameReady {
                frame: self.next,
                buffer: u32::try_from(buffer)?,
                columns: u32::try_from(grid.columns)?,
                rows: u32::try_from(grid.rows)?,
                reserved: 0,
                settings: taken_with,
            },
        };
        let mut loan = self.publisher.loan(grid.length())?;
        measure(&mut loan);
        let fds: Vec<BorrowedFd<'_>> = self.camera.buffers();
        loan.send_with(Control::of(&published).fds([fds[buffer]]))?;
        // None has joined since the loan was taken, so these are the ones that can receive the frame.
        let holders: Vec<_> = self.publisher.subscribers().iter().map(SubscriberInfo::id).collect();
        self.take_note();
        self.shares.lend(buffer, self.next, holders);
        self.next += 1;
        self.report.frames += 1;
        for member in &mut self.cast {
            if let Some(id) = member.id
                && self.shares.published(id, self.next - 1).is_some()
            {
                member.published += 1;
                member.held_at_most = member.held_at_most.max(self.shares.held_by(id));
            }
        }
        self.release()
    }

    /// Gives the camera the buffers that nobody reads any more.
    fn release(&mut self) -> Result<()> {
        while let Some(buffer) = self.shares.next_free() {
            self.camera.release(buffer)?;
        }
        Ok(())
    }

    /// Sees to it that the camera has a buffer for the next frame. Only those who are waited for are waited for.
    fn make_room(&mut self) -> Result<()> {
        loop {
            self.take_back(SPARE)?;
            if self.shares.free() > 0 {
                return Ok(());
            }
            let awaited = self.shares.holders_of_oldest();
            let since = Instant::now();
            self.hear(CONTROLS_DEADLINE)?;
            let now = Instant::now();
            let mut used_up = Vec::new();
            for member in self.cast.iter_mut().filter(|member| member.policy != Slow::Overrun) {
                if member.id.is_some_and(|id| awaited.contains(&id))
                    && member.account.charge(now - since, now)
                {
                    used_up.extend(member.id);
                }
            }
            self.end(&used_up, "it kept frames for too long")?;
        }
    }

    /// Takes back buffers that only subscribers have which may miss frames, until the camera has `spare` ones.
    fn take_back(&mut self, spare: usize) -> Result<()> {
        let Self { shares, cast, .. } = self;
        let may_miss = |id| cast.iter().any(|member| member.id == Some(id) && member.policy == Slow::Overrun);
        while shares.free() < spare && shares.take_back(may_miss) {
            self.buffers_taken_back += 1;
            while let Some(buffer) = shares.next_free() {
                self.camera.release(buffer)?;
            }
        }
        Ok(())
    }

    /// Ends subscribers.
    fn end(&mut self, subscribers: &[SubscriberId], reason: &str) -> Result<()> {
        if subscribers.contains(&self.algorithm) {
            return Err(format!("the algorithm process is ended: {reason}").into());
        }
        for id in subscribers {
            if let Some(member) = self.cast.iter_mut().find(|member| member.id == Some(*id)) {
                member.fate = Fate::Left { frame: self.next, buffers: 0, reason: reason.into() };
            }
            self.publisher.disconnect(*id);
        }
        Ok(())
    }

    /// At the end each frame is received, or given up.
    fn wait_for_all_shares(&mut self) -> Result<()> {
        for actor in self.cast.iter_mut().filter_map(|member| member.actor.as_mut()) {
            if actor.is_stopped() {
                actor.resume()?;
            }
        }
        let start = Instant::now();
        while self.shares.free() < BUFFERS {
            self.hear(CONTROLS_DEADLINE)?;
            if start.elapsed() > LAST_LOOK {
                self.take_back(BUFFERS)?;
            }
            if start.elapsed() > PATIENCE {
                self.end(&self.shares.holders_of_oldest(), "it kept frames for too long")?;
            }
        }
        Ok(())
    }

    /// Waits until the algorithm has answered the last frame, but not for long.
    fn wait_for_controls(&mut self) -> Result<()> {
        let deadline = Instant::now() + CONTROLS_DEADLINE;
        while self.shares.published(self.algorithm, self.next - 1).is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.report.late_controls += 1;
                break;
            }
            self.hear(left)?;
        }
        Ok(())
    }

    /// Handles events that are here.
    fn hear_all(&mut self) -> Result<()> {
        for _ in 0..EVENTS {
            let Some(event) = self.publisher.next_event()? else { break };
            self.on_event(event)?;
        }
        Ok(())
    }

    /// Handles the next event, if it comes in time.
    fn hear(&mut self, timeout: Duration) -> Result<()> {
        match self.publisher.wait_event(timeout)? {
            Some(event) => self.on_event(event),
            None => Ok(()),
        }
    }

    fn on_event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Message(id, message) if id == self.algorithm => self.on_controls(&message)?,
            Event::Message(id, message) => self.on_free(id, &message)?,
            Event::Left(id, error) => {
                let buffers = self.shares.give_back(id, u64::MAX);
                if id == self.algorithm {
                    return Err(format!("the algorithm process is gone: {error}").into());
                }
                if let Some(member) = self.cast.iter_mut().find(|member| member.id == Some(id)) {
                    match &mut member.fate {
                        // It is known why.
                        Fate::Killed { buffers: back, .. } | Fate::Left { buffers: back, .. } => {
                            *back = buffers;
                        }
                        fate => {
                            *fate = Fate::Left { frame: self.next, buffers, reason: error.to_string() };
                        }
                    }
                }
            }
            // Noted with the next frame.
            _ => {}
        }
        self.release()
    }

    /// Takes an answer of the algorithm: has the camera apply it.
    fn on_controls(&mut self, message: &Message) -> Result<()> {
        let controls: &Controls = message.control_as()?;
        let Some(published) = self.shares.published(self.algorithm, controls.frame) else {
            return Err(
                format!("the algorithm answers frame {}, which waits for no answer", controls.frame).into()
            );
        };
        if !controls.next.is_valid() || !controls.observed.is_valid() {
            return Err(format!("the algorithm sends what no sensor can do: {controls:?}").into());
        }
        self.report.answer(controls, published.elapsed())?;
        self.camera.apply(&controls.next)?;
        self.settings = controls.next;
        self.shares.give_back(self.algorithm, controls.frame);
        Ok(())
    }

    /// Takes back the shares that a subscriber gives up. One that says what cannot be is ended.
    fn on_free(&mut self, id: SubscriberId, message: &Message) -> Result<()> {
        let free = message.control_as::<Free>().ok().filter(|free| free.frame < self.next);
        let Some(free) = free else { return self.end(&[id], "it gave back what it never had") };
        let was_kept = self.shares.published(id, free.frame).is_some();
        self.shares.give_back(id, free.frame);
        if let Some(member) = self.cast.iter_mut().find(|member| member.id == Some(id)) {
            (member.counts.received, member.counts.missed) = (free.received, free.missed);
        }
        if let Some(token) = message.reply_token() {
            let share = Share { frame: free.frame, was_kept: was_kept.into() };
            // A subscriber that does not read its replies is ended.
            if self.publisher.reply(id, token, Control::of(&share)).is_err() {
                return self.end(&[id], "it does not read its replies");
            }
        }
        Ok(())
    }
}

/// The subscribers' processes.
impl Stage<'_> {
    /// Takes note of subscribers that have joined.
    fn take_note(&mut self) {
        for info in self.publisher.subscribers() {
            if self.cast.iter().any(|member| member.id == Some(info.id())) {
                continue;
            }
            let pid = info.credentials().pid.map_or(0, NonZeroU32::get);
            let is_ours = |member: &Member| {
                member.id.is_none() && member.actor.as_ref().is_some_and(|actor| actor.pid() == pid)
            };
            let at = self.cast.iter().position(is_ours).unwrap_or(self.cast.len());
            if at == self.cast.len() {
                self.cast.push(Member::new(format!("process {pid}"), None));
            }
            let member = &mut self.cast[at];
            (member.id, member.policy, member.joined) = (Some(info.id()), info.policy(), self.next);
        }
    }

    /// Starts a subscriber, and waits until it has joined: so a short run has all of the script.
    fn start(&mut self, name: &str, role: &str) -> Result<()> {
        let at = self.cast.len();
        self.cast.push(Member::new(name.into(), Some(Actor::subscribe(role, &self.path, self.options)?)));
        let deadline = Instant::now() + JOINING;
        while self.cast[at].id.is_none() {
            let ending = self.cast[at].actor.as_mut().map(Actor::ending).transpose()?.flatten();
            if let Some(status) = ending {
                return Err(format!("the {name} ended with {status} before it had joined").into());
            }
            if Instant::now() > deadline {
                return Err(format!("the {name} did not join").into());
            }
            self.hear(CONTROLS_DEADLINE)?;
            self.take_note();
        }
        Ok(())
    }

    fn member(&mut self, name: &str) -> Result<(&mut Actor, &mut Fate)> {
        let member = self.cast.iter_mut().find(|member| member.name == name);
        let found = member.and_then(|Member { actor, fate, .. }| Some((actor.as_mut()?, fate)));
        found.ok_or_else(|| format!("there is no {name}").into())
    }

    fn play(&mut self, act: Act) -> Result<()> {
        let frame = self.next;
        match act {
            Act::StopPreview => {
                let (actor, fate) = self.member("preview")?;
                actor.stop()?;
                *fate = Fate::Stopped { from: frame, to: frame };
            }
            Act::ContinuePreview => {
                let (actor, fate) = self.member("preview")?;
                actor.resume()?;
                if let Fate::Stopped { to, .. } = fate {
                    *to = frame;
                }
            }
            // It is stopped first, so that it has the next frame when it is killed.
            Act::KillRecorder => self.member("recorder")?.0.stop()?,
            Act::RestartRecorder => self.start("second recorder", "--record")?,
            Act::JoinLate => self.start("late preview", "--preview")?,
        }
        Ok(())
    }

    fn kill_recorder(&mut self) -> Result<()> {
        let frame = self.next - 1;
        let (actor, fate) = self.member("recorder")?;
        actor.kill()?;
        *fate = Fate::Killed { frame, buffers: 0 };
        Ok(())
    }
}
