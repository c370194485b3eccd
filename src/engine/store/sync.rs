//! Durability: fsyncs of the log, and the removal of cleaned segments.
//!
//! [`Log::sync`] fsyncs what the caller waits for. Everything else runs on the
//! helper thread, one job at a time: the removal of cleaned segments, the fsync of full
//! segments, and the fsync of `everysec`.
//!
//! Not here: what is written ([`log`](super::log)).
//!
//! Invariants:
//! * Segments are fsynced in order, then the directory. Only then does `synced`
//!   advance (`every_power_loss_leaves_what_was_synced`).
//! * [`Log::sync`] waits for an fsync in the background before it fsyncs, because the
//!   kernel reports a write error to one of them only
//!   (`after_a_failed_sync_every_call_fails`).
//! * The directory is fsynced after each removal, before the next one
//!   (`every_power_loss_leaves_what_was_synced`).

use std::time::{Duration, Instant};

use super::fs::{Fs, Task};
use super::log::Log;
use super::record::Position;
use super::segment::Segment;
use crate::error::{KvsError, Result};
use crate::logger;

/// Maximum number of cleaned segments while a removal runs. With more, the caller waits
/// for the removal.
const CLEANED_MAX: usize = 8;
/// Time until cleaning or a removal that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the helper thread does.
pub(super) enum Work {
    /// Fsyncs segments. Afterwards everything before this position is on disk.
    Sync(Position),
    /// Removes this number of the oldest segments.
    Remove(usize),
}

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
        if let Some((_, Work::Sync(_))) = self.background {
            self.end_background(true)?;
        }
        self.syncs += 1;
        let files: Result<()> = self.unsynced().try_for_each(|segment| segment.sync());
        self.fail(files)?;
        if self.is_directory_unsynced {
            let names = self.directory.sync();
            self.fail(names)?;
            self.is_directory_unsynced = false;
        }
        self.synced = self.end();
        self.is_sync_due = false;
        Ok(())
    }

    /// The segments with bytes that are not known to be on disk, oldest first.
    fn unsynced(&self) -> impl Iterator<Item = &Segment<D::File>> {
        let synced = self.synced;
        self.segments.iter().filter(move |it| it.end() > synced)
    }

    /// Starts what is due in the background, unless something is under way. The active
    /// segment is fsynced only if `is_sync_due`.
    pub(super) fn start_background(&mut self) {
        if self.background.is_some() || self.failed.is_some() {
            return;
        }
        let synced = self.synced;
        let mut job = self.directory.job();
        let is_removable = |it: &&mut Segment<_>| it.cleaned.is_some_and(|end| end <= synced);
        if !self.is_retry_pending() {
            for segment in self.segments.iter_mut().take_while(is_removable) {
                job.remove.push(segment.path.clone());
                job.close.extend(segment.file.take());
            }
        }
        let work = if job.remove.is_empty() {
            let with_active = std::mem::take(&mut self.is_sync_due);
            let (active, mut covered) = (self.active().number, synced);
            for segment in self.unsynced().filter(|it| with_active || it.number != active) {
                job.sync_files.extend(segment.file.clone());
                covered = segment.end();
            }
            if covered == synced {
                return;
            }
            job.sync_directory = std::mem::take(&mut self.is_directory_unsynced);
            Work::Sync(covered)
        } else {
            Work::Remove(job.remove.len())
        };
        self.background = Some((self.directory.fs().start(job), work));
    }

    /// Handles the result of the job in the background, if it has ended. Waits for its end
    /// if `wait`.
    ///
    /// # Errors
    ///
    /// Every error is fatal. A failed removal is not an error: it is tried again.
    pub(super) fn end_background(&mut self, wait: bool) -> Result<()> {
        let Some((task, work)) = &mut self.background else { return Ok(()) };
        let Some(result) = task.result(wait) else { return Ok(()) };
        let path = self.directory.path();
        match *work {
            Work::Remove(count) => {
                self.background = None;
                // Only a removal itself may be tried again, and not the fsync after it.
                let is_fatal = result.as_ref().is_err_and(|error| error.raw_os_error().is_none());
                match result.map_err(KvsError::cannot("remove segments in", path)) {
                    Ok(()) => drop(self.segments.drain(..count)),
                    removed if is_fatal => self.fail(removed)?,
                    Err(error) => self.note_error(&error),
                }
            }
            Work::Sync(covered) => {
                self.background = None;
                self.fail(result.map_err(KvsError::cannot("fsync segments in", path)))?;
                self.synced = self.synced.max(covered);
            }
        }
        Ok(())
    }

    /// Goes on with fsyncs and removals in the background. Waits for the removal while
    /// the disk is full.
    pub(super) fn run_background(&mut self) -> Result<()> {
        let cleaned = self.cleaned_count();
        let is_short = self.must_free_space() && cleaned > 0;
        if is_short {
            self.sync()?;
            self.retry = None;
        }
        let is_removing = matches!(self.background, Some((_, Work::Remove(_))));
        self.end_background(is_short || is_removing && cleaned > CLEANED_MAX)?;
        let newest = self.cleaned_count().checked_sub(1).map(|at| &self.segments[at]);
        self.is_sync_due |= newest.is_some_and(|newest| newest.cleaned > Some(self.synced));
        self.start_background();
        if is_short { self.end_background(true) } else { Ok(()) }
    }

    /// Number of the oldest segments that are cleaned and wait for their removal.
    pub(super) fn cleaned_count(&self) -> usize {
        self.segments.iter().take_while(|segment| segment.cleaned.is_some()).count()
    }

    /// Logs a failure of cleaning or of a removal, and schedules a retry in a second. After
    /// damage, compaction ends instead.
    pub(super) fn note_error(&mut self, error: &KvsError) {
        self.retry = Some(Instant::now() + RETRY);
        let cause = error.chain().join(": ");
        match error {
            KvsError::Corrupt { .. } => {
                logger::error!("compaction ends until the store is opened again: {cause}");
            }
            _ => logger::warn!("compaction is tried again in a second: {cause}"),
        }
    }

    /// Returns true while a retry is scheduled and not due.
    pub(super) fn is_retry_pending(&self) -> bool {
        self.retry.is_some_and(|at| Instant::now() < at)
    }

    /// Writes and fsyncs everything, with a `Checkpoint` at the end, ends the work in the
    /// background, and gives unused space back.
    pub(super) fn close(&mut self) -> Result<()> {
        self.sync()?;
        self.start_background();
        while self.background.is_some() {
            self.end_background(true)?;
            self.start_background();
        }
        if self.checkpointed < self.end() {
            self.write_checkpoint()?;
        }
        self.reserve.remove(&self.directory)?;
        let end = self.end();
        let active = self.active_mut();
        let is_trimmed = active.allocated == u64::from(active.len);
        active.trim(active.len)?;
        if self.synced == end && is_trimmed { Ok(()) } else { self.active().sync() }
    }
}
