//! A connection over a socket of the test's.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use super::super::life::{LINGER_BYTES_MAX, LINGER_MAX};
use super::*;
use crate::protocol::Request;

#[path = "connection_pace_tests.rs"]
mod pace;

/// A socket that gives these chunks, then blocks or ends, and keeps what it gets.
#[derive(Debug, Default)]
struct Script {
    chunks: VecDeque<Vec<u8>>,
    ends: bool,
    breaks: bool,
    sent: Vec<u8>,
    has_no_room: bool,
    writes_ended: bool,
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(chunk) = self.chunks.pop_front() else {
            let end = if self.breaks { ErrorKind::ConnectionReset } else { ErrorKind::WouldBlock };
            return if self.ends { Ok(0) } else { Err(end.into()) };
        };
        buffer[..chunk.len()].copy_from_slice(&chunk);
        Ok(chunk.len())
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_no_room {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.sent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Script {
    fn end_writes(&mut self) -> io::Result<()> {
        self.writes_ended = true;
        Ok(())
    }
}

/// Small limits, so that tests meet them.
fn options() -> ServerOptions {
    ServerOptions { line_bytes_max: 20, outbox_bytes_max: 50, ..ServerOptions::default() }
}

/// A connection whose peer sends these chunks, and then its end if it `ends`.
fn connection(chunks: &[&[u8]], ends: bool) -> Connection<Script> {
    let chunks = chunks.iter().map(|chunk| chunk.to_vec()).collect();
    Connection::new(Script { chunks, ends, ..Script::default() }, &options())
}

impl<S> Connection<S> {
    /// Bytes of memory that its buffers take.
    pub(in crate::server) fn room_bytes(&self) -> usize {
        self.inbox.room_bytes() + self.outbox.room_bytes()
    }
}

impl<F: FnMut(Request) -> Outcome> Answer for F {
    fn prefetch(&mut self, _keys: &[&str]) {}

    fn answer(&mut self, request: Request, _trust: &mut Trust) -> Outcome {
        self(request)
    }
}

/// Answers a request with what it asks for, as far as the tests do.
fn answer(request: Request) -> Outcome {
    Outcome::Reply(match request {
        Request::Ping => Reply::Pong,
        Request::Get { key } => Reply::Value(key.into_owned()),
        Request::Quit => return Outcome::Last(Reply::Ok),
        Request::Shutdown => return Outcome::Later,
        _ => Reply::Ok,
    })
}

/// A turn in which the engine keeps everything.
fn turn(connection: &mut Connection<Script>) {
    if connection.wants_read() {
        connection.fill(&mut [0; 1000]);
    }
    connection.execute(usize::MAX, &mut answer);
    connection.commit();
    if connection.can_drain() {
        connection.drain(Instant::now());
    }
}

/// What has been sent after so many turns that nothing more happens.
fn sent(connection: &mut Connection<Script>) -> String {
    for _ in 0..1000 {
        turn(connection);
    }
    String::from_utf8(connection.socket.sent.clone()).unwrap()
}

#[test]
fn replies_are_the_same_wherever_the_input_is_split() {
    let input = b"PING\r\nGET a\n\nGET 0123456789abcdefghij\nGET \xff\n\r\nPING\nPI";
    let whole = sent(&mut connection(&[input], true));
    let codes: Vec<_> = whole.lines().map(|line: &str| line.split(' ').take(2).collect()).collect();
    let codes: Vec<Vec<_>> = codes;
    assert_eq!(
        codes,
        [
            vec!["PONG"],
            vec!["VALUE", "a"],
            vec!["ERR", "too-long"],
            vec!["ERR", "utf8"],
            vec!["PONG"],
            vec!["ERR", "incomplete"]
        ]
    );
    for at in 1..input.len() {
        assert_eq!(sent(&mut connection(&[&input[..at], &input[at..]], true)), whole, "at {at}");
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(sent(&mut connection(&bytes, true)), whole, "byte by byte");
}

#[test]
fn a_peer_that_only_ended_its_input_gets_every_reply() {
    let mut connection = connection(&[b"PING\nPING\n"], true);
    assert_eq!(sent(&mut connection), "PONG\nPONG\n");
    assert!(connection.is_dead());
}

#[test]
fn nothing_is_sent_before_it_is_committed() {
    let mut connection = connection(&[b"PING\n"], false);
    connection.fill(&mut [0; 1000]);
    connection.execute(usize::MAX, &mut answer);
    assert!(connection.is_uncommitted() && !connection.can_drain());
    connection.commit();
    assert!(!connection.is_uncommitted() && connection.can_drain());
}

#[test]
fn a_replay_answers_the_same_lines_and_no_others() {
    let mut connection = connection(&[b"PING\nGET a\nQUIT\n"], false);
    connection.fill(&mut [0; 1000]);
    assert_eq!(connection.execute(6, &mut answer), 11);
    let executed = connection.rollback();
    let mut refuse = |_: Request<'_>| Outcome::Reply(Reply::NotFound);
    assert_eq!(connection.execute(executed, &mut refuse), 11);
    connection.commit();
    assert_eq!(sent(&mut connection), "NOT_FOUND\nNOT_FOUND\nOK\n");
}

#[test]
fn lines_decoded_ahead_wait_when_too_many_replies_do_and_none_is_left_out() {
    let lines: Vec<String> = (0..90).map(|nth| format!("GET {nth}\n")).collect();
    let mut connection = connection(&[lines.concat().as_bytes()], false);
    connection.fill(&mut [0; 1000]);
    connection.execute(usize::MAX, &mut answer);
    let most = connection.outbox_bytes_max;
    assert!((most..2 * most).contains(&connection.waiting_bytes()));
    let replies: Vec<String> = (0..90).map(|nth| format!("VALUE {nth}\n")).collect();
    assert_eq!(sent(&mut connection), replies.concat());
}

/// Takes note of the keys that it is told of.
struct Noting(Vec<String>);

impl Answer for Noting {
    fn prefetch(&mut self, keys: &[&str]) {
        self.0.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    fn answer(&mut self, request: Request, _trust: &mut Trust) -> Outcome {
        answer(request)
    }
}

#[test]
fn the_keys_that_a_group_reads_are_told_and_a_single_one_is_not() {
    for (input, keys) in [(&b"GET a\nSET b 1\nGET c\n"[..], vec!["a", "c"]), (b"GET a\n", vec![])] {
        let mut connection = connection(&[input], false);
        connection.fill(&mut [0; 1000]);
        let mut noting = Noting(Vec::new());
        connection.execute(usize::MAX, &mut noting);
        assert_eq!(noting.0, keys);
    }
}

#[test]
fn a_rollback_undoes_an_end() {
    let mut connection = connection(&[b"QUIT\n"], true);
    connection.fill(&mut [0; 1000]);
    connection.execute(usize::MAX, &mut answer);
    connection.rollback();
    assert!(connection.can_execute());
    assert_eq!(sent(&mut connection), "OK\n");
}

#[test]
fn a_rollback_undoes_trust() {
    let mut options = options();
    options.secret = crate::Secret::new("s".to_owned());
    let chunks = VecDeque::from([b"PING\n".to_vec()]);
    let mut connection = Connection::new(Script { chunks, ..Script::default() }, &options);
    connection.fill(&mut [0; 1000]);
    connection.execute(usize::MAX, &mut answer);
    connection.state.trust = Trust::Trusted;
    connection.rollback();
    assert_eq!(connection.state.trust, Trust::Stranger);
}

#[test]
fn nothing_after_the_end_is_looked_at_and_the_reply_survives() {
    for last in ["QUIT", "GET / HTTP/1.1"] {
        let input = format!("{last}\nPING\n");
        let mut connection = connection(&[input.as_bytes(), b"PING\n"], false);
        let sent = sent(&mut connection);
        assert_eq!(sent.lines().count(), 1, "{sent}");
        assert!(connection.socket.writes_ended && connection.is_lingering());
        connection.expire(Instant::now());
        assert!(connection.is_lingering());
        connection.fill(&mut [0; 1000]);
        assert!(connection.is_lingering());
        connection.expire(Instant::now() + LINGER_MAX);
        assert!(connection.is_dead());
    }
}

#[test]
fn lingering_is_bounded_in_bytes() {
    let mut connection = connection(&[b"QUIT\n"], false);
    turn(&mut connection);
    for _ in 0..=LINGER_BYTES_MAX / 1000 {
        assert!(connection.is_lingering());
        connection.socket.chunks.push_back(vec![0; 1000]);
        connection.fill(&mut [0; 1000]);
    }
    assert!(connection.is_dead());
}

#[test]
fn a_peer_that_does_not_read_is_neither_executed_nor_read() {
    let mut connection = connection(&[&b"GET abcdefghij\n".repeat(20)], true);
    connection.socket.has_no_room = true;
    for _ in 0..5 {
        turn(&mut connection);
    }
    assert!(!connection.can_execute() && !connection.wants_read() && connection.wants_write());
    assert!(connection.waiting_bytes() < 50 + "VALUE abcdefghij\n".len());
    connection.socket.has_no_room = false;
    connection.unblock();
    assert_eq!(sent(&mut connection).lines().count(), 20);
    assert!(connection.is_dead());
}

#[test]
fn a_reply_that_waits_for_the_servers_end_comes_last() {
    let mut connection = connection(&[b"PING\nSHUTDOWN\nPING\n"], false);
    turn(&mut connection);
    assert!(connection.awaits_end());
    connection.finish(&Reply::Ok);
    connection.take_leave(Instant::now(), &mut [0; 1000]);
    assert!(connection.is_dead());
    assert_eq!(sent(&mut connection), "PONG\nOK\n");
}

#[test]
fn a_connection_that_breaks_is_dead_and_one_that_has_nothing_yet_is_not() {
    for breaks in [false, true] {
        let script = Script { breaks, ..Script::default() };
        let mut connection = Connection::new(script, &options());
        connection.fill(&mut [0; 1000]);
        assert_eq!(connection.is_dead(), breaks);
    }
}
