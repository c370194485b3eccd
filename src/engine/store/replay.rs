//! Replay: a segment's records, played into the index one after another.
//!
//! Two threads share the work while a store is opened.
//!
//! Not here: which segments there are, and what to do about one that ends early
//! ([`recover`](mod@super::recover)).
//!
//! Invariant: playing the segments of a store in order gives the map that its
//! writers saw, and the same count of live bytes
//! (`an_opened_store_counts_as_the_running_one_did`).

use std::sync::mpsc::{SyncSender, sync_channel};

use super::ahead::Ahead;
use super::disk::DiskFile;
use super::header::{HEADER_BYTES, Header};
use super::index::{Changes, Index, Location};
use super::record::{self, Damage, Kind, Record};
use super::segment::Segment;
use crate::error::{KvsError, Result};

/// Bytes of a segment that are read and played at a time: few enough that they are still in the
/// processor's cache when they are looked at.
const RUN_BYTES: usize = 256 << 10;
/// Changes that are sent together: so many that sending costs nothing, so
/// few that they stay in the processor's cache.
const SENT_CHANGES: usize = 1024;
/// Bytes of keys from which on changes are sent; the last key may go beyond.
const SENT_KEY_BYTES: usize = 64 << 10;
/// Sendings that may wait for the index.
const QUEUED_MAX: usize = 16;

/// How a segment ends.
pub(super) enum End {
    /// With a whole record, which is a mark or not.
    Whole { marked: bool },
    /// With the mark that the next one follows.
    Continued,
    /// Here is no record, but there are bytes: those.
    Damaged { reason: String, tail: Vec<u8> },
}

/// Builds an index from what `read` plays; also what `read` returns.
///
/// Reading and checking records takes about as long as entering them in the
/// index, which waits for memory, so a thread of its own does that, a queue
/// behind. It has no part in errors or files, and ends before this returns.
pub(super) fn build<T>(read: impl FnOnce(&mut Player) -> Result<T>) -> Result<(T, Index)> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Sent>(QUEUED_MAX);
        let mut index = Index::default();
        let enter = move || {
            receiver.into_iter().for_each(|sent| sent.enter(&mut index));
            index.expect_no_more();
            index
        };
        let thread = std::thread::Builder::new().name("kvs index".to_owned());
        let context = "cannot start a thread to build the index";
        let thread = thread.spawn_scoped(scope, enter).map_err(KvsError::io(context))?;
        // Lets the new thread start on another processor: the system may have put it behind
        // this one, for as long as two milliseconds.
        std::thread::yield_now();
        let mut player = Player::new(sender);
        let found = read(&mut player);
        drop(player);
        let index = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((found?, index))
    })
}

/// What goes to the thread that builds the index.
struct Sent {
    /// What the next records do.
    changes: Changes,
    /// How many more changes may follow.
    expected: u64,
}

impl Sent {
    /// Enters the changes in the index, which gets ready for more of their kind.
    fn enter(self, index: &mut Index) {
        let before = index.len();
        index.play(&self.changes, |_| {});
        index.expect(self.expected_keys(index.len().saturating_sub(before)));
    }

    /// How many keys may follow, if as many changes add one as did of these.
    fn expected_keys(&self, added: usize) -> u64 {
        self.expected.saturating_mul(added as u64) / self.changes.len().max(1) as u64
    }
}

/// What playing a segment has found so far.
struct Played {
    /// Bytes up to the end of its last intact record.
    len: u64,
    /// Bytes up to its last record with the *synced* flag: those had been on the disk.
    synced: u64,
    /// How it would end there.
    end: End,
}

/// Plays segments, one after another, into the index that is being built.
pub(super) struct Player {
    /// To the index.
    sender: SyncSender<Sent>,
    /// Changes that are not sent yet.
    changes: Changes,
    /// Where in its segment the first of them is.
    unsent: u64,
    /// Where the records would end if each later segment were as long as this one and
    /// joined on to it.
    guessed_end: u64,
    /// The highest number of a segment that a record has retired.
    pub(super) retired: u32,
}

