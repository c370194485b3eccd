//! When the engine is told to flush and to sync: the `--fsync` policies.
//!
//! Not here: what is done about a commit that failed. The syncs that recovery
//! and compaction rest on are the engine's own, whatever the policy.

use std::time::{Duration, Instant};

use super::options::Fsync;
use crate::engine::KvsEngine;
use crate::error::Result;

/// How old an answered write may get before `everysec` has it synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A policy and what it has yet to do.
#[derive(Debug)]
pub(super) struct Durability {
    /// The policy.
    fsync: Fsync,
    /// When the oldest write that is not synced was committed, plus the interval.
    sync_due: Option<Instant>,
}

impl Durability {
    /// A policy with nothing to do.
    pub(super) fn new(fsync: Fsync) -> Durability {
        Durability { fsync, sync_due: None }
    }

    /// Makes the writes of a turn as safe as their replies will say.
    pub(super) fn commit<E: KvsEngine + ?Sized>(&mut self, engine: &E, now: Instant) -> Result<()> {
        match self.fsync {
            Fsync::Always => engine.sync(),
            Fsync::Never => engine.flush(),
            Fsync::EverySec => {
                engine.flush()?;
                self.sync_due.get_or_insert(now + SYNC_INTERVAL);
                Ok(())
            }
        }
    }

    /// Does the sync of `everysec` when it is due. A failed one is not tried
    /// again: the engine refuses writes from then on, and a later sync that
    /// succeeds would say nothing of what the first one lost.
    pub(super) fn sync_if_due<E: KvsEngine + ?Sized>(
        &mut self,
        engine: &E,
        now: Instant,
    ) -> Result<()> {
        if self.sync_due.is_none_or(|due| now < due) {
            return Ok(());
        }
        self.sync_due = None;
        engine.sync()
    }

    /// Whether a turn ends with a sync, given whether it `wrote`.
    pub(super) fn is_sync_due(&self, wrote: bool) -> bool {
        wrote && self.fsync == Fsync::Always
    }

    /// When the next sync is due.
    pub(super) fn sync_due(&self) -> Option<Instant> {
        self.sync_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::MemoryEngine;

    #[test]
    fn always_syncs_and_never_flushes() {
        for (fsync, syncs, flushes) in [(Fsync::Always, 1, 0), (Fsync::Never, 0, 1)] {
            let engine = MemoryEngine::default();
            let now = Instant::now();
            let mut durability = Durability::new(fsync);
            durability.commit(&engine, now).unwrap();
            durability.sync_if_due(&engine, now + SYNC_INTERVAL).unwrap();
            assert_eq!((engine.syncs(), engine.flushes()), (syncs, flushes));
        }
    }

    #[test]
    fn everysec_syncs_a_second_after_the_oldest_write() {
        let engine = MemoryEngine::default();
        let now = Instant::now();
        let mut durability = Durability::new(Fsync::EverySec);
        durability.commit(&engine, now).unwrap();
        durability.commit(&engine, now + SYNC_INTERVAL / 2).unwrap();
        durability.sync_if_due(&engine, now + SYNC_INTERVAL / 2).unwrap();
        assert_eq!((engine.syncs(), engine.flushes()), (0, 2));
        durability.sync_if_due(&engine, now + SYNC_INTERVAL).unwrap();
        durability.sync_if_due(&engine, now + SYNC_INTERVAL * 2).unwrap();
        assert_eq!(engine.syncs(), 1);
        assert_eq!(durability.sync_due(), None);
    }

    #[test]
    fn a_failed_sync_is_not_tried_again() {
        let engine = MemoryEngine::default();
        let now = Instant::now();
        let mut durability = Durability::new(Fsync::EverySec);
        durability.commit(&engine, now).unwrap();
        engine.fail_next_commit();
        assert!(durability.sync_if_due(&engine, now + SYNC_INTERVAL).is_err());
        assert!(durability.sync_if_due(&engine, now + SYNC_INTERVAL).is_ok());
    }
}
