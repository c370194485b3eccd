//! Who is warm, and who is not.

use super::*;
use crate::protocol::{Reply, Request};
use crate::server::ServerOptions;
use crate::server::outcome::{Answer, Outcome};
use crate::server::secret::Trust;
use std::net::{Shutdown, TcpListener};
use std::os::fd::AsRawFd;

/// Says `PONG` to everything.
struct Pong;

impl Answer for Pong {
    fn prefetch(&mut self, _keys: &[&str]) {}

    fn answer(&mut self, _request: Request, _trust: &mut Trust) -> Outcome {
        Outcome::Reply(Reply::Pong)
    }
}

/// A client that sends this, was ready long ago, and is not read from yet.
fn quiet_client(listener: &TcpListener, bytes: &[u8]) -> (TcpStream, Client) {
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, address) = listener.accept().unwrap();
    io::Write::write_all(&mut peer, bytes).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let fd = stream.as_raw_fd();
    let connection = Connection::new(stream, &ServerOptions::default());
    let last_ready = Instant::now().checked_sub(10 * WARM_MAX).unwrap();
    (peer, Client { connection, peer: address, is_refused: false, fd, last_ready })
}

#[test]
fn who_is_ready_stays_warm_also_where_not_all_are_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_idle_peer, idle) = quiet_client(&listener, b"");
    let (_busy_peer, busy) = quiet_client(&listener, b"PING\n");
    let mut table = Table::new(None, listener.as_raw_fd());
    table.add(busy);
    table.add(idle);
    table.polls[FIXED + 1] = PollFd::nothing();
    table.wait(Some(Duration::ZERO), Instant::now()).unwrap();
    assert_eq!((table.warm().len(), table.len()), (1, 2));
    let now = table.last_full_poll;
    table.clients[0].last_ready = now.checked_sub(WARM_MAX).unwrap();
    assert_eq!(table.wait(Some(Duration::ZERO), now).unwrap(), 1);
    assert!(table.last_full_poll == now && table.clients[0].last_ready == now);
}

#[test]
fn who_waits_for_the_commit_of_a_turn_stays_warm_and_who_is_idle_cools_and_holds_little() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_peer, mut client) = quiet_client(&listener, format!("PING{:60000}\n", "").as_bytes());
    while !client.connection.is_uncommitted() {
        client.connection.fill(&mut [0; 100_000]);
        client.connection.execute(usize::MAX, &mut Pong);
    }
    let mut table = Table::new(None, listener.as_raw_fd());
    table.add(client);
    table.polls[FIXED] = PollFd::nothing();
    table.wait(Some(Duration::ZERO), Instant::now()).unwrap();
    assert_eq!(table.warm().len(), 1);
    table.warm()[0].connection.commit();
    table.warm()[0].connection.drain(Instant::now());
    assert!(table.warm()[0].connection.room_bytes() > 60_000);
    table.wait(Some(Duration::ZERO), Instant::now()).unwrap();
    assert_eq!(table.warm().len(), 0);
    assert!(table.all()[0].connection.room_bytes() <= 32 << 10);
}

#[test]
fn a_wait_ends_in_time_for_the_warm_to_cool_and_nobody_wakes_a_server_where_all_are_cool() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_peer, client) = quiet_client(&listener, b"");
    let mut table = Table::new(None, listener.as_raw_fd());
    assert_eq!(table.until_cool(None), None);
    table.add(client);
    assert_eq!(table.until_cool(None), Some(WARM_MAX));
    assert_eq!(table.until_cool(Some(WARM_MAX / 2)), Some(WARM_MAX / 2));
    table.polls[FIXED] = PollFd::nothing();
    table.wait(None, Instant::now()).unwrap();
    assert_eq!((table.warm().len(), table.until_cool(None)), (0, None));
}
