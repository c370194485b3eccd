//! CRC-32C (Castagnoli): the checksum of headers and records.
//!
//! The processor's instruction (Intel SSE 4.2, `crc32`) computes eight bytes at a
//! time, where there is one. It needs one `unsafe`. Without it, the checksum is
//! the largest part of writing a record. Other processors use tables:
//! slicing-by-8 (Kounavis and Berry, 2005). Table `k` holds the checksum of each
//! byte followed by `k` zero bytes, so that eight look-ups do not wait for each
//! other. Polynomial and check value: RFC 3720, appendix B.4.
//!
//! The instruction waits for its last result. So long input is cut into blocks of
//! three lanes, whose checksums are computed at the same time and then joined
//! (Gopal et al., 2011): `GET` of 1 MiB is 1.1 times as fast.
//!
//! Invariant: both ways compute the same checksum (`both_ways_equal_the_definition`).

/// The polynomial with its bits reversed, as the least significant bit is first.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// Bytes that one step of the loop computes.
const SLICES: usize = 8;

/// `TABLES[k][b]`: the checksum of the byte `b` followed by `k` zero bytes.
static TABLES: [[u32; 256]; SLICES] = tables();

/// Computes [`TABLES`]: the first bit by bit, the others from the one before.
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

/// Shifts the low byte of the checksum register out, bit by bit.
const fn shift_byte(mut crc: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
        bit += 1;
    }
    crc
}

/// Bytes of a lane: enough to make joining cheap.
#[cfg(target_arch = "x86_64")]
const LANE_BYTES: usize = 4096;

/// What [`LANE_BYTES`] zero bytes make of each bit of the checksum register.
#[cfg(target_arch = "x86_64")]
static AFTER_LANE: [u32; 32] = {
    let mut bits = [0; 32];
    let mut step = 0;
    while step < 32 * LANE_BYTES {
        let bit = step / LANE_BYTES;
        let crc = if step % LANE_BYTES == 0 { 1 << bit } else { bits[bit] };
        bits[bit] = TABLES[0][(crc & 0xFF) as usize] ^ (crc >> 8);
        step += 1;
    }
    bits
};

/// The checksum register after another lane of zeros. The register is linear: each
/// bit counts for itself.
#[cfg(target_arch = "x86_64")]
fn after_lane(crc: u32) -> u32 {
    let bits = AFTER_LANE.iter().enumerate().filter(|(bit, _)| crc >> bit & 1 == 1);
    bits.fold(0, |sum, (_, after)| sum ^ after)
}

/// The checksum of `bytes`, starting from `seed`.
///
/// With the seed 0 it is the plain CRC-32C. With the checksum of other bytes as
/// the seed, it is the checksum of those bytes followed by `bytes`.
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        #[expect(unsafe_code, reason = "calls code for processors with the instruction")]
        // SAFETY: the processor has the instruction, as the line above has checked.
        return unsafe { by_instruction(seed, bytes) };
    }
    by_tables(seed, bytes)
}

/// [`crc32c`] by the processor's instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_instruction(seed: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let mut crc = !seed;
    let add = |crc: &mut u32, word: &[u8; 8]| {
        *crc = _mm_crc32_u64((*crc).into(), u64::from_le_bytes(*word)) as u32;
    };
    let (blocks, rest) = bytes.as_chunks::<{ 3 * LANE_BYTES }>();
    for block in blocks {
        let (words, _) = block.as_chunks();
        let (first, others) = words.split_at(LANE_BYTES / 8);
        let (second, third) = others.split_at(LANE_BYTES / 8);
        let (mut b, mut c) = (0, 0);
        for ((in_a, in_b), in_c) in first.iter().zip(second).zip(third) {
            add(&mut crc, in_a);
            add(&mut b, in_b);
            add(&mut c, in_c);
        }
        crc = after_lane(after_lane(crc) ^ b) ^ c;
    }
    let (words, rest) = rest.as_chunks();
    words.iter().for_each(|word| add(&mut crc, word));
    let (halves, rest) = rest.as_chunks();
    let crc = halves.iter().fold(crc, |crc, half| _mm_crc32_u32(crc, u32::from_le_bytes(*half)));
    !rest.iter().fold(crc, |crc, byte| _mm_crc32_u8(crc, *byte))
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

    /// The definition, bit by bit.
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
        let bytes: Vec<u8> = (0..50_000u32).map(|i| (i.wrapping_mul(i) / 7) as u8 ^ 0x5A).collect();
        for way in [crc32c, by_tables] {
            for end in (0..100).chain(4_000..4_200).chain([9_001, 12_287, 12_289, 49_999]) {
                let whole = slow(0xDEAD_BEEF, &bytes[..end]);
                assert_eq!(way(0xDEAD_BEEF, &bytes[..end]), whole);
                let (head, tail) = bytes[..end].split_at(end / 3);
                assert_eq!(way(way(0xDEAD_BEEF, head), tail), whole);
            }
        }
    }
}
