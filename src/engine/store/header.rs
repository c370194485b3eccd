//! The header of a segment: encode and decode, pure functions on slices.
//!
//! It has 32 bytes, all numbers little endian:
//!
//! ```text
//! offset  bytes  field
//!      0      8  magic, "kvs seg\n"
//!      8      4  format version, 1
//!     12      4  the segment's number, as in its name
//!     16      8  the store's id, drawn when the store was made
//!     24      4  the segment's salt, drawn when the segment was made
//!     28      4  CRC-32C of the 28 bytes before
//! ```
//!
//! Number and id tell a segment that was renamed, copied or brought from
//! another store from the one that belongs here.
//!
//! Not here: files ([`segment`](super::segment)), and what follows the header
//! ([`record`](super::record)).
//!
//! Invariant: no bit of it can change unseen
//! (`every_flipped_bit_and_every_cut_of_a_header_is_seen`).

use super::crc32::crc32c;
use super::record::read_u32;

/// What every segment begins with.
const MAGIC: &[u8; 8] = b"kvs seg\n";
/// The one version of the format so far.
const VERSION: u32 = 1;
/// Where the version stands.
const VERSION_AT: usize = MAGIC.len();
/// Where the number stands.
const NUMBER_AT: usize = VERSION_AT + 4;
/// Where the store's id stands.
const STORE_AT: usize = NUMBER_AT + 4;
/// Where the salt stands.
const SALT_AT: usize = STORE_AT + 8;
/// Where the checksum stands.
const CRC_AT: usize = SALT_AT + 4;
/// Bytes of the header: where the first record begins.
pub(crate) const HEADER_BYTES: usize = CRC_AT + 4;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The segment's number; the first of a store is 1.
    pub(crate) number: u32,
    /// The id of the store that it belongs to.
    pub(crate) store: u64,
    /// The seed of its records' checksums.
    pub(crate) salt: u32,
}

impl Header {
    /// The header's bytes.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..VERSION_AT].copy_from_slice(MAGIC);
        bytes[VERSION_AT..NUMBER_AT].copy_from_slice(&VERSION.to_le_bytes());
        bytes[NUMBER_AT..STORE_AT].copy_from_slice(&self.number.to_le_bytes());
        bytes[STORE_AT..SALT_AT].copy_from_slice(&self.store.to_le_bytes());
        bytes[SALT_AT..CRC_AT].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c(0, &bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header that `bytes` begin with; why not, where they do not.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Header, String> {
        let header = bytes.get(..HEADER_BYTES).ok_or("the header is cut off")?;
        if !header.starts_with(MAGIC) {
            return Err("it does not begin as a segment does".to_owned());
        }
        if crc32c(0, &header[..CRC_AT]) != read_u32(header, CRC_AT) {
            return Err("the checksum of the header does not match".to_owned());
        }
        let version = read_u32(header, VERSION_AT);
        if version != VERSION {
            return Err(format!("its format version is {version}; this kvs reads {VERSION}"));
        }
        let mut store = [0; 8];
        store.copy_from_slice(&header[STORE_AT..SALT_AT]);
        Ok(Header {
            number: read_u32(header, NUMBER_AT),
            store: u64::from_le_bytes(store),
            salt: read_u32(header, SALT_AT),
        })
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
