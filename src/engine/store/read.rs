//! Reads: the value of a key, and scans of all keys.
//!
//! Not here: blocks in memory ([`cache`](super::cache)).
//!
//! Invariants:
//! * `get` returns what was set, or an error. It checks the record, and that the
//!   record has the key (`a_damaged_value_is_an_error_of_its_key`).
//! * A scan lists each key that exists all the while, once. It goes through the index in
//!   the order of fingerprints, so a key keeps its place when it is written again or
//!   copied by compaction, and writes do not make a scan longer
//!   (`a_scan_lists_every_key_that_stays`).

use super::Inner;
use super::fs::Fs;
use super::index::{Fingerprint, Location, MAPS};
use super::record::{RECORD_HEADER_BYTES, Record, RecordHeader};
use crate::engine::Page;
use crate::error::{KvsError, Result};

/// Keys in a page of a scan: each may cost a read.
const PAGE_KEYS: usize = 1_000;
/// Bytes of keys in a page, but for the last key.
const PAGE_KEY_BYTES: usize = 64 << 10;
/// Bytes of a record that are read for its key at first.
const KEY_READ_BYTES: u32 = 256;
/// Bytes of a cursor that tell whether this store has made it.
const CURSOR_CHECK_BYTES: usize = 8;

impl<D: Fs> Inner<D> {
    /// The value of a key.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<String>> {
        self.log.check()?;
        self.apply_updates();
        let Some(location) = self.index.get(self.index.fingerprint(key)) else { return Ok(None) };
        self.value_at(location, key).map(Some)
    }

    /// The value in the record at a location, which has to be one of this key.
    fn value_at(&mut self, location: Location, key: &[u8]) -> Result<String> {
        let (salt, bytes) = self.log.read(location, &mut self.cache)?;
        decode_value(bytes, salt, key).map_err(|reason| self.log.corrupt(location, reason))
    }

    /// Looks these keys up, and loads their records into the processor's cache. The waits
    /// for memory overlap.
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

    /// The last key of the page before. A cursor of another time has another check.
    fn decode_cursor(&self, cursor: &str) -> Result<Fingerprint> {
        let last = cursor.len().checked_sub(CURSOR_CHECK_BYTES).and_then(|len| cursor.get(..len));
        let last = last.and_then(Fingerprint::parse);
        last.filter(|last| self.encode_cursor(*last) == cursor)
            .ok_or_else(|| KvsError::BadCursor(cursor.to_owned()))
    }

    /// The key of the record at a location. Values are not read.
    fn key_at(&mut self, fingerprint: Fingerprint, location: Location) -> Result<String> {
        let mut len = location.len.min(KEY_READ_BYTES);
        loop {
            let (salt, bytes) = self.log.read(Location { len, ..location }, &mut self.cache)?;
            let header = match RecordHeader::decode(bytes, salt) {
                Ok(header) => header,
                Err(damage) => return Err(self.log.corrupt(location, damage.to_owned())),
            };
            let end = RECORD_HEADER_BYTES + header.key_len;
            if end > len as usize && len < location.len {
                len = location.len.min(end as u32);
                continue;
            }
            let key = bytes.get(RECORD_HEADER_BYTES..end).unwrap_or_default();
            if self.index.fingerprint(key) != fingerprint {
                return Err(self.log.corrupt(location, "the record has another key".to_owned()));
            }
            let key = str::from_utf8(key).map(str::to_owned);
            return key.map_err(|_| self.log.corrupt(location, not_utf8()));
        }
    }
}

/// The value in the bytes of a record, or what is wrong with them.
fn decode_value(bytes: &[u8], salt: u32, key: &[u8]) -> std::result::Result<String, String> {
    let record = Record::decode(bytes, salt).map_err(str::to_owned)?;
    if record.key != key {
        return Err("the record has another key".to_owned());
    }
    str::from_utf8(record.value).map(str::to_owned).map_err(|_| not_utf8())
}

/// What is wrong with bytes that were no string.
fn not_utf8() -> String {
    "the bytes are not UTF-8".to_owned()
}
