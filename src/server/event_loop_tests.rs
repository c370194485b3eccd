//! Single iterations, with clients of the test's.

use std::io::Write;
use std::net::TcpStream;

use super::super::Fsync;
use super::*;
use crate::server::testing::{Controls, MemoryEngine};

/// A server that runs an iteration when told to, and this many clients.
fn event_loop(options: ServerOptions, count: usize) -> (EventLoop<MemoryEngine>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let mut event_loop = EventLoop::new(listener, MemoryEngine::default(), options, Stop::never());
    let clients = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
    while event_loop.clients.len() < count {
        event_loop.run_once().unwrap();
    }
    (event_loop, clients)
}

#[test]
fn requests_that_arrive_meanwhile_share_a_commit() {
    for (fsync, line, iterations, commits) in [
        (Fsync::Always, b"SET a 1\n", 2, 2),
        (Fsync::Always, b"GET abc\n", 4, 0),
        (Fsync::Never, b"SET a 1\n", 4, 4),
    ] {
        // A read takes one request. A client may send two of them in an iteration.
        let options = ServerOptions { fsync, read_bytes_max: 16, ..ServerOptions::default() };
        let (mut event_loop, mut clients) = event_loop(options, 1);
        event_loop.buffer.truncate(8);
        clients[0].write_all(&line.repeat(4)).unwrap();
        while event_loop.executor.counters.requests < 4 {
            event_loop.run_once().unwrap();
        }
        let counters = &event_loop.executor.counters;
        assert_eq!((counters.iterations, counters.commits), (iterations, commits), "{fsync:?}");
    }
}

#[test]
fn what_was_read_is_executed_without_a_wait() {
    // The second reply is over the limit on waiting replies until the first is sent.
    let options = ServerOptions { output_bytes_max: 1, ..ServerOptions::default() };
    let (mut event_loop, mut clients) = event_loop(options, 1);
    clients[0].write_all(b"PING\nPING\n").unwrap();
    while event_loop.executor.counters.requests < 1 {
        event_loop.run_once().unwrap();
    }
    assert_eq!(event_loop.timeout(), Some(Duration::ZERO));
    event_loop.run_once().unwrap();
    assert_eq!(event_loop.executor.counters.requests, 2);
    assert_ne!(event_loop.timeout(), Some(Duration::ZERO));
}

#[test]
fn a_failed_request_is_followed_by_a_commit() {
    let (mut event_loop, mut clients) = event_loop(ServerOptions::default(), 1);
    clients[0].write_all(b"SET full 1\n").unwrap();
    while event_loop.executor.counters.requests < 1 {
        event_loop.run_once().unwrap();
    }
    assert_eq!(Controls::count(&event_loop.executor.engine.controls.syncs), 1);
}

#[test]
fn departures_are_counted() {
    let options = ServerOptions { clients_max: 1, ..ServerOptions::default() };
    let (mut event_loop, clients) = event_loop(options, 3);
    let counters = &event_loop.executor.counters;
    assert_eq!((counters.clients_accepted, counters.clients_refused), (1, 2));
    drop(clients);
    while event_loop.executor.counters.clients > 0 {
        event_loop.run_once().unwrap();
    }
}
