//! CRC-32C (Castagnoli), the checksum of headers and records, eight bytes at a
//! time: by the processor's own instruction where it has one, else by tables.
//!
//! The instruction (Intel SSE 4.2, `crc32`) needs one `unsafe`, and is worth it:
//! by tables, the checksum is the largest part of writing a record. The tables
//! are slicing-by-8 (Kounavis and Berry, 2005): table `k` holds the checksum of each
//! byte value followed by `k` zero bytes, so that eight look-ups that do not
//! wait for each other replace eight that do.
//! Polynomial and check value: RFC 3720, appendix B.4.
//!
//! Invariant: both ways give the same checksum (`both_ways_equal_the_definition`).

/// The polynomial with its bits reversed, as the least significant bit is first.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// Runs of long bytes that are gone through side by side: the instruction takes
/// three cycles, and another one can begin in each.
#[cfg(target_arch = "x86_64")]
const LANES: usize = 3;
/// Bytes from which on that is worth putting the runs' checksums together.
#[cfg(target_arch = "x86_64")]
const LANES_BYTES_MIN: usize = 4 << 10;

/// How many bytes one step of the loop takes in.
const SLICES: usize = 8;

/// `TABLES[k][b]`: what the byte `b`, followed by `k` zero bytes, adds.
static TABLES: [[u32; 256]; SLICES] = tables();

/// Computes [`TABLES`]: the first bit by bit, each further one from the one before.
const fn tables() -> [[u32; 256]; SLICES] {
    let mut tables = [[0; 256]; SLICES];
    let mut entry = 0;
    while entry < 256 * SLICES {
        let (k, byte) = (entry / 256, entry % 256);
        tables[k][byte] = if k == 0 {
            shift_byte(byte as u32)
        } else {
            let before = tables[k - 1][byte];
            tables[0][(before & 0xFF) as usize] ^ (before >> 8)
        };
        entry += 1;
    }
    tables
}

/// The checksum register after its low byte has gone through, bit by bit.
const fn shift_byte(mut crc: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
        bit += 1;
    }
    crc
}

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

/// What a `difference` of two seeds becomes after `len` bytes, whatever they are: it
/// times x^(8 * `len`), as polynomials over bits, modulo that of the checksum. A
/// length of more than 32 bits is beyond every file here.
pub(super) fn after(difference: u32, len: usize) -> u32 {
    let digits = (len as u32).to_le_bytes();
    let powers = POWERS.iter().zip(digits).filter(|(_, digit)| *digit != 0);
    powers.fold(difference, |product, (power, digit)| multiply(power[usize::from(digit)], product))
}

/// The checksum of `bytes`, begun from `seed`.
///
/// With a seed of 0 it is the plain CRC-32C. With the checksum of some bytes
/// as the seed it is that of these bytes followed by `bytes`.
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        #[expect(unsafe_code, reason = "a processor without the instruction must not meet it")]
        // SAFETY: the processor has just said that it has the instruction.
        return unsafe { by_instruction(seed, bytes) };
    }
    by_tables(seed, bytes)
}

/// [`crc32c`] by the processor's instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_instruction(seed: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32};
    let (words, rest) = bytes.as_chunks();
    let (crc, words) =
        if bytes.len() < LANES_BYTES_MIN { (!seed, words) } else { by_lanes(!seed, words) };
    let crc = words.iter().fold(crc, |crc, word| step(crc, word));
    let (halves, rest) = rest.as_chunks();
    let crc = halves.iter().fold(crc, |crc, half| _mm_crc32_u32(crc, u32::from_le_bytes(*half)));
    !rest.iter().fold(crc, |crc, byte| _mm_crc32_u8(crc, *byte))
}

/// The checksum register after most of the words have gone through, and the words left.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_lanes(crc: u32, words: &[[u8; 8]]) -> (u32, &[[u8; 8]]) {
    let lane = words.len() / LANES;
    let (first, others) = words.split_at(lane);
    let (second, others) = others.split_at(lane);
    let (third, others) = others.split_at(lane);
    let mut crcs = [crc, 0, 0];
    for ((a, b), c) in first.iter().zip(second).zip(third) {
        crcs = [step(crcs[0], a), step(crcs[1], b), step(crcs[2], c)];
    }
    let len = lane * size_of::<u64>();
    (crcs.into_iter().reduce(|crc, next| after(crc, len) ^ next).unwrap_or_default(), others)
}

/// The checksum register after eight bytes have gone through.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn step(crc: u32, word: &[u8; 8]) -> u32 {
    std::arch::x86_64::_mm_crc32_u64(crc.into(), u64::from_le_bytes(*word)) as u32
}

/// [`crc32c`] by [`TABLES`].
fn by_tables(seed: u32, bytes: &[u8]) -> u32 {
    let mut crc = !seed;
    let (chunks, rest) = bytes.as_chunks::<SLICES>();
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk) ^ u64::from(crc);
        let byte = |at: usize| ((word >> (8 * at)) & 0xFF) as usize;
        crc = TABLES[7][byte(0)]
            ^ TABLES[6][byte(1)]
            ^ TABLES[5][byte(2)]
            ^ TABLES[4][byte(3)]
            ^ TABLES[3][byte(4)]
            ^ TABLES[2][byte(5)]
            ^ TABLES[1][byte(6)]
            ^ TABLES[0][byte(7)];
    }
    for byte in rest {
        crc = TABLES[0][((crc ^ u32::from(*byte)) & 0xFF) as usize] ^ (crc >> 8);
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bit by bit, to hold the fast form against.
    fn slow(seed: u32, bytes: &[u8]) -> u32 {
        let mut crc = !seed;
        for byte in bytes {
            crc = shift_byte(crc ^ u32::from(*byte));
        }
        !crc
    }

    #[test]
    fn published_check_values() {
        assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(0, &[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(0, &[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(7, b""), 7);
    }

    #[test]
    fn both_ways_equal_the_definition() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * i / 7) as u8 ^ 0x5A).collect();
        for way in [crc32c, by_tables] {
            for end in (0..100).chain(4_000..4_200).chain([9_001, 9_999]) {
                let whole = slow(0xDEAD_BEEF, &bytes[..end]);
                assert_eq!(way(0xDEAD_BEEF, &bytes[..end]), whole);
                let (head, tail) = bytes[..end].split_at(end / 3);
                assert_eq!(way(way(0xDEAD_BEEF, head), tail), whole);
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
