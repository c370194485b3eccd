//! A bounded cache of blocks of segments, so that a read need not be a call to
//! the system.
//!
//! A direct-mapped table: a block has one slot that it may be in, the next
//! block of its segment has the next slot, and whichever came last stays. As
//! long as all segments fit, none takes another's slot; there is no list of
//! what was used when to keep. Bytes of a segment never change, so nothing is
//! ever invalidated: a block that has grown since is read again when more of it
//! is wanted than was there.
//!
//! Not here: files. The caller says how to read.

use std::collections::TryReserveError;
use std::hint::black_box;

use super::index::Location;
use super::prefetch::prefetch;
use super::table::CACHE_LINE_BYTES;
use crate::error::{KvsError, Result};

/// Bytes of a block: a page, the least that the system reads.
const BLOCK_BYTES: usize = 4096;

/// Bytes of room for a record that are kept for the next one.
const RECORD_ROOM_BYTES_MAX: usize = 4 << 20;

/// Which block of which segment a slot holds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tag {
    /// The segment's number; 0 for none.
    segment: u32,
    /// The block's number in it.
    block: u32,
    /// Bytes of the block that were there when it was read.
    filled: u32,
}

/// The cache.
pub(crate) struct Cache {
    /// What each slot holds.
    tags: Vec<Tag>,
    /// The slots' blocks, one after another.
    bytes: Vec<u8>,
    /// Slots between the first block of a segment and that of the next.
    stride: usize,
    /// Where a record that spans blocks is put together.
    record: Vec<u8>,
}

impl Cache {
    /// A cache of `cache_bytes`, for segments of about `segment_bytes` at the most:
    /// the blocks of a longer one would take the slots of the next one's.
    ///
    /// # Errors
    ///
    /// [`KvsError::Io`] when the system has no such memory.
    pub(crate) fn new(cache_bytes: usize, segment_bytes: u64) -> Result<Cache> {
        let context = format!("cannot have a read cache of {cache_bytes} bytes");
        let (tags, bytes) =
            room(cache_bytes / BLOCK_BYTES).map_err(|e| KvsError::io(context)(e.into()))?;
        let stride = segment_bytes as usize / BLOCK_BYTES + 1;
        Ok(Cache { tags, bytes, stride, record: Vec::new() })
    }

    /// The `len` bytes of a segment from `offset` on, or as many as there are.
    ///
    /// `read` fills a buffer from an offset of that segment on and says how
    /// many bytes there were. A record longer than a block would turn out many
    /// others, so it is read past the cache.
    pub(crate) fn read(
        &mut self,
        segment: u32,
        offset: u32,
        len: u32,
        read: impl Fn(&mut [u8], u64) -> Result<usize>,
    ) -> Result<&[u8]> {
        if self.record.capacity() > RECORD_ROOM_BYTES_MAX {
            self.record = Vec::new();
        }
        let (start, len) = (offset as usize % BLOCK_BYTES, len as usize);
        let block = offset / BLOCK_BYTES as u32;
        if len > BLOCK_BYTES || self.tags.is_empty() {
            self.record.resize(len, 0);
            let filled = read(&mut self.record, u64::from(offset))?;
            return Ok(&self.record[..filled]);
        }
        if start + len <= BLOCK_BYTES {
            return Ok(self
                .block(segment, block, start + len, &read)?
                .get(start..)
                .map_or(&[], |bytes| &bytes[..len.min(bytes.len())]));
        }
        let head_len = BLOCK_BYTES - start;
        self.record.clear();
        let mut record = std::mem::take(&mut self.record);
        let head = self.block(segment, block, BLOCK_BYTES, &read)?;
        record.extend_from_slice(head.get(start..).unwrap_or_default());
        let tail = self.block(segment, block + 1, len - head_len, &read)?;
        record.extend_from_slice(&tail[..(len - head_len).min(tail.len())]);
        self.record = record;
        Ok(&self.record)
    }

    /// Has the processor load where a record would be, so that reading it soon does not
    /// wait for memory. Whether it is there is not looked at.
    pub(crate) fn prefetch(&self, location: Location) {
        if self.tags.is_empty() {
            return;
        }
        let slot = self.slot(location.segment, location.offset / BLOCK_BYTES as u32);
        let start = slot * BLOCK_BYTES + location.offset as usize % BLOCK_BYTES;
        prefetch(&self.tags[slot]);
        // The lines of a common record; the others of a long one follow by themselves.
        for at in [0, CACHE_LINE_BYTES, location.len as usize - 1] {
            self.bytes.get(start + at).into_iter().for_each(prefetch);
        }
    }

    /// The slot that a block may be in.
    fn slot(&self, segment: u32, block: u32) -> usize {
        (segment as usize * self.stride + block as usize) % self.tags.len()
    }

    /// A block, with `needed` bytes at the least if it has as many.
    fn block(
        &mut self,
        segment: u32,
        block: u32,
        needed: usize,
        read: &impl Fn(&mut [u8], u64) -> Result<usize>,
    ) -> Result<&[u8]> {
        let slot = self.slot(segment, block);
        let tag = &mut self.tags[slot];
        let bytes = &mut self.bytes[slot * BLOCK_BYTES..][..BLOCK_BYTES];
        if (tag.segment, tag.block) != (segment, block) || (tag.filled as usize) < needed {
            tag.segment = 0;
            let filled = read(bytes, u64::from(block) * BLOCK_BYTES as u64)?;
            *tag = Tag { segment, block, filled: filled as u32 };
        }
        Ok(&bytes[..tag.filled as usize])
    }
}

