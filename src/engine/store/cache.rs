//! The block cache: parts of segments in memory, so that a read need not be a system call.
//!
//! The cache is a direct-mapped table of 4 KiB blocks. Each block has one slot, and
//! consecutive blocks have consecutive slots. As long as all segments fit, no block evicts
//! another, and there is no order of use to maintain. Bytes of a segment never change, so
//! nothing is invalidated. A block of the active segment is read again when more of it is
//! needed than was there.
//!
//! Invariant: a read returns the bytes of the file (`reads_return_the_bytes_of_the_file`).

use std::hint::black_box;
use std::ops::Range;

use super::index::Location;
use crate::error::{KvsError, Result};

/// Bytes of a block: a page, the least that the system reads.
const BLOCK_BYTES: usize = 4096;
/// Bytes that the buffer for long records keeps.
const RECORD_BUFFER_BYTES_MAX: usize = 4 << 20;
/// Bytes that a processor loads at a time.
const CACHE_LINE_BYTES: usize = 64;

/// The block that a slot holds.
#[derive(Clone, Copy)]
struct Tag {
    /// Number of the segment; 0 for none.
    segment: u32,
    block: u32,
    /// Bytes of the block that were read.
    filled: u32,
}

pub(super) struct Cache {
    /// What each slot holds, and the bytes of all slots.
    tags: Vec<Tag>,
    bytes: Vec<u8>,
    /// Slots between the first blocks of consecutive segments.
    stride: usize,
    /// A record that spans blocks, or is longer than one.
    record: Vec<u8>,
}

impl Cache {
    /// A cache of `cache_bytes` for segments of about `segment_bytes`. Fails if
    /// there is no memory for it.
    pub(super) fn new(cache_bytes: usize, segment_bytes: u64) -> Result<Cache> {
        // `vec![0; n]` asks for zeroed memory, whose pages the system allocates on first
        // use. But it aborts if there is too little. So a fallible allocation is tried first.
        let mut probe = Vec::<u8>::new();
        let context = format!("cannot allocate a block cache of {cache_bytes} bytes");
        probe.try_reserve_exact(cache_bytes).map_err(|e| KvsError::io(context)(e.into()))?;
        // Otherwise the compiler may leave out an allocation that nobody uses.
        drop(black_box(probe));
        let slots = cache_bytes / BLOCK_BYTES;
        Ok(Cache {
            tags: vec![Tag { segment: 0, block: 0, filled: 0 }; slots],
            bytes: vec![0; slots * BLOCK_BYTES],
            // The last block of a segment is seldom full.
            stride: segment_bytes as usize / BLOCK_BYTES + 1,
            record: Vec::new(),
        })
    }

    /// The bytes of a record, or as many as there are. `read` fills a buffer from
    /// an offset of the segment on and returns the number of bytes.
    ///
    /// A record longer than a block would evict many blocks, so it is not cached.
    pub(super) fn read(
        &mut self,
        location: Location,
        read: impl Fn(&mut [u8], u64) -> Result<usize>,
    ) -> Result<&[u8]> {
        if self.record.capacity() > RECORD_BUFFER_BYTES_MAX {
            self.record = Vec::new();
        }
        let Location { segment, offset, len } = location;
        if len as usize > BLOCK_BYTES || self.tags.is_empty() {
            self.record.resize(len as usize, 0);
            let filled = read(&mut self.record, offset.into())?;
            return Ok(&self.record[..filled]);
        }
        let block = offset / BLOCK_BYTES as u32;
        let start = offset as usize % BLOCK_BYTES;
        let end = start + len as usize;
        let head = self.load(segment, block, start..end.min(BLOCK_BYTES), &read)?;
        if end <= BLOCK_BYTES {
            return Ok(&self.bytes[head]);
        }
        self.record.clear();
        self.record.extend_from_slice(&self.bytes[head]);
        let tail = self.load(segment, block + 1, 0..end - BLOCK_BYTES, &read)?;
        self.record.extend_from_slice(&self.bytes[tail]);
        Ok(&self.record)
    }

    /// Loads a block, unless these bytes of it are in its slot. Returns where they are in
    /// memory, as far as the block reaches.
    fn load(
        &mut self,
        segment: u32,
        block: u32,
        wanted: Range<usize>,
        read: &impl Fn(&mut [u8], u64) -> Result<usize>,
    ) -> Result<Range<usize>> {
        let slot = self.slot(segment, block);
        let first = slot * BLOCK_BYTES;
        let tag = &mut self.tags[slot];
        if (tag.segment, tag.block) != (segment, block) || (tag.filled as usize) < wanted.end {
            tag.segment = 0;
            let bytes = &mut self.bytes[first..first + BLOCK_BYTES];
            let filled = read(bytes, u64::from(block) * BLOCK_BYTES as u64)?;
            *tag = Tag { segment, block, filled: filled as u32 };
        }
        let end = wanted.end.min(tag.filled as usize);
        Ok(first + wanted.start.min(end)..first + end)
    }

