//! Memory as a file: making one whose pages are all there, and looking at one that somebody else made.

use std::{
    fs::File,
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use ::memfd::{FileSeal, HugetlbSize, Memfd, MemfdOptions};
use rustix::{
    fs::{
        AtFlags, FallocateFlags, FileType, MemfdFlags, OFlags, SealFlags, StatxFlags, fallocate,
        fcntl_get_seals, fcntl_getfl, fstat, fstatfs, ftruncate, memfd_create, statx,
    },
    io::Errno,
    param::page_size,
    process::{Resource, getrlimit},
    system::sysinfo,
};

use crate::{
    error::{Error, Result},
    protocol::layout::to_u64,
    sys::cmsg::above_stdio,
    wait::Deadline,
};

/// `f_type` of files of huge pages (`statfs(2)`).
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
/// The only huge page size that is asked for: 2 MiB.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Most bytes that are allocated, or entered into page tables, by one system call: about a millisecond's work. A multiple of
/// all pages that are used.
pub(crate) const STEP: usize = 4 << 20;

/// Makes a memfd of `size` bytes that can be sealed. All its pages are allocated, so that they are charged to this process
/// and no later touch, by whomever, can fail.
///
/// # Errors
/// [`Error::Timeout`] if the deadline passes before the last step; those of the system calls.
pub(crate) fn create(size: usize, huge_pages: bool, deadline: Deadline) -> Result<Memfd> {
    let size = to_u64(size);
    // `fallocate(2)` of more than there is ends in the OOM killer, not in an error.
    let machine = sysinfo();
    let memory =
        u64::from(machine.mem_unit).saturating_mul(machine.totalram.saturating_add(machine.totalswap));
    let refuse = |kind, why: String| Err(Error::io("allocating a file in memory")(io::Error::new(kind, why)));
    if size > memory {
        let why = format!("{size} bytes asked for, memory and swap of {memory} bytes in all found");
        return refuse(io::ErrorKind::OutOfMemory, why);
    }
    // Above this limit `ftruncate(2)` raises SIGXFSZ.
    if let Some(limit) = getrlimit(Resource::Fsize).current
        && limit < size
    {
        let why = format!("{size} bytes asked for, a limit of {limit} found (RLIMIT_FSIZE, getrlimit(2))");
        return refuse(io::ErrorKind::FileTooLarge, why);
    }
    let memfd = empty(huge_pages)?;
    ftruncate(memfd.as_file(), size).map_err(Error::io("ftruncate"))?;
    let operation = if huge_pages {
        "fallocate of huge pages (are enough reserved in vm.nr_hugepages?)"
    } else {
        "fallocate"
    };
    // A signal undoes a whole call: it is tried again with half of the step, so that it ends between two of a timer's.
    let smallest = to_u64(if huge_pages { HUGE_PAGE } else { page_size() });
    let (mut done, mut step) = (0, to_u64(STEP));
    while done < size {
        if done > 0 && deadline.passed() {
            return Err(Error::Timeout);
        }
        let len = step.min(size.saturating_sub(done));
        match fallocate(memfd.as_file(), FallocateFlags::empty(), done, len) {
            Ok(()) => done = done.saturating_add(len),
            Err(Errno::INTR) if step == smallest && deadline.passed() => return Err(Error::Timeout),
            Err(Errno::INTR) => step = (step / 2).max(smallest),
            Err(error) => return Err(Error::io(operation)(error)),
        }
    }
    Ok(memfd)
}

/// Makes an empty memfd that can be sealed, and that nobody can execute where the kernel knows of that
/// (`MFD_NOEXEC_SEAL`, Linux 6.3). The crate `memfd` has no name for this flag, without which the kernel makes none at all
/// where `vm.memfd_noexec` is 2.
fn empty(huge_pages: bool) -> Result<Memfd> {
    let pages = if huge_pages { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    let memfd = match memfd_create("sealane", pages | flags) {
        Err(Errno::INVAL) => executable(huge_pages).map(into_fd),
        result => result.map_err(io::Error::from),
    }
    .map_err(Error::io("memfd_create"))?;
    Memfd::try_from_fd(above_stdio(memfd)?)
        .map_err(|_| Error::io("sealing a new memfd")(io::Error::from(io::ErrorKind::Unsupported)))
}

/// The same on kernels before 6.3, which know no other memfds.
fn executable(huge_pages: bool) -> io::Result<Memfd> {
    let pages = huge_pages.then_some(HugetlbSize::Huge2MB);
    MemfdOptions::new().allow_sealing(true).hugetlb(pages).create("sealane").map_err(cause)
}

/// Adds seals to a file that was made here (`F_ADD_SEALS`, `fcntl(2)`).
///
/// # Errors
/// Those of `fcntl(2)`; `EBUSY` if [`FileSeal::SealWrite`] is asked for while a writable mapping exists.
pub(crate) fn seal(memfd: &Memfd, seals: &[FileSeal]) -> io::Result<()> {
    memfd.add_seals(seals).map_err(cause)
}

/// The descriptor alone.
pub(crate) fn into_fd(memfd: Memfd) -> OwnedFd {
    File::into(memfd.into_file())
}

/// The system's own error.
fn cause(error: ::memfd::Error) -> io::Error {
    match error {
        ::memfd::Error::Create(error) | ::memfd::Error::AddSeals(error) | ::memfd::Error::GetSeals(error) => {
            error
        }
    }
}

/// What can be known of a file without touching its contents. None of it blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// How it was opened: `O_ACCMODE` and `O_PATH` of its flags.
    pub(crate) access: OFlags,
    pub(crate) kind: FileType,
    /// Empty for what has none: only files in memory have. The kernel may have added some (`F_SEAL_EXEC`).
    pub(crate) seals: SealFlags,
    /// Bytes. Of what has no seals, neither this nor what follows is known.
    pub(crate) size: u64,
    /// Bytes that have a page, beyond the end too. Where they are shows only when they are mapped.
    pub(crate) allocated: u64,
    /// Bytes of its pages, which the kernel rounds every mapping up to.
    pub(crate) page: usize,
}

impl Facts {
    /// UNTRUSTED: `fd` may be on a file system whose server never answers (FUSE, NFS). There `fstat(2)` would wait for it,
    /// so of what has no seals only the kind is asked for, as the kernel remembers it.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let access = fcntl_getfl(fd)?.intersection(OFlags::ACCMODE.union(OFlags::PATH));
        let seals = match fcntl_get_seals(fd) {
            Ok(seals) => seals,
            // It has none, or is only a path.
            Err(Errno::INVAL | Errno::BADF) => {
                // One that may not be looked at, as another user's FUSE file (`fuse_getattr`, `fs/fuse/dir.c`), has no seals
                // all the same.
                let kind = kind_of(fd).unwrap_or(FileType::RegularFile);
                let seals = SealFlags::empty();
                return Ok(Self { access, kind, seals, size: 0, allocated: 0, page: page_size() });
            }
            Err(error) => return Err(error),
        };
        let stat = fstat(fd)?;
        Ok(Self {
            access,
            kind: FileType::from_raw_mode(stat.st_mode),
            seals,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            allocated: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            page: page_size_of(fd)?,
        })
    }

    /// Whether it was opened for reading.
    pub(crate) fn is_readable(&self) -> bool {
        self.access == OFlags::RDONLY || self.access == OFlags::RDWR
    }
}

