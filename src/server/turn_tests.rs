//! Turns, one by one, with clients of the test's.

use std::io::Write;
use std::net::TcpStream;

use super::*;
use crate::server::chores::MAINTAIN_PAUSE;
use crate::server::options::Fsync;
use crate::server::testing::MemoryEngine;

/// Any time that is too short to matter.
const INSTANT: Duration = Duration::from_nanos(1);

/// A server that takes turns when it is told to, and as many clients.
fn running(options: ServerOptions, count: usize) -> (Running<MemoryEngine>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let mut running = Running::new(listener, MemoryEngine::default(), options, Stop::never());
    let clients = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
    while running.table.len() < count {
        ready_turn(&mut running);
    }
    (running, clients)
}

/// A turn in which something is ready.
fn ready_turn(running: &mut Running<MemoryEngine>) {
    running.table.wait(None, Instant::now()).unwrap();
    running.turn().unwrap();
}

/// Waits until every client has sent something, and reads it.
fn fill_all(running: &mut Running<MemoryEngine>) {
    while !running.table.all().iter().all(|client| client.connection.can_execute()) {
        running.table.wait(None, Instant::now()).unwrap();
        running.fill();
    }
}

/// Executes what all clients have sent, up to a turn's share; the requests.
fn execute_share(running: &mut Running<MemoryEngine>) -> u64 {
    running.execute_ready(Done::default(), &mut { TURN_BYTES_MAX }).requests
}

#[test]
fn writes_that_come_while_others_are_executed_share_their_sync_and_what_needs_none_does_not_wait() {
    for (fsync, line, turns, commits, syncs) in [
        (Fsync::Always, b"SET a 1\n", 1, 1, 1),
        (Fsync::Always, b"GET abc\n", 3, 0, 0),
        (Fsync::Never, b"SET a 1\n", 3, 3, 0),
    ] {
        // A read takes one of the requests, so that the others come later.
        let options = ServerOptions { fsync, read_bytes_max: 8, ..ServerOptions::default() };
        let (mut running, mut clients) = running(options, 1);
        clients[0].write_all(&line.repeat(3)).unwrap();
        while running.counters.requests < 3 {
            running.turn().unwrap();
        }
        let Counters { turns: counted, commits: committed, .. } = running.counters;
        assert_eq!((counted, committed, running.engine.syncs()), (turns, commits, syncs));
    }
}

#[test]
fn a_turn_that_has_used_its_share_reads_no_more() {
    let options = ServerOptions {
        read_bytes_max: 16,
        outbox_bytes_max: 4 * TURN_BYTES_MAX,
        ..ServerOptions::default()
    };
    let (mut running, mut clients) = running(options, 1);
    running.engine.set("big".to_owned(), "v".repeat(TURN_BYTES_MAX)).unwrap();
    clients[0].write_all(b"SET a 1\nGET big\nPING\n").unwrap();
    while running.counters.requests < 2 {
        running.turn().unwrap();
    }
    assert!(!running.table.all()[0].connection.can_execute());
}

#[test]
fn each_client_is_the_first_in_its_turn_so_that_none_uses_up_the_share_of_all() {
    let options = ServerOptions { outbox_bytes_max: usize::MAX, ..ServerOptions::default() };
    let (mut running, mut clients) = running(options, 3);
    running.engine.set("big".to_owned(), "v".repeat(TURN_BYTES_MAX)).unwrap();
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| client.write_all(b"GET big\n").unwrap());
        fill_all(&mut running);
        assert!(execute_share(&mut running) > 0);
    }
    assert!(running.table.all().iter().all(|client| client.connection.waiting_bytes() > 0));
}

#[test]
fn the_share_of_a_turn_is_of_bytes_of_requests_and_replies_together() {
    let options = ServerOptions { outbox_bytes_max: usize::MAX, ..ServerOptions::default() };
    let (mut running, mut clients) = running(options, 2);
    running.engine.set("big".to_owned(), "v".repeat(TURN_BYTES_MAX)).unwrap();
    let mut send_all = |bytes: &[u8], running: &mut Running<MemoryEngine>| {
        clients.iter_mut().for_each(|client| client.write_all(bytes).unwrap());
        fill_all(running);
    };
    send_all(b"GET big\n", &mut running);
    assert_eq!((execute_share(&mut running), execute_share(&mut running)), (1, 1));
    // The replies that wait are those of other turns.
    send_all(&b"PING\n".repeat(1000), &mut running);
    assert_eq!(execute_share(&mut running), 2000);
}

