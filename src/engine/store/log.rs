//! The log: segments, the batch that is appended to them, and fsyncs.
//!
//! A record is *staged* into a batch in memory, *written* into the active
//! segment, and then *synced*. A full segment is followed by a new one:
//! rotation. Rotation waits for no fsync. After a commit that does not sync, the
//! helper thread fsyncs the full segment. A [`sync`](Log::sync) covers whatever is
//! left, oldest first.
//!
//! | part of the log | survives |
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
//! * Segments are fsynced in order, then the directory. A record with the flag
//!   *synced*, or a `Checkpoint`, is staged only afterwards
//!   (`every_power_loss_leaves_what_was_synced`).
//! * At most [`UNSYNCED_SEGMENTS_MAX`] full segments wait for their fsync
//!   (`a_slow_disk_bounds_what_is_unsynced`).
//! * At most [`OPEN_FILES_MAX`] older segments are open for reading, and fewer if the
//!   process has no descriptors for them (`many_segments_need_few_descriptors`,
//!   `segments_are_closed_when_descriptors_run_out`).

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use super::cache::Cache;
use super::directory::Directory;
use super::fs::Fs;
use super::index::Location;
use super::reader::Reader;
use super::record::{CHECKPOINT_BYTES_MAX, Kind, Position, Record};
use super::record::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::reserve::Reserve;
use super::segment::{PREALLOCATE_BYTES, Segment};
use super::sync::Work;
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
/// The codes of `ENFILE` and `EMFILE`.
const NO_DESCRIPTOR: [i32; 2] = [23, 24];
/// The reserve has space for tombstones: the size of a segment divided by
/// `RESERVE_TOMBSTONES_DIVISOR`, and `RESERVE_TOMBSTONES_BYTES`.
const RESERVE_TOMBSTONES_DIVISOR: u64 = 8;
const RESERVE_TOMBSTONES_BYTES: u64 = 4 << 10;

/// Who asks for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// A client's set, or a checkpoint. It leaves the reserve whole.
    Shared,
    /// A removal, or cleaning. It may use the reserve.
    Reserved,
}

/// The log of an open store.
pub(super) struct Log<D: Fs> {
    pub(super) directory: Directory<D>,
    /// Size at which a segment is full.
    segment_bytes: u64,
    /// Id of the store.
    store: u64,
    /// All segments, oldest first. Their numbers have no gaps. Records are appended to the
    /// last one, the active segment.
    pub(super) segments: VecDeque<Segment<D::File>>,
    /// Bytes of segments and batch, without preallocated space and cleaned segments.
    pub(super) bytes: u64,
    /// Bytes of the records that the index points to.
    pub(super) live_bytes: u64,
    /// Records that are staged, and not written yet.
    batch: Vec<u8>,
    pub(super) reserve: Reserve<D::File>,
    /// Whether the last set or checkpoint that needed disk space found the disk full.
    is_disk_full: bool,
    /// Everything before this position is on disk.
    pub(super) synced: Position,
    /// The records of the log say that everything before this position is on disk. If the
    /// last one is a `Checkpoint` of everything before itself, this is its end.
    pub(super) checkpointed: Position,
    /// Whether the directory must be fsynced, because a segment was created.
    pub(super) is_directory_unsynced: bool,
    /// The work in the background.
    pub(super) background: Option<(D::Task, Work)>,
    /// Whether the active segment is to be fsynced in the background, too.
    pub(super) is_sync_due: bool,
    /// When cleaning or a removal that failed is tried again.
    pub(super) retry: Option<Instant>,
    /// Number of calls of `sync` that fsynced something.
    pub(super) syncs: u64,
    /// The fatal failure.
    pub(super) failed: Option<String>,
}

impl<D: Fs> Log<D> {
    /// The log of these segments, which are on disk. The file of the last one is open.
    pub(super) fn new(
        directory: Directory<D>,
        segment_bytes: u64,
        store: u64,
        segments: VecDeque<Segment<D::File>>,
    ) -> Result<Log<D>> {
        let mut log = Log {
            reserve: Reserve::open(&directory)?,
            is_disk_full: false,
            directory,
            segment_bytes,
            store,
            bytes: segments.iter().map(|segment| u64::from(segment.len)).sum(),
            live_bytes: segments.iter().map(|segment| segment.live).sum(),
            segments,
            synced: Position::default(),
            checkpointed: Position::default(),
            batch: Vec::new(),
            is_directory_unsynced: false,
            background: None,
            is_sync_due: false,
            retry: None,
            syncs: 0,
            failed: None,
        };
        log.synced = log.end();
        Ok(log)
    }

    /// The segment to which records are appended.
    pub(super) fn active(&self) -> &Segment<D::File> {
        &self.segments[self.segments.len() - 1]
    }

