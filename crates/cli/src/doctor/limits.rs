//! The limits of this process and of the machine: descriptors, sizes, and the buffers of sockets.
//!
//! Each limit is turned into what it leaves: channels, subscribers, bytes of a ring, bytes of control.

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair, sockopt::socket_send_buffer_size,
    },
    param::page_size,
    process::{Resource, getrlimit},
};

use super::{
    files::Files,
    report::{Check, Family, State},
    text::{bytes, counted, grouped},
};

/// Bytes of a ring with default settings (`Builder::ring_capacity`).
pub(super) const RING: u64 = 4 << 20;
/// Bytes of the largest ring of a peer that default settings accept (`Builder::max_peer_ring_capacity`).
pub(super) const LARGEST_RING: u64 = 64 << 20;
/// Descriptors of a channel; of a publisher, and of each of its subscribers.
const CHANNEL_FDS: u64 = 3;
const PUBLISHER_FDS: u64 = 4;
/// Further descriptors that establishing needs for a moment, of a channel and of a subscription: measured with `spawn`.
const HANDSHAKE_FDS: u64 = 4;
const JOINING_FDS: u64 = 3;
/// Subscribers of a publisher with default settings (`Builder::max_subscribers`).
const SUBSCRIBERS: u64 = 16;
/// Descriptors that a program has before its first channel: the standard streams.
const STREAMS: u64 = 3;
/// Most control bytes with default settings (`Builder::max_control`), and at all.
const CONTROL: u64 = 64 << 10;
const LONGEST_CONTROL: u64 = 212_928;
/// Bytes that a packet has in addition to its body: its header, and what the kernel counts.
const PACKET: u64 = 64;
/// Packets after which counting stops, whatever the kernel accepts.
const MOST_PACKETS: u64 = 1 << 16;

fn check(name: &'static str, found: impl Into<String>) -> Check {
    Check::new(Family::Limits, name, found)
}

/// Bytes that both regions of a channel take, each a ring and a control page.
pub(super) fn channel_bytes() -> u64 {
    2 * (RING + page_size() as u64)
}

/// All checks of this family.
pub(super) fn checks(files: &Files, add: &mut dyn FnMut(Check)) {
    let limit = |resource| {
        let limit = getrlimit(resource);
        (limit.current, limit.maximum)
    };
    add(judge_nofile(limit(Resource::Nofile)));
    add(judge_fsize(limit(Resource::Fsize).0));
    let used = files.text("/proc/self/statm").and_then(|text| mapped(&text));
    add(judge_as(limit(Resource::As).0, used));
    add(judge_memlock(limit(Resource::Memlock).0));
    add(file_max(files));
    add(judge_wmem(fresh_socket().ok(), files.number("/proc/sys/net/core/wmem_max")));
}

fn or_unlimited(limit: Option<u64>, in_words: impl FnOnce(u64) -> String) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), in_words)
}

fn judge_nofile((soft, hard): (Option<u64>, Option<u64>)) -> Check {
    let free = soft.unwrap_or(u64::MAX).saturating_sub(STREAMS);
    let channels = free.saturating_sub(HANDSHAKE_FDS) / CHANNEL_FDS;
    let lanes = free.saturating_sub(PUBLISHER_FDS + JOINING_FDS) / CHANNEL_FDS;
    let state = match (channels, lanes) {
        (0, _) => State::Error,
        (_, ..SUBSCRIBERS) => State::Warning,
        _ => State::Ok,
    };
    let numbers = match soft {
        None => "unlimited".to_owned(),
        Some(soft) => format!(
            "{} (hard limit {}): {}, or a publisher with {}",
            grouped(soft),
            or_unlimited(hard, grouped),
            counted(channels, "channel"),
            counted(lanes, "subscriber")
        ),
    };
    let change = if soft < hard || hard.is_none() {
        format!("ulimit -n {}", hard.unwrap_or(65_536))
    } else {
        "LimitNOFILE=65536 in the service, or nofile in /etc/security/limits.conf".to_owned()
    };
    check("RLIMIT_NOFILE", numbers)
        .state(state)
        .limits(
            "channels (3 descriptors each), subscribers (3 each, and 4 of the publisher), descriptors in messages: \
             EMFILE, Error::FdsLost, Error::FdsInFlight",
        )
        .change(change)
        .more("docs/guide.md#many-clients")
        .value("soft", soft)
        .value("hard", hard)
        .value("channels", soft.map(|_| channels))
        .value("subscribers", soft.map(|_| lanes))
}

fn judge_fsize(limit: Option<u64>) -> Check {
    let region = RING + page_size() as u64;
    let state = match limit {
        Some(limit) if limit < region => State::Error,
        Some(limit) if limit < LARGEST_RING => State::Warning,
        _ => State::Ok,
    };
    let below = if state == State::Error { ": less than a ring with default settings" } else { "" };
    check("RLIMIT_FSIZE", format!("{}{below}", or_unlimited(limit, bytes)))
        .state(state)
        .limits(
            "the size of memfds: Builder::ring_capacity and SealedBufferMut::new fail with Error::Io that names it; \
             other programs that exceed it are ended by SIGXFSZ",
        )
        .change("ulimit -f unlimited")
        .more("docs/sandbox.md#the-handshake")
        .value("bytes", limit)
}

