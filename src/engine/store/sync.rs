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

use std::io;
use std::time::{Duration, Instant};

use super::background::DirectoryMoved;
use super::fs::{Fs, Task};
use super::log::Log;
use super::record::Position;
use super::segment::Segment;
use crate::error::{KvsError, Result};
use crate::logger;

/// Files that may wait for their removal before the caller waits too.
const REMOVALS_MAX: usize = 8;
/// Time until a failed removal is tried again.
const REMOVAL_RETRY: Duration = Duration::from_secs(1);

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
        self.wait_for_sync()?;
        self.syncs += 1;
        let files: Result<()> = self.unsynced().try_for_each(|segment| segment.sync());
        self.fail(files)?;
        if self.has_unsynced_name {
            let names = self.directory.sync();
            self.fail(names)?;
            self.has_unsynced_name = false;
        }
        self.synced = self.end();
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
    /// one if `with_active`. Only one runs at a time.
    pub(super) fn start_sync(&mut self, with_active: bool) {
        if self.sync_task.is_some() || self.failed.is_some() {
            return;
        }
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

    /// Waits for the fsync in the background.
    pub(super) fn wait_for_sync(&mut self) -> Result<()> {
        let Some((task, covered)) = self.sync_task.take() else { return Ok(()) };
        let synced = task.wait().map_err(KvsError::io("cannot fsync in the background"));
        self.fail(synced)?;
        self.synced = self.synced.max(covered);
        self.is_checkpoint_due = self.synced < self.staged_end();
        Ok(())
    }

    /// Takes note of jobs in the background that have ended.
    pub(super) fn poll_tasks(&mut self) -> Result<()> {
        if self.sync_task.as_mut().is_some_and(|(task, _)| task.is_done()) {
            self.wait_for_sync()?;
            // Segments that became full meanwhile.
            self.start_sync(false);
        }
        if self.removal_task.as_mut().is_some_and(|(task, _)| task.is_done()) {
            self.wait_for_removal()?;
        }
        if !self.removals.is_empty() && self.removal_task.is_none() {
            self.start_removal();
        }
        Ok(())
    }

    /// Returns true while files are being removed.
    pub(super) fn is_removing(&self) -> bool {
        self.removal_task.is_some()
    }

    /// Removes the oldest segment, which holds nothing live, in the background.
    pub(super) fn remove_oldest(&mut self) -> Result<()> {
        let Some(oldest) = self.older.pop_front() else { return Ok(()) };
        self.older_bytes -= u64::from(oldest.len);
        self.opened.retain(|number| *number != oldest.number);
        self.removals.push_back((oldest.path, oldest.file));
        if self.removals.len() > REMOVALS_MAX {
            self.wait_for_removal()?;
        }
        if self.removal_task.is_none() {
            self.start_removal();
        }
        Ok(())
    }

    /// Starts the removals that are due, unless the last try failed just now.
    fn start_removal(&mut self) {
        if self.removal_retry.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let mut job = self.directory.job();
        for (path, file) in &mut self.removals {
            job.remove.push(path.clone());
            job.close.extend(file.take());
        }
        let count = job.remove.len();
        self.removal_task = Some((self.directory.fs().start(job), count));
    }

    /// Waits for the removal in the background. One that failed is tried again.
    fn wait_for_removal(&mut self) -> Result<()> {
        let Some((task, count)) = self.removal_task.take() else { return Ok(()) };
        self.removal_retry = None;
        match task.wait() {
            Ok(()) => drop(self.removals.drain(..count)),
            Err(error) if is_moved(&error) => {
                let moved = Err(self.directory.moved());
                return self.fail(moved);
            }
            Err(error) => {
                logger::warn!("a cleaned segment could not be removed yet: {error}");
                self.removal_retry = Some(Instant::now() + REMOVAL_RETRY);
            }
        }
        Ok(())
    }

    /// Waits until the files that are due are removed, or could not be.
    pub(super) fn finish_removals(&mut self) -> Result<()> {
        self.wait_for_removal()?;
        if !self.removals.is_empty() {
            self.start_removal();
        }
        self.wait_for_removal()
    }

    /// Writes and fsyncs everything, with a `Checkpoint` at the end, and gives
    /// unused space back.
    pub(super) fn close(&mut self) -> Result<()> {
        self.sync()?;
        if !self.ends_with_checkpoint {
            self.stage_checkpoint()?;
            self.write()?;
        }
        self.finish_removals()?;
        self.reserve.remove(&self.directory)?;
        let is_trimmed = self.active.allocated == u64::from(self.active.len);
        self.active.trim()?;
        if self.synced == self.end() && is_trimmed { Ok(()) } else { self.active.sync() }
    }
}

/// Returns true if an error says that the directory was moved.
pub(super) fn is_moved(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<DirectoryMoved>())
}
