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
//! The power is the product of one from a table for each byte of the length. It
//! is what zlib calls `crc32_combine`, turned round.
//!
//! Not here: what is checked ([`record`](super::record)).
//!
//! Invariant: the checksum of a range is that of [`crc32c`]
//! (`every_range_has_the_checksum_of_its_bytes`).

use std::ops::Range;

use super::crc32::{POLYNOMIAL, crc32c};

/// Bytes between two that `c(i)` is kept for; from there on it is computed. So
/// it takes a sixteenth of the room of the bytes.
const STRIDE_BYTES: usize = 64;

/// 1, as bits stand in a checksum: the highest power of x is the lowest bit.
const ONE: u32 = 1 << 31;
/// x^8: what one more byte multiplies by.
const ONE_BYTE: u32 = ONE >> 8;

/// `POWERS[k][n]`: what `n * 256^k` bytes multiply by.
static POWERS: [[u32; 256]; 4] = powers();

/// Computes [`POWERS`], each from the one before.
const fn powers() -> [[u32; 256]; 4] {
    let mut powers = [[ONE; 256]; 4];
    let mut step = ONE_BYTE;
    let mut entry = 0;
    while entry < 4 * 256 {
        let (k, n) = (entry / 256, entry % 256);
        if n > 0 {
            powers[k][n] = multiply(powers[k][n - 1], step);
        } else if k > 0 {
            step = multiply(powers[k - 1][255], step);
        }
        entry += 1;
    }
    powers
}

/// The product of two polynomials, modulo that of the checksum.
const fn multiply(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    while a != 0 {
        if a & ONE != 0 {
            product ^= b;
        }
        a <<= 1;
        b = if b & 1 == 1 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
    }
    product
}

/// What `difference` of two seeds becomes after `len` bytes; a length of more
/// than 32 bits is beyond every file here.
fn after(difference: u32, len: usize) -> u32 {
    let digits = (len as u32).to_le_bytes();
    let powers = POWERS.iter().zip(digits).filter(|(_, digit)| *digit != 0);
    powers.fold(difference, |product, (power, digit)| multiply(power[usize::from(digit)], product))
}

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

    /// Lengths with every digit, which bytes in memory are too few for.
    #[test]
    fn every_digit_of_a_length_counts() {
        let byte = |crc: u32| multiply(ONE_BYTE, crc);
        let mut crc = 0x1234_5678;
        for len in 0..=1 << 17 {
            assert_eq!(after(0x1234_5678, len), crc, "{len} bytes");
            crc = byte(crc);
        }
        for (first, second) in [(1 << 24, 1 << 24), (0x12_3456, 0xFEDC_BA98), (77, u32::MAX - 77)] {
            let (first, second) = (first as usize, second as usize);
            assert_eq!(after(after(9, first), second), after(9, first + second));
        }
    }
}
