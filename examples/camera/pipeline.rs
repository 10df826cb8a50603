//! The pipeline process: takes frames, sends their statistics, has the camera apply the controls that come back.
//!
//! Every wait is bounded. Controls that are late are applied when they come; an algorithm process that is silent for
//! [`PATIENCE`] while it holds all buffers is given up.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, path, thread};

use sealane::{Builder, Channel, Control, Error, Message};

use crate::buffers::Layout;
use crate::camera::{Camera, Frame};
use crate::clip::Clip;
use crate::device::Webcam;
use crate::picture::Album;
use crate::progress::Progress;
use crate::protocol::{BUFFERS, Controls, FrameReady, Register, Revoke, Settings};
use crate::report::{Ending, Facts, Report, Streaming};
use crate::scene::Scene;
use crate::sensor::{Size, Source};
use crate::simulation::Simulation;
use crate::statistics::{Grid, Meter};
use crate::{Options, Result};

const SCENE_SIZE: Size = Size { width: 640, height: 480 };
/// How long the next frame waits for the controls of this one.
pub(crate) const CONTROLS_DEADLINE: Duration = Duration::from_millis(20);
/// How long the algorithm process may be silent, or take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Starts the algorithm, streams, and sees the algorithm off.
pub(crate) fn run(options: &Options) -> Result<Facts> {
    let mut camera = open_camera(options)?;
    let album = options.save.as_deref().map(Album::create).transpose()?;
    let grid = Grid::for_length(options.stats_size);
    let (channel, algorithm) = start(options, grid)?;
    match (stream(channel, &mut *camera, grid, album, options), see_off(algorithm)) {
        (Ok(facts), Ok(())) => Ok(facts),
        (Err(error), Ok(())) | (Ok(_), Err(error)) => Err(error),
        (Err(error), Err(ending)) => Err(format!("{error}; {ending}").into()),
    }
}

pub(crate) fn open_camera(options: &Options) -> Result<Box<dyn Camera>> {
    let named = |path: &Path, error: Box<dyn std::error::Error>| format!("{}: {error}", path.display());
    if let Some(path) = &options.device {
        return Ok(Box::new(Webcam::open(path, options.fps).map_err(|error| named(path, error))?));
    }
    let source: Box<dyn Source> = match &options.input {
        None => Box::new(Scene::new(SCENE_SIZE)),
        Some(path) => {
            Box::new(Clip::open(path, options.frames.is_some()).map_err(|error| named(path, error))?)
        }
    };
    Ok(Box::new(Simulation::new(source, options.fps)?))
}

/// Starts the algorithm process. It sends no payloads, so it needs no ring: of its memory, one page is mapped here.
fn start(options: &Options, grid: Grid) -> Result<(Channel, Child)> {
    // Room for one record that is read, one that is written and one in case controls are late.
    let capacity = ring_capacity(options, grid, 1);
    let mut command = algorithm_command(options)?;
    command.args(["--ring-capacity", &capacity.to_string()]).stdin(Stdio::null());
    let builder = Channel::builder().ring_capacity(capacity).max_peer_ring_capacity(0).max_fds(0);
    Ok(builder.spawn(command)?)
}

/// The ring that was asked for, or one whose readers keep `kept` records.
pub(crate) fn ring_capacity(options: &Options, grid: Grid, kept: usize) -> usize {
    options.ring_capacity.unwrap_or_else(|| Builder::ring_for(grid.length(), kept).max(4 << 20))
}

/// The algorithm's program, this one again or another. Both have an option `--ring-capacity`.
fn algorithm_command(options: &Options) -> Result<Command> {
    if let Some(program) = &options.algorithm_program {
        return Ok(Command::new(path::absolute(program)?));
    }
    let mut command = Command::new(env::current_exe()?);
    command.arg("--algorithm");
    if options.sandbox {
        command.arg("--sandbox");
    }
    Ok(command)
}

