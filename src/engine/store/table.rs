//! A hash table from keys to locations that grows and shrinks a bucket at a time.
//!
//! Linear hashing (Litwin, 1980): the table has some number of buckets, not a
//! power of two. When there is more than [`BUCKET_FILL`] to a bucket, one more is
//! added, and the one whose hashes it shares is split between the two. So no
//! insert ever moves more than one bucket's entries, where a table that doubles
//! moves all of them at once.
//!
//! A bucket is a fixed run of bytes, and a vector for what does not fit. Both
//! hold entry after entry, and an entry is the key and where its record is:
//!
//! ```text
//! offset  bytes  field
//!      0      4  the low half of the key's hash
//!      4      4  key length
//!      8     12  location: segment, offset, length
//!     20      -  key
//! ```
//!
//! so that a key costs 20 bytes beside its own, and its share of a bucket's
//! room: `make pauses` prints what that comes to. Hashes are kept so that a
//! split need not compute them again.
//!
//! A table that is larger than the processor's cache spends its time waiting
//! for memory. So the entries are where the bucket is, which is one wait and
//! not two; and who has many keys at hand says so with [`Table::fetch`], and
//! the waits overlap.
//!
//! Not here: hashing, what a location means, and live bytes.
//!
//! Invariants (`it_holds_what_a_hash_map_holds`):
//! * A key is in the one bucket that [`Table::bucket_number`] says, once.
//! * No allocation is longer than a chunk of buckets, or one bucket's entries.
//! * An empty table has given its memory back, but for a chunk.

use super::index::Location;
use super::record::read_u32;

/// Bytes of entries to a bucket, on average, above which one more is added, and
/// four times less than which one is taken away. More saves memory, less saves
/// comparisons.
const BUCKET_FILL: usize = 110;
/// Bytes of entries that a bucket has room for in itself; it takes 256 in all.
const ROOM: usize = 230;
/// Buckets that are allocated at a time.
const CHUNK_BUCKETS: usize = 1024;
/// Bytes that the processor loads at once; a smaller number would be true too.
pub(crate) const CACHE_LINE_BYTES: usize = 64;

/// Where the key's length stands in an entry.
const KEY_LEN: usize = 4;
/// Where the location stands.
const LOCATION: usize = KEY_LEN + 4;
/// Where the key stands.
const KEY: usize = LOCATION + 12;

/// The table.
pub(crate) struct Table {
    /// The buckets, in chunks, so that adding one never moves the others.
    chunks: Vec<Vec<Bucket>>,
    /// How many buckets there are; never none.
    buckets: usize,
    /// How many keys there are.
    keys: usize,
    /// Bytes of all entries.
    entry_bytes: usize,
}

/// The entries of some keys.
#[repr(align(64))]
struct Bucket {
    /// Entry after entry.
    room: [u8; ROOM],
    /// How many bytes of the room are in use.
    used: u16,
    /// Entries that did not fit.
    more: Vec<u8>,
}

impl Default for Table {
    fn default() -> Table {
        let mut first = Vec::with_capacity(CHUNK_BUCKETS);
        first.push(Bucket::new());
        Table { chunks: vec![first], buckets: 1, keys: 0, entry_bytes: 0 }
    }
}

