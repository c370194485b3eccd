//! The connected clients, and which of them are polled.
//!
//! The cost of `poll` grows with the number of descriptors. So most polls include only
//! *active* clients: those that were ready in the last second, or have something to do.
//! All are polled every 3 ms, so the first request of an idle client may wait as long.
//!
//! Invariants:
//! * An idle client that is ready becomes active within [`FULL_POLL_INTERVAL`]
//!   (`an_idle_client_becomes_active_again`).
//! * A client that becomes idle frees unused memory
//!   (`an_idle_client_frees_its_memory`).

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::connection::ConnectionState::{Closed, Lingering};
use crate::error::{KvsError, Result};
use crate::logger::{Level, write_limited};
use crate::poll::{self, PollFd};

/// How often all clients are polled while some are active.
const FULL_POLL_INTERVAL: Duration = Duration::from_millis(3);
/// How long a client stays active after it was ready.
const ACTIVE_TIME: Duration = Duration::from_secs(1);

/// A connected client.
pub(super) type Client = Connection<TcpStream>;

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
    pub(super) fn poll(
        &mut self,
        fixed: [PollFd; 2],
        timeout: Option<Duration>,
    ) -> Result<[PollFd; 2]> {
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
            let (all, now) = (&mut self.all, self.last_full_poll);
            self.active.retain(|index| all[*index].stay_active(now, ACTIVE_TIME));
        }
        Ok(fixed)
    }

    /// Polls the active clients only.
    pub(super) fn poll_active(
        &mut self,
        fixed: [PollFd; 2],
        timeout: Option<Duration>,
    ) -> Result<[PollFd; 2]> {
        self.fds.clear();
        self.fds.extend(fixed);
        self.fds.extend(self.active.iter().map(|index| self.all[*index].poll_fd()));
        poll::wait(&mut self.fds, timeout).map_err(KvsError::io("cannot poll"))?;
        let now = Instant::now();
        for (fd, index) in self.fds[fixed.len()..].iter().zip(&self.active) {
            self.all[*index].note_ready(fd.is_readable(), fd.is_writable(), now);
        }
        Ok([self.fds[0], self.fds[1]])
    }

    fn activate_all(&mut self) {
        self.active.clear();
        self.active.extend(0..self.all.len());
    }

    pub(super) fn for_each_active(&mut self, mut visit: impl FnMut(&mut Client)) {
        self.active.iter().for_each(|index| visit(&mut self.all[*index]));
    }

    /// Removes the clients that are closed.
    pub(super) fn remove_closed(&mut self) {
        for client in self.all.extract_if(.., |client| client.state == Closed) {
            write_limited(Level::Debug, format_args!("{}: disconnected", client.peer));
        }
        // The indexes have changed. The next poll, of all clients, updates them.
        self.activate_all();
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Client> {
        self.all.iter_mut()
    }

    /// Number of connections, with those that are only closed in order.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Number of clients that are served, or wait for replies.
    pub(super) fn served_count(&self) -> usize {
        self.all.iter().filter(|it| !matches!(it.state, Lingering { .. } | Closed)).count()
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
