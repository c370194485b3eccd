//! The log: segments, the batch that is appended to them, and fsyncs.
//!
//! A record is *staged* into a batch in memory, *written* into the active
//! segment, and then *synced*. A full segment is followed by a new one:
//! rotation. Rotation waits for no fsync. After a commit that does not sync, the
//! helper thread fsyncs the full segment. A [`sync`](Log::sync) covers whatever is
//! left, oldest first.
//!
//! | state of the log | survives |
//! | --- | --- |
//! | before `end` | a crash of the process |
//! | before `synced` | a power failure |
//!
//! Not here: which records there are, the index, and compaction.
//!
//! Invariants:
//! * Space for a record is preallocated before it is staged, so that a lack of
//!   space fails one request and loses nothing
//!   (`a_full_disk_fails_before_anything_is_staged`).
//! * A failed write of staged records, or a failed fsync, is fatal: what is on
//!   disk is unknown then. Every later call fails
//!   (`after_a_failed_sync_every_call_fails`).
//! * Segments are fsynced in order, then their names. A record with the flag
//!   *synced*, or a `Checkpoint`, is staged only afterwards
//!   (`every_power_loss_leaves_what_was_synced`).
//! * At most [`UNSYNCED_SEGMENTS_MAX`] full segments wait for their fsync
//!   (`a_slow_disk_bounds_what_is_unsynced`).
//! * At most [`OPEN_FILES_MAX`] segments are open for reading
//!   (`many_segments_need_few_descriptors`).

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::sync::Arc;

use super::cache::Cache;
use super::directory::Directory;
use super::fs::Fs;
use super::index::Location;
use super::reader::Reader;
use super::record::{CHECKPOINT_BYTES_MAX, CLEANED_BYTES, Kind, Position, Record};
use super::record::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::reserve::Reserve;
use super::segment::{PREALLOCATE_BYTES, Segment};
use crate::error::{KvsError, Result};
use crate::logger;

/// Bytes of a batch after which it is written before more is staged.
pub(super) const BATCH_BYTES_MAX: usize = 4 << 20;
/// Full segments that may wait for their fsync. A writer that outruns the disk
/// waits for it then.
pub(super) const UNSYNCED_SEGMENTS_MAX: u32 = 8;
/// Segments that are open for reading at a time: few beside the 1,024
/// descriptors that a process commonly has.
pub(super) const OPEN_FILES_MAX: usize = 128;
/// The reserve is larger than the longest segment by this part of a segment and these
/// bytes, for tombstones.
const RESERVE_TOMBSTONES_PART: u64 = 8;
const RESERVE_TOMBSTONES_BYTES: u64 = 4 << 10;

/// Who asks for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// A client's set, or a checkpoint. It leaves the reserve whole.
    Shared,
    /// A removal, or cleaning. It may use the reserve.
    Reserved,
}

/// The segments that recovery leaves, all on disk.
pub(super) struct Segments<F> {
    /// Id of the store.
    pub(super) store: u64,
    /// All segments but the active one, oldest first. Their numbers have no gaps.
    pub(super) older: VecDeque<Segment<F>>,
    /// The newest segment, to which records are appended. Its file is open.
    pub(super) active: Segment<F>,
    /// Whether the last record is a `Checkpoint` of all that is before it.
    pub(super) ends_with_checkpoint: bool,
}

/// The log of an open store.
pub(super) struct Log<D: Fs> {
    pub(super) directory: Directory<D>,
    /// Size at which a segment is full.
    segment_bytes: u64,
    /// As in [`Segments`].
    store: u64,
    pub(super) older: VecDeque<Segment<D::File>>,
    pub(super) active: Segment<D::File>,
    pub(super) ends_with_checkpoint: bool,
    /// Bytes of the older segments.
    older_bytes: u64,
    /// Bytes of the records that the index points to.
    pub(super) live_bytes: u64,
    /// Older segments whose files are open, in the order of opening.
    opened: VecDeque<u32>,
    /// Records that are staged, and not written yet.
    batch: Vec<u8>,
    pub(super) reserve: Reserve<D::File>,
    /// Everything before this position is on disk.
    pub(super) synced: Position,
    /// Whether a segment's name is not known to be on disk.
    pub(super) has_unsynced_name: bool,
    /// The fsync in the background, and what it covers.
    pub(super) sync_task: Option<(D::Task, Position)>,
    /// Whether the active segment is to be fsynced in the background, too.
    pub(super) is_sync_due: bool,
    /// Whether an fsync ended that only a `Checkpoint` can tell of.
    pub(super) is_checkpoint_due: bool,
    /// Fsyncs that were waited for.
    pub(super) syncs: u64,
    /// The fatal failure.
    pub(super) failed: Option<String>,
}