    fn slot(&self, segment: u32, block: u32) -> usize {
        (segment as usize * self.stride + block as usize) % self.tags.len()
    }

    /// Loads the memory of a record into the processor's cache, without waiting
    /// for it. Whether the record is in its slot does not matter.
    pub(super) fn prefetch(&self, location: Location) {
        if self.tags.is_empty() {
            return;
        }
        let slot = self.slot(location.segment, location.offset / BLOCK_BYTES as u32);
        let start = slot * BLOCK_BYTES + location.offset as usize % BLOCK_BYTES;
        prefetch(&self.tags[slot]);
        // The processor loads the other lines of a long record by itself.
        for at in [0, CACHE_LINE_BYTES, location.len as usize - 1] {
            self.bytes.get(start + at).into_iter().for_each(prefetch);
        }
    }
}

/// Loads the cache line of a value into the processor's cache, where it can.
fn prefetch<T: Copy>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "std has no stable call for it")]
        // SAFETY: every x86-64 processor has the instruction, and it accesses no memory.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    black_box(*value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn at(segment: u32, offset: u32, len: u32) -> Location {
        Location { segment, offset, len }
    }

    /// Reads records of every place and length from a file that grows meanwhile.
    #[test]
    fn reads_return_the_bytes_of_the_file() {
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
                assert_eq!(cache.read(Location { segment, offset, len }, read).unwrap(), wanted);
            }
        }
    }

    #[test]
    fn a_block_is_read_once_unless_the_read_fails() {
        let reads = Cell::new(0);
        let mut cache = Cache::new(4 * BLOCK_BYTES, BLOCK_BYTES as u64).unwrap();
        let fails = |_: &mut [u8], _: u64| Err(crate::KvsError::KeyNotFound);
        let read = |buffer: &mut [u8], _: u64| {
            reads.set(reads.get() + 1);
            buffer.fill(7);
            Ok(buffer.len())
        };
        assert!(cache.read(at(1, 5, 10), fails).is_err());
        for offset in [5, 100, 4_000, 4_086] {
            assert_eq!(cache.read(at(1, offset, 10), read).unwrap(), [7; 10]);
        }
        assert_eq!(cache.read(at(1, 0, BLOCK_BYTES as u32), read).unwrap(), [7; BLOCK_BYTES]);
        assert_eq!(reads.get(), 1);
    }

    /// Any bytes, other ones at each place.
    fn byte(segment: u32, at: usize) -> u8 {
        ((segment + 1).wrapping_mul(at as u32 + 7).wrapping_mul(2_654_435_761) >> 24) as u8
    }

    /// A cache of two segments that have four blocks each and a little of a fifth, and
    /// all these in it; fails unless each was read once, however often it is wanted.
    fn full_cache() -> Cache {
        let mut cache = Cache::new(12 * BLOCK_BYTES, 4 * BLOCK_BYTES as u64).unwrap();
        let reads = Cell::new(0);
        for (segment, block) in (0..30).map(|nth| (1 + nth / 5 % 2, nth % 5)) {
            let read = |buffer: &mut [u8], at: u64| {
                reads.set(reads.get() + 1);
                (at as usize..).zip(&mut *buffer).for_each(|(at, to)| *to = byte(segment, at));
                Ok(buffer.len())
            };
            let offset = block * BLOCK_BYTES as u32;
            cache.read(at(segment, offset, BLOCK_BYTES as u32), read).unwrap();
        }
        assert_eq!(reads.get(), 10);
        cache
    }

    #[test]
    fn segments_that_fit_evict_nothing() {
        full_cache();
    }

    #[test]
    fn any_location_can_be_prefetched() {
        for cache in [full_cache(), Cache::new(0, 1).unwrap()] {
            for offset in [0, 4_095, 9_100, u32::MAX] {
                (1..40).for_each(|segment| cache.prefetch(at(segment, offset, 100)));
            }
        }
    }

    #[test]
    fn the_buffer_of_a_long_record_is_given_back() {
        let mut cache = Cache::new(BLOCK_BYTES, BLOCK_BYTES as u64).unwrap();
        let mut room_after = |len| {
            cache.read(at(1, 0, len), |buffer, _| Ok(buffer.len())).unwrap();
            cache.read(at(1, 0, 10), |buffer, _| Ok(buffer.len())).unwrap();
            cache.record.capacity()
        };
        assert_eq!(room_after(RECORD_BUFFER_BYTES_MAX as u32), 4 << 20);
        assert_eq!(room_after(RECORD_BUFFER_BYTES_MAX as u32 + 1), 0);
    }
}
