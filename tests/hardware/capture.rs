//! A pipeline and an algorithm. The device's buffers are registered once, as dmabufs, and revoked at the end. A frame is
//! announced by its buffer's index, with statistics in a loan; the algorithm compares them with the mapped frame, and
//! answers with a control, which a later frame shows.

use std::{
    fs::File,
    io::ErrorKind,
    os::fd::{AsRawFd, OwnedFd},
};

use sealane::{
    Channel, Control,
    zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout},
};
use video::{DmaBuf, Format, Mapping};

use crate::{
    machine::{BUFFERS, Held, LONG, capture, ending, next, open_dmabufs},
    support::role,
};

/// Comes with the descriptors of all buffers, in the order of their indices.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Register {
    stride: u64,
    rows: u64,
    /// The identity of a dmabuf, which is the same in each process.
    inodes: [u64; BUFFERS],
}

/// Comes with statistics.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct FrameReady {
    sequence: u32,
    pub(crate) buffer: u32,
}

/// Releases the frame's buffer.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Answer {
    sequence: u32,
    /// The brightness that the device is to have.
    brightness: i32,
    mean_luma: u32,
    /// Whether everything that the algorithm wanted to see has been seen.
    is_done: u32,
}

/// Asks that all buffers be unmapped and closed.
const REVOKE: &[u8] = b"revoke";
/// Frames until a control is seen: those that may be in the device's hands, and some in which the device is slow.
const FRAMES: usize = 4 * BUFFERS;
/// Frames that may come twice: one at the start; on a busy machine, another.
const MOST_AGAIN: u32 = 2;
/// Entries of statistics before the ones for each row.
const HISTOGRAM: usize = 256;

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn frames_cross_as_dmabufs_and_controls_come_back() {
    let before = Held::now();
    let (mut capture, format) = capture();
    let (mut channel, child) = Channel::spawn(role(role_algorithm)).unwrap();
    register(&mut channel, &capture.export().unwrap(), format);
    let own: Vec<_> = capture.export().unwrap().into_iter().map(|buffer| buffer.map().unwrap()).collect();

    let mut lumas = Vec::new();
    loop {
        assert!(lumas.len() < 4 * FRAMES, "the algorithm never sees what it wants: {lumas:?}");
        let frame = next(&mut capture);
        assert_eq!(frame.bytes, format.bytes);
        announce(&mut channel, &own, frame.buffer, frame.sequence, format);
        let message = channel.recv_timeout(LONG).unwrap();
        let answer: &Answer = message.control_as().unwrap();
        assert_eq!(answer.sequence, frame.sequence);
        lumas.push(answer.mean_luma);
        capture.device().set_control(video::Control::BRIGHTNESS, answer.brightness).unwrap();
        capture.requeue(frame.buffer).unwrap();
        if answer.is_done != 0 {
            break;
        }
    }
    println!("mean luma of the frames: {lumas:?}");

    let reply = channel.call(REVOKE, LONG).unwrap();
    assert_eq!(*reply.control_as::<u64>().unwrap(), 0, "dmabufs that the algorithm still holds");
    drop((own, capture.stop().unwrap(), channel));
    assert!(ending(child).success());
    before.again();
}

