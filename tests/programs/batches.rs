//! Batches that fail half-way: earlier messages are delivered, and later ones can still be received.

use sealane::{Channel, Error, Receiver, Result, SendBatch, Sender};

const RING: usize = 16 << 10;

/// Sends readings, and says how many. It stops at the first that cannot be sent.
fn send(sender: &mut Sender, readings: &[Vec<u8>]) -> (usize, Result<()>) {
    let mut sent = 0;
    let mut all = |mut batch: SendBatch<'_>| -> Result<()> {
        for reading in readings {
            // A full ring ends the batch: the program has better things to do than wait.
            let Some(mut loan) = batch.try_loan(reading.len())? else { return Err(Error::Full) };
            loan.copy_from_slice(reading);
            loan.send()?;
            sent += 1;
        }
        Ok(())
    };
    let result = all(sender.batch());
    (sent, result)
}

/// Adds readings up; a reading that is not four bytes long is an error.
fn receive(receiver: &mut Receiver, sum: &mut u64) -> Result<u32, String> {
    let mut count = 0;
    let Some(mut batch) = receiver.try_recv_batch().map_err(|error| error.to_string())? else { return Ok(0) };
    while let Some(message) = batch.next() {
        count += 1;
        let payload = message.payload().ok_or("no payload")?;
        *sum += u64::from(payload.read::<u32>(0).map_err(|error| error.to_string())?);
    }
    Ok(count)
}

#[test]
fn batches_that_fail_half_way() {
    let (mut a, mut b) = Channel::builder().ring_capacity(RING).pair().unwrap();
    let reading = |n: u32| n.to_le_bytes().to_vec();
    // The third can never be sent; the receiver is woken for the two before.
    let readings = [reading(1), reading(2), vec![0; RING], reading(3)];
    let (sent, result) = send(&mut a.sender, &readings);
    assert!(sent == 2 && matches!(result, Err(Error::PayloadTooLarge { .. })));
    assert_eq!(a.sender.stats().doorbells_sent, 1);
    let (sent, result) = send(&mut a.sender, &[reading(4), vec![9], reading(5)]);
    assert!(sent == 3 && result.is_ok());
    // The receiver fails at the fifth message: the sixth is received next.
    let mut sum = 0;
    assert!(receive(&mut b.receiver, &mut sum).is_err());
    assert_eq!(sum, 1 + 2 + 4);
    assert_eq!(receive(&mut b.receiver, &mut sum).unwrap(), 1);
    assert_eq!((sum, b.receiver.held().count), (12, 0));
    // A full ring, and room again.
    let many: Vec<_> = (0..1000).map(reading).collect();
    let (mut next, mut rounds) = (0, 0);
    while next < many.len() {
        let (sent, result) = send(&mut a.sender, &many[next..]);
        assert!(matches!(result, Ok(()) | Err(Error::Full)));
        next += sent;
        rounds += 1;
        while receive(&mut b.receiver, &mut sum).unwrap() > 0 {}
    }
    assert!(rounds > 1);
    assert_eq!(sum, 12 + 999 * 1000 / 2);
}
