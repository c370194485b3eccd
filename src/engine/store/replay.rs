//! Replay: a segment's records, played into the index one after another.
//!
//! Not here: files, and what to do about a segment that ends early
//! ([`recover`](mod@super::recover)).
//!
//! Invariant: playing the segments of a store in order gives the map that its
//! writers saw, and the same count of live bytes.

use std::path::Path;

use super::index::{Index, Location};
use super::record::{self, Kind};
use super::segment::{HEADER_BYTES, Header};
use crate::error::{KvsError, Result};

/// How a segment ends.
pub(super) enum End {
    /// With a whole record, which is a mark or not.
    Whole { marked: bool },
    /// With the mark that the next one follows.
    Continued,
    /// Here is no record, but there are bytes.
    Damaged { reason: String },
}

/// What playing a segment has found.
pub(super) struct Played {
    /// What its header says.
    pub(super) header: Header,
    /// Bytes up to the end of its last intact record.
    pub(super) len: u64,
    /// Bytes up to its last record with the *synced* flag: those had been on the disk.
    pub(super) synced: u64,
    /// What is there.
    pub(super) end: End,
}

/// Plays segments into an index, one after another.
#[derive(Default)]
pub(super) struct Player {
    /// The index so far.
    pub(super) index: Index,
    /// The highest number of a segment that a record has retired.
    pub(super) retired: u32,
    /// The bytes of the segment being played.
    pub(super) bytes: Vec<u8>,
}

impl Player {
    /// Plays the segment in `self.bytes`, as far as it is intact.
    pub(super) fn play(&mut self, path: &Path, header: Header) -> Result<Played> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut at = HEADER_BYTES;
        let mut synced = 0;
        // Nothing but a header, which is on the disk, needs no mark.
        let mut end = End::Whole { marked: true };
        while at < bytes.len() {
            let record = match record::decode(&bytes[at..], header.salt) {
                Ok(_) if matches!(end, End::Continued) => {
                    return Err(KvsError::corrupt(path, at as u64, "a record after the last one"));
                }
                Ok(record) => record,
                Err(damage) => {
                    end = End::Damaged { reason: damage.to_string() };
                    break;
                }
            };
            let len = record.len();
            self.apply(&record, header.number, at)
                .map_err(|reason| KvsError::corrupt(path, at as u64, reason))?;
            if record.synced {
                synced = at as u64;
            }
            end = match record.kind {
                Kind::Continued => End::Continued,
                kind => End::Whole { marked: kind == Kind::Mark },
            };
            at += len;
        }
        self.bytes = bytes;
        Ok(Played { header, len: at as u64, synced, end })
    }

    /// Plays one record.
    fn apply(
        &mut self,
        record: &record::Record<'_>,
        segment: u32,
        at: usize,
    ) -> std::result::Result<(), &'static str> {
        let location = Location { segment, offset: at as u32, len: record.len() as u32 };
        match record.kind {
            Kind::Set => drop(self.index.set(record.key, location)),
            Kind::Remove => drop(self.index.remove(record.key)),
            Kind::Mark | Kind::Continued => {}
            Kind::Retired => {
                let number = str::from_utf8(record.key).ok().and_then(|key| key.parse().ok());
                let number = number.ok_or("a retired segment has no number")?;
                self.retired = self.retired.max(number);
            }
        }
        Ok(())
    }
}