impl Player {
    /// One that has played nothing.
    fn new(sender: SyncSender<Sent>) -> Player {
        let changes = Changes::with_capacity(SENT_CHANGES, SENT_KEY_BYTES);
        Player { sender, changes, unsent: 0, guessed_end: 0, retired: 0 }
    }

    /// Plays a segment, behind which there are `later` ones, as far as it is intact; how
    /// it ends there. Its `len` is that of its file before, and after it the end of the
    /// last intact record.
    pub(super) fn play<F: DiskFile>(
        &mut self,
        segment: &mut Segment<F>,
        later: usize,
    ) -> Result<End> {
        let mut ahead = Ahead::default();
        self.unsent = HEADER_BYTES as u64;
        self.guessed_end = segment.len.saturating_mul(1 + later as u64);
        // Nothing but a header, which is on the disk, needs no mark.
        let end = End::Whole { marked: true };
        let mut played = Played { len: HEADER_BYTES as u64, synced: 0, end };
        let mut damage = None;
        while played.len < segment.len && damage.is_none() {
            let bytes = ahead.whole_record(segment, played.len, RUN_BYTES)?;
            damage = self.play_bytes(segment, bytes, &mut played)?;
        }
        self.send(played.len);
        if let Some(damage) = damage {
            // It may have room for all that a damaged length claimed.
            drop(ahead);
            let tail = segment.bytes_from(played.len)?;
            if matches!(played.end, End::Continued) || !is_room(&tail) {
                played.end = End::Damaged { reason: damage.to_string(), tail };
            }
        }
        (segment.len, segment.synced) = (played.len, played.synced);
        Ok(played.end)
    }

    /// Plays the next records of a segment, which begin where these bytes do. `None` where
    /// the bytes end within a record, or with one, and one was played at least: there is
    /// more to be read. Else what is wrong with the next one.
    fn play_bytes<F: DiskFile>(
        &mut self,
        segment: &Segment<F>,
        bytes: &[u8],
        played: &mut Played,
    ) -> Result<Option<Damage>> {
        let Header { salt, number, .. } = segment.header;
        let mut rest = bytes;
        loop {
            let at = played.len;
            let corrupt = |reason: &str| KvsError::corrupt(&segment.path, at, reason);
            let record = match record::decode(rest, salt) {
                Ok(record) => record,
                Err(Damage::Cut(_)) if rest.len() < bytes.len() => return Ok(None),
                Err(damage) => return Ok(Some(damage)),
            };
            if matches!(played.end, End::Continued) {
                return Err(corrupt("a record after the last one"));
            }
            self.apply(&record, number, at).map_err(corrupt)?;
            if record.synced {
                played.synced = at;
            }
            played.end = match record.kind {
                Kind::Continued => End::Continued,
                kind => End::Whole { marked: kind == Kind::Mark },
            };
            rest = &rest[record.len()..];
            played.len += record.len() as u64;
            if self.is_full() {
                self.send(played.len);
            }
        }
    }

    /// Plays one record.
    fn apply(
        &mut self,
        record: &Record<'_>,
        segment: u32,
        at: u64,
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
        Ok(())
    }

    /// Whether there are enough changes to be sent.
    fn is_full(&self) -> bool {
        self.changes.len() == SENT_CHANGES || self.changes.key_bytes() >= SENT_KEY_BYTES
    }

    /// Sends the changes, which end at `at` of the segment, to the index, which listens
    /// for as long as it is sent to.
    fn send(&mut self, at: u64) {
        let none = Changes::with_capacity(SENT_CHANGES, SENT_KEY_BYTES);
        let changes = std::mem::replace(&mut self.changes, none);
        let bytes = at - std::mem::replace(&mut self.unsent, at);
        let expected = (self.guessed_end - at).saturating_mul(changes.len() as u64) / bytes.max(1);
        let _ = self.sender.send(Sent { changes, expected });
    }
}

/// Whether bytes after the last record are what was written ahead: zeros.
pub(super) fn is_room(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
