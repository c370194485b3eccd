//! The format of the log: the bytes of a segment header and of a record.
//!
//! A log is a sequence of segments, `00000001.kvs`, `00000002.kvs` and so on. A segment is
//! a header, followed by records without gaps. All numbers are little endian.
//!
//! ```text
//! segment header, 36 bytes
//! offset  bytes  field
//!      0      8  magic, "kvs seg\n"
//!      8      4  format version, 2
//!     12      4  number of the segment, as in its name
//!     16      8  id of the store, random
//!     24      4  length of the previous segment in bytes, 0 for segment 1
//!     28      4  salt, random
//!     32      4  CRC-32C of the 32 bytes before
//!
//! record, 16 bytes and its key and value
//! offset  bytes  field
//!      0      4  header checksum: CRC-32C of the 12 bytes after it
//!      4      4  body checksum: CRC-32C of key and value
//!      8      1  kind in the low 7 bits; the highest bit is the flag *synced*
//!      9      3  length of the key in bytes
//!     12      4  length of the value in bytes
//!     16      -  key, value
//! ```
//!
//! Both checksums of a record start from the salt of its segment. For example,
//! `set a 1` as the first record after an fsync, with salt 0:
//!
//! ```text
//! 2b 71 e2 36 | 11 00 d7 a0 | 81 | 01 00 00 | 01 00 00 00 | 61 | 31
//! ```
//!
//! | kind | number | key | value |
//! | --- | --- | --- | --- |
//! | `Set` | 1 | the key | its value |
//! | `Remove` | 2 | the key | empty |
//! | `Checkpoint` | 3 | a log position: segment, offset, 4 bytes each | empty, or the salt of the next segment |
//! | `Cleaned` | 4 | the number of a segment, 4 bytes | empty |
//!
//! The flag *synced* says that everything before the record is on disk. A `Checkpoint` says
//! so of everything before the position that it names. The last record of a full segment is
//! a `Checkpoint` with the salt of the next one, so that records after a damaged header can
//! still be found. `Cleaned` says that the segments up to that number hold nothing live and
//! may be gone.
//!
//! Invariants:
//! * A flipped bit in a header or record is detected (`every_flipped_bit_is_detected`).
//! * The header has a checksum of its own. So a search for records in damaged bytes decides
//!   each position in constant time, and lengths are checked before they are used
//!   (`lengths_are_checked_before_use`).
//! * Clients do not know the salt. A value that they store contains a valid record only if
//!   they guess its 32 random bits (`another_salt_does_not_match`).
//! * Zeros are not a record (`zeros_are_not_a_record`).

use super::crc32c::crc32c;

const MAGIC: &[u8] = b"kvs seg\n";
const VERSION: u32 = 2;
/// Bytes of a segment header: the offset of the first record.
pub(super) const SEGMENT_HEADER_BYTES: usize = 36;
/// Bytes of a record before its key.
pub(super) const RECORD_HEADER_BYTES: usize = 16;
/// Bytes of a `Checkpoint` at the most: a position and a salt.
pub(super) const CHECKPOINT_BYTES_MAX: usize = RECORD_HEADER_BYTES + 12;
/// Bytes of a `Cleaned` record.
pub(super) const CLEANED_BYTES: usize = RECORD_HEADER_BYTES + 4;
const SYNCED: u8 = 0x80;

pub(super) const KEY_BYTES_MAX: usize = (1 << 24) - 1;
pub(super) const VALUE_BYTES_MAX: usize = 1 << 29;

/// A place in the log: the number of a segment, and an offset in bytes. Positions are
/// ordered as in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

impl Position {
    /// The position's 8 bytes in a `Checkpoint`.
    pub(super) fn encode(self) -> [u8; 8] {
        (u64::from(self.offset) << 32 | u64::from(self.segment)).to_le_bytes()
    }
}

/// The header of a segment: the fields of the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u32,
    pub(super) store: u64,
    pub(super) previous_len: u32,
    pub(super) salt: u32,
}

/// Why bytes are not a segment header of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// Another version of the format wrote it.
    Version(u32),
    Damaged(&'static str),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let store = [self.store as u32, (self.store >> 32) as u32];
        let fields = [VERSION, self.number, store[0], store[1], self.previous_len, self.salt];
        let mut bytes = [MAGIC, fields.map(u32::to_le_bytes).as_flattened()].concat();
        bytes.extend(crc32c(0, &bytes).to_le_bytes());
        bytes
    }

    /// Decodes the header at the start of `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else {
            return Err(HeaderError::Damaged("the header is cut off"));
        };
        if !bytes.starts_with(MAGIC) {
            return Err(HeaderError::Damaged("it does not start like a segment"));
        }
        let header = SegmentHeader {
            number: read_u32(bytes, 12),
            store: u64::from(read_u32(bytes, 20)) << 32 | u64::from(read_u32(bytes, 16)),
            previous_len: read_u32(bytes, 24),
            salt: read_u32(bytes, 28),
        };
        let (version, intact) = (read_u32(bytes, 8), header.encode());
        // If only the version field is damaged, the stored checksum is that of a header of
        // this version. Another format may have another header and checksum.
        if version > VERSION && bytes[32..] != intact[32..] {
            return Err(HeaderError::Version(version));
        }
        if bytes != intact {
            return Err(HeaderError::Damaged("the checksum of the header does not match"));
        }
        Ok(header)
    }
}

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Sets a key.
    Set = 1,
    /// Removes a key: a tombstone.
    Remove = 2,
    /// Says which part of the log is on disk.
    Checkpoint = 3,
    /// Says which segments may be gone.
    Cleaned = 4,
}

