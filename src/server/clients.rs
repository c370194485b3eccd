//! The connected clients, and which of them are polled.
//!
//! The cost of `poll` grows with the number of descriptors. So most polls ask
//! only about *active* clients: those that were ready in the last 100 ms, or have
//! something to do. All clients are polled every 10 ms, or at once if none is
//! active. A client that was idle may have to wait 10 ms for its first reply.
//!
//! Accepting belongs to [`listener`](super::listener).
//!
//! Invariants:
//! * A client that is ready becomes active within [`FULL_POLL_INTERVAL`]
//!   (`an_idle_client_becomes_active_again`).
//! * A client that becomes idle frees unused memory
//!   (`an_idle_client_frees_its_memory`).

use std::io;
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::connection::{Connection, ConnectionState};
use crate::poll::{self, PollFd};

/// How often all clients are polled while some are active.
const FULL_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a client stays active after it was ready.
const ACTIVE_TIME: Duration = Duration::from_millis(100);

/// The stop pipe and the listener, which every poll of an iteration includes.
pub(super) type Fixed = [PollFd; 2];

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) connection: Connection<TcpStream>,
    pub(super) fd: RawFd,
    last_ready: Instant,
    /// Whether it is one too many, and is only told so.
    pub(super) is_refused: bool,
}

/// All connected clients.
#[derive(Debug)]
pub(super) struct Clients {
    all: Vec<Client>,
    /// Indexes in `all` of the active ones.
    active: Vec<usize>,
    /// The argument of the last poll.
    fds: Vec<PollFd>,
    last_full_poll: Instant,
}

impl Clients {
    /// No clients.
    pub(super) fn new() -> Clients {
        Clients {
            all: Vec::new(),
            active: Vec::new(),
            fds: Vec::new(),
            last_full_poll: Instant::now(),
        }
    }

    /// Adds a client, which is active.
    pub(super) fn add(&mut self, connection: Connection<TcpStream>, fd: RawFd, is_refused: bool) {
        self.active.push(self.all.len());
        self.all.push(Client { connection, fd, last_ready: Instant::now(), is_refused });
    }

    /// Starts an iteration: waits until a client or one of `fixed` is ready, at
    /// most for `timeout`. It may return earlier, with nothing ready.
    pub(super) fn poll(&mut self, fixed: Fixed, timeout: Option<Duration>) -> io::Result<Fixed> {
        let since_full_poll = self.last_full_poll.elapsed();
        let is_partial = !self.active.is_empty() && self.active.len() < self.all.len();
        let limit = match () {
            () if self.active.is_empty() => None,
            () if is_partial => Some(FULL_POLL_INTERVAL.saturating_sub(since_full_poll)),
            () => Some(ACTIVE_TIME),
        };
        let is_full = !is_partial || limit == Some(Duration::ZERO);
        if is_full {
            self.active.clear();
            self.active.extend(0..self.all.len());
        }
        let timeout = timeout.into_iter().chain(limit).min();
        let fixed = self.poll_active(fixed, timeout)?;
        if is_full {
            self.last_full_poll = Instant::now();
            self.retain_active();
        }
        Ok(fixed)
    }

    /// Polls the active clients again, without waiting.
    pub(super) fn poll_again(&mut self) -> io::Result<()> {
        self.poll_active([PollFd::none(); 2], Some(Duration::ZERO)).map(drop)
    }

    /// Polls `fixed` and the active clients.
    fn poll_active(&mut self, fixed: Fixed, timeout: Option<Duration>) -> io::Result<Fixed> {
        self.fds.clear();
        self.fds.extend(fixed);
        for client in self.active.iter().map(|index| &self.all[*index]) {
            let connection = &client.connection;
            let (read, write) = (connection.wants_read(), connection.wants_write());
            self.fds.push(PollFd::new(client.fd, read, write));
        }
        poll::wait(&mut self.fds, timeout)?;
        let now = Instant::now();
        let (fixed, clients) = self.fds.split_at(fixed.len());
        for (fd, index) in clients.iter().zip(&self.active) {
            let client = &mut self.all[*index];
            client.connection.note_ready(fd.is_readable(), fd.is_writable());
            if fd.is_ready() {
                client.last_ready = now;
            }
        }
        Ok([fixed[0], fixed[1]])
    }

    /// After a poll of all clients: those that are not active become idle.
    fn retain_active(&mut self) {
        let now = self.last_full_poll;
        self.active.retain(|index| {
            let Client { connection, last_ready, .. } = &mut self.all[*index];
            connection.expire(now);
            let is_active = now.duration_since(*last_ready) < ACTIVE_TIME || connection.is_busy();
            if !is_active {
                connection.free_unused();
            }
            is_active
        });
    }

    /// Calls `visit` with each active client.
    pub(super) fn for_each_active(&mut self, mut visit: impl FnMut(&mut Client)) {
        self.active.iter().for_each(|index| visit(&mut self.all[*index]));
    }

    /// Removes the clients for which `is_over` is true, and calls `visit` with each.
    pub(super) fn remove(
        &mut self,
        is_over: impl Fn(ConnectionState) -> bool,
        mut visit: impl FnMut(&Client),
    ) {
        self.all.retain(|client| {
            let is_over = is_over(client.connection.state());
            if is_over {
                visit(client);
            }
            !is_over
        });
        // The indexes have changed. The next poll, of all clients, sorts them out.
        self.active.clear();
        self.active.extend(0..self.all.len());
    }

    /// Iterates over all clients.
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Client> {
        self.all.iter_mut()
    }

    /// Number of clients.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
