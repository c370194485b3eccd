//! Recovery: from the segments of a directory to an open store.
//!
//! Every segment is read from the oldest to the newest and its records are
//! played into the index. Nothing is changed before all of it is understood:
//! then the torn tail of the newest segment is cut off, zeros written ahead too,
//! and a segment that was being begun is removed, unless the one before has its
//! mark already: it has no record yet, as its first comes after that mark. What
//! was found is put on the disk before anyone is told of it. What follows the last *synced*
//! flag is written again for that: after a sync that failed, the page cache may
//! show as written what is not.
//!
//! Torn or damaged? A loss of power may leave any part of what was not synced.
//! Only the newest segment has such a tail, and the first record after each
//! sync carries the *synced* flag: all before it had been on the disk. So
//! damage before such a record, or in any older segment, is corruption, and the
//! store does not open; damage after the last such record is taken for the tail
//! of writes that were never synced. Nothing on the disk tells those from the
//! last ones that were, until a mark or another record follows them.
//!
//! Invariants:
//! * Corruption is never skipped: it is an error that names file and offset
//!   (`every_flipped_bit_is_refused_or_harmless`).
//! * Recovery that is cut off at any point can be begun again
//!   (`every_loss_of_power_leaves_what_was_synced`).

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use super::checksums::Checksums;
use super::directory::Directory;
use super::disk::{Disk, DiskFile};
use super::header::{HEADER_BYTES, Header};
use super::index::Index;
use super::record;
use super::replay::{self, End, Player};
use super::segment::{Segment, read_header};
use super::segments::Segments;
use super::successor::random_u64;
use crate::error::{KvsError, Result};
use crate::logger;

/// What recovery makes of a directory.
pub(super) struct Recovered<D: Disk> {
    /// Its segments; all that is in them is on the disk.
    pub(super) segments: Segments<D>,
    /// Where the newest record of each key is.
    pub(super) index: Index,
    /// Whether the newest segment ends with a mark that all of it is on the disk.
    pub(super) marked: bool,
}

/// Tells how far recovery has come, when it takes long.
struct Progress {
    /// When it was last told, or when recovery began.
    told: Instant,
}

impl Progress {
    /// How long nothing is told, at the most.
    const PERIOD: Duration = Duration::from_secs(1);

    /// Recovery begins.
    fn new() -> Progress {
        Progress { told: Instant::now() }
    }

    /// So many segments, of so many, are read.
    fn tell(&mut self, read: usize, count: usize) {
        if self.told.elapsed() >= Progress::PERIOD {
            logger::info!("read {read} of {count} segments");
            self.told = Instant::now();
        }
    }
}

/// What the segments of a directory hold, before anything is changed.
struct Found<F: DiskFile> {
    /// All but the one that will be written to.
    older: VecDeque<Segment<F>>,
    /// That one.
    active: Segment<F>,
    /// How it ends.
    end: End,
}

/// Opens the segments of a directory, the first of which is made if there is none.
pub(super) fn recover<D: Disk>(directory: Directory<D>) -> Result<Recovered<D>> {
    let numbers = directory.segment_numbers()?;
    let Some((&newest, _)) = numbers.split_last() else {
        return begin_store(directory);
    };
    check_numbers(&directory, &numbers)?;
    let read = |player: &mut Player| read(&directory, &numbers, player);
    let (found, index) = replay::build(read)?;
    match found {
        None => begin_again(directory, newest),
        Some(found) => {
            drop_unfinished(&directory, found.active.header.number, newest)?;
            finish(directory, index, found)
        }
    }
}

/// Reads all segments, oldest first; `None` when all there is is a first one
/// whose making was cut off.
fn read<D: Disk>(
    directory: &Directory<D>,
    numbers: &[u32],
    player: &mut Player,
) -> Result<Option<Found<D::File>>> {
    let (oldest, newest) = (numbers[0], numbers[numbers.len() - 1]);
    let mut older: VecDeque<Segment<D::File>> = VecDeque::new();
    let mut progress = Progress::new();
    for &number in numbers {
        let (path, file) = (directory.segment_path(number), directory.open_segment(number)?);
        let (header, len) = read_header(&file, &path)?;
        let header = match header {
            Ok(header) => header,
            Err(_) if number == newest && older.is_empty() && len <= HEADER_BYTES as u64 => {
                return Ok(None);
            }
            Err(reason) => return Err(KvsError::corrupt(&path, 0, reason)),
        };
        let store = older.front().map_or(header.store, |oldest| oldest.header.store);
        check_header(&path, header, number, store)?;
        let mut segment = Segment::found(path, header, len, file);
        let end = player.play(&mut segment, numbers.len() - older.len() - 1)?;
        if !matches!(end, End::Continued) {
            // Fails unless what this leaves unread is nothing but the newest, without a record.
            check_newest(directory, &segment, &end, newest)?;
            check_oldest(directory, oldest, player.retired)?;
            check_torn(&segment, &end)?;
            return Ok(Some(Found { older, active: segment, end }));
        }
        segment.file = None;
        older.push_back(segment);
        progress.tell(older.len(), numbers.len());
    }
    Err(missing(directory, newest.saturating_add(1)))
}

