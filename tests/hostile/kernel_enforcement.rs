//! The kernel lets every process write its own memory only: a peer tries to write our region in every way, and is refused
//! each time.
#![expect(unsafe_code, reason = "the peer does what no safe interface offers")]

use std::{
    ffi::CString,
    fs::File,
    io::{self, stdin},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Stdio,
    time::{Duration, Instant},
};

use libc::{
    EACCES, EFAULT, EIO, EPERM, MADV_DONTNEED, MADV_PAGEOUT, MADV_POPULATE_WRITE, MADV_REMOVE, MAP_PRIVATE,
    MAP_SHARED, MAP_SHARED_VALIDATE, MREMAP_MAYMOVE, PROT_READ, PROT_WRITE, c_int,
};
use sealane::{Channel, SealedBuffer, SealedBufferMut};

use crate::support::{
    hostile::{CONTROL, HELLO, Hello, LONG, Packet, Player, READY, SEALS, memfd, page, pipe, seqpacket_pair},
    role,
    threads::bounded,
};

/// The byte in our loan, at the beginning of the ring.
const OURS: u8 = 0x5a;

/// A system call by its number.
fn call(number: i64, arguments: [usize; 6]) -> io::Result<usize> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: what this file asks for touches only mappings and buffers that it made for that, and that it does not use
    // as Rust values meanwhile. All that would write elsewhere must be refused: if not, this process is of no use anyway.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn bits(flags: c_int) -> usize {
    usize::try_from(flags).unwrap()
}

fn number(fd: &impl AsFd) -> usize {
    bits(fd.as_fd().as_raw_fd())
}

/// Our region, as the peer receives it.
struct Region {
    memfd: OwnedFd,
    size: usize,
    /// The address of its read-only mapping.
    at: usize,
}

impl Region {
    fn map(&self, protection: c_int, flags: c_int) -> io::Result<usize> {
        map(&self.memfd, self.size, protection, flags)
    }

    fn protect(&self, at: usize) -> io::Result<usize> {
        call(libc::SYS_mprotect, [at, self.size, bits(PROT_READ | PROT_WRITE), 0, 0, 0])
    }

    fn advise(&self, advice: c_int) -> io::Result<usize> {
        call(libc::SYS_madvise, [self.at, self.size, bits(advice), 0, 0, 0])
    }

    fn allocate(&self, mode: c_int, offset: usize) -> io::Result<usize> {
        call(libc::SYS_fallocate, [number(&self.memfd), bits(mode), offset, self.size, 0, 0])
    }

    /// Opens the region again.
    fn again(&self, options: &mut std::fs::OpenOptions) -> io::Result<File> {
        options.open(format!("/proc/self/fd/{}", self.memfd.as_raw_fd()))
    }

    /// The byte at `offset`, as a reader sees it.
    fn byte(&self, offset: usize) -> u8 {
        let mut byte = [0];
        assert_eq!(rustix::io::pread(&self.memfd, &mut byte, offset.try_into().unwrap()).unwrap(), 1);
        byte[0]
    }
}

fn map(fd: &impl AsFd, size: usize, protection: c_int, flags: c_int) -> io::Result<usize> {
    call(libc::SYS_mmap, [0, size, bits(protection), bits(flags), number(fd), 0])
}

fn write_at(fd: &impl AsFd, at: usize) -> io::Result<usize> {
    call(libc::SYS_pwrite64, [number(fd), b"x".as_ptr().addr(), 1, at, 0, 0])
}

/// A file with some bytes in it.
fn source() -> OwnedFd {
    memfd(page(), page(), rustix::fs::SealFlags::empty())
}

/// A pipe with some bytes in it.
fn full_pipe() -> OwnedFd {
    let (reader, writer) = pipe();
    rustix::io::write(&writer, b"x").unwrap();
    reader
}

