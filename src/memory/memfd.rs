//! Files of memory (memfds): creation, allocation and sealing, and the check of a file that somebody else made.

use std::{
    fs::File,
    io,
    ops::{Range, RangeInclusive},
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
    error::{Error, Result, SealError},
    protocol::layout::to_u64,
    sys::descriptor::above_stdio,
    wait::Deadline,
};

/// `f_type` of files of huge pages (`statfs(2)`).
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
/// Bytes of a huge page: 2 MiB, the only size that is used.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Most bytes that one system call allocates, or enters into page tables: about a millisecond's work. A multiple of every
/// page size that is used.
pub(crate) const POPULATE_STEP: usize = 4 << 20;

/// Creates a memfd of `size` bytes that can be sealed, and [allocates](allocate) its pages.
///
/// # Errors
/// Those of the system calls.
pub(crate) fn create(size: usize) -> Result<Memfd> {
    let memfd = without_pages(size, false)?;
    for piece in pieces(size) {
        allocate(&memfd, piece, page_size(), false, Deadline::Never)?;
    }
    Ok(memfd)
}

/// Creates a memfd of `size` bytes that can be sealed. None of its pages is allocated.
///
/// # Errors
/// Those of the system calls; an error that names the limit if the machine cannot have a file of that size.
pub(crate) fn without_pages(size: usize, huge_pages: bool) -> Result<Memfd> {
    check_size(size)?;
    let memfd = empty(huge_pages)?;
    ftruncate(memfd.as_file(), to_u64(size)).map_err(Error::io("ftruncate"))?;
    Ok(memfd)
}

/// Checks that the machine and this process may have a file of `size` bytes.
///
/// # Errors
/// An error that names the limit.
pub(crate) fn check_size(size: usize) -> Result<()> {
    let size = to_u64(size);
    // `fallocate(2)` beyond the machine's memory ends in the OOM killer, not in an error.
    let machine = sysinfo();
    let memory =
        u64::from(machine.mem_unit).saturating_mul(machine.totalram.saturating_add(machine.totalswap));
    let refuse = |operation, kind, why: String| Err(Error::io(operation)(io::Error::new(kind, why)));
    if size > memory {
        let why = format!("at most {memory} bytes, the machine's memory and swap, expected, {size} found");
        return refuse("fallocate", io::ErrorKind::OutOfMemory, why);
    }
    // `ftruncate(2)` above this limit raises SIGXFSZ.
    if let Some(limit) = getrlimit(Resource::Fsize).current
        && limit < size
    {
        let why = format!("at most {limit} bytes (RLIMIT_FSIZE, getrlimit(2)) expected, {size} found");
        return refuse("ftruncate", io::ErrorKind::FileTooLarge, why);
    }
    Ok(())
}

/// Divides `size` bytes into pieces of at most [`POPULATE_STEP`].
pub(crate) fn pieces(size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..size).step_by(POPULATE_STEP).map(move |start| start..start.saturating_add(POPULATE_STEP).min(size))
}

/// Allocates a piece of a memfd, whose pages have `page` bytes, and charges it to this process: no later access by any
/// process fails.
///
/// The kernel fills a page with zeros at its first use, and fault-around leaves out pages that were never used. `zeroed`
/// has all of them filled here, for page tables that are [populated](super::region::OwnRegion::populate) later.
///
/// # Errors
/// [`Error::Timeout`] if signals interrupt even the smallest step until the deadline; those of `fallocate(2)`.
pub(crate) fn allocate(
    memfd: &Memfd,
    piece: Range<usize>,
    page: usize,
    zeroed: bool,
    deadline: Deadline,
) -> Result<()> {
    let operation = if page == HUGE_PAGE { "fallocate of huge pages (vm.nr_hugepages)" } else { "fallocate" };
    // A signal undoes a whole call. Halving the step makes the next call short enough to end between two signals of a timer.
    let (mut done, mut step) = (piece.start, POPULATE_STEP);
    while done < piece.end {
        let len = step.min(piece.end.saturating_sub(done));
        let once = || fallocate(memfd.as_file(), FallocateFlags::empty(), to_u64(done), to_u64(len));
        // The second call fills the pages that the first one has allocated (`shmem_fallocate`, `mm/shmem.c`).
        match once().and_then(|()| if zeroed { once() } else { Ok(()) }) {
            Ok(()) => done = done.saturating_add(len),
            Err(Errno::INTR) if step == page && deadline.passed() => return Err(Error::Timeout),
            Err(Errno::INTR) => step = (step / 2).max(page),
            Err(error) => return Err(Error::io(operation)(error)),
        }
    }
    Ok(())
}

