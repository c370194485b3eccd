//! `poll(2)`: waits until one of many descriptors can be read or written.
//!
//! std has no such call, so the foreign function is declared here, with the C
//! types of Linux and macOS. Both systems have it, unlike `epoll` or `kqueue`.
//! Its cost grows with the number of descriptors, so the server polls idle clients
//! less often (`server/clients.rs`).

use std::ffi::{c_int, c_short};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// C's `nfds_t`.
#[cfg(target_os = "linux")]
type Nfds = std::ffi::c_ulong;
#[cfg(target_os = "macos")]
type Nfds = std::ffi::c_uint;

const POLLIN: c_short = 0x1;
const POLLOUT: c_short = 0x4;
/// `POLLERR`, `POLLHUP` and `POLLNVAL`: `poll` reports them without being asked. A read or
/// write then returns the error.
const GONE: c_short = 0x8 | 0x10 | 0x20;

/// A descriptor and its events; C's `struct pollfd`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

impl PollFd {
    /// An entry for [`wait`], which waits until `fd` can be read, written, or both. -1 is
    /// ignored.
    pub(crate) fn new(fd: RawFd, read: bool, write: bool) -> PollFd {
        let events = if read { POLLIN } else { 0 } | if write { POLLOUT } else { 0 };
        PollFd { fd, events, revents: 0 }
    }

    /// Whether a read would return bytes, the end of the input, or an error.
    pub(crate) fn is_readable(&self) -> bool {
        self.revents & (POLLIN | GONE) != 0
    }

    /// Whether a write would accept bytes or return an error.
    pub(crate) fn is_writable(&self) -> bool {
        self.revents & (POLLOUT | GONE) != 0
    }
}

/// Waits until one of `fds` is ready or `timeout` has passed. Returns how many are ready.
///
/// A wait that a signal interrupts finds nothing. The signal's handler makes a
/// descriptor ready for the next wait.
#[expect(unsafe_code, reason = "std has no poll(2)")]
pub(crate) fn wait(fds: &mut [PollFd], timeout: Duration) -> io::Result<usize> {
    unsafe extern "C" {
        fn poll(fds: *mut PollFd, nfds: Nfds, timeout: c_int) -> c_int;
    }
    let count = Nfds::try_from(fds.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: pointer and length are those of one slice, which is borrowed for the
    // whole call. Its elements have the layout of C's `struct pollfd`. The call
    // writes only to their `revents`.
    let ready = unsafe { poll(fds.as_mut_ptr(), count, milliseconds(timeout)) };
    match usize::try_from(ready).map_err(|_| io::Error::last_os_error()) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {
            fds.iter_mut().for_each(|fd| fd.revents = 0);
            Ok(0)
        }
        ready => ready,
    }
}

/// The timeout for the call. It is rounded up: if the last millisecond before a
/// deadline were rounded down to zero, the event loop would spin.
fn milliseconds(timeout: Duration) -> c_int {
    timeout.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn poll_tells_which_descriptor_is_ready() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let (near_fd, far_fd) = (near.as_raw_fd(), far.as_raw_fd());
        let mut fds = [PollFd::new(near_fd, true, false), PollFd::new(far_fd, true, false)];
        assert_eq!(wait(&mut fds, Duration::ZERO).unwrap(), 0);
        near.write_all(b"x").unwrap();
        assert_eq!(wait(&mut fds, Duration::MAX).unwrap(), 1);
        assert!(!fds[0].is_readable() && fds[1].is_readable() && !fds[1].is_writable());
        far.read_exact(&mut [0]).unwrap();
        fds[1] = PollFd::new(far_fd, true, true);
        assert_eq!(wait(&mut fds, Duration::MAX).unwrap(), 1);
        assert!(!fds[1].is_readable() && fds[1].is_writable());
    }

    #[test]
    fn a_closed_peer_is_always_reported() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let mut fd = [PollFd::new(near.as_raw_fd(), false, false)];
        assert_eq!(wait(&mut fd, Duration::MAX).unwrap(), 1);
        assert!(fd[0].is_readable() && fd[0].is_writable());
    }

    #[test]
    fn an_empty_entry_is_ignored() {
        assert_eq!(wait(&mut [PollFd::new(-1, true, false)], Duration::ZERO).unwrap(), 0);
    }

    #[test]
    fn timeouts_are_rounded_up_without_overflow() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_micros(1_001)), 2);
        assert_eq!(milliseconds(Duration::MAX), c_int::MAX);
    }
}
