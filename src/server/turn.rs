//! The turn: one pass of the server's loop.
//!
//! Wait, accept, read, execute, commit, send: in this order, since the order is
//! the promise. All writes of a turn share one commit, and no reply of the turn
//! leaves before it, those to reads included: a read may have seen a write.
//!
//! Not here: what a request does ([`execute`](super::execute)), what a commit
//! is ([`durability`](super::durability)), how a server ends
//! ([`end`](super::end)).

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::accept::Acceptor;
use super::chores::SWEEP_INTERVAL;
use super::counters::Counters;
use super::durability::Durability;
use super::execute::{Done, Executor};
use super::options::ServerOptions;
use super::outcome::Answer;
use super::pace::Complaints;
use super::stop::Stop;
use super::table::Table;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};

/// Bytes of requests and replies after which a turn executes no more. With the
/// limit on requests: some milliseconds, which is what a client may have to wait
/// for the others.
const TURN_BYTES_MAX: usize = 1 << 20;
/// Requests after which it does so too, as small ones cost more than their bytes.
/// Several times what many clients in step send at once, so that a turn is still shared.
const TURN_REQUESTS_MAX: u64 = 16 << 10;

/// A server that is running.
#[derive(Debug)]
pub(super) struct Running<E> {
    /// Keys and values.
    pub(super) engine: E,
    /// Its limits.
    pub(super) options: ServerOptions,
    /// Who connects.
    pub(super) acceptor: Acceptor,
    /// Who is connected.
    pub(super) table: Table,
    /// Keeps the other end of what the table asks about.
    _stop: Stop,
    /// What has been done.
    counters: Counters,
    /// When writes are safe.
    pub(super) durability: Durability,
    /// What all clients are read into.
    pub(super) scratch: Vec<u8>,
    /// The client to begin with, so that none is favoured.
    first: usize,
    /// Whether the engine may have housekeeping to do, and since when.
    pub(super) maintain_from: Option<Instant>,
    /// When lingering connections are looked at, if there are any.
    pub(super) sweep_at: Option<Instant>,
    /// How often its errors are logged.
    pub(super) complaints: Complaints,
}

impl<E: KvsEngine> Running<E> {
    /// Everything that a server needs before its first turn.
    pub(super) fn new(
        listener: TcpListener,
        engine: E,
        options: ServerOptions,
        stop: Stop,
    ) -> Running<E> {
        Running {
            engine,
            table: Table::new(stop.fd(), listener.as_raw_fd()),
            acceptor: Acceptor::new(listener),
            _stop: stop,
            counters: Counters::new(),
            durability: Durability::new(options.fsync),
            scratch: vec![0; options.read_bytes_max.max(1)],
            first: 0,
            maintain_from: Some(Instant::now()),
            sweep_at: None,
            complaints: Complaints::default(),
            options,
        }
    }

    /// Takes turns until a client or the stop pipe ends it.
    pub(super) fn run(&mut self) -> Result<()> {
        while !self.table.is_stop_ready() && !self.turn()? {}
        Ok(())
    }

    /// One turn; says whether a client asked for the server's end.
    fn turn(&mut self) -> Result<bool> {
        let before = Instant::now();
        let is_open = self.acceptor.is_open(&self.table, &self.options, before);
        self.table.listen(is_open);
        let timeout = self.timeout(before);
        let ready = self.table.wait(timeout, before).map_err(KvsError::io("cannot poll"))?;
        let now = Instant::now();
        if self.table.is_listener_ready() {
            self.acceptor.accept(&mut self.table, &self.options, &mut self.counters);
        }
        self.fill();
        let has_executed = self.execute(now);
        self.sync_if_due(now);
        self.drain(now);
        self.sweep(now);
        if ready == 0 && !has_executed {
            self.maintain(now);
        }
        Ok(self.table.warm().iter().any(|client| client.connection.awaits_end()))
    }

    /// How long the next wait may be.
    fn timeout(&mut self, now: Instant) -> Option<Duration> {
        if self.table.warm().iter().any(|client| client.connection.can_execute()) {
            return Some(Duration::ZERO);
        }
        let due = [
            self.durability.sync_due(),
            self.maintain_from,
            self.sweep_at,
            self.acceptor.rests_until(),
        ];
        due.into_iter().flatten().min().map(|due| due.saturating_duration_since(now))
    }

