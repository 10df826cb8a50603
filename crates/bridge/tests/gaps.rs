//! Whatever is lost, and wherever, is told to far subscribers, exactly: the number of each message is the number of those that came
//! before it and of those that were told missing.
//!
//! `SEALANE_REPEAT` says how often each scenario is repeated, `SEALANE_SEED` with which seed first. All times are a twentieth of those of
//! Zenoh's defaults, or as long with `SEALANE_NIGHTLY=1`.

mod common;
#[path = "gaps/far.rs"]
mod far;
mod hosts;
#[path = "gaps/rig.rs"]
mod rig;
#[path = "gaps/roles.rs"]
mod roles;
#[path = "gaps/times.rs"]
mod times;

use std::{thread::sleep, time::Duration};

use rig::{Choice, Rig};
use roles::Behind;
use times::{Random, repeat, secs};

fn cut(random: &Random, choice: &Choice) -> String {
    let mut rig = Rig::start(choice);
    sleep(random.about(2.0));
    rig.cables[0].cut();
    sleep(random.about(10.0));
    // The last messages may be those that are lost.
    let is_last = random.below(2) == 0;
    if is_last {
        rig.stop_source();
    }
    rig.cables[0].restore();
    if !is_last {
        rig.far.wait_for_more(10);
        sleep(random.about(2.0));
    }
    rig.finish()
}

#[test]
fn link_cut_while_the_newest_are_dropped() {
    repeat("cut, newest", |random| {
        let choice = Choice { behind: Behind::Newest, ..Choice::random(random) };
        cut(random, &choice)
    });
}

#[test]
fn link_cut_while_the_oldest_are_dropped() {
    repeat("cut, oldest", |random| {
        let choice = Choice { behind: Behind::Oldest, ..Choice::random(random) };
        cut(random, &choice)
    });
}

#[test]
fn link_cut_for_longer_than_the_publisher_waits() {
    repeat("cut, waits too short", |random| {
        let behind = Behind::Wait(random.about(1.0));
        let lease = random.about(4.0);
        cut(random, &Choice { behind, lease, ..Choice::random(random) })
    });
}

/// Zenoh may then close the link twice, and lose the one that has replaced it.
#[test]
fn link_cut_until_its_lease_and_the_wait_end_together() {
    repeat("cut, both end", |random| {
        let lease = random.about(4.0);
        let part = 0.7 + Duration::from_millis(random.below(300)).as_secs_f64();
        let behind = Behind::Wait(lease.mul_f64(part));
        let choice = Choice::random(random);
        cut(random, &Choice { behind, lease, interval: Duration::ZERO, max_payload: 64 << 10, ..choice })
    });
}

#[test]
fn link_cut_for_less_than_the_publisher_waits_loses_nothing() {
    repeat("cut, waits long enough", |random| {
        let long = secs(200.0);
        let choice = Choice {
            behind: Behind::Wait(long),
            lease: long,
            near_slow: Some(long),
            // The importer, which never holds the network up, has room for all that its subscriber is behind.
            far_slow: Some(long),
            memory: 2 << 30,
            ..Choice::random(random)
        };
        let rig = Rig::start(&choice);
        sleep(random.about(2.0));
        let before = rig.far.received().1;
        rig.cables[0].cut();
        sleep(random.about(10.0));
        rig.cables[0].restore();
        rig.far.wait_for_more(10);
        sleep(random.about(2.0));
        assert_eq!(rig.far.received().1, before, "{choice:?}");
        rig.finish()
    });
}

#[test]
fn link_reset() {
    repeat("reset", |random| {
        let waits = Behind::Wait(secs(20.0));
        let behind = random.one_of(&[Behind::Newest, Behind::Oldest, waits]);
        let rig = Rig::start(&Choice { behind, ..Choice::random(random) });
        for _ in 0..=random.below(3) {
            sleep(random.about(2.0));
            rig.cables[0].reset();
        }
        rig.far.wait_for_more(10);
        sleep(random.about(1.0));
        rig.finish()
    });
}

