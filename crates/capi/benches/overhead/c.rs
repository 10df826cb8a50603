//! Both ends through the C interface of the shared library, with the pointers that a program in C has.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    mem::transmute_copy,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr, slice,
};

use sealane_capi::{Options, SEALANE_WAIT_BLOCK};

use crate::{CALL, End, PATIENCE, worker::Report};

/// A handle of the library.
type Handle = *mut c_void;
type Block = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> c_int;

macro_rules! functions {
    ($($name:ident: $symbol:literal ($($argument:ty),*) -> $result:ty;)*) => {
        /// Functions of the library, as the header declares them.
        #[derive(Clone, Copy)]
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn load(library: Handle) -> Self {
                Self { $($name: {
                    let symbol = symbol(library, $symbol);
                    // SAFETY: both are the address of a function, whose type is that of the header's declaration.
                    unsafe { transmute_copy::<Handle, unsafe extern "C" fn($($argument),*) -> $result>(&symbol) }
                },)* }
            }
        }
    };
}

functions! {
    last_error: c"sealane_last_error" () -> *const c_char;
    listen: c"sealane_listen" (*const Options, *const c_char, *mut Handle) -> c_int;
    accept: c"sealane_accept" (Handle, c_int, *mut Handle) -> c_int;
    connect: c"sealane_connect" (*const Options, *const c_char, *mut Handle) -> c_int;
    call: c"sealane_call" (Handle, *const c_void, usize, *const c_int, usize, c_int, *mut Handle) -> c_int;
    recv: c"sealane_recv" (Handle, c_int, *mut Handle) -> c_int;
    reply: c"sealane_reply" (Handle, u64, *const c_void, usize, *const c_int, usize, c_int) -> c_int;
    loan_open: c"sealane_loan_open" (Handle, usize, c_int, *mut Handle) -> c_int;
    loan_data: c"sealane_loan_data" (Handle) -> *mut c_void;
    loan_send: c"sealane_loan_send" (*mut Handle, *const c_void, usize, *const c_int, usize, c_int) -> c_int;
    message_free: c"sealane_message_free" (*mut Handle) -> ();
    message_control: c"sealane_message_control" (Handle, *mut usize) -> *const c_void;
    message_has_payload: c"sealane_message_has_payload" (Handle) -> c_int;
    message_blocks: c"sealane_message_blocks" (Handle, Block, *mut c_void) -> c_int;
    message_take_fds: c"sealane_message_take_fds" (Handle, *mut c_int, usize) -> c_int;
    message_expects_reply: c"sealane_message_expects_reply" (Handle, *mut u64) -> c_int;
}

fn symbol(library: Handle, name: &CStr) -> Handle {
    // SAFETY: an open library, and a string.
    let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
    assert!(!symbol.is_null(), "{name:?} is not in the library");
    symbol
}

/// The library of the directory, which is never closed.
fn load(lib: &Path) -> Functions {
    let path = string(&lib.join("libsealane.so"));
    // SAFETY: a string. The library runs nothing when it is loaded.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!library.is_null(), "{path:?} cannot be loaded");
    Functions::load(library)
}

fn string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn options(blocks: bool) -> Options {
    let size = u64::try_from(size_of::<Options>()).unwrap();
    Options { size, wait: if blocks { SEALANE_WAIT_BLOCK } else { 0 }, ..Options::default() }
}

fn patience() -> c_int {
    PATIENCE.as_millis().try_into().unwrap()
}

impl Functions {
    /// The status of a function that succeeds.
    fn good(&self, status: c_int) -> c_int {
        if status < 0 {
            // SAFETY: it takes nothing.
            let sentence = unsafe { (self.last_error)() };
            // SAFETY: a string, valid until this thread's next failure.
            let sentence = unsafe { CStr::from_ptr(sentence) };
            panic!("{status}: {sentence:?}");
        }
        status
    }

    fn control(&self, message: Handle) -> &[u8] {
        let mut len = 0;
        // SAFETY: a message, and a live variable.
        let bytes = unsafe { (self.message_control)(message, &raw mut len) };
        // SAFETY: the control bytes are valid until the message is freed, which the callers do later.
        #[expect(clippy::disallowed_methods, reason = "private memory, not a mapping")]
        unsafe {
            slice::from_raw_parts(bytes.cast(), len)
        }
    }
}

pub(crate) struct Listener {
    functions: Functions,
    listener: Handle,
}

