//! Requests by number: a table of plain numbers at both ends, as programs in other languages and event loops keep it. The
//! server answers in an order of its own, later.

use std::collections::BTreeMap;

use sealane::{Channel, Result};

use crate::threads::SOON;

/// Jobs that wait for their answer: by priority, then by the number of the request.
#[derive(Default)]
struct Server {
    jobs: BTreeMap<(u8, u64), Vec<u8>>,
}

impl Server {
    /// Takes all requests in.
    fn take(&mut self, channel: &mut Channel) -> Result<()> {
        while let Some(message) = channel.try_recv()? {
            if let (Some(token), [priority, work @ ..]) = (message.reply_token(), message.control()) {
                self.jobs.insert((*priority, token.number()), work.to_vec());
            }
        }
        Ok(())
    }

    /// Does the most urgent job.
    fn work(&mut self, channel: &mut Channel) -> Result<bool> {
        let Some(((_, number), work)) = self.jobs.pop_first() else { return Ok(false) };
        let Some(token) = channel.sender.reply_token(number) else { return Ok(true) };
        let mut answer = channel.loan(work.len())?;
        answer.copy_from_slice(&work);
        answer.reverse();
        answer.reply(token, b"")?;
        Ok(true)
    }
}

#[test]
fn requests_by_number() {
    let (mut client, mut b) = Channel::pair().unwrap();
    let mut asked = BTreeMap::new();
    for n in 0..50_u8 {
        if n % 5 == 0 {
            client.send(b"news take a number too").unwrap();
        }
        let id = client.sender.next_id();
        asked.insert(id.number(), n);
        assert_eq!(client.request(&[n % 3, n, 200]).unwrap(), id);
    }
    let mut server = Server::default();
    server.take(&mut b).unwrap();
    while server.work(&mut b).unwrap() {}
    let mut order = Vec::new();
    while let Some(number) = asked.first_key_value().map(|(number, _)| *number) {
        let message = client.recv_timeout(SOON).unwrap();
        let answered = message.in_reply_to().unwrap().number();
        let n = asked.remove(&answered).unwrap();
        assert_eq!(message.payload().unwrap().to_vec(), [200, n]);
        assert!(answered >= number);
        order.push(n % 3);
    }
    assert!(order.is_sorted(), "the most urgent first");
    // A number that is none, or that was answered, is no token.
    assert!([0, 1, 1000].iter().all(|number| b.sender.reply_token(*number).is_none()));
}
