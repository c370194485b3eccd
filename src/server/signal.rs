//! SIGINT and SIGTERM as a byte in a pipe, and SIGXFSZ ignored.
//!
//! The first signal writes the byte, the second ends the process at once, for
//! an orderly end that takes too long. SIGPIPE is not met here: Rust's runtime
//! ignores it before `main`. Nor is SIGKILL, which no program can catch.
//!
//! `signal` and not `sigaction`: its arguments are a number and a function,
//! whereas the struct of `sigaction` differs between systems and C libraries,
//! and a wrong guess of it is undefined behaviour. What is said against
//! `signal`, that the handler may be reset by its first call, holds for System
//! V; glibc, musl and macOS keep the handler and restart slow calls (`poll` is
//! never restarted, which is as it should be).

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Ctrl-C.
const SIGINT: c_int = 2;
/// What `kill` and service managers send.
const SIGTERM: c_int = 15;
/// A file has reached the limit of its size. Left alone it ends the process;
/// ignored, the write fails with an error that its client is told.
const SIGXFSZ: c_int = 25;
/// The handler that ignores a signal.
const SIG_IGN: usize = 1;
/// What `signal` returns when it fails: all bits set.
const SIG_ERR: usize = usize::MAX;
/// A shell's exit status for a process that a signal ended, less the signal.
const STATUS_OF_SIGNALS: c_int = 128;

/// The pipe's end that the handler writes to; -1 before there is one.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// Whether a signal has come.
static SEEN: AtomicBool = AtomicBool::new(false);

#[expect(unsafe_code, reason = "std has no signals")]
mod ffi {
    use super::{c_int, c_void};

    unsafe extern "C" {
        /// Has `handler` called on a signal; returns the one before.
        pub(super) fn signal(number: c_int, handler: usize) -> usize;
        /// Ends the process without running anything of it.
        pub(super) safe fn _exit(status: c_int) -> !;
        /// Writes `count` bytes from `bytes`.
        pub(super) fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize;
    }
}

/// Installs the handler and returns the end of its pipe that becomes readable.
///
/// A signal that was ignored when the process began is caught too: a server
/// that a script starts in the background is still one to be stopped.
pub(super) fn install() -> io::Result<UnixStream> {
    let (write_end, read_end) = UnixStream::pair()?;
    write_end.set_nonblocking(true)?;
    // Both ends stay open for good: the handler's write can then neither fail nor
    // go to a descriptor that has become something else.
    let _ = read_end.try_clone()?.into_raw_fd();
    PIPE.compare_exchange(-1, write_end.into_raw_fd(), Ordering::SeqCst, Ordering::SeqCst)
        .map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))?;
    let handler: extern "C" fn(c_int) = on_signal;
    handle(SIGINT, handler as usize)?;
    handle(SIGTERM, handler as usize)?;
    handle(SIGXFSZ, SIG_IGN)?;
    Ok(read_end)
}

/// Has this handler called on this signal from now on.
#[expect(unsafe_code, reason = "std has no signals")]
fn handle(number: c_int, handler: usize) -> io::Result<()> {
    // SAFETY: the handler is `SIG_IGN` or a function of the type that C's `signal`
    // takes, which lives as long as the program and does only what a handler may do.
    match unsafe { ffi::signal(number, handler) } {
        SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// What runs on a signal, between any two instructions of the program: only
/// atomics, `write` and `_exit` are allowed there.
extern "C" fn on_signal(number: c_int) {
    if SEEN.swap(true, Ordering::SeqCst) {
        ffi::_exit(STATUS_OF_SIGNALS + number);
    }
    write_byte(PIPE.load(Ordering::SeqCst));
}

/// Writes one byte. It is the only one ever written to that pipe, so it finds
/// room, and leaves `errno` alone for the code that was interrupted.
#[expect(unsafe_code, reason = "std's write is not promised to be safe in a signal handler")]
fn write_byte(fd: c_int) {
    let byte = 1_u8;
    // SAFETY: the pointer is to one byte, which outlives the call that reads it.
    unsafe { ffi::write(fd, (&raw const byte).cast::<c_void>(), 1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_nobody_can_catch_is_an_error() {
        const SIGKILL: c_int = 9;
        assert!(handle(SIGKILL, SIG_IGN).is_err());
    }
}
