//! A hash table from keys to locations that grows and shrinks a bucket at a time.
//!
//! Linear hashing (Litwin, 1980): the table has some number of buckets, not a
//! power of two. When there are more than [`BUCKET_FILL`] keys to a bucket, one
//! more is added, and the one whose hashes it shares is split between the two. So
//! no insert ever moves more than one bucket's slots, where a table that doubles
//! moves all of them at once.
//!
//! A [bucket](super::bucket) has some bits of the hash of each key, and the place of
//! the [entry](super::entries) that holds the key and its location. A split needs no
//! more than the bucket.
//!
//! A table that is larger than the processor's cache spends its time waiting
//! for memory: once for the bucket, and once for the entry. So who has many
//! keys at hand says so with [`Table::prefetch`], and the waits overlap.
//!
//! Not here: hashing, what a location means, and live bytes.
//!
//! Invariants (`it_holds_what_a_hash_map_holds`):
//! * A key is in the one bucket that [`Table::bucket_number`] says, once.
//! * No allocation is longer than a chunk of buckets, a chunk of entries, or an entry,
//!   but for the lists of chunks
//!   (`a_long_entry_has_a_chunk_of_its_own_and_no_chunk_more_room_than_it_needs`).
//! * A table whose keys were all removed has given its memory back, but for a chunk of
//!   each kind and the lists of chunks.

use super::bucket::{Bucket, HASHES};
use super::entries::{self, Entries};
use super::index::Location;
use super::prefetch::prefetch;

/// Above so many keys to a bucket, on average, one is added; below a quarter of that, one
/// is taken away. More saves memory, less saves chains.
const BUCKET_FILL: usize = 3;
/// Keys to a bucket that [`Table::shrink`] leaves, on average, at the least.
const SHRUNK_FILL: usize = 2;
/// A guess of keys to come is believed up to so many, or up to [`RESERVED_FACTOR`] times
/// as many as there are, if that is more: where early records are short and later ones
/// long it is far too high, and the allocator may keep what is given back.
const RESERVED_KEYS: usize = 1 << 17;
/// See [`RESERVED_KEYS`].
const RESERVED_FACTOR: usize = 3;
/// Entries that are moved together, their buckets prefetched.
const MOVED_ENTRIES: usize = 64;
/// Buckets there may be: as many as a slot's bits of a hash tell apart.
const BUCKETS_MAX: usize = HASHES as usize;
/// Buckets that are allocated at a time.
const CHUNK_BUCKETS: usize = 1024;
/// Bytes of a line of the processor's cache, which it loads at once.
pub(crate) const CACHE_LINE_BYTES: usize = 64;

/// The table.
pub(crate) struct Table {
    /// The buckets, in chunks, so that adding one never moves the others.
    chunks: Vec<Vec<Line>>,
    /// How many buckets there are; never none.
    buckets: usize,
    /// How many keys there are.
    keys: usize,
    /// The keys and their locations.
    entries: Entries,
}

/// A bucket that begins where a line of the processor's cache does, as those of a
/// chain need not, which are allocated one by one.
#[repr(align(64))]
struct Line(Bucket);

const _: () = assert!(size_of::<Line>() == CACHE_LINE_BYTES);

impl Default for Table {
    fn default() -> Table {
        Table::with_buckets(1)
    }
}

impl Table {
    /// An empty one with so many buckets, one at the least.
    fn with_buckets(buckets: usize) -> Table {
        let chunk = |first| {
            let mut chunk = Vec::with_capacity(CHUNK_BUCKETS);
            chunk.resize_with(CHUNK_BUCKETS.min(buckets - first), || Line(Bucket::EMPTY));
            chunk
        };
        let chunks = (0..buckets).step_by(CHUNK_BUCKETS).map(chunk).collect();
        Table { chunks, buckets, keys: 0, entries: Entries::default() }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys
    }

