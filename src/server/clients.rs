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
    /// Number of active clients. They come first in `all`.
    active_count: usize,
    /// The argument of the last poll.
    fds: Vec<PollFd>,
    last_full_poll: Instant,
}

impl Clients {
    pub(super) fn new() -> Clients {
        let last_full_poll = Instant::now();
        Clients { all: Vec::new(), active_count: 0, fds: Vec::new(), last_full_poll }
    }

    /// Adds a client, which is active.
    pub(super) fn add(&mut self, client: Client) {
        self.all.push(client);
        self.activate(self.all.len() - 1);
    }

    /// Moves the idle client at `index` to the end of the active ones.
    fn activate(&mut self, index: usize) {
        self.all.swap(index, self.active_count);
        self.active_count += 1;
    }

    /// Waits until a client or one of `others` is ready, at most for `timeout`. It
    /// may return earlier, with nothing ready.
    pub(super) fn poll(&mut self, others: &mut [PollFd], timeout: Option<Duration>) -> Result<()> {
        let until_full = FULL_POLL_INTERVAL.saturating_sub(self.last_full_poll.elapsed());
        let limit = (self.active_count > 0).then_some(until_full);
        let is_full = limit.is_none_or(|limit| limit.is_zero());
        if is_full {
            self.active_count = self.all.len();
        }
        self.fds.clear();
        self.fds.extend_from_slice(others);
        self.fds.extend(self.all[..self.active_count].iter().map(Client::poll_fd));
        let timeout = timeout.into_iter().chain(limit).min();
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
        }
    }

    pub(super) fn active(&mut self) -> &mut [Client] {
        &mut self.all[..self.active_count]
    }

    pub(super) fn all(&mut self) -> &mut [Client] {
        &mut self.all
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