impl Listener {
    pub(crate) fn bind(lib: &Path, path: &Path, blocks: bool) -> Self {
        let (functions, options, path) = (load(lib), options(blocks), string(path));
        let mut listener = ptr::null_mut();
        // SAFETY: live variables, and a string.
        functions.good(unsafe { (functions.listen)(&raw const options, path.as_ptr(), &raw mut listener) });
        Self { functions, listener }
    }

    /// The channel. The listener stays open, as the process does not end before it.
    pub(crate) fn accept(self) -> Host {
        let Self { functions, listener } = self;
        let mut channel = ptr::null_mut();
        // SAFETY: a listener, and a live variable.
        functions.good(unsafe { (functions.accept)(listener, patience(), &raw mut channel) });
        Host { functions, channel }
    }
}

pub(crate) struct Host {
    functions: Functions,
    channel: Handle,
}

impl End for Host {
    fn call(&mut self, request: &[u8; CALL], fd: Option<BorrowedFd<'_>>) -> [u8; CALL] {
        let Self { functions, channel } = *self;
        let (fd, count) = (fd.map_or(-1, |fd| fd.as_raw_fd()), usize::from(fd.is_some()));
        let mut reply = ptr::null_mut();
        // SAFETY: a channel, as many bytes and descriptors as are said, and a live variable.
        functions.good(unsafe {
            (functions.call)(
                channel,
                request.as_ptr().cast(),
                CALL,
                &raw const fd,
                count,
                patience(),
                &raw mut reply,
            )
        });
        let bytes = functions.control(reply).try_into().expect("a reply");
        // SAFETY: a message in a live variable. Its bytes were copied.
        unsafe { (functions.message_free)(&raw mut reply) };
        bytes
    }

    fn send(&mut self, bytes: &[u8]) {
        let Self { functions, channel } = *self;
        let mut loan = ptr::null_mut();
        // SAFETY: a channel, and a live variable.
        functions.good(unsafe { (functions.loan_open)(channel, bytes.len(), -1, &raw mut loan) });
        // SAFETY: an open loan.
        let data = unsafe { (functions.loan_data)(loan) };
        // SAFETY: the loan has as many bytes, which nobody else can write.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), data.cast(), bytes.len()) };
        // SAFETY: a loan in a live variable; no control bytes, and no descriptors.
        functions.good(unsafe { (functions.loan_send)(&raw mut loan, ptr::null(), 0, ptr::null(), 0, -1) });
    }
}

/// The callback of `sealane_message_blocks`.
///
/// # Safety
/// `report` is a [`Report`], and there are `len` bytes.
unsafe extern "C" fn add(report: *mut c_void, bytes: *const c_void, len: usize) -> c_int {
    // SAFETY: contract of this function.
    let report = unsafe { &mut *report.cast::<Report>() };
    // SAFETY: contract of this function.
    #[expect(clippy::disallowed_methods, reason = "a private copy, not a mapping")]
    report.add(unsafe { slice::from_raw_parts(bytes.cast(), len) });
    0
}

pub(crate) fn work(lib: &Path, path: &Path, blocks: bool) {
    let (functions, options, path) = (load(lib), options(blocks), string(path));
    let mut channel = ptr::null_mut();
    // SAFETY: live variables, and a string.
    functions.good(unsafe { (functions.connect)(&raw const options, path.as_ptr(), &raw mut channel) });
    let mut report = Report::default();
    loop {
        let mut message = ptr::null_mut();
        // SAFETY: a channel, and a live variable.
        let status = unsafe { (functions.recv)(channel, -1, &raw mut message) };
        if status == -libc::EPIPE {
            return;
        }
        functions.good(status);
        // SAFETY: a message.
        if functions.good(unsafe { (functions.message_has_payload)(message) }) == 1 {
            // SAFETY: a message, and a function with its context.
            functions.good(unsafe { (functions.message_blocks)(message, add, (&raw mut report).cast()) });
            report.payloads += 1;
        }
        let (mut number, mut fd) = (0, -1);
        // SAFETY: a message, and a live variable.
        if functions.good(unsafe { (functions.message_expects_reply)(message, &raw mut number) }) == 1 {
            // SAFETY: a message, and room for one descriptor.
            let taken = functions.good(unsafe { (functions.message_take_fds)(message, &raw mut fd, 1) });
            // SAFETY: a descriptor that was taken is ours.
            let fd = (taken == 1).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
            let reply = report.answer(functions.control(message), fd);
            // SAFETY: a channel, as many bytes as are said, and no descriptors.
            functions.good(unsafe {
                (functions.reply)(channel, number, reply.as_ptr().cast(), CALL, ptr::null(), 0, -1)
            });
        }
        // SAFETY: a message in a live variable.
        unsafe { (functions.message_free)(&raw mut message) };
    }
}
