//! A program that sends serde types to another process: over a `UnixStream`, and over sealane. Run it:
//! `cargo run --release --example serde`.
//!
//! The same scans go three ways, which take turns:
//! - `stream`: serialised to a buffer, with its length before it, and written to a `UnixStream`;
//! - `whole`: serialised to a loan's writer, and read from a payload's reader. Nothing else of the program changes;
//! - `head + bulk`: the small fields serialised to the control bytes, and the samples written to the payload as they are.
//!
//! docs/serde.md says when to take which.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Command,
    time::Instant,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sealane::{Channel, Control, Message};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// 64 KiB of samples.
const SAMPLES: u16 = 16 << 10;
/// Scans that are sent one way before it is another's turn.
const TURN: u32 = 500;
const TURNS: usize = 15;
/// More than a scan takes when it is serialised.
const ROOM: usize = 80 << 10;
const WAYS: [&str; 3] = ["stream", "whole", "head + bulk"];

#[derive(Serialize, Deserialize)]
struct Scan {
    head: Head,
    samples: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    number: u32,
    sensor: String,
    gain: f32,
}

/// The sending half of each way.
struct Sending {
    channel: Channel,
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Sending {
    fn send(&mut self, way: usize, scan: &Scan) -> Result<()> {
        match way {
            0 => {
                self.buffer.clear();
                self.buffer.extend_from_slice(&[0; 4]);
                postcard::to_io(scan, &mut self.buffer)?;
                let len = u32::try_from(self.buffer.len() - 4)?;
                self.buffer[..4].copy_from_slice(&len.to_le_bytes());
                self.stream.write_all(&self.buffer)?;
            }
            1 => {
                let mut writer = self.channel.loan(ROOM)?.writer();
                postcard::to_io(scan, &mut writer)?;
                writer.send()?;
            }
            _ => {
                let mut samples = self.channel.loan_slice::<f32>(scan.samples.len())?;
                samples.copy_from_slice(&scan.samples);
                samples.send_with(&postcard::to_stdvec(&scan.head)?)?;
            }
        }
        Ok(())
    }
}

/// The receiving half of each way.
struct Receiving {
    channel: Channel,
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Bytes for one value that the format reads at once, a number or a short name. A type that borrows needs more.
    scratch: [u8; 64],
}

impl Receiving {
    fn receive(&mut self, way: usize) -> Result<Scan> {
        match way {
            0 => {
                let mut len = [0; 4];
                self.stream.read_exact(&mut len)?;
                self.buffer.resize(u32::from_le_bytes(len).try_into()?, 0);
                self.stream.read_exact(&mut self.buffer)?;
                Ok(postcard::from_bytes(&self.buffer)?)
            }
            1 => {
                let message = self.channel.recv()?;
                let payload = message.payload().ok_or("a payload expected, none found")?;
                Ok(postcard::from_io((payload.reader(), &mut self.scratch))?.0)
            }
            _ => {
                let message = self.channel.recv()?;
                let payload = message.payload().ok_or("a payload expected, none found")?;
                Ok(Scan {
                    head: postcard::from_bytes(message.control())?,
                    samples: payload.shared()?.to_vec(),
                })
            }
        }
    }
}

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--receive") { receive() } else { send() }
}

/// Starts the receiver, sends, and prints how long each way took.
fn send() -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--receive");
    let (mut channel, mut child) = Channel::spawn(command)?;
    keep_to_a_cpu(false)?;
    let (stream, theirs) = UnixStream::pair()?;
    channel.send(Control::new(b"stream").fd(&theirs))?;
    drop(theirs);
    let mut sending = Sending { channel, stream, buffer: Vec::new() };

    let head = Head { number: 0, sensor: "roof".into(), gain: 0.5 };
    let mut scan = Scan { head, samples: (0..SAMPLES).map(f32::from).collect() };
    let mut seconds = [const { Vec::new() }; WAYS.len()];
    for _ in 0..TURNS {
        for (way, seconds) in seconds.iter_mut().enumerate() {
            let start = Instant::now();
            for _ in 0..TURN {
                sending.send(way, &scan)?;
                scan.head.number += 1;
            }
            // The receiver has read all of them.
            let _: Message = sending.channel.recv()?;
            seconds.push(start.elapsed().as_secs_f64() / f64::from(TURN));
        }
    }
    drop(sending);
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("the receiver: {status}").into());
    }
    print(&mut seconds);
    Ok(())
}

/// Medians of the turns.
fn print(seconds: &mut [Vec<f64>; WAYS.len()]) {
    let median = |turns: &mut Vec<f64>| {
        turns.sort_by(f64::total_cmp);
        turns[turns.len() / 2]
    };
    let size = f64::from(SAMPLES) * 4.0 / f64::from(1 << 30);
    let stream = median(&mut seconds[0]);
    println!("scans of {} KiB     µs each   GiB/s   times the stream", SAMPLES >> 8);
    for (way, turns) in WAYS.into_iter().zip(seconds) {
        let each = median(turns);
        println!("{way:16} {:12.1} {:7.2} {:10.2}", each * 1e6, size / each, stream / each);
    }
}

/// The other process: receives, and compares with the scans that were sent.
fn receive() -> Result<()> {
    let mut channel = Channel::inherited()?;
    keep_to_a_cpu(true)?;
    let stream: OwnedFd = channel.recv()?.take_fd().ok_or("a descriptor expected, none found")?;
    let mut receiving = Receiving { channel, stream: stream.into(), buffer: Vec::new(), scratch: [0; 64] };
    let mut number = 0;
    for _ in 0..TURNS {
        for way in 0..WAYS.len() {
            for _ in 0..TURN {
                let Scan { head, samples } = receiving.receive(way)?;
                if (head.number, samples.len()) != (number, SAMPLES.into()) {
                    return Err(format!("scan {number} expected, {} found", head.number).into());
                }
                number += 1;
            }
            receiving.channel.send(&[])?;
        }
    }
    Ok(())
}

/// Keeps this process to a CPU of its own, where there are two.
fn keep_to_a_cpu(last: bool) -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    let cpu = if last { cpus.next_back() } else { cpus.next() };
    let mut own = CpuSet::new();
    own.set(cpu.ok_or("a CPU to run on expected, none found")?);
    Ok(sched_setaffinity(None, &own)?)
}