    /// Whether no keys should be added any more.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.is_full()
    }

    /// Has the processor load the buckets of these hashes, and then the entries that
    /// are likely to be of their keys ([`prefetch`]).
    pub(crate) fn prefetch(&self, hashes: &[u64]) {
        hashes.iter().for_each(|hash| prefetch(self.bucket(*hash).first_byte()));
        let guess = |hash: &u64| self.bucket(*hash).guess(*hash);
        hashes.iter().filter_map(guess).for_each(|place| self.entries.prefetch(place));
    }

    /// The location of a key with this hash.
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<Location> {
        let place = self.bucket(hash).get(hash, |place| self.entries.key(place) == key)?;
        Some(self.entries.location(place))
    }

    /// Sets the location of a key with this hash; the one it had.
    pub(crate) fn insert(&mut self, hash: u64, key: &[u8], location: Location) -> Option<Location> {
        let number = self.bucket_number(hash);
        let bucket = bucket_at(&mut self.chunks, number);
        if let Some(place) = bucket.get(hash, |place| self.entries.key(place) == key) {
            return Some(self.entries.replace(place, location));
        }
        bucket.push(hash, self.entries.push(hash, key, location));
        self.keys += 1;
        if self.keys > self.buckets * BUCKET_FILL && self.buckets < BUCKETS_MAX {
            self.add_bucket();
        }
        None
    }

    /// Removes a key with this hash; the location it had.
    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Location> {
        let number = self.bucket_number(hash);
        let bucket = bucket_at(&mut self.chunks, number);
        let place = bucket.remove(hash, &|place| self.entries.key(place) == key)?;
        let location = self.entries.location(place);
        self.keys -= 1;
        // Two, as one for each removal would not keep up.
        for _ in 0..2 {
            if self.buckets > 1 && self.keys < self.buckets * BUCKET_FILL / 4 {
                self.take_bucket();
            }
        }
        if let Some(sparse) = self.entries.remove(place) {
            self.move_entries(sparse);
        }
        Some(location)
    }

    /// Makes buckets at once for the keys that may follow, when those there are will soon
    /// be full: faster than one by one, where the slots of a key are moved again and again.
    pub(crate) fn reserve(&mut self, more: u64) {
        let spare = (self.buckets * BUCKET_FILL).saturating_sub(self.keys);
        let more = more.min(RESERVED_KEYS.max(RESERVED_FACTOR * self.keys) as u64) as usize;
        let buckets = ((self.keys + more) / BUCKET_FILL).min(BUCKETS_MAX);
        // To put all slots into a table that is little larger would be slower.
        if spare > self.keys / 8 || buckets < self.buckets + self.buckets / 4 {
            return;
        }
        let old = std::mem::replace(self, Table::with_buckets(buckets));
        (self.keys, self.entries) = (old.keys, old.entries);
        old.chunks.into_iter().flatten().for_each(|Line(bucket)| self.put(&bucket));
    }

    /// Takes away the buckets that were made at once for keys that did not come.
    pub(crate) fn shrink(&mut self) {
        while self.buckets > self.keys / SHRUNK_FILL + 1 {
            self.take_bucket();
        }
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
        &self.chunks[number / CHUNK_BUCKETS][number % CHUNK_BUCKETS].0
    }

    /// Adds a bucket and moves to it what belongs there of the one it splits.
    fn add_bucket(&mut self) {
        let number = self.buckets;
        if number.is_multiple_of(CHUNK_BUCKETS) {
            self.chunks.push(Vec::with_capacity(CHUNK_BUCKETS));
        }
        self.chunks[number / CHUNK_BUCKETS].push(Line(Bucket::EMPTY));
        self.buckets += 1;
        let mask = (self.buckets.next_power_of_two() >> 1) - 1;
        let split = bucket_at(&mut self.chunks, number & mask);
        let old = std::mem::replace(split, Bucket::EMPTY);
        self.put(&old);
    }

    /// Takes the last of several buckets away and moves its slots to where they belong now.
    fn take_bucket(&mut self) {
        self.buckets -= 1;
        let last = self.chunks.last_mut().and_then(Vec::pop);
        if self.buckets.is_multiple_of(CHUNK_BUCKETS) {
            self.chunks.pop();
        }
        last.iter().for_each(|Line(last)| self.put(last));
    }

    /// Puts the keys of a bucket that is no longer in the table into it.
    fn put(&mut self, bucket: &Bucket) {
        bucket.each(|hash, place| {
            let number = self.bucket_number(hash);
            bucket_at(&mut self.chunks, number).push(hash, place);
        });
    }

    /// Moves the entries that are left of a chunk to others.
    fn move_entries(&mut self, chunk: usize) {
        let bytes = self.entries.take(chunk);
        let mut entries = entries::each(chunk, &bytes).peekable();
        while entries.peek().is_some() {
            let group: Vec<_> = entries.by_ref().take(MOVED_ENTRIES).collect();
            group.iter().for_each(|(_, hash, _)| prefetch(self.bucket(*hash).first_byte()));
            for (place, hash, entry) in group {
                let number = self.bucket_number(hash);
                let bucket = bucket_at(&mut self.chunks, number);
                // The place of a removed one is in no bucket.
                if bucket.remove(hash, &|found| found == place).is_some() {
                    bucket.push(hash, self.entries.push_again(entry));
                }
            }
        }
        self.entries.give_back(chunk);
    }
}

/// The bucket with this number.
fn bucket_at(chunks: &mut [Vec<Line>], number: usize) -> &mut Bucket {
    &mut chunks[number / CHUNK_BUCKETS][number % CHUNK_BUCKETS].0
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