#[test]
#[ignore = "a process of the test above"]
fn role_algorithm() {
    let mut channel = Channel::inherited().unwrap();
    let (register, buffers) = registered(&mut channel);
    let rows = usize::try_from(register.rows).unwrap();
    let mut frame = vec![0; usize::try_from(register.stride).unwrap() * rows];
    let (mut earlier, mut again) = ((None, Vec::new()), 0);
    // Dark, then bright: limits that no frame meets with the brightness of the other.
    let mut wanted = [(30, 0..40), (220, 120..256)].into_iter().peekable();
    let mut patience = FRAMES;
    loop {
        let message = channel.recv().unwrap();
        if let Some(token) = message.reply_token() {
            assert_eq!((message.control(), wanted.len()), (REVOKE, 0));
            drop(buffers);
            channel.reply(token, Control::of(&(open_dmabufs() as u64))).unwrap();
            break;
        }
        let ready: &FrameReady = message.control_as().unwrap();
        buffers[ready.buffer as usize].read_at(0, &mut frame).unwrap();
        let told = message.payload().unwrap().shared::<u64>().unwrap().to_vec();
        assert!(told == statistics(&frame, rows), "frame {}: statistics of another frame", ready.sequence);
        // The device writes the frame's number into each picture. It may give one twice, and the picture too: vivid does so
        // where filling the first took it as long as a frame lasts (`vivid_thread_vid_cap`, Linux 6.12).
        let is_again = earlier.0 == Some(ready.sequence);
        again += u32::from(is_again);
        assert!(again <= MOST_AGAIN, "frame {}: {again} came twice", ready.sequence);
        assert!(is_again || told != earlier.1, "frame {}: the picture of the one before", ready.sequence);
        // Its first bar is white: no colour.
        assert_eq!((frame[1], frame[3]), (128, 128), "frame {}: no picture of the device", ready.sequence);
        earlier = (Some(ready.sequence), told);

        let mean_luma = mean_luma(&frame);
        if wanted.next_if(|(_, lumas)| lumas.contains(&mean_luma)).is_some() {
            patience = FRAMES;
        }
        patience = patience.checked_sub(1).expect("the control is applied in time");
        let brightness = wanted.peek().map_or(128, |(brightness, _)| *brightness);
        let is_done = u32::from(wanted.peek().is_none());
        channel
            .send(Control::of(&Answer { sequence: ready.sequence, brightness, mean_luma, is_done }))
            .unwrap();
    }
    // Until the pipeline is done.
    channel.recv().unwrap_err();
}

/// Tells the peer of all buffers.
pub(crate) fn register(channel: &mut Channel, buffers: &[DmaBuf], format: Format) {
    let inodes = std::array::from_fn(|index| buffers[index].inode().unwrap());
    let register = Register { stride: format.stride as u64, rows: format.height as u64, inodes };
    channel.send(Control::of(&register).fds(buffers)).unwrap();
}

/// Takes the peer's buffers, and looks at each.
pub(crate) fn registered(channel: &mut Channel) -> (Register, Vec<Mapping>) {
    let mut message = channel.recv_timeout(LONG).unwrap();
    let fds = message.take_fds();
    let register: Register = *message.control_as().unwrap();
    let inodes: Vec<_> = fds.iter().map(|fd| dmabuf(fd).inode().unwrap()).collect();
    assert_eq!(inodes, register.inodes, "descriptors are lost, or out of order");
    for fd in &fds {
        // The device's buffers are for reading only.
        assert_eq!(dmabuf(fd).map_writable().unwrap_err().kind(), ErrorKind::PermissionDenied);
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        File::options().write(true).open(again).unwrap_err();
    }
    (register, fds.iter().map(|fd| dmabuf(fd).map().unwrap()).collect())
}

fn dmabuf(fd: &OwnedFd) -> DmaBuf {
    fd.try_clone().unwrap().try_into().expect("a dmabuf")
}

/// Sends the statistics of a frame, computed from this process's mapping.
pub(crate) fn announce(
    channel: &mut Channel,
    buffers: &[Mapping],
    buffer: u32,
    sequence: u32,
    format: Format,
) {
    let mut frame = vec![0; format.stride * format.height];
    buffers[buffer as usize].read_at(0, &mut frame).unwrap();
    let mut loan = channel.loan_slice::<u64>(HISTOGRAM + format.height).unwrap();
    loan.copy_from_slice(&statistics(&frame, format.height));
    loan.send_with(Control::of(&FrameReady { sequence, buffer })).unwrap();
}

/// A histogram of the luma, and for each row a number that no other row is likely to have (FNV-1a).
pub(crate) fn statistics(frame: &[u8], rows: usize) -> Vec<u64> {
    let mut statistics = vec![0; HISTOGRAM];
    for luma in frame.iter().step_by(2) {
        statistics[usize::from(*luma)] += 1;
    }
    let hash = |row: &[u8]| {
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        row.iter().fold(0xcbf2_9ce4_8422_2325, mix)
    };
    statistics.extend(frame.chunks_exact(frame.len() / rows).map(hash));
    statistics
}

fn mean_luma(frame: &[u8]) -> u32 {
    let sum: u64 = frame.iter().step_by(2).map(|luma| u64::from(*luma)).sum();
    u32::try_from(2 * sum / frame.len() as u64).unwrap()
}
