//! From one segment to the next, and the syncs that go on beside the writes.
//!
//! Not here: when a batch is to be on the disk ([`write`](mod@super::write)).
//!
//! Invariants:
//! * A segment is followed by the next one in this order, each step on the disk
//!   before the one after: its records, the next one's header and name, the
//!   mark that it is continued, the next one's first record. So a segment with
//!   the mark that has no successor has lost it (`power_may_be_lost_at_every_single_call`).
//! * Writes wait for the disk as little as can be. What was written without a
//!   sync is synced beside those that follow, and a segment that is full takes
//!   more of them until little of it is left to sync. Where the disk is slower
//!   than they are, they wait, and whoever else waits for their thread, once it
//!   has outgrown its size by a quarter; the batch that gets there comes on top
//!   (`a_full_segment_takes_more_while_the_disk_is_behind_but_a_quarter_of_its_size_at_most`).
//! * What a sync beside fails with is told by the first commit, or beginning of a
//!   segment, after it has ended, and refuses writes as any failed sync does. The
//!   writes that it was to cover were answered before
//!   (`whatever_fails_exactly_that_is_told_and_undone`).

use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;

use super::compact::COPY_BATCH_BYTES_MAX;
use super::disk::Disk;
use super::header::Header;
use super::record::{self, Kind};
use super::segment::Segment;
use super::write::BATCH_BYTES_MAX;
use super::{Inner, SEGMENT_BYTES_MAX};
use crate::error::{KvsError, Result};

/// Bytes to sync from which on a sync begins beside the writes, unless a segment is
/// so small that an eighth of it is less.
const BESIDE_BYTES_MAX: u64 = 1 << 20;
/// An eighth of a segment, for that.
const BESIDE_PART: u64 = 8;
/// A quarter of those bytes may be left to sync when a segment is followed by the
/// next one: so little can be waited for.
const AWAITED_PART: u64 = 4;
/// By a quarter of its size a segment may outgrow it while more than that is left.
/// Where the disk is slower than the writes, these have to wait for it then.
const EXCESS_PART: u64 = 4;

/// Offsets have 32 bits: the last record begins after a segment that has nearly
/// outgrown its size, a batch of writes, and the copies that are added to it.
const _: () = {
    let batch = BATCH_BYTES_MAX + COPY_BATCH_BYTES_MAX + 2 * record::BYTES_MAX;
    let segment = SEGMENT_BYTES_MAX + SEGMENT_BYTES_MAX / EXCESS_PART;
    assert!(segment + batch as u64 <= u32::MAX as u64);
};

/// A random number that no peer can guess, from the seeds that std draws for
/// its hash maps.
pub(super) fn random_u64() -> u64 {
    RandomState::new().hash_one(0)
}

/// Bytes from which on a segment of this size is followed at any price.
pub(super) fn outgrown_bytes(segment_bytes: u64) -> u64 {
    segment_bytes + segment_bytes / EXCESS_PART
}

impl<D: Disk> Inner<D> {
    /// Whether the active segment is to be followed by another one.
    pub(super) fn is_successor_due(&self) -> bool {
        self.successor_due || self.segments.active().len >= self.options.segment_bytes
    }

    /// Whether so little of the active segment is left to sync that it can be
    /// waited for, or must, as the segment has outgrown its size.
    pub(super) fn is_end_near_synced(&self) -> bool {
        let active = self.segments.active();
        active.len - active.synced <= self.beside_bytes() / AWAITED_PART || self.is_outgrown()
    }

    /// Whether the active segment is as long as one may become that is full.
    pub(super) fn is_outgrown(&self) -> bool {
        self.segments.active().len >= outgrown_bytes(self.options.segment_bytes)
    }

    /// Bytes to sync from which on that is begun beside.
    fn beside_bytes(&self) -> u64 {
        BESIDE_BYTES_MAX.min(self.options.segment_bytes / BESIDE_PART)
    }

    /// Has a sync begin beside the writes that follow when there is much to do,
    /// or when it brings the end of the segment nearer.
    pub(super) fn begin_sync(&mut self) -> Result<()> {
        let least = if self.is_successor_due() { 1 } else { self.beside_bytes() };
        let active = self.segments.active_mut();
        if active.len - active.synced >= least { active.begin_sync() } else { Ok(()) }
    }

    /// Takes note of a sync that has ended.
    pub(super) fn note_sync(&mut self) -> Result<()> {
        let noted = self.segments.active_mut().note_sync();
        noted.inspect_err(|error| self.refuse_writes(error))
    }

    /// Syncs the active segment, unless there is nothing to.
    pub(super) fn sync_active(&mut self) -> Result<()> {
        let active = self.segments.active_mut();
        if active.synced == active.len {
            return Ok(());
        }
        self.syncs += 1;
        let synced = active.sync();
        synced.inspect_err(|error| self.refuse_writes(error))
    }

    /// Begins the next segment; the batch is empty.
    pub(super) fn begin_segment(&mut self) -> Result<()> {
        self.drop_room()?;
        self.sync_active()?;
        let Header { number, store, .. } = self.segments.active().header;
        let number = number.checked_add(1).ok_or(KvsError::TooLarge {
            what: "the number of segments ever begun",
            len: u64::from(number) + 1,
            max: u64::from(u32::MAX),
        })?;
        let header = Header { number, store, salt: random_u64() as u32 };
        let next = Segment::create(&self.segments.directory, header);
        let next = next.and_then(|next| self.append_continued().map(|()| next));
        let next = next.inspect_err(|error| {
            self.latch(error);
            self.remove_unused(number);
        })?;
        self.sync_active()?;
        self.segments.push(next);
        self.successor_due = false;
        self.marked = true;
        Ok(())
    }

    /// Cuts off the zeros after the active segment's records.
    pub(super) fn drop_room(&mut self) -> Result<()> {
        let active = self.segments.active_mut();
        if !active.has_room() {
            return Ok(());
        }
        let cut = active.cut_back(active.len);
        cut.inspect_err(|error| self.latch(error))
    }

    /// Appends the mark that the active segment is continued, after which
    /// nothing may follow in it.
    fn append_continued(&mut self) -> Result<()> {
        let active = self.segments.active_mut();
        let mut bytes = Vec::new();
        record::encode(&mut bytes, active.header.salt, Kind::Continued, true, b"", b"");
        active.append(&bytes)
    }

    /// Removes a segment that could not be begun, so that it can be tried again.
    fn remove_unused(&mut self, number: u32) {
        match self.segments.directory.remove_segment(number) {
            Err(KvsError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error) => self.refuse_writes(&error),
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
#[path = "successor_tests.rs"]
mod tests;