/// Creates an empty memfd that can be sealed. No process can execute it, from Linux 6.3 on (`MFD_NOEXEC_SEAL`).
///
/// The crate `memfd` does not have this flag, without which the kernel refuses every memfd where `vm.memfd_noexec` is 2.
fn empty(huge_pages: bool) -> Result<Memfd> {
    let pages = if huge_pages { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    let memfd = match memfd_create("sealane", pages | flags) {
        Err(Errno::INVAL) => executable(huge_pages).map(into_fd),
        result => result.map_err(io::Error::from),
    }
    .map_err(Error::io("memfd_create"))?;
    Memfd::try_from_fd(above_stdio(memfd)?)
        .map_err(|_| Error::io("memfd_create")(io::Error::from(io::ErrorKind::Unsupported)))
}

/// Creates an empty memfd on kernels before 6.3, which do not know `MFD_NOEXEC_SEAL`.
fn executable(huge_pages: bool) -> io::Result<Memfd> {
    let pages = huge_pages.then_some(HugetlbSize::Huge2MB);
    MemfdOptions::new().allow_sealing(true).hugetlb(pages).create("sealane").map_err(cause)
}

/// Adds seals to a memfd of this process (`F_ADD_SEALS`, `fcntl(2)`).
///
/// # Errors
/// Those of `fcntl(2)`; `EBUSY` if [`FileSeal::SealWrite`] is asked for while a writable mapping exists.
pub(crate) fn seal(memfd: &Memfd, seals: &[FileSeal]) -> io::Result<()> {
    memfd.add_seals(seals).map_err(cause)
}

/// Unwraps the descriptor.
pub(crate) fn into_fd(memfd: Memfd) -> OwnedFd {
    File::into(memfd.into_file())
}

/// Unwraps the system's error.
fn cause(error: ::memfd::Error) -> io::Error {
    match error {
        ::memfd::Error::Create(error) | ::memfd::Error::AddSeals(error) | ::memfd::Error::GetSeals(error) => {
            error
        }
    }
}

/// Everything that can be learned about a file without touching its contents. No part of it blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileInfo {
    /// The access mode and `O_PATH` of the descriptor's flags.
    access: OFlags,
    kind: FileType,
    /// Seals, which only files of memory have; empty without any. The kernel may have added some (`F_SEAL_EXEC`).
    seals: SealFlags,
    /// Bytes; unknown (0) unless the file has seals.
    pub(crate) size: u64,
    /// Bytes of the pages that exist, beyond the file's end too; unknown (0) unless the file has seals. Their positions show
    /// only when they are mapped.
    allocated: u64,
    /// Bytes of a page of the file. The kernel rounds every mapping up to whole pages.
    pub(crate) page: usize,
}

impl FileInfo {
    /// Asks the kernel about a file.
    ///
    /// UNTRUSTED: `fd` may be on a file system whose server never answers (FUSE, NFS), for which `fstat(2)` would wait. So a
    /// file without seals is only asked for its type, which the kernel remembers.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let access = fcntl_getfl(fd)?.intersection(OFlags::ACCMODE.union(OFlags::PATH));
        let seals = match fcntl_get_seals(fd) {
            Ok(seals) => seals,
            // The file has no seals, or the descriptor is only a path (`O_PATH`).
            Err(Errno::INVAL | Errno::BADF) => {
                // The kernel refuses even the type of another user's FUSE file (`fuse_getattr`, `fs/fuse/dir.c`). The missing
                // seals decide then.
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

    /// Checks that the file may be mapped: a readable regular file with at least `seals`, of a size in `sizes`, without
    /// holes.
    ///
    /// # Errors
    /// The first fault. [`SealError::TooLarge`] stands for any size outside of `sizes`.
    pub(crate) fn check(&self, seals: SealFlags, sizes: RangeInclusive<u64>) -> Result<(), SealError> {
        if self.kind != FileType::RegularFile {
            let (expected, found) = (FileType::RegularFile.as_raw_mode(), self.kind.as_raw_mode());
            return Err(SealError::Kind { expected, found });
        }
        if self.access != OFlags::RDONLY && self.access != OFlags::RDWR {
            return Err(SealError::Access { found: self.access.bits() });
        }
        if !self.seals.contains(seals) {
            return Err(SealError::Seals { expected: seals.bits(), found: self.seals.bits() });
        }
        if !sizes.contains(&self.size) {
            return Err(SealError::TooLarge { max: *sizes.end(), found: self.size });
        }
        // The first access to a hole would allocate a page, charged to this process.
        if self.allocated < self.size {
            return Err(SealError::Holes { expected: self.size, found: self.allocated });
        }
        Ok(())
    }
}

/// The file's type as the kernel remembers it, without a question to the file system's server.
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

/// A file as a peer could send it: `size` bytes, all or none of them allocated.
#[cfg(test)]
pub(super) fn foreign_file(size: u64, dense: bool, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, size).unwrap();
    if dense && size > 0 {
        fallocate(&file, FallocateFlags::empty(), 0, size).unwrap();
    }
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    /// `F_SEAL_EXEC` (`linux/fcntl.h`), which comes with `MFD_NOEXEC_SEAL`.
    const F_SEAL_EXEC: u32 = 0x20;

    #[test]
    fn memfds_are_close_on_exec() {
        for memfd in [empty(false).unwrap(), executable(false).unwrap()] {
            assert!(fcntl_getfd(memfd.as_file()).unwrap().contains(FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn memfds_can_be_sealed_and_are_executable_on_old_kernels_only() {
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
    fn page_size_of_a_huge_page_file_is_known_without_pages() {
        for memfd in [empty(true).ok(), executable(true).ok()] {
            let Some(memfd) = memfd else {
                return println!("left out: no huge pages in this kernel");
            };
            assert_eq!(FileInfo::of(memfd.as_file().as_fd()).unwrap().page, HUGE_PAGE);
        }
    }

    #[test]
    fn huge_pages_are_huge_or_an_error() {
        let create = || {
            let memfd = without_pages(HUGE_PAGE, true)?;
            allocate(&memfd, 0..HUGE_PAGE, HUGE_PAGE, true, Deadline::Never).map(|()| memfd)
        };
        match create() {
            Ok(memfd) => assert_eq!(FileInfo::of(memfd.as_file().as_fd()).unwrap().page, HUGE_PAGE),
            // No page is reserved, or the kernel has no huge pages.
            Err(Error::Io { operation, .. }) => {
                assert!(operation.contains("huge pages") || operation == "memfd_create", "{operation}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn sizes_beyond_the_machines_memory_are_errors() {
        let error = create(1 << 50).unwrap_err();
        assert!(matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::OutOfMemory));
        let text = error.to_string();
        assert!(text.starts_with("fallocate failed: at most "), "{text}");
        assert!(text.ends_with(" expected, 1125899906842624 found"), "{text}");
    }
}
