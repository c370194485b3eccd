//! The replies to a client that are not sent yet.
//!
//! A reply is pushed within a turn, and only a [`commit`](Outbox::commit) allows
//! it to be sent; until then a [`rollback`](Outbox::rollback) takes it back.
//!
//! Invariant: `sent <= committed <= bytes.len()` (`only_what_is_committed_is_sent`,
//! `a_narrow_socket_gets_every_byte_once`).

use std::io::{self, ErrorKind, Write};

use super::buffer::release;
use crate::protocol::{Reply, encode_reply};

/// Replies, encoded.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Their lines, the sent ones first.
    bytes: Vec<u8>,
    /// Bytes that are sent.
    sent: usize,
    /// Bytes that may be sent.
    committed: usize,
    /// Whether the socket had no room, so that `poll` is to be asked first.
    blocked: bool,
}

impl Outbox {
    /// Appends a reply.
    pub(super) fn push(&mut self, reply: &Reply) {
        encode_reply(reply, crate::protocol::LineEnding::Lf, &mut self.bytes);
    }

    /// Allows everything to be sent.
    pub(super) fn commit(&mut self) {
        self.committed = self.bytes.len();
    }

    /// Takes back what is not committed.
    pub(super) fn rollback(&mut self) {
        self.bytes.truncate(self.committed);
    }

    /// Writes once as much as may be sent.
    pub(super) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<()> {
        match socket.write(&self.bytes[self.sent..self.committed]) {
            Ok(count) => self.count_sent(count),
            Err(e) if is_transient(&e) => self.blocked = true,
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Accounts for `count` bytes sent.
    fn count_sent(&mut self, count: usize) {
        self.sent += count;
        self.blocked = self.sent < self.committed;
        // Moving the rest down only once it is the smaller part keeps that linear.
        if self.sent >= self.bytes.len() - self.sent {
            self.bytes.drain(..self.sent);
            self.committed -= self.sent;
            self.sent = 0;
        }
    }

    /// Gives back the room that an idle client does not need.
    pub(super) fn release(&mut self) {
        release(&mut self.bytes);
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub(super) fn room_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes note that the socket has room again.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Whether the socket had no room.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether there is something that may be sent.
    pub(super) fn is_due(&self) -> bool {
        self.sent < self.committed
    }

    /// Whether a rollback would take something back.
    pub(super) fn is_uncommitted(&self) -> bool {
        self.committed < self.bytes.len()
    }

    /// Bytes that are not sent.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.bytes.len() - self.sent
    }
}

/// Whether a read or write may succeed later. An interrupted one may at once,
/// but `poll` tells that too.
pub(super) fn is_transient(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes so many bytes and then none.
    struct Narrow {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(std::mem::take(&mut self.room));
            self.taken.extend_from_slice(&bytes[..count]);
            if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_what_is_committed_is_sent() {
        let mut socket = Narrow { room: 100, taken: Vec::new() };
        let mut outbox = Outbox::default();
        outbox.push(&Reply::Ok);
        outbox.commit();
        outbox.push(&Reply::Pong);
        outbox.write_to(&mut socket).unwrap();
        assert_eq!(socket.taken, b"OK\n");
        assert!(!outbox.is_due() && outbox.is_uncommitted());
        outbox.rollback();
        assert_eq!(outbox.waiting_bytes(), 0);
    }

    #[test]
    fn a_narrow_socket_gets_every_byte_once() {
        let mut socket = Narrow { room: 0, taken: Vec::new() };
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for _ in 0..10 {
            outbox.push(&Reply::NotFound);
            expected.extend_from_slice(b"NOT_FOUND\n");
            outbox.commit();
            socket.room = 3;
            outbox.write_to(&mut socket).unwrap();
            assert!(outbox.is_blocked());
        }
        while outbox.is_due() {
            socket.room = 7;
            outbox.write_to(&mut socket).unwrap();
        }
        assert!(!outbox.is_blocked());
        assert_eq!(socket.taken, expected);
    }

    #[test]
    fn what_is_sent_leaves_once_it_is_the_larger_part() {
        let mut socket = Narrow { room: 0, taken: Vec::new() };
        let mut outbox = Outbox::default();
        (0..10).for_each(|_| outbox.push(&Reply::NotFound));
        outbox.commit();
        let held = (0..10).map(|_| {
            socket.room = "NOT_FOUND\n".len();
            outbox.write_to(&mut socket).unwrap();
            outbox.bytes.len()
        });
        assert_eq!(held.collect::<Vec<_>>(), [100, 100, 100, 100, 50, 50, 50, 20, 10, 0]);
    }
}