/// Makes the first segment of a store.
fn begin_store<D: Disk>(directory: Directory<D>) -> Result<Recovered<D>> {
    if directory.is_initialised()? {
        let reason = "its segments are gone; to begin an empty store, remove its lock file";
        return Err(KvsError::corrupt(directory.path(), 0, reason));
    }
    let header = Header { number: 1, store: random_u64(), salt: random_u64() as u32 };
    let active = Segment::create(&directory, header)?;
    directory.name_holder()?;
    logger::info!("began a store in {}", directory.path().display());
    let segments = Segments::new(directory, VecDeque::new(), active);
    Ok(Recovered { segments, index: Index::default(), marked: true })
}

/// Makes the first segment of a store whose making was cut off.
fn begin_again<D: Disk>(directory: Directory<D>, number: u32) -> Result<Recovered<D>> {
    if number != 1 || directory.is_initialised()? {
        let path = directory.segment_path(number);
        return Err(KvsError::corrupt(&path, 0, "its header is damaged"));
    }
    directory.remove_segment(number)?;
    begin_store(directory)
}

/// Fails where a number is left out.
fn check_numbers<D: Disk>(directory: &Directory<D>, numbers: &[u32]) -> Result<()> {
    let gap = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]);
    gap.map_or(Ok(()), |pair| Err(missing(directory, pair[0] + 1)))
}

/// Fails unless the oldest segment is the one after the last that may be gone,
/// or one that had been about to go.
fn check_oldest<D: Disk>(directory: &Directory<D>, oldest: u32, retired: u32) -> Result<()> {
    if oldest <= retired.saturating_add(1) { Ok(()) } else { Err(missing(directory, retired + 1)) }
}

/// Fails when a header is that of another segment.
fn check_header(path: &Path, header: Header, number: u32, store: u64) -> Result<()> {
    let reason = why_foreign(header, number, store);
    reason.map_or(Ok(()), |reason| Err(KvsError::corrupt(path, 0, reason)))
}

/// Why a header is not that of the segment with this number of this store, if it is not.
pub(super) fn why_foreign(header: Header, number: u32, store: u64) -> Option<String> {
    if header.number != number {
        return Some(format!("it is segment {} under another name", header.number));
    }
    let is_foreign = header.store != store;
    is_foreign.then(|| "it belongs to another store than the other segments".to_owned())
}

/// Whether a segment has no records.
pub(super) fn is_empty<D: Disk>(directory: &Directory<D>, number: u32) -> Result<bool> {
    let path = directory.segment_path(number);
    let len = directory.open_segment(number)?.len();
    let len = len.map_err(KvsError::io(format!("cannot read the length of {}", path.display())))?;
    Ok(len <= HEADER_BYTES as u64)
}

/// The error for a segment that has to be there and is not.
fn missing<D: Disk>(directory: &Directory<D>, number: u32) -> KvsError {
    KvsError::corrupt(&directory.segment_path(number), 0, "the segment is missing")
}

/// Fails when a segment ends before the mark that it is continued, though one
/// with records follows.
fn check_newest<D: Disk>(
    directory: &Directory<D>,
    segment: &Segment<D::File>,
    end: &End,
    newest: u32,
) -> Result<()> {
    let number = segment.header.number;
    if number == newest || number + 1 == newest && is_empty(directory, newest)? {
        return Ok(());
    }
    let reason = match end {
        End::Damaged { reason, .. } => reason,
        _ => "records are cut off at its end",
    };
    Err(KvsError::corrupt(&segment.path, segment.len, reason))
}

/// Removes the segment after `number` if it had been begun without being used.
fn drop_unfinished<D: Disk>(directory: &Directory<D>, number: u32, newest: u32) -> Result<()> {
    if number == newest { Ok(()) } else { directory.remove_segment(newest) }
}

/// Cuts off the torn tail of the newest segment and puts all on the disk.
fn finish<D: Disk>(
    directory: Directory<D>,
    index: Index,
    found: Found<D::File>,
) -> Result<Recovered<D>> {
    let Found { mut older, mut active, end } = found;
    if let End::Damaged { reason, .. } = &end {
        let tail = active.room - active.len;
        let path = active.path.display();
        logger::warn!(
            "cut {tail} bytes off, which nothing tells to have been synced, of {path}: {reason}"
        );
    }
    if active.has_room() {
        active.cut_back(active.len)?;
    }
    // Of the older ones only the last one's end may be in the page cache alone: the
    // mark there is synced before the first record of the next segment is written,
    // and all older ones are followed by one that has records.
    if let Some(previous) = older.back_mut() {
        previous.file = Some(directory.open_segment(previous.header.number)?);
        previous.write_again()?;
        previous.file = None;
    }
    active.write_again()?;
    directory.sync()?;
    if !directory.is_initialised()? {
        directory.name_holder()?;
    }
    let marked = matches!(end, End::Whole { marked: true });
    let segments = Segments::new(directory, older, active);
    Ok(Recovered { segments, index, marked })
}

/// Fails when damage at the end of a segment had been on the disk, as a later
/// record tells: that is no torn tail.
fn check_torn<F: DiskFile>(segment: &Segment<F>, end: &End) -> Result<()> {
    let End::Damaged { reason, tail } = end else { return Ok(()) };
    let (tail, salt) = (Checksums::new(tail), segment.header.salt);
    let is_synced = |at: &usize| record::decode_at(&tail, *at, salt).is_ok_and(|it| it.synced);
    match (1..tail.bytes().len()).find(is_synced).map(|at| segment.len + at as u64) {
        None => Ok(()),
        Some(at) => Err(KvsError::corrupt(
            &segment.path,
            segment.len,
            format!("{reason}, and a record at byte {at} tells that this had been on the disk"),
        )),
    }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
