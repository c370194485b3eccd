//! A hash table from keys to locations that grows a bucket at a time.
//!
//! Linear hashing (Litwin, 1980): the table has some number of buckets, not a
//! power of two. When there are more than [`BUCKET_KEYS`] keys to a bucket, one
//! more bucket is added, and the one whose hashes it shares is split between
//! the two. So no insert ever moves more than one bucket's keys, where a table
//! that doubles moves all of them at once.
//!
//! A bucket is one run of bytes with its keys in it, entry after entry:
//!
//! ```text
//! offset  bytes  field
//!      0      1  tag: the top byte of the key's hash
//!      1      4  key length
//!      5     12  location: segment, offset, length
//!     17      -  key
//! ```
//!
//! so that a key costs 17 bytes beside its own, and its share of a bucket's
//! room: `make pauses` prints what that comes to.
//!
//! Not here: what a location means, and live bytes.
//!
//! Invariants:
//! * A key is in the one bucket that [`Table::bucket_number`] says, once.
//! * No allocation is longer than a chunk of buckets, or one bucket with its keys.

use std::hash::{BuildHasher, RandomState};

use super::index::Location;
use super::record::read_u32;

/// Keys to a bucket, on average, before another bucket is added. More save
/// memory, fewer save comparisons.
const BUCKET_KEYS: usize = 12;
/// Buckets that are allocated at a time.
const CHUNK_BUCKETS: usize = 1024;
/// Bytes by which a full bucket grows beyond what it needs: about two entries.
const SLACK_BYTES: usize = 64;

/// Where the key's length stands in an entry.
const KEY_LEN: usize = 1;
/// Where the location stands.
const LOCATION: usize = KEY_LEN + 4;
/// Where the key stands.
const KEY: usize = LOCATION + 12;

/// The table.
pub(crate) struct Table {
    /// The buckets, in chunks, so that adding one never moves the others.
    chunks: Vec<Vec<Bucket>>,
    /// How many buckets there are.
    buckets: usize,
    /// How many keys there are.
    keys: usize,
    /// Seeded at random, so that no peer can choose keys that collide.
    hasher: RandomState,
}

/// Keys of one bucket, packed.
#[derive(Default)]
struct Bucket {
    /// Entry after entry.
    bytes: Vec<u8>,
}

impl Default for Table {
    fn default() -> Table {
        let chunks = vec![vec![Bucket::default()]];
        Table { chunks, buckets: 1, keys: 0, hasher: RandomState::new() }
    }
}

impl Table {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys
    }

    /// The location of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Location> {
        let hash = self.hasher.hash_one(key);
        let number = self.bucket_number(hash);
        let bucket = &self.chunks[number / CHUNK_BUCKETS][number % CHUNK_BUCKETS];
        bucket.find(tag(hash), key).map(|at| bucket.location(at))
    }

    /// Sets the location of a key; the one it had.
    pub(crate) fn insert(&mut self, key: &[u8], location: Location) -> Option<Location> {
        let hash = self.hasher.hash_one(key);
        let bucket = self.bucket_mut(self.bucket_number(hash));
        if let Some(at) = bucket.find(tag(hash), key) {
            return Some(bucket.replace(at, location));
        }
        bucket.push(tag(hash), key, location);
        self.keys += 1;
        if self.keys > self.buckets * BUCKET_KEYS {
            self.add_bucket();
        }
        None
    }

    /// Removes a key; the location it had.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Location> {
        let hash = self.hasher.hash_one(key);
        let bucket = self.bucket_mut(self.bucket_number(hash));
        let at = bucket.find(tag(hash), key)?;
        let location = bucket.location(at);
        bucket.remove(at);
        self.keys -= 1;
        Some(location)
    }

    /// The bucket of a hash: its low bits, as many as the buckets need, or one
    /// fewer where that bucket has not been added yet.
    fn bucket_number(&self, hash: u64) -> usize {
        let mask = self.buckets.next_power_of_two() - 1;
        let number = hash as usize & mask;
        if number < self.buckets { number } else { number & (mask >> 1) }
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
        self.chunks[number / CHUNK_BUCKETS].push(Bucket::default());
        self.buckets += 1;
        let split = number & ((self.buckets.next_power_of_two() >> 1) - 1);
        let old = std::mem::take(self.bucket_mut(split));
        let mut at = 0;
        while at < old.bytes.len() {
            let key = old.key(at);
            let hash = self.hasher.hash_one(key);
            let home = self.bucket_number(hash);
            self.bucket_mut(home).push(tag(hash), key, old.location(at));
            at += KEY + key.len();
        }
    }
}

/// The byte of a hash that an entry keeps: not one that chooses the bucket.
fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
}

impl Bucket {
    /// Where the entry of a key begins.
    fn find(&self, tag: u8, key: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < self.bytes.len() {
            let found = self.key(at);
            if self.bytes[at] == tag && found == key {
                return Some(at);
            }
            at += KEY + found.len();
        }
        None
    }

    /// The key of the entry that begins here.
    fn key(&self, at: usize) -> &[u8] {
        let len = read_u32(&self.bytes, at + KEY_LEN) as usize;
        &self.bytes[at + KEY..][..len]
    }

    /// The location of the entry that begins here.
    fn location(&self, at: usize) -> Location {
        let number = |nth: usize| read_u32(&self.bytes, at + LOCATION + 4 * nth);
        Location { segment: number(0), offset: number(1), len: number(2) }
    }

    /// Changes the location of the entry that begins here; what it was.
    fn replace(&mut self, at: usize, location: Location) -> Location {
        let old = self.location(at);
        self.bytes[at + LOCATION..at + KEY].copy_from_slice(&location_bytes(location));
        old
    }

    /// Adds an entry; the key has none.
    fn push(&mut self, tag: u8, key: &[u8], location: Location) {
        let len = KEY + key.len();
        if self.bytes.capacity() - self.bytes.len() < len {
            self.bytes.reserve_exact(len + SLACK_BYTES);
        }
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&location_bytes(location));
        self.bytes.extend_from_slice(key);
    }

    /// Removes the entry that begins here, and gives back room that is not needed.
    fn remove(&mut self, at: usize) {
        let end = at + KEY + self.key(at).len();
        self.bytes.drain(at..end);
        if self.bytes.capacity() > 2 * self.bytes.len() + SLACK_BYTES {
            self.bytes.shrink_to_fit();
        }
    }
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
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn it_holds_what_a_hash_map_holds() {
        let (mut table, mut model) = (Table::default(), HashMap::new());
        let mut random = 1u64;
        for step in 0..60_000u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = format!("{:x}", (random >> 33) % 20_000).repeat((random >> 60) as usize);
            let key = key.into_bytes();
            let location = Location { segment: step, offset: !step, len: step / 3 };
            if random >> 32 & 3 == 0 {
                assert_eq!(table.remove(&key), model.remove(&key));
            } else {
                assert_eq!(table.insert(&key, location), model.insert(key.clone(), location));
            }
            assert_eq!(table.len(), model.len());
        }
        assert!(table.buckets > 2 * CHUNK_BUCKETS / 3, "{} buckets", table.buckets);
        for (key, location) in &model {
            assert_eq!(table.get(key), Some(*location));
        }
        for key in model.keys() {
            table.remove(key);
        }
        let room: usize = table.chunks.iter().flatten().map(|b| b.bytes.capacity()).sum();
        assert!(table.len() == 0 && room <= table.buckets * SLACK_BYTES);
    }
}
