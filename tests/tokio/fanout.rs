//! Publishers and subscribers: messages, waits for slow subscribers, calls, and dropped futures that lose nothing.

use std::{
    fs::File,
    future::{Future, poll_fn},
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket, socketpair},
};
use sealane::{
    Builder, Control, Error, Event, Slow, SubscriberId,
    tokio::{Publisher, Subscriber},
};
use tokio::{
    task::{spawn_blocking, yield_now},
    time::timeout,
};

use crate::{is_disconnected, polled, readiness::is_rerun_as_nobody, run};

/// The time in which one step must end.
const IN_TIME: Duration = Duration::from_secs(20);
/// A subscriber that is never ended, however busy the machine is.
const FOREVER: Slow = Slow::Wait(Duration::MAX);
/// A quarter of the small ring, with its header and what is reserved for control bytes.
const QUARTER: usize = (16 << 10) - 2048;

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(IN_TIME, future).await.expect("the step ends in time")
}

/// A ring of 64 KiB, whose subscribers are waited for.
fn small() -> Builder {
    Builder::default().ring_capacity(64 << 10).slow(FOREVER)
}

fn publisher(builder: &Builder) -> Publisher {
    builder.publisher().unwrap().try_into().unwrap()
}

/// Lets a subscriber join over a socket pair.
async fn join(publisher: &mut Publisher, builder: &Builder) -> (SubscriberId, Subscriber) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let id = publisher.add(ours).unwrap();
    let both = async { tokio::join!(publisher.next_event(), Subscriber::connect_on(builder, theirs)) };
    let (event, subscriber) = soon(both).await;
    assert!(matches!(event.unwrap(), Event::Joined(joined) if joined == id));
    (id, subscriber.unwrap())
}

async fn pair(builder: &Builder) -> (Publisher, SubscriberId, Subscriber) {
    let mut publisher = publisher(builder);
    let (id, subscriber) = join(&mut publisher, builder).await;
    (publisher, id, subscriber)
}

/// Publishes quarters of the ring until there is no more room, and says how many.
fn fill(publisher: &mut Publisher) -> u64 {
    (0..100)
        .find(|_| match publisher.try_loan(QUARTER).unwrap() {
            Some(loan) => {
                loan.send().unwrap();
                false
            }
            None => true,
        })
        .expect("the ring gets full")
}

