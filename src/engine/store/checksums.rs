//! The checksums of many ranges of the same bytes, each in a few steps however
//! long the range is.
//!
//! Whoever looks for records behind damage tries every byte as the beginning of
//! one, and a client can write values full of what look like headers of long
//! records. To go through what each of them claims takes a time that grows with
//! the square of the bytes: minutes for a few mebibytes.
//!
//! The checksum is linear over bits: two seeds that differ by `d` give the same
//! `n` bytes checksums that differ by `d` times x^8n, as polynomials over bits,
//! modulo that of the checksum. With `c(i)` as the checksum of the first `i`
//! bytes, which is found once for all of them, the range from `a` to `b` takes
//! `c(a)` as a seed to `c(b)`, so any other seed to
//!
//! ```text
//! c(b) ^ (c(a) ^ seed) * x^8(b-a)
//! ```
//!
//! It is what zlib calls `crc32_combine`, turned round.
//!
//! Not here: what is checked ([`record`](super::record)).
//!
//! Invariant: the checksum of a range is that of [`crc32c`]
//! (`every_range_has_the_checksum_of_its_bytes`).

use std::ops::Range;

use super::crc32::{after, crc32c};

/// Bytes between two that `c(i)` is kept for; from there on it is computed. So
/// it takes a sixteenth of the room of the bytes.
const STRIDE_BYTES: usize = 64;

/// Bytes, and what the checksum of any range of them is found from.
pub(crate) struct Checksums<'a> {
    /// The bytes.
    bytes: &'a [u8],
    /// The checksums of the first 0, 1, 2, .. strides of them.
    starts: Vec<u32>,
}

impl<'a> Checksums<'a> {
    /// Goes through these bytes once.
    pub(crate) fn new(bytes: &'a [u8]) -> Checksums<'a> {
        let mut starts = vec![0];
        let mut crc = 0;
        for stride in bytes.chunks_exact(STRIDE_BYTES) {
            crc = crc32c(crc, stride);
            starts.push(crc);
        }
        Checksums { bytes, starts }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What [`crc32c`] gives for this range, which lies within the bytes.
    pub(crate) fn of(&self, seed: u32, range: Range<usize>) -> u32 {
        let difference = self.of_first(range.start) ^ seed;
        self.of_first(range.end) ^ after(difference, range.len())
    }

    /// The checksum of the first `len` bytes.
    fn of_first(&self, len: usize) -> u32 {
        let stride = len / STRIDE_BYTES;
        crc32c(self.starts[stride], &self.bytes[stride * STRIDE_BYTES..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_has_the_checksum_of_its_bytes() {
        let bytes: Vec<u8> = (0..300u32).map(|i| (i * i / 8) as u8).collect();
        let checksums = Checksums::new(&bytes);
        for begin in 0..=bytes.len() {
            for end in begin..=bytes.len() {
                let expected = crc32c(0xDEAD_BEEF, &bytes[begin..end]);
                assert_eq!(checksums.of(0xDEAD_BEEF, begin..end), expected, "{begin}..{end}");
            }
        }
    }
}