/// Tags and bytes of so many slots, all empty.
///
/// The bytes are asked for twice: only zeros get their pages one by one as they are
/// used, and std has no call for them that can fail.
fn room(slots: usize) -> std::result::Result<(Vec<Tag>, Vec<u8>), TryReserveError> {
    let (mut tags, mut bytes) = (Vec::new(), Vec::<u8>::new());
    bytes.try_reserve_exact(slots * BLOCK_BYTES)?;
    tags.try_reserve_exact(slots)?;
    // Else the compiler may leave out a request whose memory nobody uses.
    drop(black_box(bytes));
    tags.resize(slots, Tag { segment: 0, block: 0, filled: 0 });
    Ok((tags, vec![0; slots * BLOCK_BYTES]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Reads records of every place and length from a file that grows meanwhile.
    #[test]
    fn what_is_read_is_what_is_there() {
        let file: Vec<u8> = (0..40_000u32).map(|i| (i * i / 7) as u8).collect();
        for slots in [0, 1, 2, 3, 64] {
            let mut cache = Cache::new(slots * BLOCK_BYTES, 16 * BLOCK_BYTES as u64).unwrap();
            for step in 0..2_000u32 {
                let (segment, end) = (1 + step % 3, 9_000 + 15 * step as usize);
                let len = 1 + (step * 31) % 6_000;
                let offset = (step * 977) % (end as u32 - len);
                let read = |buffer: &mut [u8], at: u64| {
                    let bytes = &file[..end][at as usize..];
                    let filled = bytes.len().min(buffer.len());
                    buffer[..filled].copy_from_slice(&bytes[..filled]);
                    Ok(filled)
                };
                let wanted = &file[offset as usize..][..len as usize];
                assert_eq!(cache.read(segment, offset, len, read).unwrap(), wanted);
            }
        }
    }

    #[test]
    fn a_block_is_read_once_and_a_failed_read_leaves_none() {
        let reads = Cell::new(0);
        let mut cache = Cache::new(4 * BLOCK_BYTES, BLOCK_BYTES as u64).unwrap();
        let fails = |_: &mut [u8], _: u64| Err(crate::KvsError::KeyNotFound);
        let read = |buffer: &mut [u8], _: u64| {
            reads.set(reads.get() + 1);
            buffer.fill(7);
            Ok(buffer.len())
        };
        assert!(cache.read(1, 5, 10, fails).is_err());
        for offset in [5, 100, 4_000, 4_086] {
            assert_eq!(cache.read(1, offset, 10, read).unwrap(), [7; 10]);
        }
        assert_eq!(cache.read(1, 0, BLOCK_BYTES as u32, read).unwrap(), [7; BLOCK_BYTES]);
        assert_eq!(reads.get(), 1);
    }

    /// Any bytes, other ones at each place.
    fn byte(segment: u32, at: usize) -> u8 {
        ((segment + 1).wrapping_mul(at as u32 + 7).wrapping_mul(2_654_435_761) >> 24) as u8
    }

    /// A cache of two segments that have four blocks each and a little of a fifth, and
    /// all these in it; fails unless each was read once, however often it is wanted.
    fn full_cache() -> Cache {
        let mut cache = Cache::new(10 * BLOCK_BYTES, 4 * BLOCK_BYTES as u64).unwrap();
        let reads = Cell::new(0);
        for (segment, block) in (0..30).map(|nth| (1 + nth / 5 % 2, nth % 5)) {
            let read = |buffer: &mut [u8], at: u64| {
                reads.set(reads.get() + 1);
                (at as usize..).zip(&mut *buffer).for_each(|(at, to)| *to = byte(segment, at));
                Ok(buffer.len())
            };
            let offset = block * BLOCK_BYTES as u32;
            cache.read(segment, offset, BLOCK_BYTES as u32, read).unwrap();
        }
        assert_eq!(reads.get(), 10);
        cache
    }

    #[test]
    fn segments_that_fit_do_not_take_each_others_place() {
        full_cache();
    }

    #[test]
    fn no_location_is_too_far_to_be_prefetched() {
        let at = |segment, offset| Location { segment, offset, len: 100 };
        for cache in [full_cache(), Cache::new(0, 1).unwrap()] {
            for offset in [0, 4_095, 9_100, u32::MAX] {
                (1..40).for_each(|segment| cache.prefetch(at(segment, offset)));
            }
        }
    }

    #[test]
    fn room_for_a_long_record_is_given_back_and_that_of_others_kept() {
        let mut cache = Cache::new(BLOCK_BYTES, BLOCK_BYTES as u64).unwrap();
        let mut room_after = |len| {
            cache.read(1, 0, len, |buffer, _| Ok(buffer.len())).unwrap();
            cache.read(1, 0, 10, |buffer, _| Ok(buffer.len())).unwrap();
            cache.record.capacity()
        };
        assert_eq!(room_after(RECORD_ROOM_BYTES_MAX as u32), 4 << 20);
        assert_eq!(room_after(RECORD_ROOM_BYTES_MAX as u32 + 1), 0);
    }
}