async fn message(publisher: &mut Publisher) -> (SubscriberId, sealane::Message) {
    match soon(publisher.next_event()).await.unwrap() {
        Event::Message(id, message) => (id, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn subscribers_in_tasks_receive_all_messages_in_order() {
    const MESSAGES: u64 = 500;
    run(|| async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames");
        let mut publisher = Publisher::try_from(small().max_fds(2).publish(&path).unwrap()).unwrap();
        let mut readers = Vec::new();
        for slow in [FOREVER, FOREVER, Slow::Overrun] {
            let (path, builder) = (path.clone(), Builder::default().max_fds(2).slow(slow));
            readers.push(tokio::spawn(async move {
                let mut subscriber = Subscriber::connect_with(&builder, path).await.unwrap();
                let (mut received, mut missed) = (0, 0);
                loop {
                    let message = match subscriber.recv().await {
                        Ok(message) => message,
                        Err(Error::Disconnected) => break,
                        Err(error) => panic!("{error}"),
                    };
                    received += 1;
                    missed += message.missed();
                    let n = message.sequence();
                    assert_eq!(n + 1, received + missed);
                    assert_eq!(message.control(), n.to_le_bytes());
                    assert_eq!(message.fds().len(), usize::from(n % 5 == 0));
                    let payload = message.payload().map(|payload| payload.try_to_vec().unwrap());
                    assert_eq!(payload, (n % 3 != 0).then(|| vec![n.to_le_bytes()[0]; 5000]));
                }
                assert_eq!(received + subscriber.missed(), MESSAGES);
                assert!(slow == Slow::Overrun || subscriber.missed() == 0);
                assert!(is_disconnected(subscriber.recv().await));
            }));
        }
        for _ in 0..readers.len() {
            assert!(matches!(soon(publisher.next_event()).await.unwrap(), Event::Joined(_)));
        }
        assert_eq!(publisher.subscribers().len(), 3);
        let file = File::open("/dev/null").unwrap();
        for n in 0..MESSAGES {
            let bytes = n.to_le_bytes();
            let control = Control::new(&bytes);
            let control = if n % 5 == 0 { control.fd(&file) } else { control };
            if n % 3 == 0 {
                soon(publisher.send(control)).await.unwrap();
            } else {
                let mut loan = soon(publisher.loan(5000)).await.unwrap();
                loan.fill(bytes[0]);
                soon(loan.send_with(control)).await.unwrap();
            }
        }
        drop(publisher);
        for reader in readers {
            soon(reader).await.unwrap();
        }
    });
}

#[test]
fn newest_message_is_waited_for_and_older_ones_are_left_out() {
    run(|| async {
        let (mut publisher, _, mut subscriber) = pair(&small()).await;
        assert!(subscriber.try_recv_latest().unwrap().is_none());
        let mut waiting = Box::pin(subscriber.recv_latest());
        assert!(polled(waiting.as_mut(), 5).await.is_none());
        publisher.send("no payload").await.unwrap();
        assert!(polled(waiting.as_mut(), 5).await.is_none());
        publisher.loan(1).await.unwrap().send().unwrap();
        let newest = soon(waiting).await.unwrap();
        assert_eq!((newest.sequence(), newest.missed()), (1, 1));
        drop(newest);
        for _ in 0..5 {
            publisher.loan(1).await.unwrap().send().unwrap();
        }
        publisher.send("last").await.unwrap();
        let newest = soon(subscriber.recv_latest()).await.unwrap();
        assert_eq!((newest.sequence(), newest.missed()), (6, 4));
        assert_eq!(soon(subscriber.recv()).await.unwrap().control(), b"last");
        assert!(subscriber.try_recv().unwrap().is_none());
    });
}

#[test]
fn stream_ends_with_its_publisher() {
    run(|| async {
        let (mut publisher, _, mut subscriber) = pair(&small()).await;
        let reading = tokio::spawn(async move {
            let mut words = Vec::new();
            while let Some(message) = subscriber.next().await {
                words.push(message.unwrap().control().to_vec());
            }
            assert!(subscriber.next().await.is_none());
            words
        });
        for word in ["to", "be", "or"] {
            publisher.send(word).await.unwrap();
            yield_now().await;
        }
        drop(publisher);
        assert_eq!(soon(reading).await.unwrap(), [b"to", b"be", b"or"]);
    });
}

#[test]
fn slow_subscriber_is_ended_after_its_time_and_its_stream_after_the_error() {
    run(|| async {
        let builder = small().slow(Slow::Wait(Duration::from_millis(50)));
        let (mut publisher, id, mut subscriber) = pair(&builder).await;
        fill(&mut publisher);
        drop(soon(publisher.loan(QUARTER)).await.unwrap());
        let event = soon(publisher.next_event()).await.unwrap();
        assert!(matches!(event, Event::Left(left, Error::TooSlow) if left == id), "{event:?}");
        assert!(publisher.subscribers().is_empty());
        loop {
            match soon(subscriber.next()).await.expect("an error comes before the end") {
                Ok(_) => {}
                Err(Error::TooSlow) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(subscriber.next().await.is_none());
    });
}

/// The one timer of a publisher expires for the stranger first. It must be set anew for the slow subscriber.
#[test]
fn deadline_of_a_handshake_hides_no_later_deadline() {
    run(|| async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames");
        let builder = small()
            .slow(Slow::Wait(Duration::from_millis(400)))
            .handshake_timeout(Duration::from_millis(100));
        let mut publisher = Publisher::try_from(builder.publish(&path).unwrap()).unwrap();
        let (id, _subscriber) = join(&mut publisher, &builder.clone().handshake_timeout(IN_TIME)).await;
        let stranger = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        connect(&stranger, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        assert!(polled(publisher.next_event(), 5).await.is_none(), "the stranger is silent");
        fill(&mut publisher);
        // Calls that publish little, and were not seldom lately, do not look around by themselves.
        let some_ticks = Instant::now() + Duration::from_millis(20);
        while publisher.try_send("").is_ok() || Instant::now() < some_ticks {}
        soon(publisher.send("")).await.unwrap();
        let event = soon(publisher.next_event()).await.unwrap();
        assert!(matches!(event, Event::Left(left, Error::TooSlow) if left == id), "{event:?}");
    });
}

#[test]
fn loan_waits_until_a_subscriber_releases() {
    run(|| async {
        let (mut publisher, _, mut subscriber) = pair(&small()).await;
        for _ in 0..20 {
            let sent = fill(&mut publisher);
            let held = soon(subscriber.recv()).await.unwrap();
            for _ in 1..sent {
                soon(subscriber.recv()).await.unwrap();
            }
            let mut waiting = Box::pin(publisher.loan(QUARTER));
            assert!(polled(waiting.as_mut(), 20).await.is_none());
            drop(held);
            soon(waiting).await.unwrap().send().unwrap();
            soon(subscriber.recv()).await.unwrap();
        }
        assert_eq!(subscriber.missed(), 0);
    });
}

#[test]
fn waits_leave_messages_of_subscribers_to_next_event() {
    run(|| async {
        let (mut publisher, id, mut subscriber) = pair(&small()).await;
        // One message lies there before the wait, others come meanwhile.
        soon(subscriber.send("before")).await.unwrap();
        let sent = fill(&mut publisher);
        let mut waiting = Box::pin(publisher.loan(QUARTER));
        assert!(polled(waiting.as_mut(), 10).await.is_none());
        for n in 0..5_u8 {
            soon(subscriber.send(&[n])).await.unwrap();
            assert!(polled(waiting.as_mut(), 10).await.is_none());
        }
        for _ in 0..sent {
            soon(subscriber.recv()).await.unwrap();
        }
        drop(soon(waiting).await.unwrap());
        for control in [&b"before"[..], &[0], &[1], &[2], &[3], &[4]] {
            let (from, message) = message(&mut publisher).await;
            assert_eq!((from, message.control()), (id, control));
        }
        assert!(polled(publisher.next_event(), 5).await.is_none());
        soon(subscriber.send("after")).await.unwrap();
        assert_eq!(message(&mut publisher).await.1.control(), b"after");
    });
}

#[test]
fn waiting_tasks_are_polled_only_when_something_changes() {
    run(|| async {
        let mut publisher = publisher(&small());
        let (_, mut slow) = join(&mut publisher, &small()).await;
        let (gone, other) = join(&mut publisher, &small()).await;
        let sent = fill(&mut publisher);
        // While the loan waits: a message that nobody takes, and the end of a subscriber, which is an event that nobody takes.
        soon(slow.send("unread")).await.unwrap();
        drop(other);
        let (mut polls, mut lending) = (0, Box::pin(publisher.loan(QUARTER)));
        let waiting = poll_fn(|cx| {
            polls += 1;
            lending.as_mut().poll(cx)
        });
        assert!(timeout(Duration::from_millis(100), waiting).await.is_err());
        assert!(polls < 10, "{polls} polls");
        for _ in 0..sent {
            soon(slow.recv()).await.unwrap();
        }
        drop(soon(lending).await.unwrap());
        let mut events =
            [soon(publisher.next_event()).await.unwrap(), soon(publisher.next_event()).await.unwrap()];
        events.sort_by_key(|event| matches!(event, Event::Message(..)));
        assert!(matches!(&events[0], Event::Left(left, Error::Disconnected) if *left == gone), "{events:?}");
        assert!(matches!(&events[1], Event::Message(_, message) if message.control() == b"unread"));
    });
}

#[test]
fn subscribers_join_while_a_call_waits() {
    run(|| async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames");
        let mut publisher = Publisher::try_from(small().max_fds(1).publish(&path).unwrap()).unwrap();
        let (first, mut slow) = join(&mut publisher, &small().max_fds(1)).await;
        let builder = Builder::default().max_fds(1);
        let sent = fill(&mut publisher);
        let mut joined = {
            let mut waiting = Box::pin(publisher.loan(QUARTER));
            let joining = Subscriber::connect_with(&builder, &path);
            let joined = tokio::select! {
                biased;
                _ = waiting.as_mut() => panic!("there is no room"),
                joined = soon(joining) => joined.unwrap(),
            };
            for _ in 0..sent {
                soon(slow.recv()).await.unwrap();
            }
            soon(waiting).await.unwrap().send_with(b"its first").await.unwrap();
            joined
        };
        let message = soon(joined.recv()).await.unwrap();
        assert_eq!((message.control(), message.missed()), (&b"its first"[..], 0));
        assert_eq!(soon(slow.recv()).await.unwrap().control(), b"its first");
        drop(message);

        // The same while a loan is held, whose descriptors wait.
        let null = File::open("/dev/null").unwrap();
        let fds = || Control::default().fd(&null);
        let sent = (0..1000).find(|_| publisher.try_send(fds()).is_err()).unwrap();
        let loan = soon(publisher.loan(100)).await.unwrap();
        let mut late = {
            let mut waiting = Box::pin(loan.send_with(Control::new(b"with fd").fd(&null)));
            let late = tokio::select! {
                biased;
                sent = waiting.as_mut() => panic!("the socket is full: {sent:?}"),
                late = soon(Subscriber::connect_with(&builder, &path)) => late.unwrap(),
            };
            for subscriber in [&mut slow, &mut joined] {
                for _ in 0..sent {
                    assert_eq!(soon(subscriber.recv()).await.unwrap().fds().len(), 1);
                }
            }
            soon(waiting).await.unwrap();
            late
        };
        for subscriber in [&mut slow, &mut joined, &mut late] {
            let message = soon(subscriber.recv()).await.unwrap();
            assert_eq!((message.control(), message.fds().len(), message.missed()), (&b"with fd"[..], 1, 0));
            assert_eq!(message.payload().unwrap().len(), 100);
        }
        for _ in 0..2 {
            assert!(matches!(soon(publisher.next_event()).await.unwrap(), Event::Joined(id) if id != first));
        }
    });
}

#[test]
fn control_bytes_of_a_loan_wait_for_room() {
    run(|| async {
        let (mut publisher, _, mut subscriber) = pair(&small().max_control(8192)).await;
        for _ in 0..3 {
            publisher.loan(QUARTER).await.unwrap().send().unwrap();
        }
        let mut loan = publisher.loan(QUARTER).await.unwrap();
        loan.fill(7);
        let control = [3; 8192];
        let mut sending = Box::pin(loan.send_with(&control));
        assert!(polled(sending.as_mut(), 10).await.is_none());
        for _ in 0..3 {
            assert_eq!(soon(subscriber.recv()).await.unwrap().payload().unwrap().len(), QUARTER);
        }
        soon(sending).await.unwrap();
        let message = soon(subscriber.recv()).await.unwrap();
        assert_eq!(message.control(), control);
        assert_eq!(message.payload().unwrap().to_vec(), [7; QUARTER]);
    });
}

/// A doorbell, too, is unread until the subscriber reads it, and then the publisher learns that the socket is empty.
#[test]
fn doorbell_that_is_read_makes_room_for_descriptors() {
    run(|| async {
        let (mut publisher, _, mut subscriber) = pair(&small().max_fds(1)).await;
        let null = File::open("/dev/null").unwrap();
        let fds = || Control::default().fd(&null);
        for _ in 0..8 {
            soon(publisher.send(fds())).await.unwrap();
            assert_eq!(soon(subscriber.recv()).await.unwrap().fds().len(), 1);
        }
        assert!(subscriber.try_recv().unwrap().is_none(), "it sleeps from now on");
        publisher.send("rings").await.unwrap();
        let mut waiting = Box::pin(publisher.send(fds()));
        // Whether it has to wait is up to how much the kernel counts for a doorbell.
        let early = polled(waiting.as_mut(), 10).await;
        assert_eq!(soon(subscriber.recv()).await.unwrap().control(), b"rings");
        let sending = async {
            match early {
                Some(sent) => sent,
                None => waiting.await,
            }
        };
        let (sent, received) = soon(async { tokio::join!(sending, subscriber.recv()) }).await;
        sent.unwrap();
        assert_eq!(received.unwrap().fds().len(), 1);
    });
}

#[test]
fn calls_are_answered_and_what_is_published_meanwhile_is_kept() {
    run(|| async {
        let (mut publisher, _, mut subscriber) = pair(&small()).await;
        let serving = tokio::spawn(async move {
            let mut asked = 0_u32;
            loop {
                match publisher.next_event().await.unwrap() {
                    Event::Message(id, question) => {
                        publisher.send(&asked.to_le_bytes()).await.unwrap();
                        publisher.reply(id, question.reply_token().unwrap(), question.control()).unwrap();
                        asked += 1;
                    }
                    Event::Left(_, Error::Disconnected) => return asked,
                    other => panic!("{other:?}"),
                }
            }
        });
        for n in 0..50_u32 {
            let reply = soon(subscriber.call(&n.to_be_bytes())).await.unwrap();
            assert_eq!(reply.control(), n.to_be_bytes());
            if n % 10 == 9 {
                for kept in n - 9..=n {
                    assert_eq!(soon(subscriber.recv()).await.unwrap().control(), kept.to_le_bytes());
                }
            }
        }
        drop(subscriber);
        assert_eq!(soon(serving).await.unwrap(), 50);
    });
}

#[test]
fn dropped_calls_are_cancelled_and_dropped_waits_are_not() {
    run(|| async {
        let (mut publisher, id, mut subscriber) = pair(&small()).await;
        assert!(polled(subscriber.call(b"dropped"), 3).await.is_none());
        let waited = soon(subscriber.request(b"waited for twice")).await.unwrap();
        assert!(polled(subscriber.wait_reply(waited), 3).await.is_none());
        for control in [&b"dropped"[..], b"waited for twice"] {
            let (from, question) = message(&mut publisher).await;
            assert_eq!((from, question.control()), (id, control));
            publisher.reply(id, question.reply_token().unwrap(), control).unwrap();
        }
        assert_eq!(soon(subscriber.wait_reply(waited)).await.unwrap().control(), b"waited for twice");
        assert_eq!(subscriber.stats().late_replies, 1);
        assert!(subscriber.try_recv().unwrap().is_none());
    });
}

#[test]
fn dropped_futures_lose_nothing() {
    run(|| async {
        let (mut publisher, _, mut subscriber) = pair(&small()).await;
        let (mut sent, mut received, mut told, mut heard) = (0_u64, 0_u64, 0_u64, 0_u64);
        for turn in 0.. {
            if (received, heard) == (300, 300) {
                break;
            }
            // Each of the futures is dropped after some polls, whatever it waits for.
            let polls = turn % 3 + 1;
            if sent < 300
                && let Some(loan) = polled(publisher.loan(QUARTER), polls).await
            {
                let control = sent.to_le_bytes();
                if soon(loan.unwrap().send_with(&control)).await.is_ok() {
                    sent += 1;
                }
            }
            if turn % 4 == 3 {
                while let Some(message) = polled(subscriber.recv(), polls).await {
                    assert_eq!(message.unwrap().control(), received.to_le_bytes());
                    received += 1;
                }
            }
            if told < 300 && polled(subscriber.send(&told.to_le_bytes()), polls).await.is_some() {
                told += 1;
            }
            if turn % 5 == 4 {
                while let Some(event) = polled(publisher.next_event(), polls).await {
                    let Event::Message(_, message) = event.unwrap() else { panic!("it has left") };
                    assert_eq!(message.control(), heard.to_le_bytes());
                    heard += 1;
                }
            }
            yield_now().await;
        }
        assert_eq!((sent, received, told, heard), (300, 300, 300, 300));
        drop(publisher);
        assert!(is_disconnected(soon(subscriber.recv()).await));
    });
}

#[test]
fn doorbells_of_subscribers_in_other_threads_are_not_lost() {
    const MESSAGES: u64 = 5000;
    run(|| async {
        let mut publisher = publisher(&small());
        let mut readers = Vec::new();
        for _ in 0..2 {
            let mut subscriber = join(&mut publisher, &small()).await.1.into_inner();
            readers.push(thread::spawn(move || {
                for n in 0..MESSAGES {
                    let message = subscriber.recv_timeout(IN_TIME).unwrap();
                    assert_eq!((message.sequence(), message.missed()), (n, 0));
                    if n % 7 == 0 {
                        subscriber.send(b"").unwrap();
                    }
                }
            }));
        }
        for n in 0..MESSAGES {
            // A wait for little room is dropped, and another one for more follows.
            if n % 3 == 0 {
                drop(polled(publisher.loan(1000), 2).await);
            }
            soon(publisher.loan(QUARTER)).await.unwrap().send().unwrap();
            if n % 5 == 0 {
                while polled(publisher.next_event(), 1).await.is_some() {}
            }
        }
        for reader in readers {
            spawn_blocking(|| reader.join().unwrap()).await.unwrap();
        }
    });
}

#[test]
fn dropped_wait_for_a_slow_subscriber_is_taken_up_again() {
    run(|| async {
        let (mut publisher, _, mut subscriber) = pair(&small()).await;
        let sent = fill(&mut publisher);
        for polls in 1..5 {
            assert!(polled(publisher.loan(QUARTER), polls).await.is_none());
            assert!(polled(publisher.next_event(), polls).await.is_none());
        }
        // The doorbell comes while no future waits for it.
        for _ in 0..sent {
            soon(subscriber.recv()).await.unwrap();
        }
        assert!(polled(publisher.next_event(), 5).await.is_none());
        soon(publisher.loan(QUARTER)).await.unwrap().send().unwrap();
        assert_eq!(soon(subscriber.recv()).await.unwrap().sequence(), sent);
    });
}

/// More sockets stay readable than an event loop usually looks at at once.
#[test]
fn unread_messages_of_many_subscribers_hide_no_other_one() {
    run(|| async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames");
        let builder = small().max_subscribers(100);
        let mut publisher = Publisher::try_from(builder.publish(&path).unwrap()).unwrap();
        let mut subscribers = Vec::new();
        for _ in 0..70 {
            subscribers.push(join(&mut publisher, &builder).await.1.into_inner());
        }
        for subscriber in &mut subscribers {
            subscriber.send("unread").unwrap();
        }
        fill(&mut publisher);
        let mut waiting = Box::pin(publisher.loan(QUARTER));
        assert!(polled(waiting.as_mut(), 10).await.is_none());
        tokio::select! {
            biased;
            _ = waiting.as_mut() => panic!("there is no room"),
            joined = soon(Subscriber::connect(&path)) => drop(joined.unwrap()),
        };
    });
}

#[test]
fn publisher_that_leaves_the_runtime_announces_its_events_again() {
    run(|| async {
        let (mut publisher, _, subscriber) = pair(&small()).await;
        drop(subscriber);
        // The wait notices the end, and leaves the event.
        while !publisher.subscribers().is_empty() {
            soon(publisher.send("")).await.unwrap();
            yield_now().await;
        }
        let mut publisher = publisher.into_inner();
        let in_time = Timespec::try_from(IN_TIME).unwrap();
        let mut fds = [PollFd::new(&publisher, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&in_time)), Ok(1));
        assert!(matches!(publisher.next_event().unwrap(), Some(Event::Left(_, Error::Disconnected))));
        // It can be watched again.
        let mut publisher = Publisher::try_from(publisher).unwrap();
        let (_, mut subscriber) = join(&mut publisher, &small()).await;
        publisher.send("again").await.unwrap();
        let mut subscriber = Subscriber::try_from({
            assert_eq!(soon(subscriber.recv()).await.unwrap().control(), b"again");
            subscriber.into_inner()
        })
        .unwrap();
        publisher.send("and again").await.unwrap();
        assert_eq!(soon(subscriber.recv()).await.unwrap().control(), b"and again");
    });
}

/// The rest of this is run as `nobody`: root's descriptors in flight are not counted.
#[test]
fn unread_descriptors_end_their_subscriber_although_no_call_blocks() {
    if !is_rerun_as_nobody(unread_descriptors_end_their_subscriber_although_no_call_blocks) {
        return;
    }
    run(|| async {
        let builder = small().max_fds(20).slow(Slow::Wait(Duration::from_millis(50)));
        let (mut publisher, id, subscriber) = pair(&builder).await;
        let null = File::open("/dev/null").unwrap();
        let fds = || Control::default().fds([&null; 20]);
        let sending = async {
            for _ in 0..7 {
                publisher.send(fds()).await.unwrap();
            }
            publisher.next_event().await.unwrap()
        };
        let ended = async {
            let mut gone = [PollFd::new(&*subscriber, PollFlags::empty())];
            while poll(&mut gone, Some(&Timespec::default())) == Ok(0) {
                yield_now().await;
            }
            // Until then the descriptors are in flight.
            drop(subscriber);
        };
        let (event, ()) = soon(async { tokio::join!(sending, ended) }).await;
        assert!(matches!(event, Event::Left(left, Error::TooSlow) if left == id), "{event:?}");
    });
}

#[test]
fn numbers_at_the_source_and_the_run_are_those_of_the_publisher() {
    run(|| async {
        let (mut publisher, _, mut subscriber) = pair(&small()).await;
        publisher.number(1000);
        publisher.send("reading 1000").await.unwrap();
        publisher.lost(2);
        publisher.send("reading 1003").await.unwrap();
        for (missed, number) in [(0, 1001), (2, 1004)] {
            assert_eq!(soon(subscriber.recv()).await.unwrap().missed(), missed);
            assert_eq!(subscriber.number(), number);
        }
        let (_, second) = join(&mut publisher, &small()).await;
        assert_eq!(second.run(), subscriber.run());
        let (_other, _, third) = pair(&small()).await;
        assert_ne!(third.run(), subscriber.run());
    });
}
