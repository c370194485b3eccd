//! Reads: the value of a key, and scans of all keys.
//!
//! Not here: blocks in memory ([`cache`](super::cache)).
//!
//! Invariants:
//! * `get` returns what was set, or an error. It checks the record, and that the
//!   record has the key (`a_damaged_value_is_an_error_of_its_key`).
//! * A scan lists each key that exists all the while. It goes through the log from
//!   the oldest record to the end. A key that is written again or copied by
//!   compaction during the scan moves to the end, where the scan meets it
//!   (`a_scan_lists_every_key_that_stays`).

use super::Inner;
use super::fs::Fs;
use super::index::{Fingerprint, Location};
use super::record::{Position, Record, SEGMENT_HEADER_BYTES};
use crate::engine::Page;
use crate::error::{KvsError, Result};

/// Bytes of the log that one page of a scan goes through, but for the last step.
const PAGE_LOG_BYTES: usize = 1 << 20;
/// Bytes of keys in a page, but for those of the last step.
const PAGE_KEY_BYTES: usize = 64 << 10;
/// Bytes that a scan reads at a time.
const READ_BYTES: usize = 64 << 10;

impl<D: Fs> Inner<D> {
    /// The value of a key.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<String>> {
        self.log.check()?;
        self.apply_updates();
        if let Some(location) = self.prefetched.pop_front().flatten() {
            match self.value_at(location, key) {
                Ok(value) => return Ok(Some(value)),
                // The caller prefetched other keys.
                Err(_) => self.prefetched.clear(),
            }
        }
        let Some(location) = self.index.get(self.index.fingerprint(key)) else { return Ok(None) };
        self.value_at(location, key).map(Some)
    }

    /// The value in the record at a location, which has to be one of this key.
    fn value_at(&mut self, location: Location, key: &[u8]) -> Result<String> {
        let (salt, bytes) = self.log.read(location, &mut self.cache)?;
        decode_value(bytes, salt, key).map_err(|reason| self.log.corrupt(location, reason))
    }

    /// Looks these keys up, and loads their records into the processor's cache. Reads
    /// of them that follow in this order need no other look-up.
    pub(super) fn prefetch(&mut self, keys: &[&str]) {
        self.apply_updates();
        let fingerprint = |key: &&str| self.index.fingerprint(key.as_bytes());
        let fingerprints: Vec<Fingerprint> = keys.iter().map(fingerprint).collect();
        self.prefetched = self.index.get_all(&fingerprints).into();
        self.prefetched.iter().flatten().for_each(|location| self.cache.prefetch(*location));
    }

    /// A page of a scan.
    pub(super) fn scan(&mut self, cursor: Option<&str>) -> Result<Page> {
        // The scan reads segments only.
        self.log.write()?;
        self.apply_updates();
        let mut position = match cursor {
            None => Position::default(),
            Some(cursor) => self.decode_cursor(cursor)?,
        };
        let mut page = Page::default();
        let (mut log_bytes, mut key_bytes) = (0, 0);
        while log_bytes < PAGE_LOG_BYTES && key_bytes < PAGE_KEY_BYTES {
            let Some(start) = self.skip_to_live(position) else { return Ok(page) };
            position = self.scan_records(start, &mut page.keys)?;
            log_bytes += (position.offset - start.offset) as usize;
            key_bytes = page.keys.iter().map(String::len).sum();
        }
        page.next = Some(format!("{}-{}", position.segment, position.offset));
        Ok(page)
    }

    /// The position in a cursor. A record has to start there, or a segment end.
    fn decode_cursor(&mut self, cursor: &str) -> Result<Position> {
        let bad = || KvsError::BadCursor(cursor.to_owned());
        let (segment, offset) = cursor.split_once('-').ok_or_else(bad)?;
        let segment = segment.parse().map_err(|_| bad())?;
        let offset = offset.parse().map_err(|_| bad())?;
        let position = Position { segment, offset };
        if position > self.log.end() || offset < SEGMENT_HEADER_BYTES as u32 {
            return Err(bad());
        }
        // Segments that were cleaned meanwhile are skipped: their keys have moved.
        if self.skip_to_live(position) == Some(position) {
            let mut reader = self.log.reader(segment, READ_BYTES)?;
            reader.header(offset.into())?.map_err(|_| bad())?;
        }
        Ok(position)
    }

    /// The first position from `from` on at which a record of a segment with live
    /// records starts; `None` at the end of the log.
    fn skip_to_live(&self, from: Position) -> Option<Position> {
        let mut live = self.log.segments_from(from.segment).filter(|segment| segment.live > 0);
        live.find_map(|segment| {
            let is_same = segment.number == from.segment;
            let offset = if is_same { from.offset } else { SEGMENT_HEADER_BYTES as u32 };
            let position = Position { segment: segment.number, offset };
            (offset < segment.len).then_some(position)
        })
    }

    /// Adds the keys of the next live records of a segment. Returns where the next
    /// record starts.
    fn scan_records(&mut self, from: Position, keys: &mut Vec<String>) -> Result<Position> {
        let mut reader = self.log.reader(from.segment, READ_BYTES)?;
        let (live, offset) = self.live_records(&mut reader, from.segment, from.offset)?;
        for (_, location) in live {
            let key = str::from_utf8(reader.intact_record(location.offset)?.key);
            keys.push(key.map_err(|_| self.log.corrupt(location, not_utf8()))?.to_owned());
        }
        Ok(Position { offset, ..from })
    }
}

/// The value in the bytes of a record, or what is wrong with them.
fn decode_value(bytes: &[u8], salt: u32, key: &[u8]) -> std::result::Result<String, String> {
    let record = Record::decode(bytes, salt).map_err(|damage| damage.to_string())?;
    if record.key != key {
        return Err("the record has another key".to_owned());
    }
    str::from_utf8(record.value).map(str::to_owned).map_err(|_| not_utf8())
}

/// What is wrong with bytes that were no string.
fn not_utf8() -> String {
    "the bytes are not UTF-8".to_owned()
}