impl Table {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys
    }

    /// Has the processor load the buckets of these hashes. What it returns is made
    /// of all that is loaded, and of no other use than that a caller who needs it
    /// needs the loads.
    pub(crate) fn fetch(&self, hashes: impl Iterator<Item = u64>) -> u16 {
        let touch = |hash| {
            let bucket = self.bucket(hash);
            let lines = bucket.room.iter().step_by(CACHE_LINE_BYTES);
            lines.fold(bucket.used, |all, byte| all ^ u16::from(*byte))
        };
        hashes.map(touch).fold(0, |all, touched| all ^ touched)
    }

    /// The location of a key with this hash.
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<Location> {
        let find = |entries| find(entries, hash as u32, key).map(|at| location(entries, at));
        self.bucket(hash).parts().into_iter().find_map(find)
    }

    /// Sets the location of a key with this hash; the one it had.
    pub(crate) fn insert(&mut self, hash: u64, key: &[u8], location: Location) -> Option<Location> {
        let bucket = self.bucket_mut(self.bucket_number(hash));
        for entries in bucket.parts_mut() {
            if let Some(at) = find(entries, hash as u32, key) {
                return Some(replace(entries, at, location));
            }
        }
        bucket.push(&entry_head(hash as u32, key, location), key);
        self.keys += 1;
        self.entry_bytes += KEY + key.len();
        if self.entry_bytes > self.buckets * BUCKET_FILL {
            self.add_bucket();
        }
        None
    }

    /// Removes a key with this hash; the location it had.
    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Location> {
        let bucket = self.bucket_mut(self.bucket_number(hash));
        let location = bucket.remove(hash as u32, key)?;
        self.keys -= 1;
        self.entry_bytes -= KEY + key.len();
        // Two, as one for each removal would not keep up with short keys.
        for _ in 0..2 {
            if self.buckets > 1 && self.entry_bytes < self.buckets * BUCKET_FILL / 4 {
                self.take_bucket();
            }
        }
        Some(location)
    }

    /// The number of the bucket of a hash: its low bits, as many as the buckets
    /// need, or one fewer where that bucket has not been added yet.
    fn bucket_number(&self, hash: u64) -> usize {
        let mask = self.buckets.next_power_of_two() - 1;
        let number = hash as usize & mask;
        if number < self.buckets { number } else { number & (mask >> 1) }
    }

    /// The bucket of a hash.
    fn bucket(&self, hash: u64) -> &Bucket {
        let number = self.bucket_number(hash);
        &self.chunks[number / CHUNK_BUCKETS][number % CHUNK_BUCKETS]
    }

    /// The bucket with this number.
    fn bucket_mut(&mut self, number: usize) -> &mut Bucket {
        &mut self.chunks[number / CHUNK_BUCKETS][number % CHUNK_BUCKETS]
    }

    /// Adds a bucket and moves to it what belongs there of the one it splits.
    fn add_bucket(&mut self) {
        let number = self.buckets;
        if number.is_multiple_of(CHUNK_BUCKETS) {
            self.chunks.push(Vec::with_capacity(CHUNK_BUCKETS));
        }
        self.chunks[number / CHUNK_BUCKETS].push(Bucket::new());
        self.buckets += 1;
        let split = number & ((self.buckets.next_power_of_two() >> 1) - 1);
        let old = std::mem::replace(self.bucket_mut(split), Bucket::new());
        self.put(&old);
    }

    /// Takes the last bucket away and moves its entries to where they belong now.
    fn take_bucket(&mut self) {
        self.buckets -= 1;
        let last = self.chunks.last_mut().and_then(Vec::pop);
        if self.buckets.is_multiple_of(CHUNK_BUCKETS) {
            self.chunks.pop();
        }
        last.iter().for_each(|last| self.put(last));
    }

    /// Puts the entries of a bucket that is no longer in the table into it.
    fn put(&mut self, bucket: &Bucket) {
        for entries in bucket.parts() {
            let mut at = 0;
            while at < entries.len() {
                let entry = &entries[at..at + entry_len(entries, at)];
                let (head, key) = entry.split_at(KEY);
                let home = self.bucket_number(u64::from(read_u32(head, 0)));
                self.bucket_mut(home).push(head, key);
                at += entry.len();
            }
        }
    }
}

impl Bucket {
    /// One without entries.
    const fn new() -> Bucket {
        Bucket { room: [0; ROOM], used: 0, more: Vec::new() }
    }

    /// The entries in its room, and those that did not fit.
    fn parts(&self) -> [&[u8]; 2] {
        [&self.room[..usize::from(self.used)], &self.more]
    }

    /// [`parts`](Self::parts), to change locations in.
    fn parts_mut(&mut self) -> [&mut [u8]; 2] {
        [&mut self.room[..usize::from(self.used)], &mut self.more]
    }

    /// Adds an entry; the key has none.
    fn push(&mut self, head: &[u8], key: &[u8]) {
        let begin = usize::from(self.used);
        let end = begin + head.len() + key.len();
        if end <= ROOM {
            self.room[begin..begin + KEY].copy_from_slice(head);
            self.room[begin + KEY..end].copy_from_slice(key);
            self.used = end as u16;
        } else {
            self.more.reserve_exact(head.len() + key.len());
            self.more.extend_from_slice(head);
            self.more.extend_from_slice(key);
        }
    }

    /// Removes the entry of a key; the location it had.
    fn remove(&mut self, hash: u32, key: &[u8]) -> Option<Location> {
        let [room, more] = self.parts();
        if let Some(at) = find(room, hash, key) {
            let (location, end) = (location(room, at), at + entry_len(room, at));
            self.room.copy_within(end.., at);
            self.used -= (end - at) as u16;
            return Some(location);
        }
        let at = find(more, hash, key)?;
        let (location, end) = (location(more, at), at + entry_len(more, at));
        self.more.drain(at..end);
        self.more.shrink_to_fit();
        Some(location)
    }
}

/// Where in `entries` that of a key begins.
fn find(entries: &[u8], hash: u32, key: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < entries.len() {
        let len = entry_len(entries, at);
        if read_u32(entries, at) == hash && &entries[at + KEY..at + len] == key {
            return Some(at);
        }
        at += len;
    }
    None
}

/// Bytes of the entry that begins here.
fn entry_len(entries: &[u8], at: usize) -> usize {
    KEY + read_u32(entries, at + KEY_LEN) as usize
}

/// The location in the entry that begins here.
fn location(entries: &[u8], at: usize) -> Location {
    let number = |nth: usize| read_u32(entries, at + LOCATION + 4 * nth);
    Location { segment: number(0), offset: number(1), len: number(2) }
}

/// Changes the location in the entry that begins here; what it was.
fn replace(entries: &mut [u8], at: usize, new: Location) -> Location {
    let old = location(entries, at);
    entries[at + LOCATION..at + KEY].copy_from_slice(&location_bytes(new));
    old
}

/// What stands before the key in an entry.
fn entry_head(hash: u32, key: &[u8], location: Location) -> [u8; KEY] {
    let mut head = [0; KEY];
    head[..KEY_LEN].copy_from_slice(&hash.to_le_bytes());
    head[KEY_LEN..LOCATION].copy_from_slice(&(key.len() as u32).to_le_bytes());
    head[LOCATION..].copy_from_slice(&location_bytes(location));
    head
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
#[path = "table_tests.rs"]
mod tests;
