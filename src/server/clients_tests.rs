//! Active and idle clients over real sockets, the pause, and the options of a socket.

use std::ffi::c_void;
use std::io::Write;
use std::os::fd::OwnedFd;

use super::*;

/// Clients whose peers have sent nothing, and these peers.
fn clients(count: usize) -> (Clients, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Clients::new(&Arc::default());
    let connect = |clients: &mut Clients| {
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        clients.all.push(Connection::new(stream, address, &Default::default()));
        clients.activate(clients.all.len() - 1);
        peer
    };
    let peers = (0..count).map(|_| connect(&mut clients)).collect();
    (clients, peers)
}

impl Clients {
    /// The client with this peer.
    fn of(&mut self, peer: &TcpStream) -> &mut Client {
        let address = peer.local_addr().unwrap();
        self.all.iter_mut().find(|client| client.peer == address).unwrap()
    }

    /// Makes a client look as if it was last ready long ago.
    fn age(&mut self, peer: &TcpStream) {
        self.of(peer).age(2 * ACTIVE_TIME);
    }

    /// Whether the client of each peer is active.
    fn are_active(&mut self, peers: &[TcpStream]) -> Vec<bool> {
        let active: Vec<_> = self.active().iter().map(|client| client.peer).collect();
        peers.iter().map(|peer| active.contains(&peer.local_addr().unwrap())).collect()
    }

    /// Polls all, without waiting; returns which are active then.
    fn poll_all(&mut self, peers: &[TcpStream]) -> Vec<bool> {
        self.last_full_poll -= ACTIVE_TIME;
        self.poll(&mut [], Duration::ZERO).unwrap();
        self.are_active(peers)
    }
}

#[test]
fn an_idle_client_becomes_active_again() {
    let (mut clients, mut peers) = clients(3);
    assert_eq!(clients.poll_all(&peers), [true, true, true]);
    clients.age(&peers[0]);
    clients.age(&peers[2]);
    assert_eq!(clients.poll_all(&peers), [false, true, false]);
    peers[2].write_all(b"PING\n").unwrap();
    clients.last_full_poll = Instant::now() + FULL_POLL_INTERVAL;
    clients.poll(&mut [], Duration::ZERO).unwrap();
    let expected = [false, true, false];
    assert_eq!(clients.are_active(&peers), expected, "an idle client is not polled each time");
    while clients.poll_all(&peers) != [false, true, true] {}
}

#[test]
fn all_are_polled_if_none_is_active() {
    let (mut clients, mut peers) = clients(2);
    clients.age(&peers[0]);
    clients.age(&peers[1]);
    assert_eq!(clients.poll_all(&peers), [false, false]);
    peers[1].write_all(b"PING\n").unwrap();
    clients.last_full_poll = Instant::now() + FULL_POLL_INTERVAL;
    clients.poll(&mut [], Duration::MAX).unwrap();
    assert_eq!(clients.are_active(&peers), [false, true]);
}

#[test]
fn an_active_client_wakes_the_loop_until_it_is_idle() {
    let (mut clients, _peers) = clients(1);
    while !clients.active().is_empty() {
        clients.poll(&mut [], Duration::MAX).unwrap();
    }
    assert!(!clients.all[0].stay_active(Instant::now(), ACTIVE_TIME));
}

#[test]
fn an_idle_client_frees_its_memory() {
    let (mut clients, peers) = clients(1);
    clients.all[0].reserve(1 << 20);
    clients.age(&peers[0]);
    clients.poll_all(&peers);
    assert!(clients.all[0].capacity() == 0);
}

#[test]
fn a_removed_client_leaves_the_others_as_they_are() {
    let (mut clients, peers) = clients(4);
    clients.age(&peers[1]);
    clients.poll_all(&peers);
    clients.of(&peers[0]).state = Closed;
    clients.remove_closed();
    assert_eq!((clients.all.len(), clients.served_count()), (3, 3));
    assert_eq!(clients.are_active(&peers), [false, false, true, true]);
}

#[test]
fn a_client_that_does_not_read_its_last_replies_counts() {
    let (mut clients, _peers) = clients(2);
    for client in clients.all() {
        client.close();
    }
    assert_eq!(clients.served_count(), 2);
    // It has no reply to wait for.
    clients.all[0].send();
    assert_eq!((clients.all.len(), clients.served_count()), (2, 1));
}

#[test]
fn a_pause_ends_after_some_time() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut clients = Clients::new(&Arc::default());
    clients.accept(&socket, &mut Counters::default());
    assert_eq!(clients.paused_until, None);
    clients.paused_until = Some(Instant::now() + PAUSE);
    clients.listener_fd(&socket);
    assert!(clients.paused_until.is_some());
    clients.paused_until = Some(Instant::now());
    clients.listener_fd(&socket);
    assert_eq!(clients.paused_until, None);
}

#[expect(unsafe_code, reason = "std cannot read keepalive")]
fn option(client: &Client, level: c_int, name: c_int) -> c_int {
    unsafe extern "C" {
        fn getsockopt(
            fd: c_int,
            level: c_int,
            name: c_int,
            value: *mut c_void,
            len: *mut u32,
        ) -> c_int;
    }
    let (mut value, mut len) = (0 as c_int, size_of::<c_int>() as u32);
    // SAFETY: both pointers are to variables that outlive the call, and `len` is
    // the size of `value`.
    let status = unsafe {
        getsockopt(client.socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    };
    assert_eq!(status, 0);
    value
}

#[test]
fn vanished_peers_without_unsent_replies_are_noticed_within_minutes() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let _peer = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    let client = Clients::new(&Arc::default()).accept_one(&socket).unwrap();
    let [is_on, idle, interval, probes] =
        KEEPALIVE.map(|[level, name, _]| option(&client, level, name));
    assert_ne!(is_on, 0);
    assert!((1..=180).contains(&(idle + interval * probes)));
}

#[test]
fn an_option_of_no_socket_fails() {
    assert!(set_option(-1, KEEPALIVE[0]).is_err());
}

/// `accept` on a socket that does not listen fails, as for a connection that was lost.
#[test]
fn a_lost_connection_concerns_no_other() {
    let (mut clients, peers) = clients(1);
    let no_listener = TcpListener::from(OwnedFd::from(peers[0].try_clone().unwrap()));
    clients.accept(&no_listener, &mut Counters::default());
    assert!(clients.paused_until.is_none());
    assert_eq!(clients.all().len(), 1);
}
