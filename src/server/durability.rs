//! When the engine is told to flush and to sync: the `--fsync` policies.
//!
//! Not here: what is done about a commit that failed. The syncs that recovery
//! and compaction rest on are the engine's own, whatever the policy.

use std::time::{Duration, Instant};

use super::options::Fsync;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};

/// How old an answered write may get before `everysec` has it synced, and how long
/// after a sync that failed it tries again.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A policy and what it has yet to do.
#[derive(Debug)]
pub(super) struct Durability {
    /// The policy.
    fsync: Fsync,
    /// When `everysec` syncs next, if a write is to be synced.
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

    /// Does the sync of `everysec` when it is due; whether it was. One that failed is due again, as
    /// it may have been for want of room, after which the engine goes on. Where
    /// it lost something the engine refuses to sync as it refuses writes: then
    /// there is nothing to wait for.
    pub(super) fn sync_if_due<E: KvsEngine + ?Sized>(
        &mut self,
        engine: &E,
        now: Instant,
    ) -> Result<bool> {
        if self.sync_due.is_none_or(|due| now < due) {
            return Ok(false);
        }
        let synced = engine.sync();
        let is_over = matches!(synced, Ok(()) | Err(KvsError::Failed { .. }));
        self.sync_due = (!is_over).then(|| now + SYNC_INTERVAL);
        synced.map(|()| true)
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
    fn a_sync_that_failed_is_tried_again_until_it_succeeds_or_the_engine_refuses() {
        for refuses in [false, true] {
            let engine = MemoryEngine::default();
            let now = Instant::now();
            let mut durability = Durability::new(Fsync::EverySec);
            durability.commit(&engine, now).unwrap();
            engine.fail_next();
            assert!(durability.sync_if_due(&engine, now + SYNC_INTERVAL).is_err());
            assert_eq!(durability.sync_due(), Some(now + 2 * SYNC_INTERVAL));
            engine.refuse_writes(refuses);
            let again = durability.sync_if_due(&engine, now + 2 * SYNC_INTERVAL);
            assert_eq!((again.is_err(), engine.syncs()), (refuses, 2));
            assert_eq!(durability.sync_due(), None);
        }
    }
}