impl<D: Fs> Log<D> {
    /// The log of these segments.
    pub(super) fn new(
        directory: Directory<D>,
        segments: Segments<D::File>,
        segment_bytes: u64,
    ) -> Result<Log<D>> {
        let Segments { store, older, active, ends_with_checkpoint } = segments;
        let live = |segment: &Segment<_>| segment.live;
        Ok(Log {
            reserve: Reserve::open(&directory)?,
            directory,
            segment_bytes,
            store,
            older_bytes: older.iter().map(|segment| u64::from(segment.len)).sum(),
            live_bytes: older.iter().map(live).sum::<u64>() + active.live,
            older,
            synced: Position { segment: active.number, offset: active.len },
            active,
            opened: VecDeque::new(),
            batch: Vec::new(),
            has_unsynced_name: false,
            sync_task: None,
            is_sync_due: false,
            is_checkpoint_due: false,
            ends_with_checkpoint,
            syncs: 0,
            failed: None,
        })
    }

    /// Fails if the store has failed.
    pub(super) fn check(&self) -> Result<()> {
        match &self.failed {
            Some(cause) => Err(KvsError::Failed { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Makes an error fatal.
    pub(super) fn fail<T>(&mut self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            let cause = error.chain().join(": ");
            logger::error!("the store has failed: {cause}");
            self.failed.get_or_insert(cause);
        })
    }

    /// Fails the store after an error, if the directory was moved.
    pub(super) fn fail_if_moved<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            let in_place = self.directory.check_in_place();
            self.fail(in_place)?;
        }
        result
    }

    /// Where the next record will be written, without the batch.
    pub(super) fn end(&self) -> Position {
        Position { segment: self.active.number, offset: self.active.len }
    }

    /// Where the batch ends.
    pub(super) fn staged_end(&self) -> Position {
        let Position { segment, offset } = self.end();
        Position { segment, offset: offset + self.batch.len() as u32 }
    }

    /// Stages a record and returns where it will be.
    ///
    /// # Errors
    ///
    /// If there is no space for it. Then nothing has changed, and the next record
    /// may succeed.
    pub(super) fn stage(
        &mut self,
        kind: Kind,
        key: &[u8],
        value: &[u8],
        space: Space,
    ) -> Result<Location> {
        let len = RECORD_HEADER_BYTES + key.len() + value.len();
        // A tombstone leaves space for the record that says what was cleaned.
        let spare = if kind == Kind::Remove { CLEANED_BYTES } else { 0 };
        self.ensure_space(len + spare, space)?;
        let at @ Position { segment, offset } = self.staged_end();
        self.encode(kind, key, value);
        self.ends_with_checkpoint = kind == Kind::Checkpoint && self.synced == at;
        Ok(Location { segment, offset, len: len as u32 })
    }

    /// Appends a record to the batch.
    fn encode(&mut self, kind: Kind, key: &[u8], value: &[u8]) {
        let synced = self.batch.is_empty() && self.synced == self.end();
        Record { kind, synced, key, value }.encode(&mut self.batch, self.active.salt);
    }

    /// Makes sure that a record of `len` bytes can be written, and that the last
    /// `Checkpoint` of the segment fits behind it.
    fn ensure_space(&mut self, len: usize, space: Space) -> Result<()> {
        if self.batch.len() >= BATCH_BYTES_MAX {
            self.write()?;
        }
        let start = u64::from(self.staged_end().offset);
        let end = start + (len + CHECKPOINT_BYTES_MAX) as u64;
        let is_empty = start == SEGMENT_HEADER_BYTES as u64;
        // Only a record that is longer than a segment gets a longer segment, of its own.
        if end > self.segment_bytes && !is_empty {
            return self.rotate(len, space);
        }
        if space == Space::Shared && self.is_space_short() {
            self.fill_reserve()?;
        }
        if end <= self.active.allocated {
            return Ok(());
        }
        let chunk = (self.active.allocated + PREALLOCATE_BYTES).min(self.segment_bytes);
        match self.with_space(space, |log| log.active.preallocate(end, chunk)) {
            // A limit on the size of files. The next file has room for it.
            Err(KvsError::Io { source, .. })
                if source.kind() == ErrorKind::FileTooLarge && !is_empty =>
            {
                self.rotate(len, space)
            }
            allocated => allocated,
        }
    }

