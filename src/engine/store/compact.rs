//! Compaction: dead bytes come back by cleaning the oldest segment.
//!
//! Live records of the oldest segment are appended at the head, the rest is
//! dropped, and the file is removed once a sync has covered the copies. Oldest
//! first makes two things simple. Replay order stays right, as a copy is the
//! newest record of its key. And a tombstone is always dropped, as nothing older
//! is left that it must hide.
//!
//! It begins when more than half of all bytes are dead (and the threshold is
//! passed) and goes on in small steps. Each write pays for [`PAID_BYTES`] bytes
//! of cleaning per byte of its own; a server's idle turns do the rest.
//! Of the records that it passes, the index is asked only for those that are not
//! known to be dead ([`dead`](super::dead)).
//!
//! Not here: how records reach the disk ([`write`](super::write)).
//!
//! Invariants:
//! * A segment is removed only after a sync that covers the copies of what was
//!   live in it and the record that retires it (`every_loss_of_power_leaves_what_was_synced`).
//! * Segments go in the order of their numbers, each name off the disk before
//!   the next. The newest `Retired` record names the last that may be gone, so
//!   that a segment that is lost is told from one that was cleaned (`a_lost_segment_is_refused`).

use std::collections::VecDeque;

use super::Inner;
use super::ahead::Ahead;
use super::dead::Dead;
use super::disk::Disk;
use super::index::Location;
use super::record::{self, Damage, Kind, Record};
use crate::error::{KvsError, Result};
use crate::logger;

/// Bytes that are cleaned for each byte written. The bound on disk use follows:
/// cleaning all of `T = 2 * live` bytes takes `T / PAID_BYTES` bytes of writes,
/// so that there are never more than `2.5 * live` bytes, and three segments
/// (`the_directory_never_exceeds_its_bound`). And a pass that copies `live` bytes
/// makes room for as many: so at most two bytes are written for each that is set.
const PAID_BYTES: u64 = 4;
/// Bytes of a segment that are looked at in one step, and records in these at the most.
const STEP_BYTES: usize = 2 << 10;
const STEP_RECORDS_MAX: usize = STEP_BYTES / record::HEADER_BYTES;
/// Bytes that are looked at in an idle turn, but for the rest of a record, so that
/// a request which comes meanwhile waits little.
const IDLE_BYTES: usize = 256 << 10;
/// Bytes of a batch from which on no copies are added to it: they wait.
pub(super) const COPY_BATCH_BYTES_MAX: usize = 4 << 20;

/// Bytes of cleaning that are saved up while there is no segment to clean, at the
/// most: whoever writes when there is one again does all of them.
const SAVED_BYTES_MAX: i64 = 256 << 10;
/// Segments that a commit removes at the most: more than it begins, and few.
const REMOVED_MAX: usize = 4;

/// How far compaction has come.
#[derive(Default)]
pub(super) struct Cleaner {
    /// The segment being cleaned, and how far.
    cursor: Option<(u32, u64)>,
    /// What was read of that segment and not looked at yet.
    ahead: Ahead,
    /// Segments that are cleaned and not removed yet, oldest first.
    retired: VecDeque<Retired>,
    /// Bytes to be cleaned that writes have paid for; below zero after a long record,
    /// which is looked at whole.
    credit: i64,
    /// Whether an error has ended it until the store is opened anew.
    stopped: bool,
}

/// A segment that may be removed once a sync has covered what was copied from it.
struct Retired {
    /// Where the record is that retires it; all copies are before that.
    record: Location,
    /// Bytes of the segment.
    len: u64,
}

impl Cleaner {
    /// Takes note of a write of so many bytes.
    pub(super) fn pay(&mut self, written: u64) {
        self.credit += (written * PAID_BYTES) as i64;
    }

    /// Goes back to before a batch that was to begin at `start` of a segment
    /// and has been undone: what was looked at since may be live again, and its
    /// writes have paid for nothing.
    pub(super) fn undo_batch(&mut self, segment: u32, start: u64) {
        self.cursor = None;
        self.credit = 0;
        self.retired.retain(|retired| {
            retired.record.segment != segment || u64::from(retired.record.offset) < start
        });
    }
}

