//! Replay: a segment's records, played into the index one after another.
//!
//! Two threads share the work while a store is opened.
//!
//! Not here: files, and what to do about a segment that ends early
//! ([`recover`](mod@super::recover)).
//!
//! Invariant: playing the segments of a store in order gives the map that its
//! writers saw, and the same count of live bytes
//! (`an_opened_store_counts_as_the_running_one_did`).

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use super::header::{HEADER_BYTES, Header};
use super::index::{Changes, Index, Location};
use super::record::{self, Kind, Record};
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
    /// Bytes up to the end of its last intact record.
    pub(super) len: u64,
    /// Bytes up to its last record with the *synced* flag: those had been on the disk.
    pub(super) synced: u64,
    /// What is there.
    pub(super) end: End,
}

/// Builds an index from what `read` plays; also what `read` returns.
///
/// Reading and checking records takes about as long as entering them in the
/// index, which waits for memory, so a thread of its own does that, a queue
/// behind. It has no part in errors or files, and ends before this returns.
pub(super) fn build<T>(read: impl FnOnce(&mut Player) -> Result<T>) -> Result<(T, Index)> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Changes>(Player::QUEUED_MAX);
        let mut index = Index::default();
        let changes = Changes::of(&index);
        let enter = move || {
            receiver.into_iter().for_each(|changes| index.play(&changes, |_| {}));
            index
        };
        let thread = std::thread::Builder::new().name("kvs index".to_owned());
        let context = "cannot start a thread to build the index";
        let thread = thread.spawn_scoped(scope, enter).map_err(KvsError::io(context))?;
        let mut player = Player { sender, changes, retired: 0 };
        let found = read(&mut player);
        player.send();
        drop(player);
        let index = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((found?, index))
    })
}

/// Plays segments, one after another, into the index that is being built.
pub(super) struct Player {
    /// To the index.
    sender: SyncSender<Changes>,
    /// Changes that are not sent yet.
    changes: Changes,
    /// The highest number of a segment that a record has retired.
    pub(super) retired: u32,
}

impl Player {
    /// Changes that are sent together: so many that sending costs nothing, so
    /// few that they stay in the processor's cache.
    const SENT_CHANGES: usize = 4096;
    /// Sendings that may wait for the index.
    const QUEUED_MAX: usize = 16;

    /// Plays the segment with these bytes, as far as it is intact.
    pub(super) fn play(&mut self, path: &Path, header: Header, bytes: &[u8]) -> Result<Played> {
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
                Err(_) if is_room(&bytes[at..]) && !matches!(end, End::Continued) => break,
                Err(damage) => {
                    end = End::Damaged { reason: damage.to_string() };
                    break;
                }
            };
            self.apply(&record, header.number, at)
                .map_err(|reason| KvsError::corrupt(path, at as u64, reason))?;
            if record.synced {
                synced = at as u64;
            }
            end = match record.kind {
                Kind::Continued => End::Continued,
                kind => End::Whole { marked: kind == Kind::Mark },
            };
            at += record.len();
        }
        Ok(Played { len: at as u64, synced, end })
    }

    /// Plays one record.
    fn apply(
        &mut self,
        record: &Record<'_>,
        segment: u32,
        at: usize,
    ) -> std::result::Result<(), &'static str> {
        let offset = u32::try_from(at).map_err(|_| "a record begins past all offsets")?;
        let location = Location { segment, offset, len: record.len() as u32 };
        match record.kind {
            Kind::Set => self.changes.push(record.key, Some(location)),
            Kind::Remove => self.changes.push(record.key, None),
            Kind::Mark | Kind::Continued => {}
            Kind::Retired => {
                let number = record.retired().ok_or("a retired segment has no number")?;
                self.retired = self.retired.max(number);
            }
        }
        if self.changes.len() == Player::SENT_CHANGES {
            self.send();
        }
        Ok(())
    }

    /// Sends the changes to the index, which listens for as long as it is sent to.
    fn send(&mut self) {
        let _ = self.sender.send(self.changes.take());
    }
}

/// Whether bytes after the last record are what was written ahead: zeros.
pub(super) fn is_room(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
