//! A worker: one file after the other is decoded into a loan, in a process that can reach nothing else.

use std::{
    fs::File,
    hint::black_box,
    process::{abort, exit},
    thread,
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use sealane::{Builder, Channel, Control, Error, Message};
use zerocopy::FromBytes;

use crate::{
    Limits, Result,
    decode::{self, Picture, SCRATCH},
    output::note,
    protocol::{Answer, Job, MAX_SENTENCE, READY, Trick},
    sandbox::Sandbox,
};

/// Descriptors that a worker may have: its three, a file, and some that come and go.
const DESCRIPTORS: u64 = 16;
/// Address space of the program itself, beside its ring, a file and its pixels.
const PROGRAM: u64 = 256 << 20;

/// Decodes until the pool closes the channel.
pub(crate) fn run(limits: &Limits) -> Result<()> {
    // A decoder that loops reads no end of file.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let ring = limits.ring_capacity();
    let mut channel = Builder::default().ring_capacity(ring).max_fds(1).inherited()?;
    match lock_in(limits) {
        Ok(has_landlock) => {
            if !has_landlock {
                note(format_args!("decoder worker: this kernel has no landlock; seccomp alone shuts it in"));
            }
            channel.send(READY)?;
        }
        Err(error) => {
            let sentence = error.to_string();
            channel.send(&sentence.as_bytes()[..sentence.floor_char_boundary(MAX_SENTENCE)])?;
            return Err(error);
        }
    }
    loop {
        match channel.recv() {
            Err(Error::Disconnected) => return Ok(()),
            message => answer(&mut channel, message?, limits)?,
        }
    }
}

/// Gives up everything but the channel and one file at a time. True if the kernel has landlock.
fn lock_in(limits: &Limits) -> Result<bool> {
    let memory = PROGRAM + SCRATCH + 2 * limits.max_file + limits.ring_capacity() as u64;
    for (resource, limit) in [(Resource::As, memory), (Resource::Nofile, DESCRIPTORS), (Resource::Core, 0)] {
        // A lower limit of whoever started the pool holds.
        let limit = getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit));
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
            .map_err(|error| format!("limit of {resource:?}: {error}"))?;
    }
    Sandbox::for_channel()?.allow(&[libc::SYS_pread64, libc::SYS_getrandom]).enter()
}

/// Decodes the file of one request into the loan of its reply.
fn answer(channel: &mut Channel, mut message: Message, limits: &Limits) -> Result<()> {
    let token = message.reply_token().ok_or("a message that is no request")?;
    let job = Job::read_from_bytes(message.control()).map_err(|_| "a job of another length")?;
    let trick = Trick::from_number(job.trick).ok_or("an unknown trick")?;
    let mut answer = Answer::NONE;
    play(trick, channel, &mut answer)?;
    let file = File::from(message.take_fds().pop().ok_or("a job without a file")?);
    let decoded = decode::read(&file, job.size, limits.max_file)
        .and_then(|bytes| decode_into_loan(channel, &bytes, limits, &mut answer));
    match decoded {
        Ok(loan) => {
            answer.shape.width += u32::from(trick == Trick::Lie);
            loan.reply(token, Control::of(&answer))?;
        }
        Err(refusal) => {
            // A loan that was not sent is given up, whatever it holds.
            answer.shape = Answer::NONE.shape;
            channel.reply(token, &answer.with_sentence(&refusal.to_string()))?;
        }
    }
    if trick == Trick::Leave {
        exit(0);
    }
    Ok(())
}

fn decode_into_loan<'a>(
    channel: &'a mut Channel,
    bytes: &[u8],
    limits: &Limits,
    answer: &mut Answer,
) -> Result<sealane::Loan<'a>> {
    let picture = Picture::new(bytes, limits.max_pixels)?;
    answer.shape = picture.shape;
    let (_, length) = picture.shape.bytes().ok_or("no pixels")?;
    let mut loan = match channel.sender.loan_timeout(length, limits.timeout / 2) {
        Err(Error::Timeout) => return Err("no room for its pixels: earlier ones are kept (--keep)".into()),
        Err(Error::PayloadTooLarge { len, max }) => {
            return Err(format!("{len} bytes of pixels; at most {max} accepted (--max-pixels)").into());
        }
        loan => loan?,
    };
    picture.decode(&mut loan)?;
    Ok(loan)
}

/// Misbehaves as the pool wishes.
fn play(trick: Trick, channel: &mut Channel, answer: &mut Answer) -> Result<()> {
    match trick {
        // The last two are those of the answer.
        Trick::None | Trick::Lie | Trick::Leave => {}
        Trick::Abort => abort(),
        Trick::Panic => panic!("a decoder's bug, on request"),
        Trick::Exit => exit(3),
        Trick::Overflow => drop(overflow(&[0; 1024])),
        Trick::Babble => (0..3).try_for_each(|_| channel.send(b"by the way"))?,
        Trick::Close => {
            channel.closer().close();
            hang();
        }
        Trick::Hang => hang(),
        Trick::Escape => {
            answer.acts_tried = Sandbox::ACTS;
            answer.acts_refused = Sandbox::try_to_escape();
        }
    }
    Ok(())
}

fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// Runs out of stack, whatever the optimiser thinks of it.
#[expect(unconditional_recursion, reason = "that is the bug")]
fn overflow(depth: &[u8; 1024]) -> usize {
    let deeper = black_box([depth[0].wrapping_add(1); 1024]);
    overflow(&deeper) + usize::from(deeper[1])
}