/// A way to write, and the kernel's error: 0 for any, where kernels differ.
type Attempt = (&'static str, c_int, fn(&Region) -> io::Result<usize>);

const ATTEMPTS: [Attempt; 42] = [
    ("a shared writable mapping", EPERM, |r| r.map(PROT_READ | PROT_WRITE, MAP_SHARED)),
    ("one that is for writing only", EPERM, |r| r.map(PROT_WRITE, MAP_SHARED)),
    ("one whose flags are checked", EPERM, |r| r.map(PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE)),
    ("a mapping of a page in the middle", EPERM, |r| {
        let (protection, flags) = (bits(PROT_READ | PROT_WRITE), bits(MAP_SHARED));
        let page = usize::try_from(page()).unwrap();
        call(libc::SYS_mmap, [0, page, protection, flags, number(&r.memfd), page])
    }),
    ("a readable mapping that is made writable", EACCES, |r| r.protect(r.at)),
    ("a copy of the mapping that is made writable", EACCES, |r| {
        r.protect(call(libc::SYS_mremap, [r.at, 0, r.size, bits(MREMAP_MAYMOVE), 0, 0])?)
    }),
    ("a moved mapping that is made writable", EACCES, |r| {
        let at = r.map(PROT_READ, MAP_SHARED)?;
        r.protect(call(libc::SYS_mremap, [at, r.size, r.size * 2, bits(MREMAP_MAYMOVE), 0, 0])?)
    }),
    ("pages mapped elsewhere and made writable", EACCES, |r| {
        let at = r.map(PROT_READ, MAP_SHARED)?;
        call(libc::SYS_remap_file_pages, [at, 4096, 0, 1, 0, 0])?;
        call(libc::SYS_mprotect, [at, 4096, bits(PROT_READ | PROT_WRITE), 0, 0, 0])
    }),
    ("write", EPERM, |r| call(libc::SYS_write, [number(&r.memfd), b"x".as_ptr().addr(), 1, 0, 0, 0])),
    ("pwrite to the control page", EPERM, |r| write_at(&r.memfd, 0)),
    ("pwrite to the ring", EPERM, |r| write_at(&r.memfd, r.size - 1)),
    ("pwrite beyond the end", EPERM, |r| write_at(&r.memfd, r.size)),
    ("pwritev2", EPERM, |r| {
        let part = [b"x".as_ptr().addr(), 1];
        call(libc::SYS_pwritev2, [number(&r.memfd), part.as_ptr().addr(), 1, 0, 0, 0])
    }),
    ("appending", EPERM, |r| {
        let set = |flag| call(libc::SYS_fcntl, [number(&r.memfd), bits(libc::F_SETFL), bits(flag), 0, 0, 0]);
        set(libc::O_APPEND)?;
        let result = call(libc::SYS_write, [number(&r.memfd), b"x".as_ptr().addr(), 1, 0, 0, 0]);
        // The calls below fail with another error for a file in append mode.
        set(0)?;
        result
    }),
    ("a file opened anew: write", EPERM, |r| write_at(&r.again(File::options().write(true))?, 0)),
    ("a file opened anew: mapping", EPERM, |r| {
        let file = r.again(File::options().read(true).write(true))?;
        map(&file, r.size, PROT_READ | PROT_WRITE, MAP_SHARED)
    }),
    ("a file opened anew and cut", EPERM, |r| r.again(File::options().write(true).truncate(true)).map(|_| 0)),
    ("truncate", EPERM, |r| {
        let path = CString::new(format!("/proc/self/fd/{}", r.memfd.as_raw_fd())).unwrap();
        call(libc::SYS_truncate, [path.as_ptr().addr(), 0, 0, 0, 0, 0])
    }),
    ("ftruncate to nothing", EPERM, |r| call(libc::SYS_ftruncate, [number(&r.memfd), 0, 0, 0, 0, 0])),
    ("ftruncate to more", EPERM, |r| call(libc::SYS_ftruncate, [number(&r.memfd), r.size * 2, 0, 0, 0, 0])),
    ("a hole", EPERM, |r| r.allocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0)),
    ("pages beyond the end", EPERM, |r| r.allocate(libc::FALLOC_FL_KEEP_SIZE, r.size)),
    ("a longer file", EPERM, |r| r.allocate(0, r.size)),
    ("zeros", 0, |r| r.allocate(libc::FALLOC_FL_ZERO_RANGE, 0)),
    ("a collapsed range", 0, |r| r.allocate(libc::FALLOC_FL_COLLAPSE_RANGE, 0)),
    ("an inserted range", 0, |r| r.allocate(libc::FALLOC_FL_INSERT_RANGE, 0)),
    ("MADV_REMOVE", EACCES, |r| r.advise(MADV_REMOVE)),
    ("MADV_POPULATE_WRITE", 0, |r| r.advise(MADV_POPULATE_WRITE)),
    ("copy_file_range", EPERM, |r| {
        let (source, mut from, mut to) = (source(), 0_u64, 0_u64);
        let offsets = [(&raw mut from).addr(), (&raw mut to).addr()];
        call(libc::SYS_copy_file_range, [number(&source), offsets[0], number(&r.memfd), offsets[1], 1, 0])
    }),
    ("sendfile", EPERM, |r| {
        let (source, mut from) = (source(), 0_u64);
        call(libc::SYS_sendfile, [number(&r.memfd), number(&source), (&raw mut from).addr(), 1, 0, 0])
    }),
    ("splice", EPERM, |r| {
        let (pipe, mut to) = (full_pipe(), 0_u64);
        call(libc::SYS_splice, [number(&pipe), 0, number(&r.memfd), (&raw mut to).addr(), 1, 0])
    }),
    ("a cloned file", 0, |r| {
        let source = source();
        call(libc::SYS_ioctl, [number(&r.memfd), 0x4004_9409, number(&source), 0, 0, 0])
    }),
    ("one more seal", EPERM, |r| {
        call(libc::SYS_fcntl, [number(&r.memfd), bits(libc::F_ADD_SEALS), bits(libc::F_SEAL_WRITE), 0, 0, 0])
    }),
    ("its own memory as a file", EIO, |r| {
        write_at(&File::options().write(true).open("/proc/self/mem")?, r.at)
    }),
    ("its mapping as a file: write", EPERM, |r| write_at(&map_file(r)?, 0)),
    ("its mapping as a file: mapping", EPERM, |r| {
        map(&map_file(r)?, r.size, PROT_READ | PROT_WRITE, MAP_SHARED)
    }),
    ("process_vm_writev to itself", EFAULT, |r| {
        let (from, to) = ([b"x".as_ptr().addr(), 1], [r.at, 1]);
        let process = usize::try_from(std::process::id()).unwrap();
        call(libc::SYS_process_vm_writev, [process, from.as_ptr().addr(), 1, to.as_ptr().addr(), 1, 0])
    }),
    ("reading into it", EFAULT, |r| call(libc::SYS_read, [number(&full_pipe()), r.at, 1, 0, 0, 0])),
    ("random bytes put into it", EFAULT, |r| call(libc::SYS_getrandom, [r.at, 1, 0, 0, 0, 0])),
    ("userfaultfd: pages of its own for missing ones", EPERM, |r| user_fault(r, 1)),
    ("userfaultfd: minor faults", EPERM, |r| user_fault(r, 4)),
    ("a dmabuf of it", 0, |r| {
        // The fields of `UDMABUF_CREATE`: memfd, flags, offset, size.
        let device = File::options().read(true).write(true).open("/dev/udmabuf")?;
        let wanted = [u64::try_from(number(&r.memfd)).unwrap(), 0, u64::try_from(r.size).unwrap()];
        call(libc::SYS_ioctl, [number(&device), 0x4018_7542, wanted.as_ptr().addr(), 0, 0, 0])
    }),
];