    /// Does work that needs disk space. Makes the reserve whole first, or for removals
    /// and cleaning as large as it can be: they use it if the disk is full.
    fn with_space<T>(
        &mut self,
        space: Space,
        work: impl Fn(&mut Log<D>) -> Result<T>,
    ) -> Result<T> {
        if space == Space::Shared {
            self.fill_reserve()?;
        } else if !self.is_space_short() {
            let _ = self.fill_reserve();
            self.check()?;
        }
        match work(self) {
            Err(KvsError::Io { source, .. })
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
                    && space == Space::Reserved
                    && self.reserve.release(self.total_bytes()) =>
            {
                work(self)
            }
            done => done,
        }
    }

    /// Makes the reserve whole.
    fn fill_reserve(&mut self) -> Result<()> {
        let tombstones = self.segment_bytes / RESERVE_TOMBSTONES_PART + RESERVE_TOMBSTONES_BYTES;
        let segments = self.older.iter().chain([&self.active]);
        let longest = segments.map(|segment| segment.len.into()).max();
        let most = longest.max(Some(self.segment_bytes)).unwrap_or(0) + tombstones;
        let filled = self.reserve.fill(&self.directory, most.min(self.total_bytes()));
        self.fail_if_moved(filled)
    }

    /// Returns true if a removal or cleaning found the disk full, and the space
    /// that it took from the reserve is not back yet.
    pub(super) fn is_space_short(&self) -> bool {
        self.reserve.is_released()
    }

    /// Begins the next segment, with space for a record of `len` bytes.
    ///
    /// # Errors
    ///
    /// If there is no space or no descriptor for it. Then nothing has changed.
    pub(super) fn rotate(&mut self, len: usize, space: Space) -> Result<()> {
        self.write()?;
        let number = self.active.number.checked_add(1).ok_or(KvsError::TooLarge {
            what: "the number of a segment",
            len: u64::from(u32::MAX) + 1,
            max: u32::MAX.into(),
        })?;
        let previous_len = self.active.len + CHECKPOINT_BYTES_MAX as u32;
        let salt = random_u64() as u32;
        let header = SegmentHeader { number, store: self.store, previous_len, salt };
        // The store may have been opened with a segment that was full already.
        let end = previous_len.into();
        self.with_space(space, |log| log.active.preallocate(end, end))?;
        // Before the next segment needs space.
        if let Err(error) = self.active.trim(previous_len) {
            logger::warn!("{} keeps unused space: {error}", self.active.path.display());
        }
        let next = self.with_space(space, |log| log.create_segment(&header, len))?;
        self.encode(Kind::Checkpoint, &self.synced.encode(), &salt.to_le_bytes());
        self.write()?;
        let full = std::mem::replace(&mut self.active, next);
        self.older_bytes += u64::from(full.len);
        self.opened.push_back(full.number);
        self.older.push_back(full);
        self.has_unsynced_name = true;
        if number - self.synced.segment > UNSYNCED_SEGMENTS_MAX {
            self.start_sync(false);
            self.end_sync(true)?;
        }
        self.close_files();
        Ok(())
    }

    /// Creates a segment. Removes its file if there is no space for it.
    fn create_segment(&mut self, header: &SegmentHeader, len: usize) -> Result<Segment<D::File>> {
        let path = self.directory.segment_path(header.number);
        let created = self.directory.create(&path);
        let mut segment = Segment::new(path.clone(), self.fail_if_moved(created)?, header);
        let end = (SEGMENT_HEADER_BYTES + len + CHECKPOINT_BYTES_MAX) as u64;
        let allocated = segment.preallocate(end, PREALLOCATE_BYTES.min(self.segment_bytes));
        allocated.and_then(|()| segment.write_header(header)).or_else(|error| {
            let removed = self.directory.remove(&path);
            self.fail(removed)?;
            Err(error)
        })?;
        Ok(segment)
    }

    /// Writes the batch into the active segment.
    ///
    /// # Errors
    ///
    /// Every error is fatal.
    pub(super) fn write(&mut self) -> Result<()> {
        self.check()?;
        if self.batch.is_empty() {
            return Ok(());
        }
        let written = self.active.append(&self.batch);
        self.fail(written)?;
        self.batch.clear();
        self.batch.shrink_to(BATCH_BYTES_MAX);
        Ok(())
    }

