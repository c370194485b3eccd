//! Who is warm, and who is not.

use super::*;
use crate::protocol::{Reply, Request};
use crate::server::ServerOptions;
use crate::server::outcome::{Answer, Outcome};
use crate::server::secret::Trust;
use std::net::{Shutdown, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// Says much to everything.
struct Talker;

impl Answer for Talker {
    fn prefetch(&mut self, _keys: &[&str]) {}

    fn answer(&mut self, _request: Request, _trust: &mut Trust) -> Outcome {
        Outcome::Reply(Reply::Value("v".repeat(60_000)))
    }
}

/// A client that sends this, was ready long ago, and is not read from yet.
fn quiet_client(listener: &TcpListener, bytes: &[u8]) -> (TcpStream, Client) {
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, address) = listener.accept().unwrap();
    io::Write::write_all(&mut peer, bytes).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    stream.set_nonblocking(true).unwrap();
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
    for timeout in [Some(Duration::ZERO), None] {
        table.clients[0].last_ready = now.checked_sub(WARM_MAX).unwrap();
        assert_eq!(table.wait(timeout, now).unwrap(), 1);
        assert!(table.last_full_poll == now && table.clients[0].last_ready == now);
    }
}

#[test]
fn the_idle_are_left_out_for_what_is_left_of_the_time_since_they_were_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut table = Table::new(None, listener.as_raw_fd());
    let (_busy_peer, busy) = quiet_client(&listener, b"");
    let (_idle_peer, idle) = quiet_client(&listener, b"");
    table.add(busy);
    let asked = table.last_full_poll;
    assert_eq!(table.can_leave_out_idle(asked), None);
    table.add(idle);
    table.warm = 1;
    let part = FULL_POLL_INTERVAL / 4;
    assert_eq!(table.can_leave_out_idle(asked + part), Some(3 * part));
    assert_eq!(table.can_leave_out_idle(asked + FULL_POLL_INTERVAL), None);
    assert_eq!(table.can_leave_out_idle(asked + 2 * FULL_POLL_INTERVAL), None);
}

#[test]
fn all_are_asked_when_no_warm_client_is_ready_and_there_is_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_warm_peer, warm) = quiet_client(&listener, b"");
    let (_idle_peer, idle) = quiet_client(&listener, b"PING\n");
    let mut table = Table::new(None, listener.as_raw_fd());
    table.add(idle);
    table.add(warm);
    (table.warm, table.polls[FIXED]) = (1, PollFd::nothing());
    let now = table.last_full_poll;
    assert_eq!(table.wait(Some(Duration::ZERO), now).unwrap(), 0);
    assert_eq!(table.wait(None, now).unwrap(), 1);
    assert!(table.warm().iter().any(|client| client.last_ready > now));
}

#[test]
fn a_listener_that_rests_wakes_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut table = Table::new(None, listener.as_raw_fd());
    assert_eq!(table.wait(None, Instant::now()).unwrap(), 1);
    for (is_asked, ready) in [(false, 0), (true, 1)] {
        table.listen(is_asked);
        assert_eq!(table.wait(Some(Duration::ZERO), Instant::now()).unwrap(), ready);
        assert_eq!(table.is_listener_ready(), is_asked);
    }
}

#[test]
fn at_the_end_only_those_are_waited_for_who_have_yet_to_take_their_replies() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut deaf_peer, mut deaf) = quiet_client(&listener, b"");
    let (_peer, idle) = quiet_client(&listener, b"PING\n");
    deaf.connection.finish(&Reply::Value("v".repeat(32 << 20)));
    while !deaf.connection.wants_write() {
        deaf.connection.drain(Instant::now());
    }
    let (stop, stopped) = UnixStream::pair().unwrap();
    drop(stop);
    let mut table = Table::new(Some(stopped.as_raw_fd()), listener.as_raw_fd());
    table.add(deaf);
    table.add(idle);
    table.keep_clients_only();
    assert!(table.ask_for_room());
    assert_eq!(table.wait_for_all(Some(Duration::ZERO)).unwrap(), 0);
    let reader = std::thread::spawn(move || io::copy(&mut deaf_peer, &mut io::sink()));
    assert_eq!(table.wait_for_all(Some(Duration::from_secs(20))).unwrap(), 1);
    table.remove_all(|client| client.connection.wants_write(), |_| ());
    assert_eq!((table.len(), table.ask_for_room()), (1, false));
    assert!(reader.join().unwrap().unwrap() > 0);
}

#[test]
fn who_waits_for_the_commit_of_a_turn_stays_warm_and_who_is_idle_cools_and_holds_little() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_peer, mut client) = quiet_client(&listener, format!("PING{:60000}\n", "").as_bytes());
    while !client.connection.is_uncommitted() {
        client.connection.fill(&mut [0; 100_000]);
        client.connection.execute(usize::MAX, &mut Talker);
    }
    let mut table = Table::new(None, listener.as_raw_fd());
    table.add(client);
    table.polls[FIXED] = PollFd::nothing();
    table.wait(Some(Duration::ZERO), Instant::now()).unwrap();
    assert_eq!(table.warm().len(), 1);
    table.warm()[0].connection.commit();
    while table.warm()[0].connection.waiting_bytes() > 0 {
        table.warm()[0].connection.drain(Instant::now());
    }
    assert!(table.warm()[0].connection.room_bytes() > 120_000);
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
