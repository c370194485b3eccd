//! The event loop: one thread serves all clients.
//!
//! One iteration: poll, accept, read, execute, commit, send. All writes of an
//! iteration share one commit. No reply is sent before it, not even to a read, because
//! the read may have seen a write.
//!
//! A failed commit is fatal, because the state of the disk is unknown. None of the
//! iteration's replies is sent, and the server stops with the error. The next start
//! finds each write of the iteration either complete or missing
//! (`a_failed_sync_acknowledges_nothing`).
//!
//! After each iteration that wrote, the engine does one step of housekeeping. While
//! there is more to do, the next step follows after 1 ms, because the engine may be
//! waiting for an fsync. An idle server does a step a second: the engine can record
//! that everything is on disk, or retry what failed (`an_idle_server_rests`).

use std::time::{Duration, Instant};

use super::clients::Client;
use super::connection::ConnectionState::AwaitingShutdown;
use super::{Fsync, KvsServer, Stop};
use crate::engine::KvsEngine;
use crate::error::Result;

/// Age of an unsynced write at which `everysec` starts an fsync, and pause between two steps
/// of housekeeping while the server is idle.
const SECOND: Duration = Duration::from_secs(1);
/// Maximum number of times that an iteration polls for more requests that share its fsync.
/// More would delay the requests that wait already.
const ROUNDS_MAX: u32 = 16;
/// Pause between two steps of housekeeping while there is more to do.
const STEP_PAUSE: Duration = Duration::from_millis(1);

impl<E: KvsEngine + ?Sized> KvsServer<E> {
    /// One iteration. Returns whether another one follows.
    pub(super) fn run_once(&mut self, stop: &Stop) -> Result<bool> {
        let mut fds = [stop.poll_fd(), self.clients.listener_fd(&self.listener)];
        let timeout = self.timeout();
        self.clients.poll(&mut fds, timeout)?;
        let [stop, listener] = fds;
        if stop.is_readable() {
            return Ok(false);
        }
        if listener.is_readable() {
            self.clients.accept(&self.listener, &mut self.executor.counters);
        }
        let now = Instant::now();
        self.execute()?;
        if std::mem::take(&mut self.executor.needs_commit) {
            self.commit(now)?;
        }
        self.clients.active().iter_mut().for_each(Client::send);
        self.clients.remove_closed();
        self.run_due(now)?;
        let awaits_shutdown = |client: &Client| matches!(client.state, AwaitingShutdown(_));
        Ok(!self.clients.active().iter().any(awaits_shutdown))
    }

    /// How long the next poll may wait.
    fn timeout(&mut self) -> Duration {
        if self.clients.active().iter().any(Client::can_execute) {
            return Duration::ZERO;
        }
        let others = [self.sync_at, self.clients.paused_until].into_iter().flatten();
        others.fold(self.maintain_at, Instant::min).saturating_duration_since(Instant::now())
    }

    /// Reads and executes what the clients have sent.
    fn execute(&mut self) -> Result<()> {
        let before = self.executor.counters.requests;
        self.executor.counters.clients = self.clients.all().len() as u64;
        for _ in 0..ROUNDS_MAX {
            let executed = self.executor.counters.requests;
            for client in self.clients.active() {
                client.read(&mut self.buffer);
                client.execute(&mut self.executor);
            }
            let fsyncs = self.executor.options.fsync == Fsync::Always;
            let waits_for_fsync = self.executor.needs_commit && fsyncs;
            if self.executor.counters.requests == executed || !waits_for_fsync {
                break;
            }
            // Requests that have arrived meanwhile share the fsync.
            self.clients.poll(&mut [], Duration::ZERO)?;
        }
        let counters = &mut self.executor.counters;
        counters.iterations += u64::from(counters.requests > before);
        Ok(())
    }

    /// Makes the writes of an iteration as durable as their replies promise.
    fn commit(&mut self, now: Instant) -> Result<()> {
        self.executor.counters.commits += 1;
        self.maintain_at = now;
        match self.executor.options.fsync {
            Fsync::Always => return self.executor.engine.sync(),
            Fsync::EverySec => _ = self.sync_at.get_or_insert(now + SECOND),
            Fsync::Never => {}
        }
        self.executor.engine.flush()
    }

    /// Starts the sync of `everysec` and a step of housekeeping, if they are due.
    fn run_due(&mut self, now: Instant) -> Result<()> {
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync_at = None;
            self.executor.engine.sync_in_background()?;
        }
        if self.maintain_at <= now {
            let has_more = self.executor.engine.maintain()?;
            self.maintain_at = now + if has_more { STEP_PAUSE } else { SECOND };
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "event_loop_tests.rs"]
mod tests;
