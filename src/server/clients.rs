//! The connected clients: which of them are polled, and how they are accepted.
//!
//! The cost of `poll` grows with the number of descriptors. So most polls include only
//! *active* clients, which have something to do, or were ready in the last one to two
//! seconds. While some are idle, all are polled every 3 ms, so the first request of an idle
//! client may wait as long.
//!
//! If file descriptors run out, accepting pauses: connections stay in the system's
//! queue until a client leaves or some time has passed. Accepting stops before the
//! last descriptors are used, because the store needs some to begin a segment
//! (`descriptors_are_kept_for_the_store`).
//!
//! Invariants:
//! * An idle client that is ready becomes active within [`FULL_POLL_INTERVAL`]
//!   (`an_idle_client_becomes_active_again`).
//! * A client that becomes idle frees unused memory
//!   (`an_idle_client_frees_its_memory`).

use std::ffi::c_int;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ServerOptions;
use super::connection::Connection;
use super::connection::ConnectionState::{Closed, Lingering};
use super::execute::{Counters, fault};
use crate::error::{KvsError, Result};
use crate::logger::{Level, write_limited};
use crate::poll::{self, PollFd};
use crate::protocol::{Code, LineEnding};

/// How often all clients are polled while some are active and some are not.
const FULL_POLL_INTERVAL: Duration = Duration::from_millis(3);
/// How long a client stays active after it was ready.
const ACTIVE_TIME: Duration = Duration::from_secs(1);

/// Connections accepted in an iteration, so that they do not delay the clients.
const ACCEPTS_MAX: usize = 64;
/// Maximum number of clients over the limit at a time. They are connected until `ERR busy`
/// is sent.
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

/// A connected client.
pub(super) type Client = Connection<TcpStream>;

/// All connected clients.
#[derive(Debug)]
pub(super) struct Clients {
    all: Vec<Client>,
    /// Number of active clients. They come first in `all`.
    active_count: usize,
    /// The argument of the last poll.
    fds: Vec<PollFd>,
    last_full_poll: Instant,
    options: Arc<ServerOptions>,
    /// When accepting goes on, if it pauses.
    pub(super) paused_until: Option<Instant>,
}

impl Clients {
    pub(super) fn new(options: &Arc<ServerOptions>) -> Clients {
        Clients {
            all: Vec::new(),
            active_count: 0,
            fds: Vec::new(),
            last_full_poll: Instant::now(),
            options: Arc::clone(options),
            paused_until: None,
        }
    }

    /// Moves the idle client at `index` to the end of the active ones.
    fn activate(&mut self, index: usize) {
        self.all.swap(index, self.active_count);
        self.active_count += 1;
    }

    /// Waits until a client or one of `others` is ready, at most for `timeout`. It
    /// may return earlier, with nothing ready.
    pub(super) fn poll(&mut self, others: &mut [PollFd], timeout: Duration) -> Result<()> {
        // A timer of a few ms slows the call down, so it is set only if a client is idle.
        let is_any_idle = self.active_count < self.all.len();
        let interval = if is_any_idle { FULL_POLL_INTERVAL } else { ACTIVE_TIME };
        let until_full = interval.saturating_sub(self.last_full_poll.elapsed());
        let is_any_active = self.active_count > 0;
        let timeout = if is_any_active { timeout.min(until_full) } else { timeout };
        let is_full = !is_any_active || until_full.is_zero();
        if is_full {
            self.active_count = self.all.len();
        }
        self.fds.clear();
        self.fds.extend_from_slice(others);
        self.fds.extend(self.all[..self.active_count].iter().map(|client| {
            PollFd::new(client.socket.as_raw_fd(), client.wants_read(), client.wants_write())
        }));
        poll::wait(&mut self.fds, timeout).map_err(KvsError::io("cannot poll"))?;
        let now = Instant::now();
        let (found, fds) = self.fds.split_at(others.len());
        others.copy_from_slice(found);
        for (client, fd) in self.all.iter_mut().zip(fds) {
            client.note_ready(fd.is_readable(), fd.is_writable(), now);
        }
        if is_full {
            self.note_full_poll(now);
        }
        Ok(())
    }