    /// Reads once from every client that has something to read.
    fn fill(&mut self) {
        for (client, poll) in self.table.warm_polls() {
            if poll.is_readable() && client.connection.wants_read() {
                client.connection.fill(&mut self.scratch);
            }
            if poll.is_writable() {
                client.connection.unblock();
            }
            // What was found is used up, also if the next wait leaves this one out.
            poll.forget();
        }
    }

    /// Executes the lines of all clients and commits; says whether there were any.
    fn execute(&mut self, now: Instant) -> bool {
        let done = self.execute_lines(now);
        self.counters.requests += done.requests;
        self.counters.turns += u64::from(done.requests > 0);
        if let Some(e) = &done.failure {
            self.complaints.requests.complain(now, "a request failed", e);
        }
        // After it, the engine is settled: reads of a replay see what is kept.
        let committed = if done.wrote { self.commit(now) } else { Ok(()) };
        // Writes of this turn, of whichever client, are undone if their commit failed,
        // and may be if a write after them did, by the engine's own commit: all are
        // answered anew, by what failed last.
        if let Some(e) = committed.err().or(done.failure.filter(|_| done.is_broken)) {
            self.replay(&e);
        }
        for client in self.table.warm() {
            if client.connection.is_uncommitted() {
                client.connection.commit();
            }
        }
        done.requests > 0
    }

    /// Executes the lines of all clients, up to the turn's share. Where a sync
    /// follows, also those that come meanwhile: the more share it, the fewer are needed.
    fn execute_lines(&mut self, now: Instant) -> Done {
        let mut bytes_left = TURN_BYTES_MAX;
        let mut done = self.execute_ready(Done::default(), &mut bytes_left);
        let mut requests_before = 0;
        while self.durability.is_sync_due(done.wrote)
            && done.requests > requests_before
            && bytes_left > 0
            && self.table.wait(Some(Duration::ZERO), now).is_ok_and(|ready| ready > 0)
        {
            requests_before = done.requests;
            self.fill();
            done = self.execute_ready(done, &mut bytes_left);
        }
        done
    }

    /// Executes the lines that have come, each client in its turn to be the
    /// first, after what is `done`.
    fn execute_ready(&mut self, done: Done, bytes_left: &mut usize) -> Done {
        let executor = Executor::new(&self.engine, &self.counters, &self.options);
        let mut executor = executor.after(done).up_to(TURN_REQUESTS_MAX);
        let clients = self.table.warm();
        // Taken modulo the number of clients below.
        self.first += 1;
        for step in 0..clients.len() {
            let index = (self.first + step) % clients.len();
            let connection = &mut clients[index].connection;
            if connection.can_execute() {
                let waiting = connection.waiting_bytes();
                let executed = connection.execute(*bytes_left, &mut executor);
                let replied = connection.waiting_bytes() - waiting;
                *bytes_left = bytes_left.saturating_sub(executed + replied);
            }
            if executor.is_full() {
                *bytes_left = 0;
            }
            if *bytes_left == 0 {
                self.first = index;
                break;
            }
        }
        executor.done()
    }

    /// Makes the turn's writes safe.
    fn commit(&mut self, now: Instant) -> Result<()> {
        self.counters.commits += 1;
        // There may be more to do now.
        self.maintain_from.get_or_insert(now);
        self.durability.commit(&self.engine, now).inspect_err(|e| {
            self.counters.commits_failed += 1;
            self.complaints.commits.complain(now, "the writes of a turn could not be kept", e);
        })
    }

    /// Executes the turn's lines once more, now that the engine has undone its
    /// writes: every set and remove is answered with `why`, whether or not the key
    /// is there, and reads with what is.
    fn replay(&mut self, why: &KvsError) {
        let executor = Executor::new(&self.engine, &self.counters, &self.options);
        let mut executor = executor.refusing_writes(why);
        for client in self.table.warm() {
            if client.connection.is_uncommitted() {
                let executed = client.connection.rollback();
                client.connection.execute(executed, &mut executor);
            }
        }
    }

    /// Sends what is due, and asks for what each client now waits for.
    fn drain(&mut self, now: Instant) {
        for (client, poll) in self.table.warm_polls() {
            let connection = &mut client.connection;
            if connection.can_drain() {
                connection.drain(now);
                if connection.is_lingering() {
                    self.sweep_at.get_or_insert(now + SWEEP_INTERVAL);
                }
            }
            poll.ask(connection.wants_read(), connection.wants_write());
        }
        self.table.remove_dead_warm(|client| self.acceptor.note_departure(client));
        self.counters.clients = self.table.len() as u64;
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
