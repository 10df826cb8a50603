//! The halves in two threads: several callers share the sender, one thread receives and gives each its answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use sealane::{Channel, Closer, Control, Message, Receiver, RequestId, Result, Sender};

use crate::threads::start;

type Waiting = Arc<Mutex<HashMap<u64, mpsc::Sender<Message>>>>;

/// A client for many threads.
#[derive(Clone)]
struct Client {
    sender: Arc<Mutex<Sender>>,
    waiting: Waiting,
}

impl Client {
    fn ask(&self, question: &[u8]) -> Result<Message> {
        let (give, answer) = mpsc::channel();
        {
            let mut sender = self.sender.lock().unwrap();
            // Noted first: the answer may be here before `request` has returned.
            self.waiting.lock().unwrap().insert(sender.next_id().number(), give);
            sender.request(question)?;
        }
        answer.recv().map_err(|_| sealane::Error::Disconnected)
    }
}

fn receive(mut receiver: Receiver, waiting: &Waiting) -> Result<usize> {
    let mut answers = 0;
    for message in receiver.iter() {
        let message = message?;
        let number = message.in_reply_to().map(RequestId::number);
        let caller = number.and_then(|number| waiting.lock().unwrap().remove(&number));
        if let Some(caller) = caller {
            answers += 1;
            let _ = caller.send(message);
        }
    }
    // No request waits any longer.
    waiting.lock().unwrap().clear();
    Ok(answers)
}

fn echo(mut channel: Channel) -> Result<()> {
    for message in channel.receiver.iter() {
        let message = message?;
        if let Some(token) = message.reply_token() {
            channel.sender.reply(token, Control::new(message.control()))?;
        }
    }
    Ok(())
}

#[test]
fn halves_in_two_threads() {
    let (a, b) = Channel::pair().unwrap();
    let server = start(move || echo(b));
    let closer: Closer = a.closer();
    let waiting = Waiting::default();
    let client = Client { sender: Arc::new(Mutex::new(a.sender)), waiting: Arc::clone(&waiting) };
    let receiver = a.receiver;
    let receiving = start(move || receive(receiver, &waiting));
    thread::scope(|scope| {
        for caller in 0..4_u8 {
            let client = client.clone();
            scope.spawn(move || {
                for n in 0..100 {
                    assert_eq!(client.ask(&[caller, n]).unwrap().control(), [caller, n]);
                }
            });
        }
    });
    closer.close();
    assert_eq!(receiving.result().unwrap(), 400);
    server.result().unwrap();
    assert!(client.ask(b"?").is_err());
}
