//! Reads: the value of a key, and scans of all keys.
//!
//! Not here: blocks in memory ([`cache`](super::cache)).
//!
//! Invariants:
//! * `get` returns what was set, or an error. It checks the record, and that the
//!   record has the key (`a_damaged_value_is_an_error_of_its_key`).
//! * A scan lists each key that exists during the whole scan exactly once. It goes through
//!   the index in the order of fingerprints, so a key keeps its place when it is written
//!   again or copied by compaction, and writes do not make a scan longer
//!   (`a_scan_lists_every_key_that_stays`).

use super::Inner;
use super::fs::Fs;
use super::index::{Fingerprint, Location, MAPS};
use super::record::{Damage, RECORD_HEADER_BYTES, Record, RecordHeader};
use crate::engine::Page;
use crate::error::{KvsError, Result};

/// Keys in a page of a scan: each may cost a read.
const PAGE_KEYS: usize = 1_000;
/// A page of a scan ends with the key that reaches this number of bytes.
const PAGE_KEY_BYTES: usize = 64 << 10;
/// Length of the check at the end of a cursor, which only this handle can compute.
const CURSOR_CHECK_BYTES: usize = 8;

impl<D: Fs> Inner<D> {
    /// The value of a key.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<String>> {
        self.log.check()?;
        self.apply_updates();
        let location = self.index.get(self.index.fingerprint(key));
        location.map(|location| self.value_at(location, key)).transpose()
    }

    /// The value in the record at a location, which has to be one of this key.
    fn value_at(&mut self, location: Location, key: &[u8]) -> Result<String> {
        let (salt, bytes) = self.log.read(location, &mut self.cache)?;
        let value = Record::decode(bytes, salt)
            .and_then(|record| if record.key == key { text(record.value) } else { Err(OTHER_KEY) });
        value.map_err(|reason| self.log.corrupt(location, reason))
    }

    /// Looks these keys up, and loads their records into the processor's cache. Their cache
    /// misses overlap.
    pub(super) fn prefetch(&mut self, keys: &[&str]) {
        self.apply_updates();
        let fingerprint = |key: &&str| self.index.fingerprint(key.as_bytes());
        let fingerprints: Vec<Fingerprint> = keys.iter().map(fingerprint).collect();
        let locations = self.index.get_all(&fingerprints);
        locations.iter().flatten().for_each(|location| self.cache.prefetch(*location));
    }

    /// A page of a scan.
    pub(super) fn scan(&mut self, cursor: Option<&str>) -> Result<Page> {
        self.log.check()?;
        self.apply_updates();
        let after = cursor.map(|cursor| self.decode_cursor(cursor)).transpose()?;
        let mut page = Page::default();
        let mut bytes = 0;
        for map in after.map_or(0, Fingerprint::map)..MAPS {
            for (fingerprint, location) in self.index.sorted_after(map, after) {
                let key = self.key_at(fingerprint, location)?;
                bytes += key.len();
                page.keys.push(key);
                if bytes >= PAGE_KEY_BYTES || page.keys.len() >= PAGE_KEYS {
                    page.next = Some(self.encode_cursor(fingerprint));
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    /// The cursor of the page that begins after this key.
    fn encode_cursor(&self, last: Fingerprint) -> String {
        let text = last.to_string();
        let check = self.index.fingerprint(text.as_bytes()).to_string();
        text + &check[..CURSOR_CHECK_BYTES]
    }

    /// Decodes the fingerprint of the last key of the previous page. A cursor from before
    /// the last open has another check.
    fn decode_cursor(&self, cursor: &str) -> Result<Fingerprint> {
        let last = cursor.len().checked_sub(CURSOR_CHECK_BYTES).and_then(|len| cursor.get(..len));
        let last = last.and_then(Fingerprint::parse);
        last.filter(|last| self.encode_cursor(*last) == cursor)
            .ok_or_else(|| KvsError::BadCursor(cursor.to_owned()))
    }

    /// The key of the record at a location. Values are not read.
    fn key_at(&mut self, fingerprint: Fingerprint, location: Location) -> Result<String> {
        let header = Location { len: RECORD_HEADER_BYTES as u32, ..location };
        let (salt, bytes) = self.log.read(header, &mut self.cache)?;
        let header = RecordHeader::decode(bytes, salt);
        let header = header.map_err(|damage| self.log.corrupt(location, damage))?;
        let len = (RECORD_HEADER_BYTES + header.key_len) as u32;
        let (_, bytes) = self.log.read(Location { len, ..location }, &mut self.cache)?;
        let key = bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default();
        let is_this = self.index.fingerprint(key) == fingerprint;
        let key = if is_this { text(key) } else { Err(OTHER_KEY) };
        key.map_err(|reason| self.log.corrupt(location, reason))
    }
}

/// The damage if the index points a key to a record of another key.
const OTHER_KEY: Damage = "the record has another key";

/// The string in the bytes of a record.
fn text(bytes: &[u8]) -> std::result::Result<String, Damage> {
    str::from_utf8(bytes).map(str::to_owned).map_err(|_| "the bytes are not UTF-8")
}
