//! The index in memory: where the newest record of each key is, and how many
//! bytes are live.
//!
//! It is the only place that counts live bytes, and replay and writes go
//! through the same three calls, so that a running store and one just opened
//! count alike (`an_opened_store_counts_as_the_running_one_did`). Dead bytes are
//! what else is in the segments: overwritten values, tombstones, marks, headers.
//!
//! Not here: bytes on disk, and what to do about dead ones.
//!
//! Invariant: the live bytes are the sum of the lengths of all locations
//! (`live_bytes_follow_every_call`).

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;

use super::table::Table;

/// Keys whose places in the table are fetched together: enough that the waits
/// overlap, few enough that all stay in the processor's cache until used.
const FETCHED_KEYS: usize = 64;

/// Bytes of room for keys that an empty list of changes keeps.
const KEPT_KEY_BYTES: usize = 1 << 20;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The number of its segment.
    pub(crate) segment: u32,
    /// Bytes before it in that segment.
    pub(crate) offset: u32,
    /// Bytes it takes.
    pub(crate) len: u32,
}

/// What records do to an index, one after another: a key is at a place, or
/// nowhere.
pub(crate) struct Changes {
    /// The index's.
    hasher: RandomState,
    /// The keys, one behind the other.
    keys: Vec<u8>,
    /// The hash of each key, its length, and its place.
    entries: Vec<(u64, usize, Option<Location>)>,
}

impl Changes {
    /// None yet.
    pub(crate) fn of(index: &Index) -> Changes {
        Changes { hasher: index.hasher.clone(), keys: Vec::new(), entries: Vec::new() }
    }

    /// Adds what a record does.
    pub(crate) fn push(&mut self, key: &[u8], location: Option<Location>) {
        self.keys.extend_from_slice(key);
        self.entries.push((self.hasher.hash_one(key), key.len(), location));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes all of them out, and leaves none.
    pub(crate) fn take(&mut self) -> Changes {
        let none = Changes { hasher: self.hasher.clone(), keys: Vec::new(), entries: Vec::new() };
        std::mem::replace(self, none)
    }

    /// Forgets all of them, and keeps room for as many as are commonly together.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.keys.shrink_to(KEPT_KEY_BYTES);
        self.entries.clear();
        self.entries.shrink_to(KEPT_KEY_BYTES / size_of::<Location>());
    }
}

/// Key to location, and the live bytes.
#[derive(Default)]
pub(crate) struct Index {
    /// One entry for each key that has a value.
    locations: Table,
    /// Bytes of the records that the locations point to.
    live_bytes: u64,
    /// Seeded at random, so that no peer can choose keys that collide.
    hasher: RandomState,
}

