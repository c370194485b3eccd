//! The entries of a [`Table`](super::table): each key, and where its record is,
//! one after another in chunks.
//!
//! ```text
//! offset  bytes  field
//!      0      4  the low half of the key's hash
//!      4      4  key length
//!      8     12  location: segment, offset, length
//!     20      -  key, and up to three bytes that are not used
//! ```
//!
//! So a key costs 20 bytes beside its own, and its share of a bucket: `make pauses`
//! prints what that comes to. The place of an entry is a number: [`CHUNK_PLACES`] for
//! each chunk before its own, and one for every four bytes before it there. A long
//! entry has a chunk of its own.
//!
//! A new location is written over the old one. A removed entry stays, until about half
//! of its chunk is removed: then the table has the others added again and gives the
//! chunk back. So a removal moves half a chunk or little more.
//!
//! Not here: hashing, and which places are in use.
//!
//! Invariants:
//! * An entry stays where it is until it is removed, or its chunk is taken
//!   (`entries_stay_where_they_are`).
//! * Of the chunks' bytes a quarter is in use at the least, but for one chunk
//!   (`keys_that_come_and_go_do_not_pile_up`).

use super::bucket::PLACES;
use super::index::Location;
use super::prefetch::prefetch;
use super::record::read_u32;
use super::table::CACHE_LINE_BYTES;

/// Bytes of a chunk, but for those of one long entry.
const CHUNK_BYTES: usize = 32 << 10;
/// Bytes of an entry from which on it has a chunk of its own. Shorter ones share, so that
/// less than this is left over at the end of a chunk.
const LONG_BYTES: usize = CHUNK_BYTES / 4;
/// Bytes from one place to the next.
const PLACE_BYTES: usize = 4;
/// Places in a chunk; in one with a long entry only the first is used.
const CHUNK_PLACES: u64 = (CHUNK_BYTES / PLACE_BYTES) as u64;
/// Chunks in use from which on no key should be added: 128 GiB of common ones. There are
/// places for twice as many, as the same keys may take more chunks when they come in
/// another order, as when a store is opened. Few in unit tests, so that one can fill them.
const CHUNKS_MAX: u64 = if cfg!(test) { 512 } else { PLACES / CHUNK_PLACES / 2 };

/// Where the key's length stands in an entry.
const KEY_LEN: usize = 4;
/// Where the location stands.
const LOCATION: usize = KEY_LEN + 4;
/// Where the key stands.
const KEY: usize = LOCATION + 12;

/// The entries.
#[derive(Default)]
pub(super) struct Entries {
    /// The chunks, in use or free.
    chunks: Vec<Chunk>,
    /// The number of the chunk that entries are added to, if there is one.
    head: Option<usize>,
    /// The numbers of those that are free.
    free: Vec<usize>,
}

/// Some entries.
#[derive(Default)]
struct Chunk {
    /// Entry after entry.
    bytes: Vec<u8>,
    /// How many bytes of them are of removed ones.
    removed: usize,
}

impl Entries {
    /// Whether no keys should be added any more.
    pub(super) fn is_full(&self) -> bool {
        self.chunks_in_use() as u64 >= CHUNKS_MAX
    }

    /// How many chunks are in use.
    pub(super) fn chunks_in_use(&self) -> usize {
        self.chunks.len() - self.free.len()
    }

    /// The key of the entry at this place.
    pub(super) fn key(&self, place: u64) -> &[u8] {
        let (chunk, at) = position(place);
        let bytes = &self.chunks[chunk].bytes[at..];
        &bytes[KEY..KEY + read_u32(bytes, KEY_LEN) as usize]
    }

    /// The location in the entry at this place.
    pub(super) fn location(&self, place: u64) -> Location {
        let (chunk, at) = position(place);
        let number = |nth: usize| read_u32(&self.chunks[chunk].bytes, at + LOCATION + 4 * nth);
        Location { segment: number(0), offset: number(1), len: number(2) }
    }

    /// Changes the location in the entry at this place; what it was.
    pub(super) fn replace(&mut self, place: u64, new: Location) -> Location {
        let old = self.location(place);
        let (chunk, at) = position(place);
        let bytes = &mut self.chunks[chunk].bytes[at + LOCATION..at + KEY];
        bytes.copy_from_slice(&location_bytes(new));
        old
    }

    /// Has the processor load the entry at this place, of a long one the beginning.
    pub(super) fn prefetch(&self, place: u64) {
        let (chunk, at) = position(place);
        let bytes = &self.chunks[chunk].bytes[at..];
        // A short one may reach into the next line.
        [bytes.first(), bytes.get(CACHE_LINE_BYTES / 2)].into_iter().flatten().for_each(prefetch);
    }

