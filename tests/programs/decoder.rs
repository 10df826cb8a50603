//! A decoder of untrusted files in a sandbox: a request carries the file's descriptor, the reply the decoded image, which was
//! written straight into a loan.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::fd::OwnedFd,
};

use sealane::{Channel, Control, Message, Result};

use crate::threads::{SOON, start};

/// Answers each request, with pixels or with the reason why there are none.
fn decoder(mut channel: Channel) -> Result<()> {
    for request in channel.receiver.iter() {
        let mut request = request?;
        let Some(token) = request.reply_token() else { continue };
        let fds = request.take_fds();
        match decoded_len(fds) {
            Ok((mut file, len)) => {
                let mut pixels = channel.sender.loan(len)?;
                for pixel in pixels.chunks_mut(4) {
                    let mut grey = [0];
                    file.read_exact(&mut grey).unwrap();
                    pixel.fill(grey[0]);
                }
                pixels.reply(token, "ok")?;
            }
            Err(reason) => channel.sender.reply(token, reason)?,
        }
    }
    Ok(())
}

/// A file and how many bytes it is decoded to: four of each.
fn decoded_len(mut fds: Vec<OwnedFd>) -> Result<(File, usize), &'static str> {
    let file = File::from(fds.pop().ok_or("no file")?);
    let len = file.metadata().map_err(|_| "no such file")?.len();
    if len == 0 { Err("an empty file") } else { Ok((file, usize::try_from(len).unwrap() * 4)) }
}

fn decode(channel: &mut Channel, contents: &[u8]) -> Result<Message> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(contents).unwrap();
    file.rewind().unwrap();
    channel.call(Control::new(b"decode").fd(&file), SOON)
}

#[test]
fn decoder_that_replies_with_pixels() {
    let (mut channel, b) = Channel::builder().ring_capacity(1 << 16).pair().unwrap();
    let decoder = start(move || decoder(b));
    for round in 1..20_u8 {
        let reply = decode(&mut channel, &[round, 7]).unwrap();
        assert_eq!(reply.control(), b"ok");
        let pixels = reply.payload().unwrap().bytes();
        assert_eq!(pixels.iter().collect::<Vec<_>>(), [[round; 4], [7; 4]].concat());
    }
    assert_eq!(decode(&mut channel, b"").unwrap().control(), b"an empty file");
    assert_eq!(channel.call("decode", SOON).unwrap().control(), b"no file");
    drop(channel);
    decoder.result().unwrap();
}