    /// As [`active`](Self::active), to change it.
    pub(super) fn active_mut(&mut self) -> &mut Segment<D::File> {
        let active = self.segments.len() - 1;
        &mut self.segments[active]
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

    /// The end of the written records, where the batch will go.
    pub(super) fn end(&self) -> Position {
        self.active().end()
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
        self.ensure_space(len, space)?;
        let Position { segment, offset } = self.staged_end();
        self.encode(kind, key, value);
        Ok(Location { segment, offset, len: len as u32 })
    }

    /// Appends a record to the batch.
    fn encode(&mut self, kind: Kind, key: &[u8], value: &[u8]) {
        let synced = self.synced == self.staged_end();
        let salt = self.active().salt;
        let record = Record { kind, synced, key, value };
        record.encode(&mut self.batch, salt);
        self.bytes += u64::from(record.len());
        if synced && kind == Kind::Checkpoint {
            self.checkpointed = self.staged_end();
        } else if synced || kind == Kind::Checkpoint {
            self.checkpointed = self.synced;
        }
    }

    /// Makes sure that a record of `len` bytes can be written, and that the last
    /// `Checkpoint` of the segment fits after it.
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
        if space == Space::Shared && self.is_reserve_in_use() {
            self.fill_reserve()?;
        }
        let allocated = self.active().allocated;
        if end <= allocated {
            return Ok(());
        }
        let chunk = (allocated + PREALLOCATE_BYTES).min(self.segment_bytes);
        match self.with_space(space, |log| log.active_mut().preallocate(end, chunk)) {
            // The process has a limit on the size of files. A new segment has space.
            Err(KvsError::Io { source, .. })
                if source.kind() == ErrorKind::FileTooLarge && !is_empty =>
            {
                self.rotate(len, space)
            }
            allocated => allocated,
        }
    }