/// Needs `CAP_CHECKPOINT_RESTORE`; without it the kernel says `EPERM` here.
fn map_file(r: &Region) -> io::Result<File> {
    let path = format!("/proc/self/map_files/{:x}-{:x}", r.at, r.at + r.size);
    File::options().read(true).write(true).open(path)
}

/// Registers the mapping for user faults. Without the right to do that the kernel says `EPERM` anyway.
fn user_fault(r: &Region, mode: u64) -> io::Result<usize> {
    let refused = io::Error::from_raw_os_error(EPERM);
    let Ok(fd) = call(libc::SYS_userfaultfd, [bits(libc::O_CLOEXEC), 0, 0, 0, 0, 0]) else {
        return Err(refused);
    };
    // UFFDIO_API and UFFDIO_REGISTER.
    let mut api = [0xaa_u64, 0, 0];
    call(libc::SYS_ioctl, [fd, 0xc018_aa3f, api.as_mut_ptr().addr(), 0, 0, 0])?;
    let mut range = [u64::try_from(r.at).unwrap(), u64::try_from(r.size).unwrap(), mode, 0];
    call(libc::SYS_ioctl, [fd, 0xc020_aa00, range.as_mut_ptr().addr(), 0, 0, 0])
}

#[test]
fn a_peer_is_refused_every_way_to_write_our_region() {
    let _guard = bounded();
    let (ours, theirs) = seqpacket_pair();
    let mut child = role(tries_to_write).stdin(Stdio::from(theirs)).spawn().unwrap();
    let channel = Channel::builder().ring_capacity(2 * 4096).handshake(ours).unwrap().finish().unwrap();
    let (mut sender, mut receiver) = channel.split();
    // The peer holds as much of the ring as it can while it tries.
    let mut loan = sender.loan(sender.limits().max_payload).unwrap();
    loan.fill(OURS);
    for word in [&b"begun"[..], b"tried", b"harmless"] {
        assert_eq!(receiver.recv_timeout(LONG).expect("the peer has come so far").control(), word);
        assert!(loan.iter().all(|byte| *byte == OURS), "{}", word.escape_ascii());
    }
    loan.send().unwrap();
    sender.send(b"look").unwrap();
    assert!(child.wait().unwrap().success(), "the peer has seen what it may see");
}

