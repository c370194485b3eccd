//! Which records of a segment are known to be dead, a bit for each.
//!
//! Cleaning a segment must find its live records among all. To ask the index
//! for every key costs more than all else that cleaning does. But whatever
//! changes the index learns where the key was before: `settle` marks that place,
//! and `undo_batch` takes the mark back ([`write`](super::write)). So most of the
//! dead are known when their segment is cleaned.
//!
//! Not here: asking the index, which cleaning still does for the others. What
//! died before the store was opened is not known.
//!
//! Invariant: the index has no key at a place that is marked, as such a key
//! would be lost (`an_engine_does_what_a_map_does`), also when writes were taken
//! back (`whatever_fails_exactly_that_is_told_and_undone`).

use super::record::HEADER_BYTES;

/// Bytes of a segment that share a bit: few enough that no two records begin in
/// them. So the bits take a 64th of the segment's size, and a 32nd while they grow.
const BYTES_PER_BIT: usize = 8;
const _: () = assert!(BYTES_PER_BIT <= HEADER_BYTES);

/// The dead records of one segment.
#[derive(Default)]
pub(crate) struct Dead {
    /// The bits, as far as one is set.
    words: Vec<u64>,
}

impl Dead {
    /// Whether the record at `offset` is known to be dead.
    pub(crate) fn contains(&self, offset: u64) -> bool {
        let (word, bit) = place(offset);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Takes note that the record at `offset` is dead.
    pub(crate) fn insert(&mut self, offset: u64) {
        let (word, bit) = place(offset);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= bit;
    }

    /// Takes back what [`insert`](Self::insert) noted.
    pub(crate) fn remove(&mut self, offset: u64) {
        let (word, bit) = place(offset);
        if let Some(bits) = self.words.get_mut(word) {
            *bits &= !bit;
        }
    }
}

/// The word of a record that begins at `offset`, and its bit in there.
fn place(offset: u64) -> (usize, u64) {
    let nth = offset as usize / BYTES_PER_BIT;
    (nth / u64::BITS as usize, 1 << (nth % u64::BITS as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_as_close_as_can_be_do_not_share_a_bit() {
        let mut dead = Dead::default();
        let offsets = || (32..4_000).step_by(HEADER_BYTES);
        offsets().step_by(2).for_each(|offset| dead.insert(offset));
        offsets().step_by(6).for_each(|offset| dead.remove(offset));
        dead.remove(1 << 30);
        for (nth, offset) in offsets().enumerate() {
            assert_eq!(dead.contains(offset), nth % 2 == 0 && nth % 6 != 0, "{offset}");
        }
        assert!(!dead.contains(1 << 30));
    }

    #[test]
    fn the_bits_take_a_64th_of_the_segment_and_a_32nd_while_they_grow() {
        let mut dead = Dead::default();
        const SEGMENT_BYTES: usize = 1 << 20;
        (0..SEGMENT_BYTES as u64).step_by(HEADER_BYTES).for_each(|offset| dead.insert(offset));
        assert_eq!(dead.words.len() * size_of::<u64>(), SEGMENT_BYTES / 64);
        assert!(dead.words.capacity() * size_of::<u64>() <= SEGMENT_BYTES / 32);
    }
}