    /// Does work that needs disk space. First fills the reserve. For `Space::Shared`, the
    /// work fails if the reserve cannot be filled. For `Space::Reserved`, the work is
    /// tried again with the space of the reserve if the disk is full.
    fn with_space<T>(
        &mut self,
        space: Space,
        work: impl Fn(&mut Log<D>) -> Result<T>,
    ) -> Result<T> {
        let result = if space == Space::Shared {
            self.fill_reserve().and_then(|()| work(self))
        } else {
            if !self.is_reserve_in_use() {
                let _ = self.fill_reserve();
                self.check()?;
            }
            work(self)
        };
        let is_disk_full = matches!(&result, Err(KvsError::Io { source, .. })
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded));
        if space == Space::Shared {
            self.is_disk_full = is_disk_full;
        } else if is_disk_full && self.reserve.release(self.bytes) {
            return work(self);
        }
        result
    }

    /// Makes the reserve whole.
    fn fill_reserve(&mut self) -> Result<()> {
        let tombstones = self.segment_bytes / RESERVE_TOMBSTONES_DIVISOR + RESERVE_TOMBSTONES_BYTES;
        let longest = self.segments.iter().map(|segment| segment.len.into()).max();
        let most = longest.max(Some(self.segment_bytes)).unwrap_or(0) + tombstones;
        // The log once the next preallocated space is used, copied.
        let next = PREALLOCATE_BYTES.min(self.segment_bytes) + RESERVE_TOMBSTONES_BYTES;
        let target = most.min(self.bytes + next);
        self.with_descriptor(|log| log.reserve.fill(&log.directory, target))
    }

    /// Returns true if a removal or cleaning found the disk full, and the space
    /// that it took from the reserve is not back yet.
    pub(super) fn is_reserve_in_use(&self) -> bool {
        self.reserve.is_released()
    }

    /// Returns true if cleaning must give space back, even if fewer bytes are dead than the
    /// threshold.
    pub(super) fn must_free_space(&self) -> bool {
        self.is_disk_full || self.is_reserve_in_use()
    }

    /// Begins the next segment, with space for a record of `len` bytes.
    ///
    /// # Errors
    ///
    /// If there is no space or no descriptor for it. Then nothing has changed.
    pub(super) fn rotate(&mut self, len: usize, space: Space) -> Result<()> {
        self.write()?;
        let number = self.active().number.saturating_add(1);
        let previous_len = self.active().len + CHECKPOINT_BYTES_MAX as u32;
        let salt = random_u64() as u32;
        let header = SegmentHeader { number, store: self.store, previous_len, salt };
        // The store may have been opened with a segment that was full already.
        let end = previous_len.into();
        self.with_space(space, |log| log.active_mut().preallocate(end, end))?;
        // Before the next segment needs space.
        if let Err(error) = self.active_mut().trim(previous_len) {
            logger::warn!("{} keeps unused space: {error}", self.active().path.display());
        }
        let next = self.with_space(space, |log| log.create_segment(&header, len))?;
        self.encode(Kind::Checkpoint, &self.synced.encode(), &salt.to_le_bytes());
        self.write()?;
        self.bytes += u64::from(next.len);
        self.segments.push_back(next);
        self.is_directory_unsynced = true;
        while number - self.synced.segment > UNSYNCED_SEGMENTS_MAX {
            self.start_background();
            self.end_background(true)?;
        }
        self.close_files(OPEN_FILES_MAX);
        Ok(())
    }

    /// Creates a segment. Removes its file if there is no space for it.
    fn create_segment(&mut self, header: &SegmentHeader, len: usize) -> Result<Segment<D::File>> {
        let path = self.directory.segment_path(header.number);
        let file = self.with_descriptor(|log| log.directory.create(&path))?;
        let mut segment = Segment::new(path.clone(), Some(Arc::new(file)), header);
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
        let active = self.segments.len() - 1;
        let written = self.segments[active].append(&self.batch);
        self.fail(written)?;
        self.batch.clear();
        self.batch.shrink_to(BATCH_BYTES_MAX);
        Ok(())
    }

    /// Writes the batch and a `Checkpoint` of what is on disk. The checkpoint is left out if
    /// there is no space for it. Then only a later record tells recovery that
    /// this part of the log was on disk.
    pub(super) fn write_checkpoint(&mut self) -> Result<()> {
        if !self.is_reserve_in_use() {
            let _ = self.stage(Kind::Checkpoint, &self.synced.encode(), b"", Space::Shared);
        }
        self.write()
    }

    /// Returns true if the log does not record the last fsync yet, and the batch has records
    /// that this fsync did not cover.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        self.checkpointed < self.synced && !self.batch.is_empty()
    }

    /// Opens the file of the segment of a location, and returns its place in `segments`.
    fn open_segment(&mut self, location: Location) -> Result<usize> {
        let at = location.segment.checked_sub(self.segments[0].number).map(|at| at as usize);
        let Some(at) = at.filter(|at| *at < self.segments.len()) else {
            return Err(self.corrupt(location, "the segment is gone"));
        };
        if self.segments[at].file.is_none() {
            self.close_files(OPEN_FILES_MAX);
            let path = self.segments[at].path.clone();
            let file = self.with_descriptor(|log| log.directory.open_file(&path))?;
            self.segments[at].file = Some(Arc::new(file));
        }
        Ok(at)
    }

    /// Opens or creates a file. If the process has no descriptor left, closes others and
    /// tries again.
    fn with_descriptor<T>(&mut self, open: impl Fn(&mut Log<D>) -> Result<T>) -> Result<T> {
        let opened = match open(self) {
            Err(KvsError::Io { source, .. })
                if source.raw_os_error().is_some_and(|code| NO_DESCRIPTOR.contains(&code))
                    && self.close_files(0) =>
            {
                open(self)
            }
            opened => opened,
        };
        self.fail_if_moved(opened)
    }

    /// Closes the files that are only read, if more are open than `max`. A file that is not
    /// fsynced yet stays open for that. Returns true if one was closed.
    pub(super) fn close_files(&mut self, max: usize) -> bool {
        let (synced, mut is_any_closed) = (self.synced.segment, false);
        if self.segments.iter().filter(|it| it.file.is_some()).count() > max {
            for segment in self.segments.iter_mut().filter(|it| it.number < synced) {
                is_any_closed |= segment.file.take().is_some();
            }
        }
        is_any_closed
    }

    /// The bytes of a record, from the batch or from its segment, and the salt.
    pub(super) fn read<'a>(
        &'a mut self,
        location: Location,
        cache: &'a mut Cache,
    ) -> Result<(u32, &'a [u8])> {
        let at = self.open_segment(location)?;
        let segment = &self.segments[at];
        let bytes = match location.offset.checked_sub(segment.len) {
            Some(start) => &self.batch[start as usize..][..location.len as usize],
            None => cache.read(location, |buffer, at| segment.read(buffer, at))?,
        };
        Ok((segment.salt, bytes))
    }

    /// A reader of a segment, `chunk` bytes at a time.
    pub(super) fn reader(&mut self, number: u32, chunk: usize) -> Result<Reader<D::File>> {
        let at = self.open_segment(Location { segment: number, offset: 0, len: 0 })?;
        let it = &self.segments[at];
        Ok(Reader::new(it.file()?.clone(), &it.path, it.salt, it.len.into(), chunk))
    }

    /// The error for a damaged record.
    pub(super) fn corrupt(&self, location: Location, reason: impl Into<String>) -> KvsError {
        let path = self.directory.segment_path(location.segment);
        KvsError::corrupt(&path, location.offset.into(), reason)
    }
}

/// A random number that clients cannot guess, from the seeds of std's hash maps.
pub(super) fn random_u64() -> u64 {
    RandomState::new().hash_one(0)
}
