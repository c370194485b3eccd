//! The event loop: one thread serves all clients.
//!
//! One iteration: poll, accept, read, execute, commit, send. The order is the
//! promise: all writes of an iteration share one commit, and no reply is sent
//! before it, not even to a read, because the read may have seen a write.
//!
//! A failed commit is fatal, because the state of the disk is unknown. None of
//! the iteration's replies is sent, and the server stops with the error. The next
//! start decides from what is on disk (`a_failed_sync_acknowledges_nothing`).

use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::ServerOptions;
use super::clients::Clients;
use super::commit::Committer;
use super::connection::ConnectionState;
use super::execute::Executor;
use super::listener::Listener;
use super::shutdown::{Stop, shut_down};
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::logger::{RateLimit, error};
use crate::poll::PollFd;

/// Messages about failed requests in a second.
const FAILURE_MESSAGES_MAX: u32 = 10;

/// A running server.
pub(super) struct EventLoop<E> {
    stop: Stop,
    listener: Listener,
    clients: Clients,
    executor: Executor<E>,
    committer: Committer,
    /// All clients are read into this buffer.
    buffer: Vec<u8>,
    /// Whether a connection can execute more lines without a poll.
    has_more: bool,
    log_limit: RateLimit,
}

impl<E: KvsEngine> EventLoop<E> {
    pub(super) fn new(
        listener: TcpListener,
        engine: E,
        options: ServerOptions,
        stop: Stop,
    ) -> EventLoop<E> {
        let options = Rc::new(options);
        EventLoop {
            stop,
            listener: Listener::new(listener, &options),
            clients: Clients::new(),
            executor: Executor::new(engine, &options),
            committer: Committer::new(options.fsync),
            buffer: vec![0; options.read_bytes_max],
            has_more: false,
            log_limit: RateLimit::new(FAILURE_MESSAGES_MAX),
        }
    }

    /// Serves until a client or the stop pipe asks for shutdown.
    pub(super) fn run(mut self) -> Result<()> {
        loop {
            match self.run_once() {
                Ok(true) => {}
                Ok(false) => {
                    let engine = self.executor.engine;
                    return shut_down(engine, self.listener, self.clients, &mut self.buffer);
                }
                Err(e) => {
                    error!("the server stops without replying: {}", e.chain().join(": "));
                    return Err(e);
                }
            }
        }
    }

    /// One iteration. Returns whether another one follows.
    fn run_once(&mut self) -> Result<bool> {
        let stop = self.stop.fd().map_or(PollFd::none(), |fd| PollFd::new(fd, true, false));
        let fixed = [stop, self.listener.poll_fd(self.clients.len())];
        let timeout = self.timeout();
        let polled = self.clients.poll(fixed, timeout);
        let [stop, listener] = polled.map_err(KvsError::io("cannot poll"))?;
        if stop.is_ready() {
            return Ok(false);
        }
        if listener.is_readable() {
            self.listener.accept(&mut self.clients, &mut self.executor.counters);
        }
        let now = Instant::now();
        self.execute()?;
        self.commit(now)?;
        let continues = self.send(now);
        self.committer.run_due(&self.executor.engine, now)?;
        Ok(continues)
    }

    /// How long the next poll may wait.
    fn timeout(&self) -> Option<Duration> {
        if self.has_more {
            return Some(Duration::ZERO);
        }
        let due = self.committer.due().into_iter().chain(self.listener.due()).min();
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Reads and executes what the clients have sent.
    fn execute(&mut self) -> Result<()> {
        let mut executed = self.executor.counters.requests;
        self.read_and_execute();
        self.executor.counters.iterations += u64::from(self.executor.counters.requests > executed);
        // Requests that have arrived meanwhile share the commit. The limit on what is
        // read from each client in an iteration ends this loop.
        while self.executor.wrote
            && self.executor.counters.requests > executed
            && self.committer.gains_from_more_writes()
        {
            executed = self.executor.counters.requests;
            self.clients.poll_again().map_err(KvsError::io("cannot poll"))?;
            self.read_and_execute();
        }
        Ok(())
    }

    fn read_and_execute(&mut self) {
        self.clients.for_each_active(|client| {
            client.connection.read(&mut self.buffer);
            client.connection.execute(&mut self.executor);
        });
    }

    /// Commits the writes. After a failed request too: a commit shows whether the
    /// engine still works.
    fn commit(&mut self, now: Instant) -> Result<()> {
        let Executor { engine, counters, wrote, failure, .. } = &mut self.executor;
        if !std::mem::take(wrote) && failure.is_none() {
            return Ok(());
        }
        match failure.take() {
            Some(e @ KvsError::Failed { .. }) => return Err(e),
            Some(e) => self.log_limit.run(|| error!("a request failed: {}", e.chain().join(": "))),
            None => {}
        }
        counters.commits += 1;
        self.committer.commit(engine, now)
    }

    /// Sends the replies. Returns false if a client has asked for shutdown.
    fn send(&mut self, now: Instant) -> bool {
        let (mut is_any_closed, mut continues) = (false, true);
        self.has_more = false;
        self.clients.for_each_active(|client| {
            client.connection.send(now);
            self.has_more |= client.connection.can_execute();
            match client.connection.state() {
                ConnectionState::Closed => is_any_closed = true,
                ConnectionState::AwaitingShutdown(_) => continues = false,
                _ => {}
            }
        });
        if is_any_closed {
            let is_closed = |state| state == ConnectionState::Closed;
            self.clients.remove(is_closed, |client| self.listener.note_departure(client));
            self.executor.counters.clients = self.clients.len() as u64;
        }
        continues
    }
}

#[cfg(test)]
#[path = "event_loop_tests.rs"]
mod tests;
