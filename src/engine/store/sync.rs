//! Durability: fsyncs of the log, and the removal of cleaned segments.
//!
//! [`Log::sync`] fsyncs what the caller waits for. Everything else runs on the
//! helper thread: the fsync of full segments, the fsync of `everysec`, and the
//! removal of files.
//!
//! Not here: what is written ([`log`](super::log)).
//!
//! Invariants:
//! * Segments are fsynced in order, then their names. Only then does `synced`
//!   advance (`every_power_loss_leaves_what_was_synced`).
//! * An fsync in the background is waited for before another one counts, because
//!   the kernel reports a write error to one of them only
//!   (`after_a_failed_sync_every_call_fails`).
//! * The directory is fsynced after each removal, before the next one
//!   (`every_power_loss_leaves_what_was_synced`).

use super::fs::{Fs, Task};
use super::log::Log;
use super::record::Position;
use super::segment::Segment;
use crate::error::{KvsError, Result};

impl<D: Fs> Log<D> {
    /// Writes and fsyncs everything.
    ///
    /// # Errors
    ///
    /// Every error is fatal.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.write()?;
        if self.synced == self.end() {
            return Ok(());
        }
        self.end_sync(true)?;
        self.syncs += 1;
        let files: Result<()> = self.unsynced().try_for_each(|segment| segment.sync());
        self.fail(files)?;
        if self.has_unsynced_name {
            let names = self.directory.sync();
            self.fail(names)?;
            self.has_unsynced_name = false;
        }
        self.synced = self.end();
        self.is_sync_due = false;
        self.is_checkpoint_due = false;
        Ok(())
    }

    /// The segments with bytes that are not known to be on disk, oldest first.
    fn unsynced(&self) -> impl Iterator<Item = &Segment<D::File>> {
        let synced = self.synced;
        let all = self.older.iter().chain([&self.active]);
        all.filter(move |it| Position { segment: it.number, offset: it.len } > synced)
    }

    /// Starts an fsync in the background: of the full segments, and of the active
    /// one if `with_active`. Only one runs at a time, so this one may have to wait for
    /// a later call.
    pub(super) fn start_sync(&mut self, with_active: bool) {
        self.is_sync_due |= with_active;
        if self.sync_task.is_some() || self.failed.is_some() {
            return;
        }
        let with_active = std::mem::take(&mut self.is_sync_due);
        let active = self.active.number;
        let mut job = self.directory.job();
        let mut covered = self.synced;
        for segment in self.unsynced().filter(|it| with_active || it.number != active) {
            job.sync_files.extend(segment.file.clone());
            covered = Position { segment: segment.number, offset: segment.len };
        }
        if covered > self.synced {
            job.sync_directory = std::mem::take(&mut self.has_unsynced_name);
            self.sync_task = Some((self.directory.fs().start(job), covered));
        }
    }

    /// Takes note of the fsync in the background, if it has ended. Waits for it if
    /// `wait`.
    pub(super) fn end_sync(&mut self, wait: bool) -> Result<()> {
        let Some((task, covered)) = &mut self.sync_task else { return Ok(()) };
        let (Some(result), covered) = (task.result(wait), *covered) else { return Ok(()) };
        self.sync_task = None;
        self.fail(result.map_err(KvsError::cannot("fsync segments in", self.directory.path())))?;
        self.synced = self.synced.max(covered);
        self.is_checkpoint_due = self.synced < self.staged_end();
        Ok(())
    }

    /// Starts the removal of the files of the oldest segments, which hold nothing live.
    pub(super) fn start_removal(&mut self, count: usize) -> D::Task {
        let mut job = self.directory.job();
        for segment in self.older.iter_mut().take(count) {
            job.remove.push(segment.path.clone());
            job.close.extend(segment.file.take());
        }
        self.directory.fs().start(job)
    }

    /// Writes and fsyncs everything, with a `Checkpoint` at the end, and gives
    /// unused space back.
    pub(super) fn close(&mut self) -> Result<()> {
        self.sync()?;
        if !self.ends_with_checkpoint && !self.is_empty() {
            self.write_checkpoint()?;
        }
        self.reserve.remove(&self.directory)?;
        let is_trimmed = self.active.allocated == u64::from(self.active.len);
        self.active.trim(self.active.len)?;
        if self.synced == self.end() && is_trimmed { Ok(()) } else { self.active.sync() }
    }
}