fn pause(random: &Random, choice: &Choice) -> String {
    let rig = Rig::start(choice);
    for seconds in [3.0, 8.0, 30.0] {
        sleep(random.about(1.0));
        rig.far.pause(true);
        sleep(secs(seconds));
        rig.far.pause(false);
        rig.far.wait_for_more(10);
    }
    rig.finish()
}

#[test]
fn consumer_pauses_and_is_ended_as_too_slow() {
    repeat("pause, waited for", |random| {
        // It may be waited for through a short pause, and is ended in a long one.
        let far_slow = Some(secs(random.one_of(&[0.1, 2.0, 5.0])));
        pause(random, &Choice { far_slow, ..Choice::random(random) })
    });
}

#[test]
fn consumer_pauses_and_is_overrun() {
    repeat("pause, overrun", |random| pause(random, &Choice { far_slow: None, ..Choice::random(random) }));
}

#[test]
fn importing_bridge_is_killed() {
    repeat("importer killed", |random| {
        let mut rig = Rig::start(&Choice::random(random));
        for _ in 0..=random.below(3) {
            sleep(random.about(2.0));
            rig.kill_importer();
            sleep(random.about(random.one_of(&[0.0, 5.0])));
            rig.start_importer();
            // It may be killed again before its subscriber is back.
            if random.below(3) > 0 {
                rig.far.wait_for_more(10);
            }
        }
        rig.far.wait_for_more(1);
        rig.finish()
    });
}

#[test]
fn exporting_bridge_is_killed() {
    repeat("exporter killed", |random| {
        let mut rig = Rig::start(&Choice::random(random));
        for _ in 0..=random.below(3) {
            sleep(random.about(2.0));
            let is_cut = random.below(3) == 0;
            if is_cut {
                rig.cables[0].cut();
            }
            rig.kill_exporter(0);
            sleep(random.about(random.one_of(&[0.0, 5.0])));
            rig.start_exporter(0);
            sleep(random.about(random.one_of(&[0.0, 5.0])));
            rig.cables[0].restore();
            if random.below(3) > 0 {
                rig.far.wait_for_more(10);
            }
        }
        rig.far.wait_for_more(1);
        rig.finish()
    });
}

#[test]
fn publisher_is_killed_and_started_again() {
    repeat("publisher killed", |random| {
        let mut rig = Rig::start(&Choice { near_slow: None, ..Choice::random(random) });
        for _ in 0..=random.below(3) {
            sleep(random.about(2.0));
            rig.kill_source();
            sleep(random.about(random.one_of(&[0.0, 5.0])));
            rig.start_source();
            if random.below(3) > 0 {
                rig.far.wait_for_more(10);
            }
        }
        rig.finish()
    });
}

#[test]
fn publisher_is_started_again_while_the_link_is_cut() {
    repeat("publisher killed, link cut", |random| {
        let mut rig = Rig::start(&Choice { near_slow: None, ..Choice::random(random) });
        sleep(random.about(1.0));
        rig.cables[0].cut();
        for _ in 0..=random.below(3) {
            sleep(random.about(2.0));
            rig.kill_source();
            sleep(random.about(random.one_of(&[0.0, 5.0])));
            rig.start_source();
        }
        sleep(random.about(random.one_of(&[0.0, 10.0])));
        if random.below(2) == 0 {
            rig.cables[0].reset();
        }
        rig.cables[0].restore();
        rig.finish()
    });
}

#[test]
fn two_exporters_of_one_publisher() {
    repeat("two exporters", |random| {
        let mut rig = Rig::start(&Choice { exporters: 2, ..Choice::random(random) });
        for _ in 0..=random.below(3) {
            sleep(random.about(2.0));
            let one = usize::from(random.below(2) == 0);
            match random.below(3) {
                0 => rig.kill_exporter(one),
                1 => rig.cables[one].cut(),
                _ => rig.cables[one].reset(),
            }
            sleep(random.about(random.one_of(&[0.0, 5.0])));
            rig.cables[one].restore();
            if random.below(2) == 0 || rig.exporters[1 - one].is_none() {
                rig.start_exporter(one);
            }
            rig.far.wait_for_more(10);
        }
        rig.finish()
    });
}
