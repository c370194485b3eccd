//! What one turn does of what clients want at once.

use super::super::testing::MemoryEngine;
use super::*;
use std::io::Write;
use std::net::TcpStream;

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
