//! When the engine flushes, syncs and maintains itself.
//!
//! [`event_loop`](super::event_loop) calls these methods once per iteration. An
//! error that they return is fatal: the state of the disk is unknown.
//!
//! Housekeeping: after each iteration that wrote, the engine does one step, so that
//! a server that is never idle reclaims space. If there is more to do, the next
//! step follows after 1 ms: the engine may only be waiting for a background fsync,
//! so the loop must not spin. A second after the last write the engine does one
//! more step, and can record that everything is on disk. After that, an idle server
//! is not woken (`an_idle_server_is_not_woken`).

use std::time::{Duration, Instant};

use super::Fsync;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::logger::{RateLimit, error};

/// Maximum age of an unsynced write under `everysec`, time from the last write to
/// the last step, and pause after a step that failed.
const SECOND: Duration = Duration::from_secs(1);
/// Pause between two steps of housekeeping.
const STEP_PAUSE: Duration = Duration::from_millis(1);

/// Tracks which call of the engine is due when.
#[derive(Debug)]
pub(super) struct Committer {
    fsync: Fsync,
    /// When `everysec` syncs.
    sync_at: Option<Instant>,
    /// When the next step of housekeeping is due.
    maintain_at: Option<Instant>,
    last_write: Instant,
    /// Whether the last step failed. It is then retried after a second only.
    has_failed: bool,
    log_limit: RateLimit,
}

impl Committer {
    /// Housekeeping is due at the start.
    pub(super) fn new(fsync: Fsync) -> Committer {
        let now = Instant::now();
        Committer {
            fsync,
            sync_at: None,
            maintain_at: Some(now),
            last_write: now,
            has_failed: false,
            log_limit: RateLimit::new(1),
        }
    }

    /// Whether requests that arrive meanwhile should join the next commit: under
    /// `always`, one fsync then covers more writes.
    pub(super) fn gains_from_more_writes(&self) -> bool {
        self.fsync == Fsync::Always
    }

    /// Makes the writes of an iteration as durable as their replies promise.
    pub(super) fn commit(&mut self, engine: &impl KvsEngine, now: Instant) -> Result<()> {
        self.last_write = now;
        if !self.has_failed {
            self.maintain_at = Some(now);
        }
        match self.fsync {
            Fsync::Always => return engine.sync(),
            Fsync::EverySec => drop(self.sync_at.get_or_insert(now + SECOND)),
            Fsync::Never => {}
        }
        engine.flush()
    }

    /// Starts the sync of `everysec` and a step of housekeeping, if they are due.
    pub(super) fn run_due(&mut self, engine: &impl KvsEngine, now: Instant) -> Result<()> {
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync_at = None;
            engine.sync_in_background()?;
        }
        if self.maintain_at.is_some_and(|at| at <= now) {
            self.maintain(engine, now)?;
        }
        Ok(())
    }

    /// Does a step of housekeeping.
    fn maintain(&mut self, engine: &impl KvsEngine, now: Instant) -> Result<()> {
        let step = engine.maintain();
        self.has_failed = step.is_err();
        self.maintain_at = match step {
            Ok(true) => Some(now + STEP_PAUSE),
            Ok(false) => Some(self.last_write + SECOND).filter(|at| now < *at),
            Err(e @ KvsError::Failed { .. }) => return Err(e),
            Err(e) => {
                self.log_limit.run(|| error!("housekeeping failed: {}", e.chain().join(": ")));
                Some(now + SECOND)
            }
        };
        Ok(())
    }

    /// When the next call is due.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.sync_at, self.maintain_at].into_iter().flatten().min()
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
