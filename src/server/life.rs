//! What is still done for a client and with its socket, and how that ends.
//!
//! A socket that is closed with input unread is reset, and a reset destroys
//! replies that the peer has not read yet. So a connection that is to end tells
//! the peer that no more comes, and then lingers: what still arrives is dropped,
//! until the peer ends too or has had time enough.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::secret::Trust;

/// How long a closed connection waits for the peer's end: some round trips of
/// a slow network.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(2);
/// Bytes that a closed connection reads and drops while it waits: more than
/// was on its way when the peer was told.
pub(super) const LINGER_BYTES_MAX: usize = 4 << 20;
/// Reads that are dropped when the server ends: what a socket holds by default.
pub(super) const FAREWELL_READS_MAX: usize = 16;

/// What a client is connected by.
pub(super) trait Socket: Read + Write {
    /// Tells the peer that nothing more comes; reading goes on.
    fn end_writes(&mut self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn end_writes(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Whether lines are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// They are.
    Serving,
    /// No more; the connection ends when the replies are out.
    Closing,
    /// No more; the client waits for the server's end.
    AwaitsEnd,
}

/// What the lines so far have made of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Whether more lines are executed.
    pub(super) phase: Phase,
    /// What is done for it.
    pub(super) trust: Trust,
}

/// What can still be done with the socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    /// Everything.
    Open,
    /// All is sent and said so; input is dropped until the peer ends too.
    Lingering {
        /// When it has had time enough.
        until: Instant,
        /// Bytes that may still come.
        bytes_left: usize,
    },
    /// Nothing; the connection is to be dropped.
    Dead,
}

impl Life {
    /// Lingering, from `now` on.
    pub(super) fn lingering(now: Instant) -> Life {
        Life::Lingering { until: now + LINGER_MAX, bytes_left: LINGER_BYTES_MAX }
    }

    /// Whether everything can be done.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Life::Open)
    }

    /// Whether only the peer's end is awaited.
    pub(super) fn is_lingering(self) -> bool {
        matches!(self, Life::Lingering { .. })
    }

    /// Whether nothing can be done.
    pub(super) fn is_dead(self) -> bool {
        matches!(self, Life::Dead)
    }

    /// What it is after `count` bytes were dropped.
    pub(super) fn after_dropping(self, count: usize) -> Life {
        let Life::Lingering { until, bytes_left } = self else { return self };
        match bytes_left.checked_sub(count) {
            Some(bytes_left) => Life::Lingering { until, bytes_left },
            None => Life::Dead,
        }
    }

    /// What it is at this time.
    pub(super) fn at(self, now: Instant) -> Life {
        match self {
            Life::Lingering { until, .. } if until <= now => Life::Dead,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_is_told_that_no_more_comes_can_still_send() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        socket.end_writes().unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
        peer.write_all(b"x").unwrap();
        assert_eq!(socket.read(&mut [0; 1]).unwrap(), 1);
    }
}
