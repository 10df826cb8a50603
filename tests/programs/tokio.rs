//! A service on tokio: one task per client selects between the client's messages, a timer and the order to stop.

use std::time::Duration;

use futures_util::StreamExt;
use sealane::{Control, Result, tokio::Channel};
use tokio::{
    runtime, select,
    sync::watch,
    time::{interval, timeout},
};

use crate::threads::SOON;

/// Answers questions and sends its count now and then, until the client has gone or the service stops.
async fn serve(mut channel: Channel, mut stop: watch::Receiver<bool>) -> Result<u64> {
    let mut answers = 0;
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        select! {
            message = channel.receiver.next() => {
                let Some(message) = message else { return Ok(answers) };
                let message = message?;
                let Some(token) = message.reply_token() else { continue };
                let mut answer = channel.sender.loan(message.control().len()).await?;
                answer.copy_from_slice(message.control());
                answer.make_ascii_uppercase();
                answer.reply(token, b"").await?;
                answers += 1;
            }
            _ = ticks.tick() => {
                // A client that does not read is not waited for.
                let _ = channel.sender.try_send(Control::of(&answers));
            }
            _ = stop.changed() => return Ok(answers),
        }
    }
}

async fn client(mut channel: Channel) -> Result<usize> {
    for word in ["to", "be", "or", "not"] {
        let answer = channel.call(word).await?;
        assert_eq!(answer.payload().unwrap().to_vec(), word.to_ascii_uppercase().as_bytes());
    }
    // Two questions at once, and a batch of news in between.
    let first = channel.sender.request("one").await?;
    let mut batch = channel.sender.batch();
    for _ in 0..10 {
        batch.loan(8).await?.send()?;
    }
    drop(batch);
    let second = channel.sender.request("two").await?;
    assert_eq!(channel.receiver.wait_reply(second).await?.payload().unwrap().to_vec(), b"TWO");
    assert_eq!(channel.receiver.wait_reply(first).await?.payload().unwrap().to_vec(), b"ONE");
    let mut counts = 0;
    while let Some(message) = channel.receiver.try_recv()? {
        message.control_as::<u64>()?;
        counts += 1;
    }
    Ok(counts)
}

#[test]
fn tokio_with_a_stream_and_select() {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let mut services = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..10 {
            let (a, b) = sealane::Channel::builder().ring_capacity(1 << 14).pair().unwrap();
            services.push(tokio::spawn(serve(a.try_into().unwrap(), stopped.clone())));
            clients.push(tokio::spawn(client(b.try_into().unwrap())));
        }
        // One whose client stays.
        let (a, b) = sealane::Channel::pair().unwrap();
        services.push(tokio::spawn(serve(a.try_into().unwrap(), stopped)));
        for client in clients {
            timeout(SOON, client).await.unwrap().unwrap().unwrap();
        }
        stop.send(true).unwrap();
        let mut answers = 0;
        for service in services {
            answers += timeout(SOON, service).await.unwrap().unwrap().unwrap();
        }
        assert_eq!(answers, 60);
        drop(b);
    });
}
