//! How a running server is told to stop from outside: a pipe that its `poll`
//! watches.
//!
//! A byte in a pipe rather than a flag, since a flag does not end a wait that
//! has begun, and a byte that comes before the wait is still there when it
//! does. Another thread writes it through a [`StopHandle`], a signal through
//! [`Stop::on_signals`].

use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

/// What a server watches for the wish that it stop.
#[derive(Debug)]
pub struct Stop {
    /// The end that becomes readable; `None` never does.
    pipe: Option<UnixStream>,
}

impl Stop {
    /// Never stops the server: only a client's `SHUTDOWN` does.
    pub fn never() -> Stop {
        Stop { pipe: None }
    }

    /// A pair: what the handle is told, the server hears.
    ///
    /// # Errors
    ///
    /// When the system has no descriptors left.
    pub fn pair() -> io::Result<(StopHandle, Stop)> {
        let (write_end, read_end) = UnixStream::pair()?;
        write_end.set_nonblocking(true)?;
        Ok((StopHandle { pipe: write_end }, Stop::hearing(read_end)))
    }

    /// Stops the server on SIGINT and SIGTERM, from now on and for the whole
    /// process, so that this is for a binary to call, once. A second signal
    /// ends the process at once.
    ///
    /// # Errors
    ///
    /// When it has been called before, or the system refuses.
    pub fn on_signals() -> io::Result<Stop> {
        super::signal::install().map(Stop::hearing)
    }

    /// Hears what is written to the other end of `pipe`.
    fn hearing(pipe: UnixStream) -> Stop {
        Stop { pipe: Some(pipe) }
    }

    /// The descriptor that becomes readable.
    pub(super) fn fd(&self) -> Option<RawFd> {
        self.pipe.as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// Tells a server to stop; any thread may. Dropping it tells it too.
#[derive(Debug)]
pub struct StopHandle {
    /// The end that is written to.
    pipe: UnixStream,
}

impl StopHandle {
    /// Has the server finish its turn, answer its clients and return.
    pub fn stop(&self) {
        // A full pipe has told it already, and a closed one has no server left to tell.
        let _ = (&self.pipe).write(&[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::poll::{self, PollFd};
    use std::time::Duration;

    /// Whether a server would hear now that it shall stop.
    fn is_heard(stop: &Stop) -> bool {
        let mut fd = [PollFd::reading(stop.fd().unwrap())];
        poll::wait(&mut fd, Some(Duration::ZERO)).unwrap() == 1
    }

    #[test]
    fn a_handle_is_heard_also_by_who_listens_later() {
        let (handle, stop) = Stop::pair().unwrap();
        assert!(!is_heard(&stop));
        handle.stop();
        assert!(is_heard(&stop));
    }

    #[test]
    fn a_dropped_handle_is_heard() {
        let (handle, stop) = Stop::pair().unwrap();
        drop(handle);
        assert!(is_heard(&stop));
    }
}
