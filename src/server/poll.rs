//! `poll(2)`: waits until one of many descriptors can be read or written.
//!
//! std has no such call and this crate has no dependency for it, so its
//! foreign function is declared here, with the C types of Linux and macOS, and
//! made safe by [`wait`]. What a descriptor stands for is not known here.
//!
//! `poll` rather than `epoll` or `kqueue`: one call that both systems have, in
//! one line of `unsafe`. Its cost grows with the descriptors it is given; the
//! table of clients ([`table`](super::table)) sees to it that idle ones are
//! seldom among them.

use std::ffi::{c_int, c_short};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// C's `nfds_t`.
#[cfg(target_os = "linux")]
type Nfds = std::ffi::c_ulong;
/// C's `nfds_t`.
#[cfg(target_os = "macos")]
type Nfds = std::ffi::c_uint;

/// There is something to read, or the end of it.
const POLLIN: c_short = 0x1;
/// There is room to write.
const POLLOUT: c_short = 0x4;
/// An error waits to be fetched by the next read or write; never asked for.
const POLLERR: c_short = 0x8;
/// The other side is gone; never asked for.
const POLLHUP: c_short = 0x10;
/// The descriptor is not open; never asked for.
const POLLNVAL: c_short = 0x20;
/// What the next read or write would fail with or end at: both must be tried,
/// or it is reported for ever.
const GONE: c_short = POLLERR | POLLHUP | POLLNVAL;
/// What a read would tell of: bytes, the end or an error.
const READABLE: c_short = POLLIN | GONE;
/// What a write would tell of: room or an error.
const WRITABLE: c_short = POLLOUT | GONE;

/// Longest wait in milliseconds: the call takes a C int, 24 days of them.
const WAIT_MS_MAX: u128 = c_int::MAX as u128;

/// A descriptor, what is asked of it and what was found; C's `struct pollfd`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollFd {
    /// The descriptor; a negative one is passed over.
    fd: c_int,
    /// What is asked.
    events: c_short,
    /// What was found.
    revents: c_short,
}

impl PollFd {
    /// Asks whether `fd` can be read.
    pub(crate) fn reading(fd: RawFd) -> PollFd {
        PollFd { fd, events: POLLIN, revents: 0 }
    }

    /// A place that asks nothing.
    pub(crate) fn nothing() -> PollFd {
        PollFd { fd: -1, events: 0, revents: 0 }
    }

    /// Asks for these from now on.
    pub(crate) fn ask(&mut self, read: bool, write: bool) {
        self.events = if read { POLLIN } else { 0 } | if write { POLLOUT } else { 0 };
    }

    /// Whether the last wait found anything at all.
    pub(crate) fn is_ready(&self) -> bool {
        self.revents != 0
    }

    /// Whether a read would tell something.
    pub(crate) fn is_readable(&self) -> bool {
        self.revents & READABLE != 0
    }

    /// Whether a write would tell something.
    pub(crate) fn is_writable(&self) -> bool {
        self.revents & WRITABLE != 0
    }

    /// Forgets what was found, for a place that the next wait leaves out.
    pub(crate) fn forget(&mut self) {
        self.revents = 0;
    }
}

/// Waits until one of `fds` is ready or the time is over, for ever without a
/// `timeout`; says how many are.
///
/// A wait that a signal cut short counts as one that found nothing: whoever
/// handles the signal has made a descriptor ready for the next.
pub(crate) fn wait(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<usize> {
    match poll_raw(fds, milliseconds(timeout)) {
        Ok(ready) => Ok(ready),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {
            fds.iter_mut().for_each(PollFd::forget);
            Ok(0)
        }
        Err(e) => Err(e),
    }
}

/// The timeout as the call takes it, rounded up: a wait rounded down to
/// nothing would turn the last millisecond before a deadline into a spin.
fn milliseconds(timeout: Option<Duration>) -> c_int {
    match timeout {
        None => -1,
        Some(time) => {
            let ms = time.as_nanos().div_ceil(1_000_000).min(WAIT_MS_MAX);
            c_int::try_from(ms).unwrap_or(c_int::MAX)
        }
    }
}

/// The call itself.
#[expect(unsafe_code, reason = "std has no poll(2)")]
fn poll_raw(fds: &mut [PollFd], timeout_ms: c_int) -> io::Result<usize> {
    unsafe extern "C" {
        fn poll(fds: *mut PollFd, nfds: Nfds, timeout: c_int) -> c_int;
    }
    let count = Nfds::try_from(fds.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer and the length are those of one slice, borrowed for the
    // whole call and of elements laid out as C's `struct pollfd`, and poll writes
    // nothing but their `revents`.
    let ready = unsafe { poll(fds.as_mut_ptr(), count, timeout_ms) };
    usize::try_from(ready).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn tells_which_descriptor_can_be_read() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let mut fds = [PollFd::reading(near.as_raw_fd()), PollFd::reading(far.as_raw_fd())];
        assert_eq!(wait(&mut fds, Some(Duration::ZERO)).unwrap(), 0);
        near.write_all(b"x").unwrap();
        assert_eq!(wait(&mut fds, None).unwrap(), 1);
        assert!(!fds[0].is_ready() && fds[1].is_readable() && !fds[1].is_writable());
        far.read_exact(&mut [0]).unwrap();
        fds[1].ask(true, true);
        assert_eq!(wait(&mut fds, None).unwrap(), 1);
        assert!(!fds[1].is_readable() && fds[1].is_writable());
        fds[1].forget();
        assert!(!fds[1].is_ready() && !fds[1].is_writable());
    }

    #[test]
    fn a_closed_peer_is_readable_whatever_was_asked() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let mut fd = [PollFd::reading(near.as_raw_fd())];
        fd[0].ask(false, false);
        assert_eq!(wait(&mut fd, None).unwrap(), 1);
        assert!(fd[0].is_readable() && fd[0].is_writable());
    }

    #[test]
    fn a_place_for_nothing_is_passed_over() {
        assert_eq!(wait(&mut [PollFd::nothing()], Some(Duration::ZERO)).unwrap(), 0);
    }

    #[test]
    fn times_are_rounded_up_and_never_wrap() {
        assert_eq!(milliseconds(None), -1);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_micros(1_001))), 2);
        assert_eq!(milliseconds(Some(Duration::MAX)), c_int::MAX);
    }
}
