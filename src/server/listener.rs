//! Accepts connections, up to the limits on clients and descriptors.
//!
//! If file descriptors run out, accepting pauses: connections stay in the system's
//! queue until a client leaves or some time has passed. Accepting stops before the
//! last descriptors are used, because the store needs some to begin a segment
//! (`descriptors_are_kept_for_the_store`).

use std::ffi::{c_int, c_void};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::ServerOptions;
use super::clients::{Client, Clients};
use super::connection::Connection;
use super::execute::{Counters, busy};
use crate::logger::{RateLimit, debug, warn};
use crate::poll::PollFd;
use crate::protocol::LineEnding;

/// Connections accepted in an iteration, so that many of them do not delay the
/// clients.
const ACCEPTS_MAX: usize = 64;
/// Clients over the limit that are connected at a time, to be told so. More wait
/// in the system's queue.
const REFUSED_MAX: usize = 64;
/// File descriptors that are kept free for the store.
const RESERVED_DESCRIPTORS: usize = 16;
/// How long accepting pauses if no client leaves. Another process may have freed
/// descriptors.
const PAUSE: Duration = Duration::from_millis(250);
/// Messages about single peers in a second.
const PEER_MESSAGES_MAX: u32 = 10;

/// A silent client is probed after this many seconds, then after each interval,
/// and disconnected after so many probes without an answer.
const KEEPALIVE_IDLE_SECONDS: c_int = 60;
const KEEPALIVE_INTERVAL_SECONDS: c_int = 20;
const KEEPALIVE_PROBES: c_int = 3;

const IS_LINUX: bool = cfg!(target_os = "linux");
const SOL_SOCKET: c_int = if IS_LINUX { 1 } else { 0xFFFF };
const SO_KEEPALIVE: c_int = if IS_LINUX { 9 } else { 8 };
const IPPROTO_TCP: c_int = 6;
/// macOS calls it `TCP_KEEPALIVE`.
const TCP_KEEPIDLE: c_int = if IS_LINUX { 4 } else { 0x10 };
const TCP_KEEPINTVL: c_int = if IS_LINUX { 5 } else { 0x101 };
const TCP_KEEPCNT: c_int = if IS_LINUX { 6 } else { 0x102 };

/// The codes of `ENOMEM`, `ENFILE`, `EMFILE` and `ENOBUFS`.
const SHORTAGES: [i32; 4] = [12, 23, 24, if IS_LINUX { 105 } else { 55 }];

/// The listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    options: Rc<ServerOptions>,
    paused_until: Option<Instant>,
    /// Connected clients that are only told that they are too many.
    refused: usize,
    log_limit: RateLimit,
}

impl Listener {
    /// Accepts from `socket`, which must be non-blocking.
    pub(super) fn new(socket: TcpListener, options: &Rc<ServerOptions>) -> Listener {
        let (options, log_limit) = (Rc::clone(options), RateLimit::new(PEER_MESSAGES_MAX));
        Listener { socket, options, paused_until: None, refused: 0, log_limit }
    }

    /// What to poll: nothing while no connection can be accepted.
    pub(super) fn poll_fd(&mut self, clients: usize) -> PollFd {
        self.paused_until = self.paused_until.filter(|until| Instant::now() < *until);
        let is_open = self.paused_until.is_none() && !self.is_full(clients);
        PollFd::new(self.socket.as_raw_fd(), is_open, false)
    }

    /// Whether not even a client over the limit may connect.
    fn is_full(&self, clients: usize) -> bool {
        clients >= self.options.clients_max.saturating_add(REFUSED_MAX)
    }

    /// When a pause ends.
    pub(super) fn due(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Accepts the connections that wait.
    pub(super) fn accept(&mut self, clients: &mut Clients, counters: &mut Counters) {
        for _ in 0..ACCEPTS_MAX {
            if self.is_full(clients.len()) {
                return;
            }
            let accepted = self.check_descriptors().and_then(|()| self.socket.accept());
            match accepted.and_then(|(stream, peer)| prepare(&stream).map(|()| (stream, peer))) {
                Ok((stream, peer)) => {
                    clients.add(self.client(stream, peer, clients.len(), counters))
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if is_shortage(&e) => return self.pause(&e),
                Err(e) => self.log_limit.run(|| debug!("a connection was lost: {e}")),
            }
            counters.clients = clients.len() as u64;
        }
    }

    /// Fails if the reserve and one descriptor more are not free.
    fn check_descriptors(&self) -> io::Result<()> {
        let reserve = (0..=RESERVED_DESCRIPTORS).map(|_| self.socket.try_clone());
        reserve.collect::<io::Result<Vec<_>>>().map(drop)
    }

    /// A client, or one that is only told that it is one too many.
    fn client(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        clients: usize,
        counters: &mut Counters,
    ) -> Client {
        let (fd, max) = (stream.as_raw_fd(), self.options.clients_max);
        let is_refused = clients - self.refused >= max;
        let mut connection = Connection::new(stream, peer, &self.options);
        if is_refused {
            self.log_limit.run(|| warn!("{peer}: refused, {max} clients are connected"));
            connection.close_with(&busy(max), LineEnding::Lf);
            self.refused += 1;
            counters.clients_refused += 1;
        } else {
            self.log_limit.run(|| debug!("{peer}: connected"));
            counters.clients_accepted += 1;
        }
        Client { connection, fd, last_ready: Instant::now(), is_refused }
    }

    /// Stops accepting for a while.
    fn pause(&mut self, e: &io::Error) {
        self.paused_until = Some(Instant::now() + PAUSE);
        self.log_limit.run(|| warn!("new connections wait, because one was not accepted: {e}"));
    }

    /// Notes that a client has left, which frees a descriptor.
    pub(super) fn note_departure(&mut self, client: Client) {
        self.log_limit.run(|| debug!("{}: disconnected", client.connection.peer));
        self.paused_until = None;
        self.refused -= usize::from(client.is_refused);
    }
}

/// Sets the options of a client's socket.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    // Replies are sent once per iteration. Waiting for a full packet only delays them.
    stream.set_nodelay(true)?;
    let fd = stream.as_raw_fd();
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1)?;
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)?;
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)?;
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES)
}

#[expect(unsafe_code, reason = "std cannot set keepalive")]
fn set_option(fd: RawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    unsafe extern "C" {
        fn setsockopt(
            fd: c_int,
            level: c_int,
            name: c_int,
            value: *const c_void,
            len: u32,
        ) -> c_int;
    }
    let len = size_of::<c_int>() as u32;
    // SAFETY: the pointer is to an int, which outlives the call, and `len` is its size.
    let status = unsafe { setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether an error of `accept` concerns all connections. Others concern only the
/// one that it has taken from the queue, and the next may be fine.
fn is_shortage(e: &io::Error) -> bool {
    e.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code))
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