impl<D: Disk> Inner<D> {
    /// Bytes in the segments and the batch that are not live.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.kept_bytes() - self.index.live_bytes()
    }

    /// Bytes in the segments, but for those that are about to be removed, and
    /// in the batch.
    fn kept_bytes(&self) -> u64 {
        let retired: u64 = self.cleaner.retired.iter().map(|retired| retired.len).sum();
        self.segments.total_bytes() - retired + self.batch.bytes.len() as u64
    }

    /// Whether a segment is being cleaned or should be.
    pub(super) fn is_compacting(&self) -> bool {
        let due = self.options.compact_threshold_bytes.max(self.kept_bytes() / 2);
        !self.cleaner.stopped && (self.cleaner.cursor.is_some() || self.dead_bytes() >= due)
    }

    /// Cleans as much as the writes of the batch have paid for.
    pub(super) fn clean_paid(&mut self) {
        if !self.is_compacting() {
            self.cleaner.credit = 0;
        }
        while self.cleaner.credit >= STEP_BYTES as i64 {
            match self.clean_or_stop() {
                0 => break,
                looked_at => self.cleaner.credit -= looked_at as i64,
            }
        }
        if self.cleaner.cursor.is_none() {
            self.cleaner.credit = self.cleaner.credit.min(SAVED_BYTES_MAX);
        }
    }

    /// One bounded step of housekeeping; `true` while there is more to do.
    pub(super) fn maintain(&mut self) -> Result<bool> {
        if self.refused.is_some() {
            return Ok(false);
        }
        self.settle();
        if self.is_compacting() {
            if self.is_successor_due() {
                // An idle turn waits for the disk, as nothing else can be done until then.
                self.commit(false)?;
                self.begin_segment()?;
            }
            let mut left = IDLE_BYTES;
            while left > 0 {
                match self.clean_or_stop() {
                    0 => break,
                    looked_at => left = left.saturating_sub(looked_at),
                }
            }
            self.commit(false)?;
            return Ok(!self.cleaner.stopped);
        }
        if !self.cleaner.retired.is_empty() && !self.cleaner.stopped {
            self.commit(true)?;
            return Ok(true);
        }
        self.mark()?;
        Ok(false)
    }

    /// Does one step, if there is one to do and room for what it copies; how many
    /// bytes it has looked at. An error ends the compaction, not the write that
    /// paid for it.
    fn clean_or_stop(&mut self) -> usize {
        if self.batch.bytes.len() >= COPY_BATCH_BYTES_MAX || self.is_outgrown() {
            return 0;
        }
        let cleaned = self.clean();
        cleaned.unwrap_or_else(|error| {
            self.stop_cleaning(&error);
            0
        })
    }

    /// Ends compaction until the store is opened anew, and says why.
    fn stop_cleaning(&mut self, error: &KvsError) {
        self.cleaner.stopped = true;
        logger::error!("compaction ends until the next start: {}", error.chain().join(": "));
    }

    /// Looks at the next records of the oldest segment and copies the live ones;
    /// how many bytes those took, 0 when no segment is to be cleaned.
    fn clean(&mut self) -> Result<usize> {
        self.go_on_with_oldest();
        let Some((number, offset)) = self.cleaner.cursor else { return Ok(0) };
        let Some(segment) = self.segments.get(number)? else { return Ok(0) };
        let (salt, end) = (segment.header.salt, segment.len);
        // Out of the cleaner while the records borrow from it; an error, after which
        // nothing is cleaned any more, leaves it out.
        let mut ahead = std::mem::take(&mut self.cleaner.ahead);
        let bytes = ahead.whole_record(segment, offset, STEP_BYTES)?;
        let mut records = intact(bytes, salt).map_err(|(at, damage)| {
            KvsError::corrupt(&segment.path, offset + at as u64, damage.to_string())
        })?;
        let looked_at: usize = records.iter().map(|(_, record)| record.len()).sum();
        records.retain(|(at, record)| may_live(record, offset + *at as u64, &segment.dead));
        let newest = self.index.get_all(records.iter().map(|(_, record)| record.key));
        for ((at, record), newest) in records.into_iter().zip(newest) {
            let place = (number, offset + at as u64);
            if newest.is_some_and(|newest| (newest.segment, newest.offset.into()) == place) {
                self.stage(Kind::Set, record.key, record.value);
            }
        }
        self.cleaner.ahead = ahead;
        self.settle();
        let next = offset + looked_at as u64;
        self.cleaner.cursor = Some((number, next));
        if next == end {
            self.retire(number, end);
        }
        Ok(looked_at)
    }

    /// Puts the cursor, if there is none and should be, into the oldest segment that
    /// is not cleaned yet. When that is the active one, the next is to be begun first.
    fn go_on_with_oldest(&mut self) {
        if self.cleaner.cursor.is_none() && self.is_compacting() {
            let oldest = self.segments.older_number(self.cleaner.retired.len());
            self.successor_due |= oldest.is_none();
            let start = super::header::HEADER_BYTES as u64;
            self.cleaner.cursor = oldest.map(|number| (number, start));
        }
    }

    /// Says in a record that this segment may go.
    fn retire(&mut self, number: u32, len: u64) {
        let record = self.stage_record(Kind::Retired, number.to_string().as_bytes(), b"");
        self.cleaner.retired.push_back(Retired { record, len });
        self.cleaner.cursor = None;
    }

    /// Removes the oldest segments as far as a sync has covered what was copied
    /// from them, up to a commit's share.
    pub(super) fn remove_retired(&mut self) {
        for _ in 0..REMOVED_MAX {
            if !self.is_oldest_removable() {
                return;
            }
            self.cleaner.retired.pop_front();
            if let Err(error) = self.segments.remove_oldest() {
                return self.stop_cleaning(&error);
            }
        }
    }

    /// Whether the oldest segment is cleaned, and a sync has covered what was copied
    /// from it.
    fn is_oldest_removable(&self) -> bool {
        let Some(Retired { record, .. }) = self.cleaner.retired.front() else { return false };
        let active = self.segments.active();
        let end = u64::from(record.offset) + u64::from(record.len);
        // One in an older segment is on the disk, as all of that is.
        record.segment != active.header.number || end <= active.synced
    }
}

/// Whether the index is to be asked for a record at `offset` of a segment with
/// these dead ones. Tombstones end here, and so do marks: a record that a tombstone
/// hid is in no older file, or in one whose name is off the disk before this one's.
fn may_live(record: &Record<'_>, offset: u64, dead: &Dead) -> bool {
    record.kind == Kind::Set && !dead.contains(offset)
}

/// The records that `bytes` begin with, each with where it does, but for one
/// that is cut off at their end; at least one. Else where damage is, and which.
fn intact(
    bytes: &[u8],
    salt: u32,
) -> std::result::Result<Vec<(usize, Record<'_>)>, (usize, Damage)> {
    let mut records = Vec::with_capacity(STEP_RECORDS_MAX);
    let mut at = 0;
    while at < bytes.len() || records.is_empty() {
        match record::decode(&bytes[at..], salt) {
            Ok(record) => {
                let len = record.len();
                records.push((at, record));
                at += len;
            }
            Err(Damage::Cut(_)) if at > 0 => break,
            Err(damage) => return Err((at, damage)),
        }
    }
    Ok(records)
}

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