#[test]
fn our_region_is_sealed_and_paid_for_by_us_whatever_is_asked() {
    let _guard = bounded();
    for (prefault, capacity) in [(true, 1), (false, 1), (true, 1 << 20), (false, 1 << 20), (false, 0)] {
        let (player, ours) = Player::pair();
        let handshake =
            Channel::builder().prefault(prefault).ring_capacity(capacity).handshake(ours).unwrap();
        let heard = player.hear().unwrap();
        let (region, stat) = (&heard.fds[0], rustix::fs::fstat(&heard.fds[0]).unwrap());
        assert!(rustix::fs::fcntl_get_seals(region).unwrap().contains(SEALS));
        assert!(stat.st_size > 0 && stat.st_blocks * 512 >= stat.st_size, "{prefault}, {capacity}: holes");
        drop(handshake);
    }
}

#[test]
fn our_mappings_are_inherited_by_forks_and_left_out_of_core_dumps() {
    let (_a, _b) = Channel::pair().unwrap();
    let _draft = SealedBufferMut::new(4096).unwrap();
    let sealed = SealedBufferMut::new(4096).unwrap().seal().unwrap();
    let _received = SealedBuffer::try_from(sealed.as_fd().try_clone_to_owned().unwrap()).unwrap();
    // Other tests of this process map at any time, and say only then that it is not to be dumped; ours have said so.
    let soon = Instant::now() + Duration::from_secs(20);
    loop {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        // Each mapping has a line of its own, and its flags some lines below (`proc_pid_smaps(5)`). dc: not copied on fork;
        // dd: not dumped.
        let (mut seen, mut dumped) = ([0; 4], 0);
        let mut lines = maps.lines();
        while let Some(line) = lines.next().filter(|line| !line.is_empty()) {
            if line.contains("memfd:sealane") {
                let kind = ["rw-s", "r--s", "r--p"].iter().position(|kind| line.contains(kind)).unwrap_or(3);
                seen[kind] += 1;
                let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
                assert!(!flags.split(' ').any(|flag| flag == "dc"), "{line} {flags}");
                dumped += usize::from(!flags.split(' ').any(|flag| flag == "dd"));
            }
        }
        // Two regions, of which each side has mapped both; a draft; two sealed buffers.
        assert!(seen[0] >= 3 && seen[1] >= 2 && seen[2] >= 2 && seen[3] == 0, "{seen:?}: {maps}");
        if dumped == 0 {
            return;
        }
        assert!(Instant::now() < soon, "{dumped} would be dumped: {maps}");
    }
}

/// Bytes that this process has mapped of `fd`, of those how many its page tables hold, and of these how many in huge pages
/// (`proc_pid_smaps(5)`).
fn mapped(fd: &OwnedFd) -> (u64, u64, u64) {
    let inode = rustix::fs::fstat(fd).unwrap().st_ino.to_string();
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut size, mut resident, mut huge, mut ours) = (0, 0, 0, false);
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["Size:", kilobytes, "kB"] if ours => size += kilobytes.parse::<u64>().unwrap() << 10,
            ["Rss:", kilobytes, "kB"] if ours => resident += kilobytes.parse::<u64>().unwrap() << 10,
            ["ShmemPmdMapped:", kilobytes, "kB"] if ours => huge += kilobytes.parse::<u64>().unwrap() << 10,
            [range, _, _, _, found, ..] if range.contains('-') => ours = found == inode,
            _ => {}
        }
    }
    (size, resident, huge)
}

