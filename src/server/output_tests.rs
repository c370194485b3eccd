//! Replies through a socket that accepts few bytes.

use super::*;

impl Output {
    /// Bytes of memory.
    pub(in crate::server) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

/// A socket that accepts this many bytes at the next write.
struct SlowSocket {
    accepts: usize,
    received: Vec<u8>,
}

impl Write for SlowSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(std::mem::take(&mut self.accepts));
        self.received.extend_from_slice(&bytes[..count]);
        if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_slow_socket_gets_every_byte_once() {
    let mut socket = SlowSocket { accepts: 0, received: Vec::new() };
    let mut output = Output::default();
    for _ in 0..10 {
        output.push(&Reply::NotFound, LineEnding::CrLf);
        socket.accepts = 3;
        output.send(&mut socket).unwrap();
        assert!(output.is_blocked);
        output.is_blocked = false;
    }
    output.send(&mut socket).unwrap();
    assert!(output.is_blocked, "the socket accepts nothing");
    socket.accepts = 100;
    output.send(&mut socket).unwrap();
    assert!(output.is_blocked && socket.accepts == 100, "a blocked output is not sent");
    while output.len() > 0 {
        output.is_blocked = false;
        socket.accepts = 7;
        output.send(&mut socket).unwrap();
    }
    assert!(!output.is_blocked);
    assert_eq!(socket.received, b"NOT_FOUND\r\n".repeat(10));
}

#[test]
fn sent_bytes_are_removed_in_bulk() {
    let mut socket = SlowSocket { accepts: 0, received: Vec::new() };
    let mut output = Output::default();
    (0..10).for_each(|_| output.push(&Reply::NotFound, LineEnding::Lf));
    let held = (0..10).map(|_| {
        socket.accepts = "NOT_FOUND\n".len();
        output.is_blocked = false;
        output.send(&mut socket).unwrap();
        output.bytes.len()
    });
    assert_eq!(held.collect::<Vec<_>>(), [100, 100, 100, 100, 50, 50, 50, 20, 10, 0]);
}
