//! What a turn does beside its requests: the sync of `everysec`, the engine's
//! housekeeping, and the end of connections that linger.
//!
//! Not here: when a turn does it ([`turn`](super::turn)).

use std::time::{Duration, Instant};

use super::turn::Running;
use crate::engine::KvsEngine;
use crate::logger::error;

/// How often connections that are closed but not gone are looked at.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// How long housekeeping pauses after an error, so that it does not spin.
pub(super) const MAINTAIN_PAUSE: Duration = Duration::from_secs(1);

impl<E: KvsEngine> Running<E> {
    /// Does the sync of `everysec`. Its writes are answered already, so that a
    /// failure can only be logged, with what is known: whether they are lost, the
    /// engine says itself, by refusing writes from then on.
    pub(super) fn sync_if_due(&mut self, now: Instant) {
        match self.durability.sync_if_due(&self.engine, now) {
            // The engine may have something to note about what is on the disk now.
            Ok(true) => drop(self.maintain_from.get_or_insert(now)),
            Ok(false) => {}
            Err(e) => {
                error!("answered writes are not known to be on the disk: {}", e.chain().join(": "));
            }
        }
    }

    /// Drops the connections that have lingered long enough.
    pub(super) fn sweep(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        self.table.all().iter_mut().for_each(|client| client.connection.expire(now));
        self.table.remove_all(
            |client| client.connection.is_dead(),
            |client| self.acceptor.note_departure(client),
        );
        let is_any_left = self.table.all().iter().any(|client| client.connection.is_lingering());
        self.sweep_at = is_any_left.then(|| now + SWEEP_INTERVAL);
    }

    /// Does a step of the engine's housekeeping in a turn that has nothing else
    /// to do.
    pub(super) fn maintain(&mut self, now: Instant) {
        if self.maintain_from.is_none_or(|from| now < from) {
            return;
        }
        self.maintain_from = match self.engine.maintain() {
            Ok(has_more) => has_more.then_some(now),
            Err(e) => {
                self.complaints.housekeeping.complain(now, "housekeeping failed", &e);
                Some(now + MAINTAIN_PAUSE)
            }
        };
    }
}
