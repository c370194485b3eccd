//! The connected clients, and which of them are polled.
//!
//! The cost of `poll` grows with the number of descriptors. So most polls include
//! only *active* clients: those that were ready in the last 100 ms, or have
//! something to do. All clients are polled every 10 ms, or at once if none is
//! active. The first request of an idle client may wait 10 ms.
//!
//! Invariants:
//! * An idle client that is ready becomes active within [`FULL_POLL_INTERVAL`]
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

/// The stop pipe and the listener.
pub(super) type Fixed = [PollFd; 2];

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) connection: Connection<TcpStream>,
    pub(super) fd: RawFd,
    pub(super) last_ready: Instant,
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
    pub(super) fn new() -> Clients {
        let (all, active, fds) = Default::default();
        Clients { all, active, fds, last_full_poll: Instant::now() }
    }

    /// Adds a client, which is active.
    pub(super) fn add(&mut self, client: Client) {
        self.active.push(self.all.len());
        self.all.push(client);
    }

    /// Waits until a client or one of `fixed` is ready, at most for `timeout`. It
    /// may return earlier, with nothing ready.
    pub(super) fn poll(&mut self, fixed: Fixed, timeout: Option<Duration>) -> io::Result<Fixed> {
        let can_skip_idle = !self.active.is_empty() && self.active.len() < self.all.len();
        let limit = match can_skip_idle {
            true => Some(FULL_POLL_INTERVAL.saturating_sub(self.last_full_poll.elapsed())),
            // An active client becomes idle, and frees memory, without being ready.
            false => (!self.active.is_empty()).then_some(ACTIVE_TIME),
        };
        let is_full = !can_skip_idle || limit == Some(Duration::ZERO);
        if is_full {
            self.activate_all();
        }
        let fixed = self.poll_active(fixed, timeout.into_iter().chain(limit).min())?;
        if is_full {
            self.last_full_poll = Instant::now();
            self.deactivate_idle();
        }
        Ok(fixed)
    }

    /// Polls the active clients again, without waiting.
    pub(super) fn poll_again(&mut self) -> io::Result<()> {
        self.poll_active([PollFd::none(); 2], Some(Duration::ZERO)).map(drop)
    }

    fn poll_active(&mut self, fixed: Fixed, timeout: Option<Duration>) -> io::Result<Fixed> {
        self.fds.clear();
        self.fds.extend(fixed);
        for Client { connection, fd, .. } in self.active.iter().map(|index| &self.all[*index]) {
            self.fds.push(PollFd::new(*fd, connection.wants_read(), connection.wants_write()));
        }
        poll::wait(&mut self.fds, timeout)?;
        let now = Instant::now();
        for (fd, index) in self.fds[fixed.len()..].iter().zip(&self.active) {
            let client = &mut self.all[*index];
            client.connection.note_ready(fd.is_readable(), fd.is_writable());
            if fd.is_ready() {
                client.last_ready = now;
            }
        }
        Ok([self.fds[0], self.fds[1]])
    }

    fn activate_all(&mut self) {
        self.active.clear();
        self.active.extend(0..self.all.len());
    }

    fn deactivate_idle(&mut self) {
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

    pub(super) fn for_each_active(&mut self, mut visit: impl FnMut(&mut Client)) {
        self.active.iter().for_each(|index| visit(&mut self.all[*index]));
    }

    /// Removes the clients for which `is_over` is true, and calls `visit` with each.
    pub(super) fn remove(
        &mut self,
        is_over: impl Fn(ConnectionState) -> bool,
        visit: impl FnMut(Client),
    ) {
        self.all.extract_if(.., |client| is_over(client.connection.state())).for_each(visit);
        // The indexes have changed. The next poll, of all clients, updates them.
        self.activate_all();
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Client> {
        self.all.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
