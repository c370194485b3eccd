//! Accepts connections, up to the limits on clients and descriptors.
//!
//! If file descriptors run out, accepting pauses: connections stay in the system's
//! queue until a client leaves or some time has passed. Accepting stops before the
//! last descriptors are used, because the store needs some to begin a segment
//! (`descriptors_are_kept_for_the_store`).

use std::ffi::c_int;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ServerOptions;
use super::clients::{Client, Clients};
use super::connection::Connection;
use super::execute::{Counters, fault};
use crate::logger::{Level, write_limited};
use crate::poll::PollFd;
use crate::protocol::{Code, LineEnding};

/// Connections accepted in an iteration, so that they do not delay the clients.
const ACCEPTS_MAX: usize = 64;
/// Clients over the limit that are told so at a time. More wait in the system's queue.
const REFUSED_MAX: usize = 64;
/// File descriptors that are kept free for the store.
const RESERVED_DESCRIPTORS: usize = 16;
/// How long accepting pauses if no client leaves.
const PAUSE: Duration = Duration::from_millis(250);

const IS_LINUX: bool = cfg!(target_os = "linux");
/// Socket options, each as level, name and value: `SO_KEEPALIVE` is on,
/// `TCP_KEEPIDLE` and `TCP_KEEPINTVL` are in seconds, and `TCP_KEEPCNT` is the number
/// of probes without an answer after which a client is disconnected.
const KEEPALIVE: [[c_int; 3]; 4] = if IS_LINUX {
    [[1, 9, 1], [6, 4, 60], [6, 5, 20], [6, 6, 3]]
} else {
    [[0xFFFF, 8, 1], [6, 0x10, 60], [6, 0x101, 20], [6, 0x102, 3]]
};

/// The codes of `ENOMEM`, `ENFILE`, `EMFILE` and `ENOBUFS`.
const SHORTAGES: [i32; 4] = [12, 23, 24, if IS_LINUX { 105 } else { 55 }];

/// The listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    options: Arc<ServerOptions>,
    /// When accepting goes on, if it pauses.
    pub(super) paused_until: Option<Instant>,
}

impl Listener {
    /// Accepts from `socket`, which must be non-blocking.
    pub(super) fn new(socket: TcpListener, options: &Arc<ServerOptions>) -> Listener {
        Listener { socket, options: Arc::clone(options), paused_until: None }
    }

    /// What to poll: nothing while no connection can be accepted.
    pub(super) fn poll_fd(&mut self, clients: usize) -> PollFd {
        self.paused_until = self.paused_until.filter(|until| Instant::now() < *until);
        let is_open = self.paused_until.is_none() && !self.is_full(clients);
        PollFd::new(self.socket.as_raw_fd(), is_open, false)
    }

    /// Whether connections have to wait in the system's queue.
    fn is_full(&self, clients: usize) -> bool {
        clients >= self.options.clients_max.saturating_add(REFUSED_MAX)
    }

    /// Accepts the connections that wait.
    pub(super) fn accept(&mut self, clients: &mut Clients, counters: &mut Counters) {
        for _ in 0..ACCEPTS_MAX {
            if self.is_full(clients.len()) {
                return;
            }
            match self.check_descriptors().and_then(|()| self.accept_one()) {
                Ok(client) => self.admit(client, clients, counters),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // It concerns all connections. Other errors concern only this one.
                Err(e) if e.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code)) => {
                    self.paused_until = Some(Instant::now() + PAUSE);
                    let message = "new connections wait, because one was not accepted";
                    return write_limited(Level::Warn, format_args!("{message}: {e}"));
                }
                Err(e) => write_limited(Level::Debug, format_args!("a connection was lost: {e}")),
            }
        }
    }

    /// Accepts a connection, and sets the options of its socket.
    fn accept_one(&self) -> io::Result<Client> {
        let (stream, peer) = self.socket.accept()?;
        stream.set_nonblocking(true)?;
        // Replies are sent once per iteration. Waiting for a full packet delays them.
        stream.set_nodelay(true)?;
        KEEPALIVE.into_iter().try_for_each(|option| set_option(stream.as_raw_fd(), option))?;
        Ok(Connection::new(stream, peer, &self.options))
    }

    /// Fails if the reserve and one descriptor more are not free.
    fn check_descriptors(&self) -> io::Result<()> {
        let reserve = (0..=RESERVED_DESCRIPTORS).map(|_| self.socket.try_clone());
        reserve.collect::<io::Result<Vec<_>>>().map(drop)
    }

    /// Adds a client. One over the limit is only told so.
    fn admit(&self, mut client: Client, clients: &mut Clients, counters: &mut Counters) {
        let (peer, max) = (client.peer, self.options.clients_max);
        if clients.served_count() < max {
            write_limited(Level::Debug, format_args!("{peer}: connected"));
            counters.clients_accepted += 1;
        } else {
            write_limited(Level::Warn, format_args!("{peer}: refused, {max} are connected"));
            let message = format!("the server has {max} clients, which is its limit");
            client.close_with(&fault(Code::Busy, message), LineEnding::Lf);
            counters.clients_refused += 1;
        }
        clients.add(client);
    }
}

#[expect(unsafe_code, reason = "std cannot set keepalive")]
fn set_option(fd: c_int, [level, name, value]: [c_int; 3]) -> io::Result<()> {
    unsafe extern "C" {
        fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_int, len: u32)
        -> c_int;
    }
    // SAFETY: the pointer is to an int of 4 bytes, which outlives the call.
    match unsafe { setsockopt(fd, level, name, &raw const value, 4) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