/// Bytes of address space that a process has mapped (`/proc/self/statm`).
fn mapped(statm: &str) -> Option<u64> {
    statm.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(page_size() as u64)
}

fn judge_as(limit: Option<u64>, used: Option<u64>) -> Check {
    let left = limit.map(|limit| limit.saturating_sub(used.unwrap_or(0)));
    let channels = left.map(|left| left / channel_bytes());
    let state = match channels {
        Some(0) => State::Error,
        Some(channels) if channels < 16 => State::Warning,
        _ => State::Ok,
    };
    let found = match (limit, channels) {
        (Some(limit), Some(channels)) => {
            format!(
                "{}: {} with default settings beside this program",
                bytes(limit),
                counted(channels, "channel")
            )
        }
        _ => "unlimited".to_owned(),
    };
    check("RLIMIT_AS", found)
        .state(state)
        .limits("address space: a channel maps both rings, 8 MiB by default; mmap fails with ENOMEM")
        .change("ulimit -v unlimited")
        .more("docs/tuning.md#memory")
        .value("bytes", limit)
        .value("mapped", used)
}

fn judge_memlock(limit: Option<u64>) -> Check {
    let channels = limit.map(|limit| limit / channel_bytes());
    let state = if channels.is_some_and(|channels| channels < 1) { State::Note } else { State::Ok };
    let found = match (limit, channels) {
        (Some(limit), Some(0)) => format!("{}: less than a channel with default settings", bytes(limit)),
        (Some(limit), Some(channels)) => format!("{}: {}", bytes(limit), counted(channels, "channel")),
        _ => "unlimited".to_owned(),
    };
    check("RLIMIT_MEMLOCK", found)
        .state(state)
        .limits("programs that lock their memory (mlockall): both regions of a channel count, and Error::Io names the limit")
        .change("ulimit -l unlimited")
        .more("docs/guide.md#questions-by-error-message")
        .value("bytes", limit)
}

fn file_max(files: &Files) -> Check {
    const NAME: &str = "fs.file-max";
    let max = files.number("/proc/sys/fs/file-max");
    let used: Option<u64> =
        files.text("/proc/sys/fs/file-nr").and_then(|text| text.split_whitespace().next()?.parse().ok());
    let nr_open = files.number("/proc/sys/fs/nr_open");
    let check = match (max, used) {
        (Some(max), Some(used)) => {
            let state = if max.saturating_sub(used) < 1024 { State::Warning } else { State::Ok };
            let max = if max > 1 << 60 { "unlimited".to_owned() } else { grouped(max) };
            let a_process = nr_open.map_or_else(String::new, |most| {
                format!(", at most {} a process (fs.nr_open)", grouped(most))
            });
            check(NAME, format!("{max}, {} in use{a_process}", grouped(used))).state(state)
        }
        _ => Check::unknown(Family::Limits, NAME, "/proc/sys/fs/file-nr"),
    };
    check
        .limits("descriptors of the whole machine: ENFILE; fs.nr_open is the highest RLIMIT_NOFILE")
        .change("sysctl fs.file-max=1048576")
        .more("docs/guide.md#many-clients")
        .value("max", max)
        .value("used", used)
        .value("nr_open", nr_open)
}

/// The longest control bytes that a socket can be made to hold.
///
/// The kernel cuts what a program asks for to its limit, and doubles it (`SO_SNDBUF`, `socket(7)`).
fn longest_control(default: u64, max: u64) -> u64 {
    let needed = LONGEST_CONTROL + PACKET;
    let buffer = if default < needed { needed.min(max).saturating_mul(2).max(default) } else { default };
    buffer.saturating_sub(PACKET).min(LONGEST_CONTROL)
}

/// The room of a fresh socket: `SO_SNDBUF`, and the number of empty packets that it accepts while nobody reads them.
fn fresh_socket() -> Result<(u64, u64), Errno> {
    let (from, _to) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let buffer = socket_send_buffer_size(&from)? as u64;
    for sent in 0..MOST_PACKETS {
        match send(&from, &[0; 32], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => return Ok((buffer, sent)),
            Err(error) => return Err(error),
        }
    }
    Ok((buffer, MOST_PACKETS))
}

