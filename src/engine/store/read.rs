//! The read path: from a key to its value.
//!
//! The index says where the record is; it is read from the batch or, through
//! the cache, from its segment; and what was read is checked: the checksum, and
//! that it is this key's record.
//!
//! Not here: where blocks are kept ([`cache`](super::cache)).
//!
//! Invariant: nothing is returned that is not what was set. What does not pass
//! is an error that names file and offset
//! (`a_value_damaged_while_the_store_runs_is_refused_and_the_rest_goes_on`).

use super::Inner;
use super::disk::Disk;
use super::index::Location;
use super::record::{self, Kind};
use crate::error::Result;

impl<D: Disk> Inner<D> {
    /// The value of a key.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<String>> {
        self.settle();
        let Some(location) = self.index.get(key) else { return Ok(None) };
        match self.value_at(location, key)? {
            Ok(value) => Ok(Some(value)),
            Err(reason) => {
                Err(self.segments.corrupt(location.segment, location.offset.into(), reason))
            }
        }
    }

    /// The value of the key that the index has at `location`; what is wrong
    /// with the bytes there, where they are not its record.
    fn value_at(
        &mut self,
        location: Location,
        key: &[u8],
    ) -> Result<std::result::Result<String, String>> {
        let (salt, bytes) = self.read(location)?;
        Ok(match record::decode(bytes, salt) {
            Err(damage) => Err(damage.to_string()),
            Ok(record) if record.kind != Kind::Set || record.key != key => {
                Err("the record is that of another key".to_owned())
            }
            Ok(record) => match str::from_utf8(record.value) {
                Ok(value) => Ok(value.to_owned()),
                Err(error) => Err(format!("the value is not UTF-8: {error}")),
            },
        })
    }

    /// The bytes of a record, from the batch or from its segment, and the salt
    /// of their checksum.
    fn read(&mut self, location: Location) -> Result<(u32, &[u8])> {
        let Location { segment: number, offset, len } = location;
        let active = self.segments.active();
        if number == active.header.number && u64::from(offset) >= active.len {
            let start = (u64::from(offset) - active.len) as usize;
            return Ok((active.header.salt, &self.batch.bytes[start..start + len as usize]));
        }
        let Some(segment) = self.segments.get(number)? else {
            return Err(self.segments.corrupt(number, offset.into(), "the segment is gone"));
        };
        let read = |buffer: &mut [u8], at| segment.read(buffer, at);
        let bytes = self.cache.read(number, offset, len, read)?;
        Ok((segment.header.salt, bytes))
    }

    /// Has the processor load what reads of these keys will need.
    pub(super) fn prefetch(&self, keys: &[&str]) {
        let locations = self.index.get_all(keys.iter().map(|key| key.as_bytes()));
        locations.into_iter().flatten().for_each(|location| self.cache.prefetch(location));
    }
}