    /// Adds an entry of a key with this hash; its place.
    pub(super) fn push(&mut self, hash: u64, key: &[u8], location: Location) -> u64 {
        let len = padded(KEY + key.len());
        let (place, bytes) = self.room(len);
        let end = bytes.len() + len;
        bytes.extend_from_slice(&head(hash, key, location));
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(&[0; PLACE_BYTES][..end - bytes.len()]);
        place
    }

    /// Adds an entry that was in another chunk; its place.
    pub(super) fn push_again(&mut self, entry: &[u8]) -> u64 {
        let (place, bytes) = self.room(entry.len());
        bytes.extend_from_slice(entry);
        place
    }

    /// The place of a new entry of so many bytes, and what it is to be added to.
    fn room(&mut self, len: usize) -> (u64, &mut Vec<u8>) {
        let number = match self.head {
            _ if len >= LONG_BYTES => self.begin_chunk(len),
            Some(head) if self.chunks[head].bytes.len() + len <= CHUNK_BYTES => head,
            full => {
                full.into_iter().for_each(|full| self.chunks[full].bytes.shrink_to_fit());
                let new = self.begin_chunk(CHUNK_BYTES);
                *self.head.insert(new)
            }
        };
        let bytes = &mut self.chunks[number].bytes;
        (first_place(number) + (bytes.len() / PLACE_BYTES) as u64, bytes)
    }

    /// Begins a chunk that has room for so many bytes; its number.
    fn begin_chunk(&mut self, len: usize) -> usize {
        let number = self.free.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.chunks.len() - 1
        });
        self.chunks[number].bytes.reserve_exact(len);
        number
    }

    /// Removes the entry at this place. The number of its chunk, if the others
    /// there are to be moved.
    pub(super) fn remove(&mut self, place: u64) -> Option<usize> {
        let (number, at) = position(place);
        let chunk = &mut self.chunks[number];
        chunk.removed += entry_len(&chunk.bytes, at);
        let is_head = self.head == Some(number);
        let len = if is_head { CHUNK_BYTES } else { chunk.bytes.len() };
        // Not just a half: chunks that were filled together would have to be moved together.
        if chunk.removed < len / 16 * (6 + number % 4) {
            return None;
        }
        if is_head {
            self.head = None;
        }
        Some(number)
    }

    /// Takes the bytes out of a chunk, whose places are not to be used until it is given
    /// back.
    pub(super) fn take(&mut self, chunk: usize) -> Vec<u8> {
        std::mem::take(&mut self.chunks[chunk]).bytes
    }

    /// Lets a chunk that was taken be used again.
    pub(super) fn give_back(&mut self, chunk: usize) {
        self.free.push(chunk);
    }
}

/// Place, hash and bytes of each entry in a chunk, removed ones too.
pub(super) fn each(chunk: usize, bytes: &[u8]) -> impl Iterator<Item = (u64, u64, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        (start < bytes.len()).then(|| {
            at += entry_len(bytes, start);
            let place = first_place(chunk) + (start / PLACE_BYTES) as u64;
            (place, read_u32(bytes, start).into(), &bytes[start..at])
        })
    })
}

/// What stands before the key in an entry.
fn head(hash: u64, key: &[u8], location: Location) -> [u8; KEY] {
    let mut head = [0; KEY];
    head[..KEY_LEN].copy_from_slice(&(hash as u32).to_le_bytes());
    head[KEY_LEN..LOCATION].copy_from_slice(&(key.len() as u32).to_le_bytes());
    head[LOCATION..].copy_from_slice(&location_bytes(location));
    head
}

/// The place of the first entry in the chunk with this number.
fn first_place(chunk: usize) -> u64 {
    chunk as u64 * CHUNK_PLACES
}

/// The number of the chunk of a place, and the byte in it.
fn position(place: u64) -> (usize, usize) {
    ((place / CHUNK_PLACES) as usize, (place % CHUNK_PLACES) as usize * PLACE_BYTES)
}

/// Bytes of the entry that begins here, up to the next one.
fn entry_len(bytes: &[u8], at: usize) -> usize {
    padded(KEY + read_u32(bytes, at + KEY_LEN) as usize)
}

/// Bytes from the beginning of an entry of so many to that of the next.
fn padded(len: usize) -> usize {
    len.next_multiple_of(PLACE_BYTES)
}

/// A location as an entry keeps it.
fn location_bytes(location: Location) -> [u8; KEY - LOCATION] {
    let mut bytes = [0; KEY - LOCATION];
    bytes[..4].copy_from_slice(&location.segment.to_le_bytes());
    bytes[4..8].copy_from_slice(&location.offset.to_le_bytes());
    bytes[8..].copy_from_slice(&location.len.to_le_bytes());
    bytes
}

#[cfg(test)]
#[path = "entries_tests.rs"]
mod tests;
