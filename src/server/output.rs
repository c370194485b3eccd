//! The replies to a client that are not sent yet.
//!
//! The event loop decides when they may be sent.
//!
//! Invariant: every byte is sent exactly once (`a_slow_socket_gets_every_byte_once`).

use std::io::{self, ErrorKind, Write};

use crate::protocol::{LineEnding, Reply, encode_reply};

/// Encoded replies.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// The first `sent` bytes were sent.
    bytes: Vec<u8>,
    sent: usize,
    /// Whether the socket is full, so that it must be polled.
    pub(super) is_blocked: bool,
}

impl Output {
    pub(super) fn push(&mut self, reply: &Reply, ending: LineEnding) {
        encode_reply(reply, ending, &mut self.bytes);
    }

    /// Writes once, unless there is nothing to send or the socket is full.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub(super) fn send(&mut self, socket: &mut impl Write) -> io::Result<()> {
        if self.is_blocked || self.len() == 0 {
            return Ok(());
        }
        match socket.write(&self.bytes[self.sent..]) {
            Ok(count) => self.sent += count,
            Err(e) if is_transient(&e) => {}
            Err(e) => return Err(e),
        }
        self.is_blocked = self.len() > 0;
        // Moving the rest only when it is the smaller part keeps the cost linear.
        if self.sent >= self.bytes.len() - self.sent {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Number of bytes that are not sent.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(super) fn free_unused(&mut self) {
        self.bytes.shrink_to_fit();
    }
}

/// Whether a read or write may succeed later.
pub(super) fn is_transient(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
