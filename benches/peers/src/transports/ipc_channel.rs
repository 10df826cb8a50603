//! [`IpcBytes`] and [`IpcShared`]: the crate ipc-channel, sending bytes, and sending shared memory made for each message.

use ::ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender, IpcSharedMemory,
};
use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    cell::{Cell, Side},
    end::End,
    link::Link,
    payload::Buffer,
};

/// Both ends of the channel there and of the channel back: the second process makes them, and sends the first its two
/// through a one-shot server, which is how ipc-channel connects processes.
fn connect<S, R>(side: Side, link: &Link, channel: impl Fn() -> std::io::Result<(S, R)>) -> Result<(S, R)>
where
    S: Serialize + for<'a> Deserialize<'a>,
    R: Serialize + for<'a> Deserialize<'a>,
{
    match side {
        Side::First => {
            let (server, name) = IpcOneShotServer::<(S, R)>::new()?;
            link.send(name.as_bytes(), &[])?;
            let (_, ends) = server.accept()?;
            Ok(ends)
        }
        Side::Second => {
            let name = String::from_utf8(link.receive()?.0)?;
            let ((there, incoming), (out, back)) = (channel()?, channel()?);
            IpcSender::connect(name)?.send((there, back))?;
            Ok((out, incoming))
        }
    }
}

pub(super) struct IpcBytes {
    sender: IpcBytesSender,
    receiver: IpcBytesReceiver,
    payload: Buffer,
}

impl End for IpcBytes {
    type View<'a> = &'a [u8];

    fn connect(side: Side, cell: &Cell, link: &Link) -> Result<Self> {
        let (sender, receiver) = connect(side, link, ipc::bytes_channel)?;
        Ok(Self { sender, receiver, payload: Buffer::new(cell.size) })
    }

    #[inline]
    fn send(&mut self, _len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        fill(&mut self.payload);
        Ok(self.sender.send(&self.payload)?)
    }

    #[inline]
    fn receive(&mut self, _len: usize, mut read: impl FnMut(Self::View<'_>)) -> Result<()> {
        read(&self.receiver.recv()?);
        Ok(())
    }
}

pub(super) struct IpcShared {
    sender: IpcSender<IpcSharedMemory>,
    receiver: IpcReceiver<IpcSharedMemory>,
    payload: Buffer,
}

impl End for IpcShared {
    type View<'a> = &'a [u8];

    fn connect(side: Side, cell: &Cell, link: &Link) -> Result<Self> {
        let (sender, receiver) = connect(side, link, ipc::channel)?;
        Ok(Self { sender, receiver, payload: Buffer::new(cell.size) })
    }

    #[inline]
    fn send(&mut self, _len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        fill(&mut self.payload);
        Ok(self.sender.send(IpcSharedMemory::from_bytes(&self.payload))?)
    }

    #[inline]
    fn receive(&mut self, _len: usize, mut read: impl FnMut(Self::View<'_>)) -> Result<()> {
        read(&self.receiver.recv()?);
        Ok(())
    }
}