impl Index {
    /// Where the newest record of the key is.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Location> {
        self.locations.get(self.hash(key), key)
    }

    /// Sets where the newest record of the key is; where it was before.
    pub(crate) fn set(&mut self, key: &[u8], location: Location) -> Option<Location> {
        self.set_hashed(self.hash(key), key, location)
    }

    /// Forgets the key; where its newest record was.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Location> {
        self.remove_hashed(self.hash(key), key)
    }

    /// Makes calls for these keys, few enough to be looked at soon, faster, where
    /// what it returns is needed ([`Table::fetch`]).
    pub(crate) fn fetch<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> u16 {
        // All hashes first: the loads must stand close together to overlap.
        let hashes: Vec<u64> = keys.map(|key| self.hash(key)).collect();
        self.locations.fetch(hashes.into_iter())
    }

    /// Does to the index what records did: the same as a call for each, but in
    /// groups whose waits for memory overlap.
    /// Hands where each key was before to `replaced`.
    pub(crate) fn play(&mut self, changes: &Changes, mut replaced: impl FnMut(Option<Location>)) {
        let mut keys = changes.keys.as_slice();
        for group in changes.entries.chunks(FETCHED_KEYS) {
            black_box(self.locations.fetch(group.iter().map(|(hash, ..)| *hash)));
            for (hash, len, location) in group {
                let (key, rest) = keys.split_at(*len);
                keys = rest;
                replaced(match location {
                    Some(location) => self.set_hashed(*hash, key, *location),
                    None => self.remove_hashed(*hash, key),
                });
            }
        }
    }

    /// The hash of a key.
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// [`set`](Self::set) of a key with this hash.
    fn set_hashed(&mut self, hash: u64, key: &[u8], location: Location) -> Option<Location> {
        self.live_bytes += u64::from(location.len);
        let old = self.locations.insert(hash, key, location);
        self.discount(old);
        old
    }

    /// [`remove`](Self::remove) of a key with this hash.
    fn remove_hashed(&mut self, hash: u64, key: &[u8]) -> Option<Location> {
        let old = self.locations.remove(hash, key);
        self.discount(old);
        old
    }

    /// Takes back a `set` or `remove` that returned `old`.
    pub(crate) fn restore(&mut self, key: &[u8], old: Option<Location>) {
        match old {
            Some(location) => self.set(key, location),
            None => self.remove(key),
        };
    }

    /// How many keys have a value.
    pub(crate) fn len(&self) -> usize {
        self.locations.len()
    }

    /// Live bytes in all segments.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Counts a record as dead that was live.
    fn discount(&mut self, location: Option<Location>) {
        self.live_bytes -= location.map_or(0, |location| u64::from(location.len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(segment: u32, len: u32) -> Location {
        Location { segment, offset: 32, len }
    }

    #[test]
    fn live_bytes_follow_every_call() {
        let mut index = Index::default();
        assert_eq!(index.set(b"a", location(1, 20)), None);
        assert_eq!(index.set(b"b", location(1, 30)), None);
        assert_eq!(index.set(b"a", location(2, 7)), Some(location(1, 20)));
        assert_eq!((index.live_bytes(), index.len()), (37, 2));
        assert_eq!(index.remove(b"b"), Some(location(1, 30)));
        assert_eq!(index.remove(b"b"), None);
        assert_eq!((index.live_bytes(), index.len()), (7, 1));
        index.restore(b"b", Some(location(1, 30)));
        index.restore(b"a", None);
        assert_eq!((index.live_bytes(), index.len()), (30, 1));
        assert_eq!((index.get(b"a"), index.get(b"b")), (None, Some(location(1, 30))));
    }

    #[test]
    fn changes_played_together_do_what_calls_one_by_one_would() {
        let mut index = Index::default();
        let mut changes = Changes::of(&index);
        for nth in 0..200u32 {
            changes.push(&nth.to_be_bytes(), Some(location(1, 20)));
        }
        changes.push(&7u32.to_be_bytes(), None);
        assert_eq!(changes.len(), 201);
        let taken = changes.take();
        assert_eq!((changes.len(), taken.len()), (0, 201));
        let mut replaced = Vec::new();
        index.play(&taken, |old| replaced.push(old));
        assert_eq!((index.len(), index.live_bytes()), (199, 199 * 20));
        assert_eq!(replaced[..200], [None; 200]);
        assert_eq!(replaced[200..], [Some(location(1, 20))]);
    }

    #[test]
    fn the_buckets_of_keys_are_fetched_together() {
        let mut index = Index::default();
        let keys: Vec<[u8; 4]> = (0..100u32).map(u32::to_be_bytes).collect();
        for key in &keys {
            index.set(key, location(1, 20));
        }
        for group in keys.chunks(30) {
            let hashes = group.iter().map(|key| index.hash(key));
            let fetched = index.fetch(group.iter().map(|key| &key[..]));
            assert_eq!(fetched, index.locations.fetch(hashes));
        }
    }

    #[test]
    fn changes_keep_room_for_the_next_but_not_for_uncommonly_many() {
        let mut changes = Changes::of(&Index::default());
        changes.keys.reserve(2 * KEPT_KEY_BYTES);
        changes.entries.reserve(2 * KEPT_KEY_BYTES);
        changes.push(b"key", None);
        changes.clear();
        assert_eq!((changes.keys.len(), changes.len()), (0, 0));
        assert!((500_000..=KEPT_KEY_BYTES).contains(&changes.keys.capacity()));
        assert!((50_000..100_000).contains(&changes.entries.capacity()));
    }
}
