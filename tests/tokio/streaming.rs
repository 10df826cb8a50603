//! Messages arrive whole and in order, and a sender waits for room.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    pin::pin,
};

use sealane::{
    Control, Error,
    tokio::{Channel, Receiver, Sender},
};
use tokio::runtime;

use crate::{
    builder, fill_socket, is_disconnected, pair_of, poll_once, polled, role, run,
    script::{Files, Most, Random, Script},
    small,
};

const MESSAGES: usize = 1500;
const MOST: Most = Most { control: 500, fds: 5, payload: 31_000 };

async fn send_script(mut sender: Sender, seed: u64) {
    let files = Files::new();
    for item in Script::new(seed, MOST).take(MESSAGES) {
        let control = item.control(&files);
        let Some(payload) = &item.payload else {
            sender.send(control).await.unwrap();
            continue;
        };
        let mut loan = sender.loan(payload.len()).await.unwrap();
        loan.copy_from_slice(payload);
        loan.send_with(control).await.unwrap();
    }
}

async fn check_script(receiver: &mut Receiver, seed: u64) {
    for item in Script::new(seed, MOST).take(MESSAGES) {
        item.check(&receiver.recv().await.unwrap());
    }
    assert!(is_disconnected(receiver.recv().await));
}

#[test]
fn messages_cross_between_tasks_whole_and_in_order() {
    let seed = Random::seed();
    println!("SEED={seed}");
    run(move || async move {
        let (a, b) = pair_of(&builder().ring_capacity(64 << 10));
        let ((sender, _), (_, mut receiver)) = (a.split(), b.split());
        let sending = tokio::spawn(send_script(sender, seed));
        check_script(&mut receiver, seed).await;
        sending.await.unwrap();
    });
}

#[test]
fn messages_cross_between_processes_whole_and_in_order() {
    let seed = Random::seed();
    println!("SEED={seed}");
    run(move || async move {
        let mut command = role(sends_and_receives);
        command.env("SEED", seed.to_string());
        let builder = builder().ring_capacity(64 << 10);
        let (channel, mut child) = Channel::spawn_with(&builder, command).await.unwrap();
        let (sender, mut receiver) = channel.split();
        let sending = tokio::spawn(send_script(sender, seed));
        check_script(&mut receiver, !seed).await;
        sending.await.unwrap();
        assert!(child.wait().await.unwrap().success());
    });
}

#[test]
#[ignore = "the child of another test"]
fn sends_and_receives() {
    let seed = Random::seed();
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = Channel::inherited_with(&builder().ring_capacity(64 << 10)).await.unwrap();
        assert!(Channel::inherited().await.is_err(), "it can be had once");
        let (sender, mut receiver) = channel.split();
        let sending = tokio::spawn(send_script(sender, !seed));
        check_script(&mut receiver, seed).await;
        sending.await.unwrap();
    });
}

#[test]
fn a_loan_waits_for_room_and_control_messages_pass() {
    run(|| async {
        let (mut a, mut b) = small();
        assert!(matches!(a.loan(4096).await, Err(Error::PayloadTooLarge { len: 4096, max: 960 })));
        for fill in 0..20 {
            let mut loan = a.loan(960).await.unwrap();
            loan.fill(fill);
            loan.send().unwrap();
            let payload = b.recv().await.unwrap().take_payload().unwrap();
            // The control bytes reach up to the ring's end.
            a.loan_slice::<u32>(240).await.unwrap().send_with(&[0; 2048]).await.unwrap();
            assert!(a.try_loan(1).unwrap().is_none());
            a.send(b"passes").await.unwrap();
            assert_eq!(b.recv().await.unwrap().payload().unwrap().len(), 960);
            assert_eq!(b.recv().await.unwrap().control(), b"passes");

            let mut waiting = pin!(a.loan(960));
            assert!(poll_once(waiting.as_mut()).await.is_pending());
            assert!(polled(waiting.as_mut(), 50).await.is_none());
            assert_eq!(payload.to_vec(), [fill; 960]);
            drop(payload);
            drop(waiting.await.unwrap());
        }
    });
}

#[test]
fn a_full_socket_is_waited_for() {
    run(|| async {
        let (mut a, mut b) = small();
        let null = fs::File::open("/dev/null").unwrap();
        let sent = fill_socket(&mut a);
        assert!(polled(a.send(b"never sent"), 5).await.is_none());
        assert!(polled(a.request(b"never sent"), 5).await.is_none());
        let loan = a.loan(10).await.unwrap();
        assert!(polled(loan.send_with(Control::new(b"never sent").fd(&null)), 5).await.is_none());

        let sending = tokio::spawn(async move {
            a.loan(10).await.unwrap().send_with(Control::new(b"with fd").fd(&null)).await.unwrap();
            a.send(b"last").await.unwrap();
            a
        });
        for _ in 0..sent {
            assert_eq!(b.recv().await.unwrap().control(), [0; 500]);
        }
        let message = b.recv().await.unwrap();
        assert_eq!((message.control(), message.fds().len()), (&b"with fd"[..], 1));
        assert_eq!(message.payload().unwrap().len(), 10);
        assert_eq!(b.recv().await.unwrap().control(), b"last");
        drop(sending.await.unwrap());
        assert!(is_disconnected(b.recv().await));
    });
}

#[test]
fn a_writer_awaits_and_sends_what_was_written() {
    run(|| async {
        let (mut a, mut b) = small();
        let null = fs::File::open("/dev/null").unwrap();
        // The record takes all of the ring.
        for _ in 0..2 {
            let mut used = a.loan(960).await.unwrap();
            used.fill(0xaa);
            used.send_with(&[0xaa; 1024]).await.unwrap();
            drop(b.recv().await.unwrap());
        }
        for form in 0..4 {
            let mut writer = a.loan(900).await.unwrap().writer();
            writer.seek(SeekFrom::Start(2)).unwrap();
            writer.write_all(b"cd").unwrap();
            writer.rewind().unwrap();
            writer.write_all(b"a").unwrap();
            assert_eq!(writer.written(), 4);
            match form {
                0 => writer.send().unwrap(),
                1 => writer.send_with(Control::new(b"with fd").fd(&null)).await.unwrap(),
                2 => drop(writer.request(b"?").await.unwrap()),
                _ => writer.into_loan().send().unwrap(),
            }
            assert_eq!(b.recv().await.unwrap().payload().unwrap().to_vec(), b"a\0cd");
        }
    });
}