#[test]
fn what_has_come_is_executed_before_more_is_read() {
    let options = ServerOptions { read_bytes_max: 5, ..ServerOptions::default() };
    let (mut running, mut clients) = running(options, 1);
    clients[0].write_all(b"PING\nPING\n").unwrap();
    fill_all(&mut running);
    running.table.wait(None, Instant::now()).unwrap();
    running.fill();
    assert_eq!(execute_share(&mut running), 1);
}

#[test]
fn a_client_that_has_had_time_enough_to_go_is_dropped() {
    let (mut running, mut clients) = running(ServerOptions::default(), 1);
    clients[0].write_all(b"QUIT\n").unwrap();
    fill_all(&mut running);
    let now = Instant::now();
    running.execute(now);
    running.drain(now);
    let first = now + SWEEP_INTERVAL;
    assert_eq!(running.sweep_at, Some(first));
    running.sweep(first - INSTANT);
    assert_eq!(running.sweep_at, Some(first));
    while let Some(at) = running.sweep_at {
        assert_eq!(running.table.len(), 1);
        running.sweep(at);
        assert!(running.sweep_at.is_none_or(|next| next == at + SWEEP_INTERVAL));
    }
    assert_eq!(running.table.len(), 0);
}

#[test]
fn housekeeping_is_done_in_turns_that_have_nothing_else_to_do_until_none_is_left() {
    let (mut running, mut clients) = running(ServerOptions::default(), 1);
    assert_eq!(running.engine.steps(), 0, "a client has come");
    clients[0].write_all(b"PING\n").unwrap();
    ready_turn(&mut running);
    assert_eq!((running.counters.requests, running.engine.steps()), (1, 0), "it has asked");
    for step in 1..=2 {
        running.turn().unwrap();
        assert_eq!(running.engine.steps(), step);
    }
    assert_eq!(running.timeout(Instant::now()), None, "nothing is left to wake up for");
    assert_eq!(running.counters.turns, 1, "those that executed something");
}

/// The engine may then note on the disk that all before is there.
#[test]
fn housekeeping_follows_the_sync_of_everysec() {
    let (mut running, _) =
        running(ServerOptions { fsync: Fsync::EverySec, ..Default::default() }, 0);
    running.maintain_from = None;
    let now = Instant::now();
    running.sync_if_due(now);
    assert_eq!(running.maintain_from, None);
    running.durability.commit(&running.engine, now).unwrap();
    let due = running.durability.sync_due().unwrap();
    running.sync_if_due(due);
    assert_eq!((running.engine.syncs(), running.maintain_from), (1, Some(due)));
}

#[test]
fn who_was_refused_and_what_failed_is_counted() {
    let options = ServerOptions { clients_max: 1, ..ServerOptions::default() };
    let (mut running, mut clients) = running(options, 3);
    assert_eq!((running.counters.clients_accepted, running.counters.clients_refused), (1, 2));
    running.engine.fail_next();
    clients[0].write_all(b"SET a 1\n").unwrap();
    while running.counters.requests < 1 {
        ready_turn(&mut running);
    }
    assert_eq!((running.counters.commits, running.counters.commits_failed), (1, 1));
}

#[test]
fn housekeeping_that_failed_pauses() {
    let (mut running, _) = running(ServerOptions::default(), 0);
    let now = running.maintain_from.unwrap();
    running.engine.fail_next();
    for (at, steps) in [(now, 1), (now + MAINTAIN_PAUSE - INSTANT, 1), (now + MAINTAIN_PAUSE, 2)] {
        running.maintain(at);
        assert_eq!(running.engine.steps(), steps);
    }
}

#[test]
fn a_turn_of_many_small_requests_ends_before_its_share_of_bytes_and_none_is_left_out() {
    const CLIENTS: u64 = 4;
    // As much as one read takes.
    const REQUESTS: u64 = 13_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let engine = MemoryEngine::default();
    let mut running = Running::new(listener, engine, ServerOptions::default(), Stop::never());
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    let requests = b"PING\n".repeat(REQUESTS as usize);
    clients.iter_mut().for_each(|client| client.write_all(&requests).unwrap());
    while running.counters.requests < CLIENTS * REQUESTS {
        let before = running.counters.requests;
        running.turn().unwrap();
        let executed = running.counters.requests - before;
        assert!(executed <= TURN_REQUESTS_MAX, "{executed} requests");
    }
}
