//! The segments of an open store, oldest first, and their open files.
//!
//! Not here: names and the lock ([`directory`](super::directory)), what is in a
//! segment, and when one is begun or removed.
//!
//! Invariants:
//! * There is always one segment at least. The newest, the *active* one, is the
//!   only one that grows, and its file is open (`an_engine_does_what_a_map_does`).
//! * Numbers have no gaps, so that a number is found by subtraction
//!   (`a_lost_segment_is_refused`).
//! * At most [`OPEN_FILES_MAX`] files are open, however many segments there are,
//!   beside one that is synced or closed
//!   (`files_stay_open_as_many_as_may_be_and_the_one_opened_first_is_closed_for_another`).

use std::collections::VecDeque;
use std::fmt::Display;

use super::dead::Dead;
use super::directory::Directory;
use super::disk::{Disk, DiskFile};
use super::segment::Segment;
use crate::error::{KvsError, Result};

/// Segments whose files are open at a time: few beside the 1,024 descriptors
/// that a process commonly has, many beside the segments that are read at a time.
const OPEN_FILES_MAX: usize = 128;

/// The segments, oldest first.
pub(crate) struct Segments<D: Disk> {
    /// Opens and removes their files.
    pub(crate) directory: Directory<D>,
    /// All but the active one, oldest first.
    list: VecDeque<Segment<D::File>>,
    /// Bytes in those.
    older_bytes: u64,
    /// The active one is the last, and no part of `list`, so that it is always there.
    active: Segment<D::File>,
    /// Numbers of those in `list` whose files are open, in the order of opening.
    open: VecDeque<u32>,
}

impl<D: Disk> Segments<D> {
    /// These segments; those of `older` are oldest first and have their files closed.
    pub(crate) fn new(
        directory: Directory<D>,
        older: VecDeque<Segment<D::File>>,
        active: Segment<D::File>,
    ) -> Segments<D> {
        let older_bytes = older.iter().map(|segment| segment.len).sum();
        Segments { directory, list: older, older_bytes, active, open: VecDeque::new() }
    }

    /// The newest, to which records are appended.
    pub(crate) fn active(&self) -> &Segment<D::File> {
        &self.active
    }

    /// The newest, to append to it.
    pub(crate) fn active_mut(&mut self) -> &mut Segment<D::File> {
        &mut self.active
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.list.len() + 1
    }

    /// Bytes in all of them.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.older_bytes + self.active.len
    }

    /// The number of the `nth` oldest; `None` when that one is active, or none is.
    pub(crate) fn older_number(&self, nth: usize) -> Option<u32> {
        self.list.get(nth).map(|segment| segment.header.number)
    }

    /// The segment with this number, its file open; `None` when there is none.
    pub(crate) fn get(&mut self, number: u32) -> Result<Option<&Segment<D::File>>> {
        if number == self.active.header.number {
            return Ok(Some(&self.active));
        }
        let oldest = self.older_number(0);
        let Some(at) = oldest.and_then(|oldest| number.checked_sub(oldest)) else {
            return Ok(None);
        };
        let at = at as usize;
        if self.list.get(at).is_some_and(|segment| segment.file.is_none()) {
            self.close_one_of_too_many();
            self.list[at].file = Some(self.directory.open_segment(number)?);
            self.open.push_back(number);
        }
        Ok(self.list.get(at))
    }

    /// The dead records of the segment with this number.
    pub(crate) fn dead_mut(&mut self, number: u32) -> Option<&mut Dead> {
        if number == self.active.header.number {
            return Some(&mut self.active.dead);
        }
        let at = number.checked_sub(self.older_number(0)?)?;
        self.list.get_mut(at as usize).map(|segment| &mut segment.dead)
    }

    /// Makes room for one more open file, at the cost of the one opened first.
    fn close_one_of_too_many(&mut self) {
        if self.open.len() < OPEN_FILES_MAX {
            return;
        }
        if let (Some(number), Some(oldest)) = (self.open.pop_front(), self.older_number(0)) {
            let at = number.wrapping_sub(oldest) as usize;
            if let Some(segment) = self.list.get_mut(at) {
                segment.file = None;
            }
        }
    }

    /// An error for damage at `offset` of the segment with this number.
    pub(crate) fn corrupt(&self, number: u32, offset: u64, reason: impl Display) -> KvsError {
        KvsError::corrupt(&self.directory.segment_path(number), offset, reason.to_string())
    }

    /// Makes `segment`, which has the next number, the active one.
    pub(crate) fn push(&mut self, segment: Segment<D::File>) {
        let mut old = std::mem::replace(&mut self.active, segment);
        old.file = None;
        self.older_bytes += old.len;
        self.list.push_back(old);
    }

    /// Removes the oldest, its file and its name on the disk.
    pub(crate) fn remove_oldest(&mut self) -> Result<()> {
        let Some(oldest) = self.list.front() else {
            return Err(KvsError::corrupt(&self.active.path, 0, "the active segment stays"));
        };
        let (number, len) = (oldest.header.number, oldest.len);
        self.directory.remove_segment(number)?;
        self.older_bytes -= len;
        let file = self.list.pop_front().and_then(|oldest| oldest.file);
        file.into_iter().for_each(DiskFile::close_beside);
        self.open.retain(|open| *open != number);
        Ok(())
    }
}