    /// Writes the batch and a `Checkpoint` of what is on disk. Without space for it,
    /// damage is found later, but nothing is lost.
    pub(super) fn write_checkpoint(&mut self) -> Result<()> {
        self.is_checkpoint_due = false;
        if !self.is_space_short() {
            let _ = self.stage(Kind::Checkpoint, &self.synced.encode(), b"", Space::Shared);
        }
        self.write()
    }

    /// Returns true if the log has no records.
    pub(super) fn is_empty(&self) -> bool {
        self.older.is_empty() && self.active.len as usize == SEGMENT_HEADER_BYTES
    }

    /// The segment of a location, with its file open.
    fn open_segment(&mut self, location: Location) -> Result<&Segment<D::File>> {
        let number = location.segment;
        let Some(at) = self.older_index(number) else {
            return match number == self.active.number {
                true => Ok(&self.active),
                false => Err(self.corrupt(location, "the segment is gone".to_owned())),
            };
        };
        if self.older[at].file.is_none() {
            let opened = self.directory.open_file(&self.older[at].path);
            self.older[at].file = Some(Arc::new(self.fail_if_moved(opened)?));
            self.opened.push_back(number);
            self.close_files();
        }
        Ok(&self.older[at])
    }

    /// Where a segment is in `older`.
    fn older_index(&self, number: u32) -> Option<usize> {
        let at = number.checked_sub(self.older.front()?.number)? as usize;
        (at < self.older.len()).then_some(at)
    }

    /// Closes the files that were opened first, if too many are open. A file that
    /// is not fsynced yet stays open for that.
    fn close_files(&mut self) {
        for _ in OPEN_FILES_MAX..self.opened.len() {
            let Some(number) = self.opened.pop_front() else { return };
            let Some(at) = self.older_index(number) else { continue };
            if number >= self.synced.segment {
                self.opened.push_back(number);
            } else {
                self.older[at].file = None;
            }
        }
    }

    /// Forgets the oldest segments, whose files are removed.
    pub(super) fn forget_oldest(&mut self, count: usize) {
        let gone: u64 = self.older.drain(..count).map(|segment| u64::from(segment.len)).sum();
        self.older_bytes -= gone;
    }

    /// Counts a record as live, or as live no longer.
    pub(super) fn count_live(&mut self, new: Option<Location>, old: Option<Location>) {
        if let Some(Location { segment, len, .. }) = new {
            *self.live_mut(segment) += u64::from(len);
            self.live_bytes += u64::from(len);
        }
        if let Some(Location { segment, len, .. }) = old {
            *self.live_mut(segment) -= u64::from(len);
            self.live_bytes -= u64::from(len);
        }
    }

    /// The live bytes of a segment that exists.
    fn live_mut(&mut self, number: u32) -> &mut u64 {
        match self.older_index(number) {
            Some(at) => &mut self.older[at].live,
            None => &mut self.active.live,
        }
    }

    /// The bytes of a record, from the batch or from its segment, and the salt.
    pub(super) fn read<'a>(
        &'a mut self,
        location: Location,
        cache: &'a mut Cache,
    ) -> Result<(u32, &'a [u8])> {
        let Location { segment: number, offset, len } = location;
        if number == self.active.number && offset >= self.active.len {
            let start = (offset - self.active.len) as usize;
            return Ok((self.active.salt, &self.batch[start..start + len as usize]));
        }
        let segment = self.open_segment(location)?;
        let bytes = cache.read(location, |buffer, at| segment.read(buffer, at))?;
        Ok((segment.salt, bytes))
    }

    /// A reader of a segment, `chunk` bytes at a time.
    pub(super) fn reader(&mut self, number: u32, chunk: usize) -> Result<Reader<D::File>> {
        let it = self.open_segment(Location { segment: number, offset: 0, len: 0 })?;
        Ok(Reader::new(it.file()?.clone(), &it.path, it.salt, it.len.into(), chunk))
    }

    /// The error for a damaged record.
    pub(super) fn corrupt(&self, location: Location, reason: String) -> KvsError {
        let path = self.directory.segment_path(location.segment);
        KvsError::corrupt(&path, location.offset.into(), reason)
    }

    /// Number of segments.
    pub(super) fn segment_count(&self) -> usize {
        self.older.len() + 1
    }

    /// Bytes in all segments and the batch, without preallocated space.
    pub(super) fn total_bytes(&self) -> u64 {
        self.older_bytes + u64::from(self.active.len) + self.batch.len() as u64
    }
}

/// A random number that clients cannot guess, from the seeds of std's hash maps.
pub(super) fn random_u64() -> u64 {
    RandomState::new().hash_one(0)
}
