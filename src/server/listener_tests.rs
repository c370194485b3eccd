//! The listener's limits, and the options of a client's socket.

use std::ffi::c_void;
use std::net::TcpStream;

use super::*;

#[test]
fn a_pause_ends_after_some_time() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut listener = Listener::new(socket, &Arc::default());
    listener.accept(&mut Clients::new(), &mut Counters::default());
    assert_eq!(listener.paused_until, None);
    listener.paused_until = Some(Instant::now() + PAUSE);
    listener.poll_fd(0);
    assert!(listener.paused_until.is_some());
    listener.paused_until = Some(Instant::now());
    listener.poll_fd(0);
    assert_eq!(listener.paused_until, None);
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
    let client = Listener::new(socket, &Arc::default()).accept_one().unwrap();
    let [is_on, idle, interval, probes] =
        KEEPALIVE.map(|[level, name, _]| option(&client, level, name));
    assert_ne!(is_on, 0);
    assert!((1..=180).contains(&(idle + interval * probes)));
}
