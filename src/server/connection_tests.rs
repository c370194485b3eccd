//! A connection over a socket of the test's.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use super::*;
use crate::server::testing::MemoryEngine;

/// A socket with this input. Then it blocks, ends or breaks.
#[derive(Debug, Default)]
struct Script {
    chunks: VecDeque<Vec<u8>>,
    ends: bool,
    breaks: bool,
    sent: Vec<u8>,
    is_full: bool,
    /// How many bytes the next write takes, if it is limited.
    accepts: Option<usize>,
    output_is_closed: bool,
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut chunk) = self.chunks.pop_front() else {
            let end = if self.breaks { ErrorKind::ConnectionReset } else { ErrorKind::WouldBlock };
            return if self.ends { Ok(0) } else { Err(end.into()) };
        };
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        if count < chunk.len() {
            self.chunks.push_front(chunk.split_off(count));
        }
        Ok(count)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_full {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(self.accepts.unwrap_or(usize::MAX));
        self.sent.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Script {
    fn close_output(&mut self) -> io::Result<()> {
        self.output_is_closed = true;
        Ok(())
    }
}

/// Small limits.
fn options() -> ServerOptions {
    ServerOptions { line_bytes_max: 20, output_bytes_max: 50, ..ServerOptions::default() }
}

/// A connection with these options, whose peer sends these chunks.
fn connection_with(options: ServerOptions, chunks: &[&[u8]], ends: bool) -> Connection<Script> {
    let chunks = chunks.iter().map(|chunk| chunk.to_vec()).collect();
    let script = Script { chunks, ends, ..Script::default() };
    Connection::new(script, ([127, 0, 0, 1], 1).into(), &Arc::new(options))
}

fn connection(chunks: &[&[u8]], ends: bool) -> Connection<Script> {
    connection_with(options(), chunks, ends)
}

/// Reads and executes as an iteration does; returns the number of requests.
fn execute(connection: &mut Connection<Script>, executor: &mut Executor<MemoryEngine>) -> u64 {
    let before = executor.counters.requests;
    connection.note_ready(true, false, Instant::now());
    connection.read(&mut [0; 16 << 10]);
    connection.execute(executor);
    executor.counters.requests - before
}

/// An executor with an empty engine and the options of a connection.
fn executor(connection: &Connection<Script>) -> Executor<MemoryEngine> {
    Executor::new(Box::default(), &connection.options)
}

/// Runs iterations until nothing more happens; returns what was sent.
fn run(connection: &mut Connection<Script>) -> String {
    let mut executor = executor(connection);
    executor.engine.set_str("a", "1").unwrap();
    for _ in 0..500 {
        execute(connection, &mut executor);
        connection.send();
    }
    String::from_utf8(connection.socket.sent.clone()).unwrap()
}

impl<S> Connection<S> {
    /// Bytes of memory that the buffers take.
    pub(in crate::server) fn capacity(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }

    /// Makes the buffers larger than needed.
    pub(in crate::server) fn reserve(&mut self, capacity: usize) {
        self.input.reserve(capacity);
        self.output.reserve(capacity);
    }

    /// Makes it look as if it was last ready so long ago.
    pub(in crate::server) fn age(&mut self, by: Duration) {
        self.last_ready -= by;
    }
}

#[test]
fn replies_do_not_depend_on_splits() {
    let input =
        b"PING\r\nGET a\n\n GET b\r\n\r\nGET 0123456789abcdefghij\r\nGET \xff\n\r\nPING\nPI";
    let whole = run(&mut connection(&[input], true));
    let codes: Vec<String> =
        whole.split_inclusive('\n').map(|line| line.chars().take(12).collect()).collect();
    assert_eq!(
        codes,
        [
            "PONG\r\n",
            "VALUE 1\n",
            "NOT_FOUND\r\n",
            "ERR too-long",
            "ERR utf8 the",
            "PONG\n",
            "ERR incomple"
        ]
    );
    assert_eq!(whole.matches("\r\n").count(), 3);
    for at in 1..input.len() {
        assert_eq!(run(&mut connection(&[&input[..at], &input[at..]], true)), whole, "at {at}");
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(run(&mut connection(&bytes, true)), whole, "byte by byte");
}

#[test]
fn a_half_closed_peer_gets_every_reply() {
    for (input, replies) in [("PING\nPING\n", "PONG\nPONG\n"), ("PING", "ERR incomplete ")] {
        let mut connection = connection(&[input.as_bytes()], true);
        assert!(run(&mut connection).starts_with(replies));
        assert!(connection.state == Closed && !connection.socket.output_is_closed);
    }
}

#[test]
fn pipelined_reads_are_prefetched() {
    for (input, keys) in [(&b"GET a\nSET b 1\nGET c\n"[..], vec!["a", "c"]), (b"GET a\n", vec![])] {
        let mut connection = connection(&[input], false);
        let mut executor = executor(&connection);
        execute(&mut connection, &mut executor);
        assert_eq!(executor.engine.prefetched(), keys);
    }
}

#[test]
fn the_last_reply_survives_unread_input() {
    for last in ["QUIT", "GET / HTTP/1.1", "POST /0123456789abcdefghij"] {
        let mut connection = connection(&[format!("{last}\nPING\n").as_bytes(), b"PING\n"], false);
        let sent = run(&mut connection);
        assert_eq!(sent.lines().count(), 1, "{sent}");
        assert!(connection.socket.output_is_closed);
        assert_eq!(connection.state, Lingering, "{last}");
        let (begun, second) = (connection.last_ready, Duration::from_secs(1));
        assert!(connection.stay_active(begun, second) && connection.wants_read());
        // What it still sends keeps it no longer.
        connection.note_ready(true, false, begun + second);
        assert!(connection.stay_active(begun + second, second));
        assert_eq!(connection.state, Closed);
    }
}

#[test]
fn a_client_that_does_not_read_is_not_read() {
    let mut connection = connection(&[&b"GET a\n".repeat(100)], true);
    connection.socket.is_full = true;
    run(&mut connection);
    assert!(!connection.can_execute() && !connection.wants_read() && connection.wants_write());
    assert!((50..50 + "VALUE 1\n".len()).contains(&connection.unsent()));
    connection.socket.is_full = false;
    connection.note_ready(false, true, Instant::now());
    assert_eq!(run(&mut connection), "VALUE 1\n".repeat(100));
    assert_eq!(connection.state, Closed);
}

#[test]
fn an_iteration_reads_a_limited_share() {
    let mut connection = connection(&[&b"PING\n".repeat(4)], false);
    let mut executor = executor(&connection);
    for requests in [1, 3, 4] {
        for _ in 0..2 {
            connection.note_ready(true, false, Instant::now());
            connection.read(&mut [0; 8]);
            connection.execute(&mut executor);
            assert_eq!(executor.counters.requests, requests);
            assert!(!connection.wants_read(), "its share is used up");
        }
        connection.send();
        assert!(connection.wants_read());
    }
}

#[test]
fn an_iteration_executes_one_scan() {
    let mut connection = connection(&[&b"PING\nSCAN\n".repeat(40)], false);
    let mut executor = executor(&connection);
    connection.is_readable = true;
    connection.read(&mut [0; 1_000]);
    for requests in [2, 4, 6] {
        connection.execute(&mut executor);
        connection.execute(&mut executor);
        assert_eq!(executor.counters.requests, requests);
        assert!(!connection.can_execute());
        connection.send();
        assert!(connection.can_execute());
    }
}

#[test]
fn a_stranger_holds_little_memory() {
    let secret = crate::Secret::new("s".to_owned());
    let options = ServerOptions { secret, ..ServerOptions::default() };
    let mut connection = connection_with(options, &[&b"HELP\n".repeat(4_000)], false);
    connection.socket.is_full = true;
    run(&mut connection);
    assert!(connection.capacity() < 8 << 10, "{} bytes", connection.capacity());
    connection.socket.is_full = false;
    connection.note_ready(false, true, Instant::now());
    assert_eq!(run(&mut connection).lines().count(), 4_000);
}

#[test]
fn a_line_before_auth_is_short() {
    let secret = crate::Secret::new("s".to_owned());
    let options = ServerOptions { secret, ..ServerOptions::default() };
    let long = format!("SET a {}\n", "x".repeat(UNAUTHENTICATED_BYTES_MAX));
    for (first, expected) in [("AUTH s\n", "OK"), ("PING\n", "ERR too-long ")] {
        let input = format!("{first}{long}");
        let sent = run(&mut connection_with(options.clone(), &[input.as_bytes()], false));
        assert!(sent.lines().nth(1).unwrap().starts_with(expected), "{sent}");
    }
}

#[test]
fn shutdown_is_answered_last_and_ends_as_asked() {
    let mut connection = connection(&[b"PING\nSHUTDOWN\r\nPING\n"], false);
    assert_eq!(run(&mut connection), "PONG\n");
    assert_eq!(connection.state, AwaitingShutdown(LineEnding::CrLf));
    connection.close_with(&Reply::Ok, LineEnding::CrLf);
    connection.send();
    connection.stop_lingering();
    assert_eq!(connection.state, Closed);
    assert_eq!(connection.socket.sent, b"PONG\nOK\r\n");
}

#[test]
fn a_client_with_a_line_to_execute_is_active() {
    let mut connection = connection(&[b"PING\n"], false);
    connection.note_ready(true, false, Instant::now());
    connection.read(&mut [0; 64]);
    assert!(connection.can_execute() && connection.unsent() == 0);
    let later = Instant::now() + Duration::from_secs(9);
    assert!(connection.stay_active(later, Duration::from_secs(1)), "however late it is");
    run(&mut connection);
    assert!(!connection.stay_active(later, Duration::from_secs(1)));
}

#[test]
fn a_client_that_reads_is_active() {
    let now = Instant::now();
    let mut connection = connection(&[b"QUIT\n"], false);
    connection.socket.is_full = true;
    run(&mut connection);
    let later = now + Duration::from_secs(9);
    assert!(!connection.stay_active(later, Duration::from_secs(1)), "it waits for the client");
    connection.note_ready(false, true, later);
    assert!(connection.stay_active(later, Duration::from_secs(1)));
}

/// Several polls may share an iteration. A client that became idle in one of them would not
/// be told of its end.
#[test]
fn a_client_is_active_until_its_iteration_ends() {
    let mut connection = connection(&[b"PING\n"], false);
    let mut executor = executor(&connection);
    execute(&mut connection, &mut executor);
    connection.output.clear();
    let later = connection.last_ready + Duration::from_secs(9);
    assert!(connection.stay_active(later, Duration::from_secs(1)));
    connection.send();
    assert!(!connection.stay_active(later, Duration::from_secs(1)) && connection.wants_read());
}

#[test]
fn a_broken_connection_is_closed() {
    for (breaks, state) in [(false, Open), (true, Closed)] {
        let mut connection = connection(&[], false);
        connection.socket.breaks = breaks;
        run(&mut connection);
        assert_eq!(connection.state, state);
    }
}

#[test]
fn a_slow_socket_gets_every_byte_once() {
    let mut connection = connection(&[&b"GET b\r\n".repeat(4)], false);
    connection.socket.accepts = Some(3);
    let mut executor = executor(&connection);
    execute(&mut connection, &mut executor);
    let expected = b"NOT_FOUND\r\n".repeat(4);
    for sent in (3..expected.len()).step_by(3) {
        connection.send();
        connection.send();
        assert_eq!(connection.socket.sent, expected[..sent], "a full socket is not written to");
        assert!(connection.wants_write());
        connection.note_ready(false, true, Instant::now());
    }
    connection.send();
    assert!(!connection.wants_write());
    assert_eq!(connection.socket.sent, expected);
}

#[test]
fn sent_bytes_are_removed_in_bulk() {
    let mut connection = connection(&[], false);
    connection.socket.accepts = Some(10);
    connection.output = vec![b'x'; 100];
    let held = (0..10).map(|_| {
        connection.is_blocked = false;
        connection.send();
        connection.output.len()
    });
    assert_eq!(held.collect::<Vec<_>>(), [100, 100, 100, 100, 50, 50, 50, 20, 10, 0]);
}