    /// Finds out which clients are active after a poll of all.
    fn note_full_poll(&mut self, now: Instant) {
        (self.last_full_poll, self.active_count) = (now, 0);
        for index in 0..self.all.len() {
            if self.all[index].stay_active(now, ACTIVE_TIME) {
                self.activate(index);
            }
        }
    }

    /// Removes the clients that are closed.
    pub(super) fn remove_closed(&mut self) {
        // None of them is idle.
        for client in self.all.extract_if(..self.active_count, |it| it.state == Closed) {
            write_limited(Level::Debug, format_args!("{}: disconnected", client.peer));
            self.active_count -= 1;
            // A descriptor is free again.
            self.paused_until = None;
        }
    }

    pub(super) fn active(&mut self) -> &mut [Client] {
        &mut self.all[..self.active_count]
    }

    pub(super) fn all(&mut self) -> &mut [Client] {
        &mut self.all
    }

    /// Number of clients that are served, or wait for replies.
    fn served_count(&self) -> usize {
        self.all.iter().filter(|it| !matches!(it.state, Lingering | Closed)).count()
    }

    /// What to poll of the listener: nothing while no connection can be accepted.
    pub(super) fn listener_fd(&mut self, listener: &TcpListener) -> PollFd {
        self.paused_until = self.paused_until.filter(|until| Instant::now() < *until);
        let can_accept = self.paused_until.is_none() && self.acceptable_count() > 0;
        PollFd::new(listener.as_raw_fd(), can_accept, false)
    }

    /// How many connections may be accepted. Others wait in the system's queue.
    fn acceptable_count(&self) -> usize {
        self.options.clients_max.saturating_add(REFUSED_MAX).saturating_sub(self.all.len())
    }

    /// Accepts the connections that wait.
    pub(super) fn accept(&mut self, listener: &TcpListener, counters: &mut Counters) {
        for _ in 0..self.acceptable_count().min(ACCEPTS_MAX) {
            match check_descriptors(listener).and_then(|()| self.accept_one(listener)) {
                Ok(client) => self.admit(client, counters),
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
    fn accept_one(&self, listener: &TcpListener) -> io::Result<Client> {
        let (stream, peer) = listener.accept()?;
        stream.set_nonblocking(true)?;
        // Replies are sent once per iteration. Waiting for a full packet delays them.
        stream.set_nodelay(true)?;
        KEEPALIVE.into_iter().try_for_each(|option| set_option(stream.as_raw_fd(), option))?;
        Ok(Connection::new(stream, peer, &self.options))
    }

    /// Adds a client. One over the limit is only told so.
    fn admit(&mut self, mut client: Client, counters: &mut Counters) {
        let (peer, max) = (client.peer, self.options.clients_max);
        if self.served_count() < max {
            write_limited(Level::Debug, format_args!("{peer}: connected"));
            counters.clients_accepted += 1;
        } else {
            write_limited(Level::Warn, format_args!("{peer}: refused, {max} are connected"));
            let message = format!("the server has {max} clients, which is its limit");
            client.close_with(&fault(Code::Busy, message), LineEnding::Lf);
            counters.clients_refused += 1;
        }
        self.all.push(client);
        self.activate(self.all.len() - 1);
    }
}

/// Fails unless [`RESERVED_DESCRIPTORS`] and one more descriptor are free.
fn check_descriptors(listener: &TcpListener) -> io::Result<()> {
    let reserve = (0..=RESERVED_DESCRIPTORS).map(|_| listener.try_clone());
    reserve.collect::<io::Result<Vec<_>>>().map(drop)
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
#[path = "clients_tests.rs"]
mod tests;