/// The default is asked of a socket: a container may lack the file.
fn judge_wmem(fresh: Option<(u64, u64)>, max: Option<u64>) -> Check {
    const NAME: &str = "net.core.wmem";
    let check = match fresh {
        None => Check::unknown(Family::Limits, NAME, "SO_SNDBUF of a socket"),
        Some((default, packets)) => {
            // Without its maximum a buffer may not be enlarged.
            let longest = longest_control(default, max.unwrap_or(0));
            let state = if longest < CONTROL { State::Warning } else { State::Ok };
            let max = max.map_or_else(|| "unknown".to_owned(), grouped);
            let control = counted(longest, "byte");
            let packets = counted(packets, "message");
            check(
                NAME,
                format!(
                    "default {}, max {max}: control of up to {control}, {packets} that wait",
                    grouped(default)
                ),
            )
            .state(state)
            .value("longest_control", longest)
        }
    };
    check
        .limits(
            "SO_SNDBUF of a channel's socket: the longest control bytes that travel without a payload, and messages \
             without a payload that wait (Error::Full); payloads are not limited",
        )
        .change("sysctl net.core.wmem_default=212992")
        .more("docs/guide.md#the-socket-is-full")
        .value("default", fresh.map(|(default, _)| default))
        .value("packets", fresh.map(|(_, packets)| packets))
        .value("max", max)
}

#[cfg(test)]
mod tests {
    use sealane::Channel;

    use super::*;

    fn nofile(limit: u64) -> Check {
        judge_nofile((Some(limit), Some(limit)))
    }

    #[test]
    fn default_ring_is_the_librarys() {
        let (a, _b) = Channel::pair().unwrap();
        assert_eq!(a.limits().max_payload as u64, RING / 2 - 1088);
        assert_eq!(a.limits().max_control as u64, CONTROL);
    }

    #[test]
    fn descriptors_are_told_as_channels_and_subscribers() {
        let check = nofile(1024);
        assert_eq!(
            (check.state, check.values["channels"].as_u64(), check.values["subscribers"].as_u64()),
            (State::Ok, Some(339), Some(338))
        );
        assert_eq!(
            [nofile(9).state, nofile(10).state, nofile(57).state, nofile(58).state],
            [State::Error, State::Warning, State::Warning, State::Ok]
        );
        assert_eq!(judge_nofile((None, None)).state, State::Ok);
    }

    #[test]
    fn soft_limits_are_raised_in_the_shell_and_hard_ones_elsewhere() {
        let check = judge_nofile((Some(1024), Some(4096)));
        assert_eq!(check.change.as_deref(), Some("ulimit -n 4096"));
        assert!(nofile(1024).change.unwrap().starts_with("LimitNOFILE"));
    }

    #[test]
    fn limits_below_a_default_ring_are_errors() {
        let page = page_size() as u64;
        assert_eq!([judge_fsize(Some(1 << 20)).state, judge_fsize(Some(RING)).state], [State::Error; 2]);
        assert_eq!(
            (judge_fsize(Some(RING + page)).state, judge_fsize(None).state),
            (State::Warning, State::Ok)
        );
        let space = |limit| judge_as(Some(limit), Some(6 << 20)).state;
        assert_eq!(
            [space(1 << 20), space(14 << 20), space(16 << 20), space(1 << 30)],
            [State::Error, State::Error, State::Warning, State::Ok]
        );
        assert_eq!(
            (judge_memlock(Some(64 << 10)).state, judge_memlock(Some(64 << 20)).state),
            (State::Note, State::Ok)
        );
    }

    #[test]
    fn address_space_is_read_from_statm() {
        assert_eq!(mapped("1234 321 300 5 0 99 0\n"), Some(1234 * page_size() as u64));
        assert_eq!([mapped(""), mapped("x"), mapped("18446744073709551615 0")], [None; 3]);
    }

    #[test]
    fn longest_control_is_what_the_library_arranges() {
        assert_eq!((longest_control(212_992, 212_992), longest_control(212_992, 4096)), (212_928, 212_928));
        assert_eq!(longest_control(4608, 4608), 9216 - 64);
        assert_eq!(judge_wmem(Some((4608, 6)), Some(4608)).state, State::Warning);
        let Some(max) = Files::below("/").number("/proc/sys/net/core/wmem_max") else {
            return eprintln!("SKIPPED: net.core.wmem_max is not readable here");
        };
        let (default, _) = fresh_socket().unwrap();
        let (a, _b) = Channel::builder().max_control(212_928).pair().unwrap();
        assert_eq!(a.limits().max_control as u64, longest_control(default, max));
    }

    #[test]
    fn packets_in_flight_are_counted() {
        let (_, count) = fresh_socket().unwrap();
        assert!(count > 1 && count < MOST_PACKETS, "{count}");
    }

    #[test]
    fn files_of_the_machine_are_judged_by_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proc/sys/fs");
        std::fs::create_dir_all(&path).unwrap();
        let judge = |max: &str, used: &str| {
            std::fs::write(path.join("file-max"), max).unwrap();
            std::fs::write(path.join("file-nr"), used).unwrap();
            file_max(&Files::below(dir.path()))
        };
        assert_eq!(
            judge("9223372036854775807\n", "1216\t0\t9223372036854775807\n").found,
            "unlimited, 1,216 in use"
        );
        assert_eq!(judge("10000\n", "9500 0 10000\n").state, State::Warning);
        assert_eq!(judge("many\n", "").state, State::Unknown);
    }
}