fn stream(
    mut channel: Channel,
    camera: &mut dyn Camera,
    grid: Grid,
    mut album: Option<Album>,
    options: &Options,
) -> Result<Facts> {
    let size = camera.size();
    register(&mut channel, camera)?;
    let registered = channel.stats();

    let mut report = Report::new(progress(camera, options));
    let mut first_settings = None;
    let mut pending = Pending::default();
    let mut settings = Settings::WRONG;
    let mut pixels = vec![0; size.frame_bytes()];
    let mut meter = Meter::new(size.width);
    let start = Instant::now();
    while options.frame_limit().is_none_or(|limit| report.frames < limit) {
        while let Some(message) = channel.try_recv()? {
            settings = pending.answered(&message, camera, &mut report)?;
        }
        while pending.has_all_buffers() {
            let message = channel.recv_timeout(PATIENCE).map_err(silent)?;
            settings = pending.answered(&message, camera, &mut report)?;
        }
        let Some(Frame { buffer, taken_with }) = camera.take(&mut pixels)? else { break };
        first_settings.get_or_insert(taken_with);
        if let Some(album) = &mut album {
            album.keep(&pixels);
        }

        let mut loan = channel.sender.loan_timeout(grid.length(), PATIENCE).map_err(silent)?;
        meter.measure(&pixels, size, grid, &mut loan);
        let frame = u64::from(report.frames);
        let ready = FrameReady {
            frame,
            buffer: u32::try_from(buffer)?,
            columns: u32::try_from(grid.columns)?,
            rows: u32::try_from(grid.rows)?,
            reserved: 0,
            settings: taken_with,
        };
        let sent = Instant::now();
        loan.send_with(Control::of(&ready))?;
        pending.0[buffer] = Some((frame, sent));
        report.frames += 1;

        while pending.waits_for(frame) {
            match channel.recv_timeout((sent + CONTROLS_DEADLINE).saturating_duration_since(Instant::now())) {
                Ok(message) => settings = pending.answered(&message, camera, &mut report)?,
                Err(error) if error.is_timeout() => {
                    report.late_controls += 1;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    while pending.has_buffers() {
        let message = channel.recv_timeout(PATIENCE).map_err(silent)?;
        settings = pending.answered(&message, camera, &mut report)?;
    }
    let elapsed = start.elapsed();
    let streaming = Streaming::between(&registered, &channel.stats());
    revoke(&mut channel)?;
    // Nothing is written over the last frame: the camera has taken none since.
    let saved = album.map_or(Ok(Vec::new()), |album| album.save(&pixels, size, camera.is_linear()));
    Ok(report.facts(
        streaming,
        Ending {
            elapsed,
            statistics_bytes: grid.length(),
            first_settings: first_settings.unwrap_or(settings),
            settings,
            has_colour_gains: camera.has_colour_gains(),
            channel: channel.stats(),
            played: camera.played(),
            saved: saved.map_err(|error| error.to_string()),
            publishing: None,
        },
    ))
}

/// The display of the running loop.
pub(crate) fn progress(camera: &dyn Camera, options: &Options) -> Progress {
    if options.json {
        return Progress::hidden();
    }
    let frames = options.frame_limit().map_or(camera.expected_length(), |limit| Some(limit.into()));
    Progress::new(frames, camera.has_colour_gains())
}

/// Tells the algorithm of the camera's buffers, once.
fn register(channel: &mut Channel, camera: &dyn Camera) -> Result<()> {
    Ok(channel.send(Control::of(&describe(camera)?).fds(&camera.buffers()))?)
}

/// The description of the camera that the other processes need.
pub(crate) fn describe(camera: &dyn Camera) -> Result<Register> {
    let size = camera.size();
    let stride = match camera.layout() {
        Layout::Planes => 0,
        Layout::Yuyv { stride } => u32::try_from(stride)?,
    };
    Ok(Register {
        width: u32::try_from(size.width)?,
        height: u32::try_from(size.height)?,
        stride,
        has_colour_gains: camera.has_colour_gains().into(),
    })
}

/// Has the algorithm close the camera's buffers.
fn revoke(channel: &mut Channel) -> Result<()> {
    let revoke = Revoke { buffers: u32::try_from(BUFFERS)? };
    let reply = channel.call(Control::of(&revoke), PATIENCE).map_err(silent)?;
    if *reply.control_as::<Revoke>()? != revoke {
        return Err("the algorithm does not say that it has closed the buffers".into());
    }
    Ok(())
}

/// The frames that no controls came for yet, by their buffer, and when they were sent.
#[derive(Default)]
struct Pending([Option<(u64, Instant)>; BUFFERS]);

impl Pending {
    fn has_buffers(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }

    fn has_all_buffers(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    fn waits_for(&self, frame: u64) -> bool {
        self.0.iter().flatten().any(|&(pending, _)| pending == frame)
    }

    /// Takes an answer: has the camera apply it, frees its frame's buffer, and returns the settings.
    fn answered(
        &mut self,
        message: &Message,
        camera: &mut dyn Camera,
        report: &mut Report,
    ) -> Result<Settings> {
        let controls: &Controls = message.control_as()?;
        let is_answered = |place: &Option<(u64, _)>| place.is_some_and(|(frame, _)| frame == controls.frame);
        let buffer = self.0.iter().position(is_answered);
        let Some((buffer, (_, sent))) = buffer.and_then(|buffer| Some((buffer, self.0[buffer].take()?)))
        else {
            return Err(
                format!("the algorithm answers frame {}, which waits for no answer", controls.frame).into()
            );
        };
        if !controls.next.is_valid() || !controls.observed.is_valid() {
            return Err(format!("the algorithm sends what no sensor can do: {controls:?}").into());
        }
        report.answer(controls, sent.elapsed())?;
        camera.apply(&controls.next)?;
        camera.release(buffer)?;
        Ok(controls.next)
    }
}

fn silent(error: Error) -> Box<dyn std::error::Error> {
    if error.is_timeout() {
        return format!("the algorithm process is silent for {} s", PATIENCE.as_secs()).into();
    }
    error.into()
}

/// Waits for the algorithm process, which ends when its channel is closed.
fn see_off(mut algorithm: Child) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match algorithm.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("the algorithm process ended with {status}").into()),
            None => thread::sleep(Duration::from_millis(1)),
        }
    }
    algorithm.kill()?;
    algorithm.wait()?;
    Err("the algorithm process did not end by itself and was killed".into())
}

impl Options {
    /// How many frames to take; all that there are of a clip.
    pub(crate) fn frame_limit(&self) -> Option<u32> {
        self.frames.or(self.input.is_none().then_some(300))
    }
}
