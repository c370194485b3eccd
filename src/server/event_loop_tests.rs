//! Single iterations, with clients of the test's.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;

use super::*;
use crate::ServerOptions;
use crate::server::testing::{Controls, MemoryEngine};

/// A server that runs an iteration when told to, and this many clients.
fn event_loop(options: ServerOptions, count: usize) -> (KvsServer<MemoryEngine>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut event_loop = KvsServer::new(listener, Box::default(), options).unwrap();
    let address = event_loop.local_addr();
    let clients = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
    while event_loop.clients.all().len() < count {
        event_loop.run_once(&Stop::never()).unwrap();
    }
    (event_loop, clients)
}

#[test]
fn requests_that_arrive_meanwhile_share_a_commit() {
    let rounds = ROUNDS_MAX as usize;
    for (fsync, count, iterations) in [
        (Fsync::Always, 2, 1),
        (Fsync::Never, 2, 2),
        // An iteration ends although requests arrive.
        (Fsync::Always, rounds + 1, 2),
    ] {
        let options = ServerOptions { fsync, ..ServerOptions::default() };
        let (mut event_loop, mut clients) = event_loop(options, count);
        let mut first = clients.remove(0);
        *event_loop.executor.engine.controls.meanwhile.lock().unwrap() = clients;
        first.write_all(b"SET a 1\n").unwrap();
        while event_loop.executor.counters.requests < count as u64 {
            event_loop.run_once(&Stop::never()).unwrap();
        }
        let counters = &event_loop.executor.counters;
        assert_eq!((counters.iterations, counters.commits), (iterations, iterations), "{fsync:?}");
    }
}

#[test]
fn a_client_is_read_once_in_an_iteration() {
    let (mut event_loop, mut clients) = event_loop(ServerOptions::default(), 1);
    event_loop.buffer.truncate(8);
    clients[0].write_all(&b"SET a 1\n".repeat(9)).unwrap();
    while event_loop.executor.counters.requests < 9 {
        event_loop.run_once(&Stop::never()).unwrap();
    }
    assert_eq!(event_loop.executor.counters.iterations, 9);
}

#[test]
fn a_departure_ends_the_pause_of_the_listener() {
    let (mut event_loop, clients) = event_loop(ServerOptions::default(), 1);
    event_loop.clients.paused_until = Some(Instant::now() + 60 * SECOND);
    event_loop.run_once(&Stop::never()).unwrap();
    assert!(event_loop.clients.paused_until.is_some());
    drop(clients);
    while !event_loop.clients.all().is_empty() {
        event_loop.run_once(&Stop::never()).unwrap();
    }
    assert!(event_loop.clients.paused_until.is_none());
}

#[test]
fn what_was_read_is_executed_without_a_wait() {
    // The second reply is over the limit on waiting replies until the first is sent.
    let options = ServerOptions { output_bytes_max: 1, ..ServerOptions::default() };
    let (mut event_loop, mut clients) = event_loop(options, 1);
    clients[0].write_all(b"PING\nPING\n").unwrap();
    while event_loop.executor.counters.requests < 1 {
        event_loop.run_once(&Stop::never()).unwrap();
    }
    assert_eq!(event_loop.timeout(), Duration::ZERO);
    event_loop.run_once(&Stop::never()).unwrap();
    assert_eq!(event_loop.executor.counters.requests, 2);
    assert_ne!(event_loop.timeout(), Duration::ZERO);
}

#[test]
fn a_failed_request_is_followed_by_a_commit() {
    let (mut event_loop, mut clients) = event_loop(ServerOptions::default(), 1);
    clients[0].write_all(b"SET full 1\n").unwrap();
    while event_loop.executor.counters.requests < 1 {
        event_loop.run_once(&Stop::never()).unwrap();
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
        event_loop.run_once(&Stop::never()).unwrap();
    }
}

/// The calls of the engine so far: flushes, syncs, background syncs, maintains.
fn calls(event_loop: &KvsServer<MemoryEngine>) -> [usize; 4] {
    let controls = &event_loop.executor.engine.controls;
    [&controls.flushes, &controls.syncs, &controls.background_syncs, &controls.maintains]
        .map(|counter| Controls::count(counter))
}

/// Runs what is due in three seconds; returns the times from `start` on.
fn run_all(event_loop: &mut KvsServer<MemoryEngine>, start: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    loop {
        let due = event_loop.sync_at.into_iter().fold(event_loop.maintain_at, Instant::min);
        if due >= start + 3 * SECOND {
            return times;
        }
        event_loop.run_due(due).unwrap();
        times.push(due.saturating_duration_since(start));
    }
}

/// A server without clients that fsyncs by this policy.
fn lonely(fsync: Fsync) -> KvsServer<MemoryEngine> {
    event_loop(ServerOptions { fsync, ..ServerOptions::default() }, 0).0
}

#[test]
fn each_policy_makes_its_calls() {
    for (fsync, expected) in
        [(Fsync::Always, [0, 1, 0]), (Fsync::EverySec, [1, 0, 1]), (Fsync::Never, [1, 0, 0])]
    {
        let mut server = lonely(fsync);
        server.commit(Instant::now()).unwrap();
        run_all(&mut server, Instant::now());
        assert_eq!(calls(&server)[..3], expected, "{fsync:?}");
    }
}

#[test]
fn everysec_syncs_a_second_after_the_oldest_write() {
    let mut server = lonely(Fsync::EverySec);
    let start = Instant::now();
    for (after_ms, background_syncs) in [(0, 0), (500, 0), (999, 0), (1_000, 1), (1_999, 1)] {
        let now = start + Duration::from_millis(after_ms);
        server.run_due(now).unwrap();
        server.commit(now).unwrap();
        assert_eq!(calls(&server)[2], background_syncs, "after {after_ms} ms");
    }
}

#[test]
fn a_failed_background_sync_is_fatal() {
    let mut server = lonely(Fsync::EverySec);
    let now = Instant::now();
    server.commit(now).unwrap();
    server.executor.engine.controls.fail_commits();
    assert!(server.run_due(now + SECOND).is_err());
}

#[test]
fn an_idle_server_rests() {
    let mut server = lonely(Fsync::Always);
    let start = Instant::now();
    server.executor.engine.controls.steps.store(2, Ordering::SeqCst);
    server.commit(start).unwrap();
    // Two steps, one that finds nothing to do, and one after each second.
    let expected = [0, 1, 2, 1_002, 2_002].map(Duration::from_millis);
    assert_eq!(run_all(&mut server, start), expected);
}

#[test]
fn every_write_is_followed_by_a_step() {
    let mut server = lonely(Fsync::Always);
    let now = Instant::now();
    for step in 1..=3 {
        server.commit(now).unwrap();
        server.run_due(now).unwrap();
        server.run_due(now).unwrap();
        assert_eq!(calls(&server)[3], step);
    }
}

#[test]
fn failed_housekeeping_is_fatal() {
    let mut server = lonely(Fsync::Always);
    server.executor.engine.controls.has_failed.store(true, Ordering::SeqCst);
    assert!(server.run_due(Instant::now()).is_err());
}

#[test]
fn a_policy_is_parsed_by_its_name() {
    for policy in [Fsync::Always, Fsync::EverySec, Fsync::Never] {
        assert_eq!(policy.as_str().parse(), Ok(policy));
    }
    assert!("Always".parse::<Fsync>().is_err());
}