#[test]
fn page_tables_are_filled_at_once_or_as_they_are_needed() {
    let _guard = bounded();
    // So large that a touch brings in a small part, even of a file in huge pages.
    let ring = 8 << 20;
    // The control page, and the ring.
    let whole = page() + ring;
    for prefault in [true, false] {
        let (player, ours) = Player::pair();
        let builder = Channel::builder().prefault(prefault).ring_capacity(8 << 20);
        let handshake = builder.handshake(ours).unwrap();
        let our_region = player.hear().unwrap().fds.remove(0);
        let hello = Hello::honest(ring / page());
        let (_space, for_peer) = seqpacket_pair();
        let region = memfd(hello.region(), hello.region(), SEALS);
        player.send(Packet::hello(&hello, vec![region.try_clone().unwrap(), for_peer]));
        player.send(Packet::new(READY));
        let channel = handshake.finish().unwrap();
        for (name, region) in [("ours", our_region), ("the peer's", region)] {
            let (size, resident, huge) = mapped(&region);
            assert_eq!(size, whole, "{name}, {prefault}");
            // Without `prefault`, only the pages of a few accesses are there. A huge page is one entry.
            let resident = if prefault { resident } else { resident - huge };
            assert!(if prefault { resident == whole } else { resident < ring }, "{name}: {resident}");
        }
        drop(channel);
    }
}

#[test]
fn our_region_has_huge_pages_where_the_system_gives_them_and_none_beyond_its_end() {
    let _guard = bounded();
    let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let setting = std::fs::read_to_string(setting).unwrap_or_default();
    let given = ["[advise]", "[within_size]"].iter().any(|word| setting.contains(word));
    for prefault in [true, false] {
        let (player, ours) = Player::pair();
        let builder = Channel::builder().prefault(prefault).ring_capacity(4 << 20);
        let handshake = builder.handshake(ours).unwrap();
        let region = player.hear().unwrap().fds.remove(0);
        let stat = rustix::fs::fstat(&region).unwrap();
        // A page behind the second huge page belongs to the region.
        if !setting.contains("[always]") {
            assert_eq!(stat.st_blocks * 512, stat.st_size, "{prefault}");
        }
        if given && prefault {
            assert_eq!(mapped(&region).2, 4 << 20, "{setting}");
        }
        drop(handshake);
    }
    if !given {
        println!("left out: huge pages, by {setting:?}");
    }
}

#[test]
#[ignore = "the child of another test"]
fn tries_to_write() {
    let player = Player::from(stdin().as_fd().try_clone_to_owned().unwrap());
    let hello = Hello::honest(1);
    let (_space, for_peer) = seqpacket_pair();
    player.send(Packet::hello(&hello, vec![memfd(hello.region(), hello.region(), SEALS), for_peer]));
    player.send(Packet::new(READY));
    let mut heard = player.hear().unwrap();
    assert_eq!((heard.kind, heard.fds.len(), player.hear().unwrap().kind), (HELLO, 2, READY));
    let memfd = heard.fds.remove(0);
    let size = usize::try_from(rustix::fs::fstat(&memfd).unwrap().st_size).unwrap();
    let at = map(&memfd, size, PROT_READ, MAP_SHARED).unwrap();
    let region = Region { memfd, size, at };
    let say = |sequence, word: &[u8]| {
        player.send(Packet { body: word.to_vec(), ..Packet::control(sequence) });
    };
    say(0, b"begun");

    for (name, expected, attempt) in ATTEMPTS {
        match attempt(&region) {
            Ok(result) => panic!("{name}: done ({result}), error {expected} expected"),
            Err(error) => {
                let found = error.raw_os_error();
                assert!(
                    expected == 0 || found == Some(expected),
                    "{name}: {error}, error {expected} expected"
                );
            }
        }
    }
    say(1, b"tried");

    // The kernel allows it, and it harms no process.
    let own = region.map(PROT_READ | PROT_WRITE, MAP_PRIVATE).unwrap();
    let copy = full_pipe();
    let (from, ring) = (number(&copy), own + usize::try_from(page()).unwrap() + 64);
    assert_eq!(call(libc::SYS_read, [from, ring, 1, 0, 0, 0]).unwrap(), 1, "a private copy");
    for advice in [MADV_DONTNEED, MADV_PAGEOUT] {
        region.advise(advice).unwrap();
    }
    call(libc::SYS_fchmod, [number(&region.memfd), 0, 0, 0, 0, 0]).unwrap();
    say(2, b"harmless");

    // The channel works, and the peer sees the messages.
    let heard = player.hear().unwrap();
    assert_eq!((heard.kind, &heard.body[..]), (CONTROL, &b"look"[..]));
    let payload = usize::try_from(page()).unwrap() + 64;
    let most = 8192 / 2 - 1088;
    assert_eq!([region.byte(payload), region.byte(payload + most - 1)], [OURS; 2]);
}
