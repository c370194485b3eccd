//! The byte layout of a record: encode and decode, pure functions on slices.
//!
//! All numbers are little endian.
//!
//! ```text
//! offset  bytes  field
//!      0      4  CRC-32C of all that follows, seeded with the segment's salt
//!      4      1  kind in the low bits, flags in the high ones
//!      5      4  key length in bytes
//!      9      4  value length in bytes
//!     13      -  key, then value
//! ```
//!
//! So `set a 1`, the first record after a sync, in a segment whose salt is 0:
//!
//! ```text
//! ec 20 2d af | 81 | 01 00 00 00 | 01 00 00 00 | 61 | 31
//! ```
//!
//! Not here: files and offsets in them ([`segment`](super::segment)), and what
//! a record does to the map ([`index`](super::index)).
//!
//! Invariants:
//! * The checksum covers every other byte of the record: no bit can change
//!   unseen (`every_flipped_bit_is_seen`).
//! * It is seeded with the segment's random salt, which no peer is ever shown:
//!   bytes of another segment, and bytes that hide in a value, pass by chance only,
//!   once in 2^32 (`another_salt_does_not_pass`).
//! * Lengths are checked against the limits and the bytes at hand before they
//!   are used (`lengths_are_checked_first`).
//! * No record begins like a run of zeros (`zeros_are_no_record`).

use std::ops::Range;

use super::checksums::Checksums;
use super::crc32::crc32c;

/// Where the checksum stands.
const CRC: usize = 0;
/// Where kind and flags stand.
const KIND: usize = CRC + 4;
/// Where the length of the key stands.
const KEY_LEN: usize = KIND + 1;
/// Where the length of the value stands.
const VALUE_LEN: usize = KEY_LEN + 4;
/// Bytes before the key.
pub(crate) const HEADER_BYTES: usize = VALUE_LEN + 4;

/// The flag of the first record written after a sync has returned: all bytes
/// before it in its segment are on the disk.
const SYNCED: u8 = 0x80;

/// Bytes a key may have.
pub(crate) const KEY_BYTES_MAX: usize = 1 << 24;
/// Bytes a value may have.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 29;

/// Bytes that a record may take.
pub(super) const BYTES_MAX: usize = HEADER_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The key has this value.
    Set = 1,
    /// The key has none: a tombstone.
    Remove = 2,
    /// Nothing: it stands for the *synced* flag it carries.
    Mark = 3,
    /// The segment ends here, and the next one exists.
    Continued = 4,
    /// What is live of the segment whose number is the key, in decimal, has
    /// been copied: its file may be gone.
    Retired = 5,
}

impl Kind {
    /// The kind with this number.
    fn from_u8(kind: u8) -> Option<Kind> {
        [Kind::Set, Kind::Remove, Kind::Mark, Kind::Continued, Kind::Retired]
            .into_iter()
            .find(|known| *known as u8 == kind)
    }
}

/// A decoded record, on the bytes that it was decoded from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// What it says.
    pub(crate) kind: Kind,
    /// Whether all bytes before it in its segment are on the disk.
    pub(crate) synced: bool,
    /// UTF-8, as it was a string when it was written.
    pub(crate) key: &'a [u8],
    /// UTF-8, likewise.
    pub(crate) value: &'a [u8],
}

impl Record<'_> {
    /// Bytes it takes.
    pub(crate) fn len(&self) -> usize {
        HEADER_BYTES + self.key.len() + self.value.len()
    }

    /// The number of the segment that it retires; `None` when it retires none,
    /// or names none.
    pub(crate) fn retired(&self) -> Option<u32> {
        let number = str::from_utf8(self.key).ok().filter(|_| self.kind == Kind::Retired)?;
        number.parse().ok()
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// They end before the record does, which has this many.
    Cut(usize),
    /// No kind has this number.
    Kind(u8),
    /// A length is over its limit.
    Length,
    /// The checksum is not theirs.
    Checksum,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Damage::Cut(len) => write!(f, "the record has {len} bytes, and the file ends first"),
            Damage::Kind(kind) => write!(f, "no record is of kind {kind}"),
            Damage::Length => write!(f, "a length is over its limit"),
            Damage::Checksum => write!(f, "the checksum does not match"),
        }
    }
}

/// Appends a record to `out`; key and value are within their limits.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    salt: u32,
    kind: Kind,
    synced: bool,
    key: &[u8],
    value: &[u8],
) {
    let start = out.len();
    let flags = if synced { SYNCED } else { 0 };
    out.extend_from_slice(&[0; KIND]);
    out.push(kind as u8 | flags);
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    let record = &mut out[start..];
    let crc = crc32c(salt, &record[KIND..]);
    record[CRC..KIND].copy_from_slice(&crc.to_le_bytes());
}

/// The record that `bytes` begin with.
pub(crate) fn decode(bytes: &[u8], salt: u32) -> Result<Record<'_>, Damage> {
    decode_checked(bytes, |checked| crc32c(salt, &bytes[checked]))
}

/// The record that begins at `at`, as [`decode`] finds it: for whoever tries
/// many places, and must not go through what each of them claims to be.
pub(crate) fn decode_at<'a>(
    checksums: &Checksums<'a>,
    at: usize,
    salt: u32,
) -> Result<Record<'a>, Damage> {
    let crc = |checked: Range<usize>| checksums.of(salt, at + checked.start..at + checked.end);
    decode_checked(&checksums.bytes()[at..], crc)
}

/// The record that `bytes` begin with, when `crc` gives the checksum of a range.
fn decode_checked(
    bytes: &[u8],
    crc: impl FnOnce(Range<usize>) -> u32,
) -> Result<Record<'_>, Damage> {
    let (kind, synced, key_len, value_len) = decode_header(bytes)?;
    let len = HEADER_BYTES + key_len + value_len;
    let record = bytes.get(..len).ok_or(Damage::Cut(len))?;
    if crc(KIND..len) != read_u32(record, CRC) {
        return Err(Damage::Checksum);
    }
    let (key, value) = record[HEADER_BYTES..].split_at(key_len);
    Ok(Record { kind, synced, key, value })
}

/// The length that the record at the start of `bytes` claims, unchecked; 0 where there is
/// no header that can be one.
pub(super) fn claimed_len(bytes: &[u8]) -> usize {
    decode_header(bytes).map_or(0, |(_, _, key, value)| HEADER_BYTES + key + value)
}

/// Kind, *synced* flag and the two lengths, each checked for itself.
fn decode_header(bytes: &[u8]) -> Result<(Kind, bool, usize, usize), Damage> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Damage::Cut(HEADER_BYTES))?;
    let kind = Kind::from_u8(header[KIND] & !SYNCED).ok_or(Damage::Kind(header[KIND]))?;
    let key_len = read_u32(header, KEY_LEN) as usize;
    let value_len = read_u32(header, VALUE_LEN) as usize;
    if key_len > KEY_BYTES_MAX || value_len > VALUE_BYTES_MAX {
        return Err(Damage::Length);
    }
    Ok((kind, header[KIND] & SYNCED != 0, key_len, value_len))
}

/// The number at `at`; the caller has seen that the bytes reach that far.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
