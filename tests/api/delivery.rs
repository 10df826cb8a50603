//! Messages of every kind arrive whole and in the order in which they were sent.

use std::{
    collections::VecDeque,
    fs::File,
    io::stdin,
    os::unix::fs::MetadataExt,
    process::Command,
    sync::mpsc::{self, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::fstat;
use sealane::{Builder, Channel, Control, Error, Message, Payload, Receiver, Sender, Wait};

use crate::support::{
    role,
    script::{Files, Item, Most, Random, Script},
    threads::{SOON, start},
};

/// Settings that two processes agree on beforehand.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    messages: usize,
    ring: usize,
    wait: Wait,
}

impl Plan {
    const VARIABLE: &str = "PLAN";
    const WAITS: [Wait; 3] =
        [Wait::Adaptive { max_spin: Duration::from_micros(50) }, Wait::Block, Wait::Spin];

    fn command(self) -> Command {
        let wait = Self::WAITS.iter().position(|wait| *wait == self.wait).unwrap();
        let numbers =
            [self.seed.to_string(), self.messages.to_string(), self.ring.to_string(), wait.to_string()];
        let mut command = role(the_other_process);
        command.env(Self::VARIABLE, numbers.join(" "));
        command
    }

    fn of_parent() -> Self {
        let text = std::env::var(Self::VARIABLE).unwrap();
        let mut numbers = text.split(' ');
        let mut number = || numbers.next().unwrap().parse::<u64>().unwrap();
        let seed = number();
        let mut size = || usize::try_from(number()).unwrap();
        Self { seed, messages: size(), ring: size(), wait: Self::WAITS[size()] }
    }

    fn builder(self) -> Builder {
        Channel::builder().ring_capacity(self.ring).wait(self.wait).max_fds(253)
    }

    fn script(self, direction: u64) -> impl Iterator<Item = Item> {
        let most = Most { control: 64 << 10, fds: 253, payload: self.ring / 2 - 1088 };
        Script::new(self.seed ^ direction, most).take(self.messages)
    }
}

/// Two processes send to each other at once, as much as they can.
fn exchange(messages: usize, ring: usize, wait: Wait) {
    let plan = Plan { seed: Random::seed(), messages, ring, wait };
    println!("SEED={}", plan.seed);
    let (channel, mut child) = plan.builder().spawn(plan.command()).unwrap();
    both_ways(channel, plan, [1, 2]);
    assert!(start(move || child.wait()).result().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn the_other_process() {
    let plan = Plan::of_parent();
    both_ways(plan.builder().inherited().unwrap(), plan, [2, 1]);
}

fn both_ways(channel: Channel, plan: Plan, [there, here]: [u64; 2]) {
    let (sender, receiver) = channel.split();
    thread::scope(|scope| {
        scope.spawn(|| send_all(sender, plan, there));
        receive_all(receiver, plan, here);
    });
}

fn send_all(mut sender: Sender, plan: Plan, direction: u64) {
    let (files, mut random) = (Files::new(), Random(plan.seed));
    for item in plan.script(direction) {
        if random.below(8) == 0 {
            send_too_much(&mut sender);
        }
        item.send(&mut sender, &files).unwrap();
    }
}

/// Sends one more than fits of each part: it is refused, nothing is sent, and the channel works.
fn send_too_much(sender: &mut Sender) {
    let (limits, stdin) = (sender.limits(), stdin());
    let (payload, bytes, fds) = (limits.max_payload, limits.max_control, limits.max_fds);
    let refused = sender.loan(payload + 1).map(drop);
    assert!(
        matches!(refused, Err(Error::PayloadTooLarge { len, max }) if (len, max) == (payload + 1, payload))
    );
    let refused = sender.send(&vec![0; bytes + 1]);
    assert!(matches!(refused, Err(Error::ControlTooLarge { len, max }) if (len, max) == (bytes + 1, bytes)));
    let refused = sender.send(Control::default().fds(vec![&stdin; fds + 1]));
    assert!(matches!(refused, Err(Error::TooManyFds { count, max }) if (count, max) == (fds + 1, fds)));
}

/// Checks each message. Many payloads are checked again later: copies, and those that stay in the ring, in other
/// threads.
fn receive_all(mut receiver: Receiver, plan: Plan, direction: u64) {
    let mut random = Random(plan.seed);
    // All calls share one deadline. A message that is found only at a call's own deadline would go unnoticed.
    let end = Instant::now() + 3 * SOON;
    let left = || end.saturating_duration_since(Instant::now());
    thread::scope(|scope| {
        let keepers = [1, 2].map(|seed| {
            let (keeper, inbox) = mpsc::channel();
            scope.spawn(move || keep(&inbox, Random(plan.seed ^ seed)));
            keeper
        });
        for (number, item) in plan.script(direction).enumerate() {
            let mut message = receiver.recv_timeout(left()).unwrap();
            assert_eq!(message.sequence(), u64::try_from(number).unwrap());
            item.check(&message);
            if let Some(payload) = message.take_payload() {
                let payload = if random.below(4) == 0 { payload.detach() } else { payload };
                // The third of them is dropped here.
                if let Some(keeper) = keepers.get(random.below(3)) {
                    keeper.send((payload, item)).unwrap();
                }
            }
        }
        assert!(matches!(receiver.recv_timeout(left()), Err(Error::Disconnected)));
        assert!(matches!(receiver.try_recv(), Err(Error::Disconnected)), "and so it stays");
    });
    assert_eq!((receiver.held().count, receiver.held().bytes), (0, 0));
}

/// Keeps payloads as long as more come, and drops them in random order: never waits while it has some, since they may be
/// the space that the sender waits for.
fn keep(inbox: &mpsc::Receiver<(Payload, Item)>, mut random: Random) {
    let mut kept = Vec::new();
    loop {
        match inbox.try_recv() {
            Ok(payload) => kept.push(payload),
            Err(TryRecvError::Disconnected) if kept.is_empty() => return,
            Err(TryRecvError::Empty) if kept.is_empty() => kept.extend(inbox.recv().ok()),
            Err(_) => {
                let (payload, item): (Payload, Item) = kept.swap_remove(random.below(kept.len()));
                item.check_payload(&payload);
            }
        }
    }
}

#[test]
fn random_mixes_cross_small_rings() {
    for wait in [Wait::default(), Wait::Block] {
        exchange(2000, 8192, wait);
    }
}

#[test]
fn random_mixes_cross_small_rings_while_all_threads_spin() {
    exchange(500, 8192, Wait::Spin);
}

#[test]
fn random_mixes_cross_default_rings() {
    exchange(250, 4 << 20, Wait::default());
}

/// Each length that matters, alone and with control bytes and descriptors, and one more than fits.
#[test]
fn every_boundary_is_crossed_whole() {
    let page = rustix::param::page_size();
    let (mut a, mut b) = Channel::builder().ring_capacity(5 * page).max_fds(253).pair().unwrap();
    let most = a.limits().max_payload;
    assert_eq!(most, 5 * page / 2 - 1088);
    let null = File::open("/dev/null").unwrap();
    let inode = null.metadata().unwrap().ino();
    for len in [0, 1, 63, 64, 65, page - 1, page, page + 1, most - 64, most - 1, most] {
        for control in [0, 1, 64, 200, 1023, 1024, 1025, 2048, a.limits().max_control] {
            for fds in [0, 1, 253] {
                let bytes: Vec<u8> = (0..len.max(control)).map(|i| u8::try_from(i % 251).unwrap()).collect();
                let mut loan = a.sender.loan_timeout(len, SOON).unwrap();
                loan.copy_from_slice(&bytes[..len]);
                loan.send_with(Control::new(&bytes[..control]).fds(vec![&null; fds])).unwrap();
                let message = b.recv_timeout(SOON).unwrap();
                assert!(message.payload().unwrap().to_vec() == bytes[..len], "payload of {len}");
                assert!(*message.control() == bytes[..control], "control of {control}");
                assert_eq!(message.fds().len(), fds);
                assert!(message.fds().iter().all(|fd| fstat(fd).unwrap().st_ino == inode));
            }
        }
    }
}

#[test]
fn messages_one_above_the_limits_are_refused_and_the_channel_goes_on() {
    let (a, mut b) = Channel::builder().ring_capacity(4096).max_control(100).max_fds(3).pair().unwrap();
    let (mut sender, _receiver) = a.split();
    send_too_much(&mut sender);
    let refused = sender.loan(5).unwrap().send_with(&[0; 101]);
    assert!(matches!(refused, Err(Error::ControlTooLarge { len: 101, max: 100 })));
    let stdin = stdin();
    let loan = sender.loan_timeout(4096 / 2 - 1088, SOON).unwrap();
    loan.send_with(Control::new(&[1; 100]).fds([&stdin; 3])).unwrap();
    let message = b.recv_timeout(SOON).unwrap();
    assert_eq!((message.sequence(), message.control(), message.fds().len()), (0, &[1; 100][..], 3));
    assert_eq!(message.payload().unwrap().len(), 4096 / 2 - 1088);
}

#[test]
fn a_kept_payload_holds_the_space_behind_it() {
    let (mut a, mut b) = Channel::builder().ring_capacity(8192).pair().unwrap();
    let mut next = |len: usize| {
        a.sender.loan_timeout(len, SOON).unwrap().send().unwrap();
        b.recv_timeout(SOON).unwrap().take_payload().unwrap()
    };
    // Records of 2048 bytes, header included.
    let [first, second, third] = [1984; 3].map(&mut next);
    let held = b.receiver.held();
    assert_eq!((held.count, held.bytes), (3, 3 * 2048));
    assert!(held.oldest.is_some());
    drop(second);
    assert_eq!((b.receiver.held().count, b.receiver.held().bytes), (2, 2 * 2048));
    // A payload of 960 bytes, with the reserve for its control bytes, takes the rest; one more byte does not fit.
    assert!(a.sender.has_space(960).unwrap());
    assert!(!a.sender.has_space(961).unwrap(), "the first is still there");
    drop(first);
    // At the ring's start, behind padding, there are twice as many bytes.
    assert!(a.sender.has_space(3008).unwrap());
    assert!(matches!(a.sender.has_space(3009), Err(Error::PayloadTooLarge { len: 3009, max: 3008 })));
    drop(third);
    assert_eq!((b.receiver.held().count, b.receiver.held().bytes, b.receiver.held().oldest), (0, 0, None));
    assert!(a.sender.has_space(3008).unwrap());
}

#[test]
fn a_batch_goes_on_behind_what_is_left_out() {
    let mib = 1 << 20;
    let (mut a, mut b) = Channel::builder().ring_capacity(16 * mib).pair().unwrap();
    let mut send = || a.sender.loan_timeout(5 * mib, SOON).unwrap().send().unwrap();
    (0..3).for_each(|_| send());
    drop((b.recv_timeout(SOON).unwrap(), b.recv_timeout(SOON).unwrap()));
    // There is a mebibyte up to the end, so the fourth begins where the first was.
    send();
    let mut batch = b.receiver.recv_batch().unwrap();
    assert_eq!(batch.next().unwrap().sequence(), 2);
    assert_eq!(batch.next().unwrap().sequence(), 3);
    assert!(batch.next().is_none());
    drop(batch);
    assert_eq!(
        (b.receiver.held().count, b.receiver.held().bytes),
        (0, 0),
        "what was left out has been given back too"
    );
}

/// Large records do not wrap around the ring's end: padding fills it.
#[test]
fn large_payloads_begin_at_the_start_again_and_arrive_whole() {
    const MIB: usize = 1 << 20;
    let capacity = 16 * MIB;
    let (mut a, mut b) = Channel::builder().ring_capacity(capacity).max_control(8).pair().unwrap();
    for _ in 0..3 {
        a.sender.loan_timeout(5 * MIB, SOON).unwrap().send().unwrap();
        drop(b.recv_timeout(SOON).unwrap());
    }
    // With the kilobyte for control bytes, which a long record keeps.
    let record = 5 * MIB + 64 + 1024;
    let padding = capacity - 2 * record;
    assert_eq!(a.stats().ring_high_water, u64::try_from(padding + record).unwrap());

    // The place of a payload's number.
    let places = |len: usize| [0, len / 2 / 8 * 8, len - 8];
    let mut sent = VecDeque::new();
    let mut kept = None;
    let mut receive = |sent: &mut VecDeque<(u64, usize)>| {
        let Some((number, len)) = sent.pop_front() else {
            assert!(kept.take().is_some(), "there is room once nothing is kept");
            return;
        };
        let mut message = b.recv_timeout(SOON).unwrap();
        assert_eq!(*message.control(), number.to_le_bytes());
        let payload = message.take_payload().unwrap();
        assert_eq!(payload.len(), len);
        for at in places(len) {
            assert_eq!(payload.read::<u64>(at).unwrap(), number, "at {at} of {len}");
        }
        // The one before it until now.
        kept = (len < 6 * MIB).then_some(payload);
    };
    let lens = [5 * MIB, 5 * MIB, 4 * MIB, 64, 5 * MIB, 8 * MIB - 1088, 3 * MIB, 2 * MIB - 8, 7 * MIB];
    for (number, len) in (0..).zip(lens.into_iter().cycle().take(20 * lens.len())) {
        while !a.sender.has_space(len).unwrap() {
            receive(&mut sent);
        }
        if number % 3 == 0 {
            // A loan that is dropped may have chosen another place.
            drop(a.try_loan(8).unwrap().unwrap());
        }
        let mut loan = a.try_loan(len).unwrap().unwrap();
        for at in places(len) {
            loan[at..at + 8].copy_from_slice(&u64::to_le_bytes(number));
        }
        if number % 4 == 0 {
            let unsent = loan.try_send_with(&[0; 9]).unwrap_err();
            loan = unsent.into_loan();
        }
        loan.send_with(&number.to_le_bytes()).unwrap();
        sent.push_back((number, len));
        if number % 5 > 2 {
            receive(&mut sent);
        }
    }
}

#[test]
fn a_detached_payload_keeps_its_bytes_and_gives_its_space_back() {
    let (mut a, mut b) = Channel::builder().ring_capacity(4096).pair().unwrap();
    let mut copies = Vec::new();
    for n in 0..20_u8 {
        let mut loan = a.try_loan(960).unwrap().expect("no payload is held");
        loan.fill(n);
        loan.send().unwrap();
        copies.push(b.recv_timeout(SOON).unwrap().take_payload().unwrap().detach());
        assert_eq!(b.receiver.held().count, 0);
    }
    for (n, copy) in (0..).zip(copies) {
        assert_eq!(copy.detach().to_vec(), [n; 960]);
    }
}

#[test]
fn payloads_that_another_thread_drops_wake_a_sleeping_sender() {
    let (mut a, mut b) = Channel::builder().ring_capacity(8192).wait(Wait::Block).pair().unwrap();
    for round in 0..20 {
        let mut kept: Vec<Message> = Vec::new();
        // Four records of 2048 bytes: all of the ring.
        for _ in 0..4 {
            a.sender.loan_timeout(960, SOON).unwrap().send_with(&[0; 1024]).unwrap();
            kept.push(b.recv_timeout(SOON).unwrap());
        }
        let sending = start(move || (a.loan(960).and_then(|loan| loan.send_with(&[0; 1024])), a)).asleep();
        // Each round drops another payload last.
        kept.rotate_left(round % 4);
        thread::spawn(move || drop(kept)).join().unwrap();
        let sent;
        (sent, a) = sending.result();
        sent.unwrap();
        assert_eq!(b.recv_timeout(SOON).unwrap().payload().unwrap().len(), 960);
    }
}
