//! Active and idle clients, over real sockets.

use super::*;
use std::io::Write;
use std::net::TcpListener;

const NONE: [PollFd; 2] = [PollFd::none(), PollFd::none()];

/// Clients whose peers have sent nothing, and these peers.
fn clients(count: usize) -> (Clients, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Clients::new();
    let connect = |clients: &mut Clients| {
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        clients.add(Connection::new(stream, address, &Default::default()));
        peer
    };
    let peers = (0..count).map(|_| connect(&mut clients)).collect();
    (clients, peers)
}

impl Clients {
    /// Makes a client look as if it was last ready long ago.
    fn age(&mut self, index: usize) {
        self.all[index].age(2 * ACTIVE_TIME);
    }

    /// The indexes of the active clients, after a poll of all.
    fn poll_all(&mut self) -> Vec<usize> {
        self.last_full_poll -= 2 * FULL_POLL_INTERVAL;
        self.poll(NONE, Some(Duration::ZERO)).unwrap();
        self.active.clone()
    }
}

#[test]
fn an_idle_client_becomes_active_again() {
    let (mut clients, mut peers) = clients(3);
    assert_eq!(clients.poll_all(), [0, 1, 2]);
    clients.age(0);
    clients.age(2);
    assert_eq!(clients.poll_all(), [1]);
    peers[2].write_all(b"PING\n").unwrap();
    clients.last_full_poll = Instant::now() + FULL_POLL_INTERVAL;
    clients.poll(NONE, Some(Duration::ZERO)).unwrap();
    assert_eq!(clients.active, [1], "an idle client is not polled each time");
    while clients.poll_all() != [1, 2] {}
}

#[test]
fn all_are_polled_if_none_is_active() {
    let (mut clients, mut peers) = clients(2);
    clients.age(0);
    clients.age(1);
    assert!(clients.poll_all().is_empty());
    peers[1].write_all(b"PING\n").unwrap();
    clients.last_full_poll = Instant::now() + FULL_POLL_INTERVAL;
    clients.poll(NONE, None).unwrap();
    assert_eq!(clients.active, [1]);
}

#[test]
fn an_active_client_wakes_the_loop_until_it_is_idle() {
    let (mut clients, _peers) = clients(1);
    while !clients.active.is_empty() {
        clients.poll(NONE, None).unwrap();
    }
    assert!(!clients.all[0].stay_active(Instant::now(), ACTIVE_TIME));
}

#[test]
fn an_idle_client_frees_its_memory() {
    let (mut clients, _peers) = clients(1);
    clients.all[0].reserve(1 << 20);
    clients.age(0);
    clients.poll_all();
    assert!(clients.all[0].capacity() == 0);
}

#[test]
fn a_removed_client_leaves_the_others_polled() {
    let (mut clients, _peers) = clients(3);
    clients.age(1);
    clients.poll_all();
    clients.all[0].state = Closed;
    clients.remove_closed();
    assert_eq!((clients.len(), clients.served_count()), (2, 2));
    assert_eq!(clients.poll_all(), [1], "the indexes are those of the clients that are left");
}

#[test]
fn a_client_that_does_not_read_its_last_replies_counts() {
    let (mut clients, _peers) = clients(2);
    for client in clients.iter_mut() {
        client.close();
    }
    assert_eq!(clients.served_count(), 2);
    // It has no reply to wait for.
    clients.all[0].send(Instant::now());
    assert_eq!((clients.len(), clients.served_count()), (2, 1));
}
