//! Settings, as a structure that can grow.

use std::{mem::offset_of, ptr, time::Duration};

use sealane::{Builder, Channel as SealaneChannel, Wait};

use crate::{
    arguments::{MAX_FDS, bytes},
    status::{Failure, Result},
};

/// In a field of `sealane_options`, where 0 means the default: a true 0, or "no".
pub const SEALANE_NONE: u32 = u32::MAX;
/// In `sealane_options.ring_capacity` and `max_peer_ring_capacity`: no ring, and so no payloads in this direction.
pub const SEALANE_NO_RING: u64 = 1;
/// `sealane_options.wait`: spin for up to `max_spin_us`, then sleep. The default.
pub const SEALANE_WAIT_ADAPTIVE: u32 = 1;
/// `sealane_options.wait`: sleep at once.
pub const SEALANE_WAIT_BLOCK: u32 = 2;
/// `sealane_options.wait`: never sleep; occupies a CPU.
pub const SEALANE_WAIT_SPIN: u32 = 3;

/// The most that a packet can hold.
const MAX_CONTROL: u32 = 212_928;

/// Settings of one end of a channel. A field that is 0 means the default; `SEALANE_NONE` means a true 0, or "no"; for rings
/// that is `SEALANE_NO_RING`.
///
/// The structure may grow at its end. So its size comes first, as in clone3(2): fields that an older program does not know
/// have their defaults; fields that this library does not know have to be 0, else functions return -E2BIG.
///
///     struct sealane_options options = { .size = sizeof options, .ring_capacity = 1 << 20 };
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Options {
    /// sizeof (struct sealane_options).
    pub size: u64,
    /// Bytes of this end's ring, rounded up to a page. Default: 4 MiB. See `sealane_ring_for`.
    pub ring_capacity: u64,
    /// Most bytes of the peer's ring. Default: 64 MiB, and 8 MiB for the clients of a listener.
    pub max_peer_ring_capacity: u64,
    /// Most control bytes of a message that this end receives. Default: 65,536; at most 212,928.
    pub max_control: u32,
    /// Most descriptors of a message that this end receives. Default: 64; at most 253 (unix(7), SCM_MAX_FD).
    pub max_fds: u32,
    /// Most requests without a reply, in either direction. Default: 1,024.
    pub max_requests: u32,
    /// Longest duration of a handshake, in milliseconds. Default: 5,000.
    pub handshake_timeout_ms: u32,
    /// A `SEALANE_WAIT_...`. How functions that wait do so.
    pub wait: u32,
    /// Longest spinning of `SEALANE_WAIT_ADAPTIVE`, in microseconds. Default: 50.
    pub max_spin_us: u32,
    /// 1: map all memory at once (the default); `SEALANE_NONE`: at its first use.
    pub prefault: u32,
    /// 1: make this end's ring of 2 MiB pages, and fail where none are reserved (memfd_create(2), MFD_HUGETLB); `SEALANE_NONE`: no
    /// (the default).
    pub huge_pages: u32,
    /// 1: ask for a pidfd of the peer's process (Linux 6.5), for peers whose socket another process may hold;
    /// `SEALANE_NONE`: no (the default).
    pub peer_pidfd: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// As clone3(2): a structure larger than a page is none.
const LARGEST: usize = 4096;

impl Options {
    /// Reads the caller's structure, which may be older or newer than this one.
    ///
    /// # Safety
    /// `options` is null, or readable for as many bytes as its first field says.
    unsafe fn read(options: *const Self) -> Result<Self> {
        if options.is_null() {
            return Ok(Self::default());
        }
        // SAFETY: by the contract its first field, a `u64`, is readable.
        let size = unsafe { ptr::read_unaligned(options.cast::<u64>()) };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size < offset_of!(Self, ring_capacity) {
            return Err(Failure::invalid(
                "options.size = sizeof (struct sealane_options) expected, a size below 8 found",
            ));
        }
        if size > LARGEST {
            return Err(too_new());
        }
        // SAFETY: contract of this function.
        let given = unsafe { bytes(options.cast(), size) }?;
        let (known, unknown) = given.split_at(size.min(size_of::<Self>()));
        if unknown.iter().any(|byte| *byte != 0) {
            return Err(too_new());
        }
        let mut read = Self::default();
        // SAFETY: both are valid for `known.len()` bytes, which is at most the structure's size, and any bytes are a value.
        unsafe { ptr::copy_nonoverlapping(known.as_ptr(), (&raw mut read).cast(), known.len()) };
        Ok(read)
    }

    fn builder(&self) -> Result<Builder> {
        let mut builder = SealaneChannel::builder();
        if self.reserved != 0 {
            return Err(Failure::invalid("options.reserved = 0 expected, another number found"));
        }
        if self.ring_capacity == SEALANE_NONE.into() {
            return Err(Failure::invalid(
                "options.ring_capacity: SEALANE_NO_RING expected, SEALANE_NONE found",
            ));
        }
        if let Some(bytes) = bytes_of(self.ring_capacity) {
            builder = builder.ring_capacity(bytes);
        }
        if let Some(bytes) = bytes_of(self.max_peer_ring_capacity) {
            builder = builder.max_peer_ring_capacity(bytes);
        }
        if let Some(bytes) = number_of(self.max_control) {
            if bytes > MAX_CONTROL {
                return Err(Failure::invalid(
                    "options.max_control: at most 212,928 bytes expected, more found",
                ));
            }
            builder = builder.max_control(to_usize(bytes));
        }
        if let Some(count) = number_of(self.max_fds) {
            let count = to_usize(count);
            if count > MAX_FDS {
                return Err(Failure::invalid("options.max_fds: at most 253 expected, more found"));
            }
            builder = builder.max_fds(count);
        }
        if let Some(count) = number_of(self.max_requests) {
            builder = builder.max_requests(to_usize(count));
        }
        match self.handshake_timeout_ms {
            0 => {}
            SEALANE_NONE => {
                return Err(Failure::invalid(
                    "options.handshake_timeout_ms: some milliseconds expected, since a handshake always ends; -1 found",
                ));
            }
            time => builder = builder.handshake_timeout(Duration::from_millis(time.into())),
        }
        let spin = number_of(self.max_spin_us).map(|time| Duration::from_micros(time.into()));
        let wait = match (self.wait, spin) {
            (0 | SEALANE_WAIT_ADAPTIVE, None) => Wait::default(),
            (0 | SEALANE_WAIT_ADAPTIVE, Some(max_spin)) => Wait::Adaptive { max_spin },
            (SEALANE_WAIT_BLOCK, None) => Wait::Block,
            (SEALANE_WAIT_SPIN, None) => Wait::Spin,
            (SEALANE_WAIT_BLOCK | SEALANE_WAIT_SPIN, Some(_)) => {
                return Err(Failure::invalid(
                    "options.max_spin_us is for SEALANE_WAIT_ADAPTIVE only: 0 expected",
                ));
            }
            _ => {
                return Err(Failure::invalid(
                    "options.wait: 0 or a SEALANE_WAIT_... expected, another number found",
                ));
            }
        };
        builder = builder.wait(wait);
        if let Some(on) = choice_of(self.prefault)? {
            builder = builder.prefault(on);
        }
        if let Some(on) = choice_of(self.huge_pages)? {
            builder = builder.huge_pages(on);
        }
        if let Some(on) = choice_of(self.peer_pidfd)? {
            builder = builder.peer_pidfd(on);
        }
        Ok(builder)
    }
}

fn too_new() -> Failure {
    Failure::Usage {
        errno: libc::E2BIG,
        text: "options sets a field that this version of the library does not have: a newer library, or a 0, expected",
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A length, unless it is the default.
fn bytes_of(field: u64) -> Option<usize> {
    let bytes = if field == SEALANE_NO_RING { 0 } else { field };
    (field != 0).then(|| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// A number, unless it is the default.
fn number_of(field: u32) -> Option<u32> {
    match field {
        0 => None,
        SEALANE_NONE => Some(0),
        number => Some(number),
    }
}

/// Yes or no, unless it is the default.
fn choice_of(field: u32) -> Result<Option<bool>> {
    match number_of(field) {
        None => Ok(None),
        Some(0) => Ok(Some(false)),
        Some(1) => Ok(Some(true)),
        Some(_) => Err(Failure::invalid(
            "0 (the default), 1 (yes) or SEALANE_NONE (no) expected in options.prefault, huge_pages and peer_pidfd",
        )),
    }
}

/// The builder that the caller's options describe.
///
/// # Safety
/// `options` is null, or readable for as many bytes as its first field says.
pub(crate) unsafe fn builder(options: *const Options) -> Result<Builder> {
    // SAFETY: contract of this function.
    unsafe { Options::read(options) }?.builder()
}

/// The `ring_capacity` with which the sender of payloads of `payload` bytes is never stuck while the receiver keeps the last
/// `kept` of them: (kept + 2) * (payload + 1,088), rounded up to a page. 0 is enough for a receiver that frees each message
/// before it receives the next.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_ring_for(payload: usize, kept: usize) -> usize {
    Builder::ring_for(payload, kept)
}