/// Without asking whoever serves the file.
fn kind_of(fd: BorrowedFd<'_>) -> rustix::io::Result<FileType> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let mode = statx(fd, c"", flags, StatxFlags::TYPE)?.stx_mode;
    Ok(FileType::from_raw_mode(mode.into()))
}

fn page_size_of(fd: BorrowedFd<'_>) -> rustix::io::Result<usize> {
    let system = fstatfs(fd)?;
    if system.f_type == HUGETLBFS_MAGIC {
        usize::try_from(system.f_bsize).map_err(|_| Errno::INVAL)
    } else {
        Ok(page_size())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    /// `F_SEAL_EXEC` (`linux/fcntl.h`), which comes with `MFD_NOEXEC_SEAL`.
    const F_SEAL_EXEC: u32 = 0x20;

    #[test]
    fn no_other_program_inherits_the_memory() {
        for memfd in [empty(false).unwrap(), executable(false).unwrap()] {
            assert!(fcntl_getfd(memfd.as_file()).unwrap().contains(FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn memory_of_every_kernel_can_be_sealed_and_is_executed_only_on_old_ones() {
        let sealed = |memfd: Memfd| {
            seal(&memfd, &[FileSeal::SealShrink, FileSeal::SealFutureWrite]).unwrap();
            fcntl_get_seals(into_fd(memfd)).unwrap()
        };
        let seals = SealFlags::SHRINK | SealFlags::FUTURE_WRITE;
        assert!(sealed(executable(false).unwrap()).contains(seals));
        let found = sealed(empty(false).unwrap());
        assert!(found.contains(seals));
        if memfd_create("probe", MemfdFlags::NOEXEC_SEAL).is_ok() {
            assert!(found.contains(SealFlags::from_bits_retain(F_SEAL_EXEC)), "{found:?}");
        } else {
            println!("left out: this kernel is older than Linux 6.3");
        }
    }

    #[test]
    fn a_file_of_huge_pages_is_known_without_having_any() {
        for memfd in [empty(true).ok(), executable(true).ok()] {
            let Some(memfd) = memfd else {
                return println!("left out: no huge pages in this kernel");
            };
            assert_eq!(Facts::of(memfd.as_file().as_fd()).unwrap().page, HUGE_PAGE);
        }
    }

    #[test]
    fn huge_pages_are_huge_or_an_error() {
        match create(HUGE_PAGE, true, Deadline::Never) {
            Ok(memfd) => assert_eq!(Facts::of(memfd.as_file().as_fd()).unwrap().page, HUGE_PAGE),
            // None reserved, or none in this kernel.
            Err(Error::Io { operation, .. }) => {
                assert!(operation.contains("huge pages") || operation == "memfd_create", "{operation}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn more_than_the_machine_has_is_an_error() {
        let error = create(1 << 50, false, Deadline::Never).unwrap_err();
        assert!(matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::OutOfMemory));
        let text = error.to_string();
        assert!(
            text.starts_with("allocating a file in memory failed: 1125899906842624 bytes asked for"),
            "{text}"
        );
    }
}