/// The header of a record. Its checksum matched, so its lengths can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: Kind,
    /// Whether everything before the record is on disk.
    pub(super) synced: bool,
    pub(super) key_len: usize,
    value_len: usize,
    body_crc: u32,
}

impl RecordHeader {
    /// Decodes the header at the start of `bytes`.
    pub(super) fn decode(bytes: &[u8], salt: u32) -> Result<RecordHeader, Damage> {
        let header = bytes.get(..RECORD_HEADER_BYTES).ok_or(CUT)?;
        if crc32c(salt, &header[4..]) != read_u32(header, 0) {
            return Err(BAD_HEADER);
        }
        let value_len = read_u32(header, 12) as usize;
        let kind = match header[8] & !SYNCED {
            1 => Kind::Set,
            2 => Kind::Remove,
            3 => Kind::Checkpoint,
            4 => Kind::Cleaned,
            _ => return Err(UNKNOWN),
        };
        if value_len > VALUE_BYTES_MAX {
            return Err(UNKNOWN);
        }
        Ok(RecordHeader {
            kind,
            synced: header[8] & SYNCED != 0,
            // The length has 3 bytes; the kind before it is shifted out.
            key_len: (read_u32(header, 8) >> 8) as usize,
            value_len,
            body_crc: read_u32(header, 4),
        })
    }

    /// Bytes of the whole record.
    pub(super) fn len(&self) -> usize {
        RECORD_HEADER_BYTES + self.key_len + self.value_len
    }

    /// The record with this header, which `bytes` start with.
    pub(super) fn record<'a>(&self, bytes: &'a [u8], salt: u32) -> Result<Record<'a>, Damage> {
        let body = bytes.get(RECORD_HEADER_BYTES..self.len()).ok_or(CUT)?;
        if crc32c(salt, body) != self.body_crc {
            return Err(BAD_BODY);
        }
        let (key, value) = body.split_at(self.key_len);
        Ok(Record { kind: self.kind, synced: self.synced, key, value })
    }
}

/// A record, decoded. It borrows the bytes that it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    /// Whether everything before it is on disk.
    pub(super) synced: bool,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Decodes the record at the start of `bytes`.
    pub(super) fn decode(bytes: &'a [u8], salt: u32) -> Result<Record<'a>, Damage> {
        RecordHeader::decode(bytes, salt)?.record(bytes, salt)
    }

    /// Appends the record to `out`. Key and value are within their limits.
    pub(super) fn encode(&self, out: &mut Vec<u8>, salt: u32) {
        let body_crc = crc32c(crc32c(salt, self.key), self.value);
        let kind = u32::from(self.kind as u8 | if self.synced { SYNCED } else { 0 });
        let fields = [body_crc, kind | (self.key.len() as u32) << 8, self.value.len() as u32];
        let fields = fields.map(u32::to_le_bytes);
        out.extend_from_slice(&crc32c(salt, fields.as_flattened()).to_le_bytes());
        out.extend_from_slice(fields.as_flattened());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
    }

    /// Bytes of the whole record.
    pub(super) fn len(&self) -> u32 {
        (RECORD_HEADER_BYTES + self.key.len() + self.value.len()) as u32
    }

    /// The position that a `Checkpoint` names.
    pub(super) fn checkpoint(&self) -> Option<Position> {
        let is_one = self.kind == Kind::Checkpoint && self.key.len() == 8;
        is_one.then(|| Position { segment: read_u32(self.key, 0), offset: read_u32(self.key, 4) })
    }

    /// The salt of the next segment, in the `Checkpoint` at the end of a full one.
    pub(super) fn next_salt(&self) -> Option<u32> {
        let has_one = self.kind == Kind::Checkpoint && self.value.len() == 4;
        has_one.then(|| read_u32(self.value, 0))
    }

    /// The number in a `Cleaned` record.
    pub(super) fn cleaned(&self) -> Option<u32> {
        let is_one = self.kind == Kind::Cleaned && self.key.len() == 4;
        is_one.then(|| read_u32(self.key, 0))
    }
}

/// Why bytes are not a record.
pub(super) type Damage = &'static str;
const CUT: Damage = "a record is cut off";
const BAD_HEADER: Damage = "the header checksum of a record does not match";
const BAD_BODY: Damage = "the body checksum of a record does not match";
const UNKNOWN: Damage = "a record is of no known kind, or longer than the limit";

/// The number at `at`. The caller has checked that the bytes reach that far.
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..].as_chunks().0[0])
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
