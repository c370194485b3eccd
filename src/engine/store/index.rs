//! The index in memory: where the newest record of each key is, and how many
//! bytes are live.
//!
//! It is the only place that counts live bytes, and replay and writes both go
//! through [`Index::play`], so that a running store and one just opened count alike
//! (`an_opened_store_counts_as_the_running_one_did`). Dead bytes are what else is in
//! the segments: overwritten values, tombstones, marks, headers.
//!
//! Not here: bytes on disk, and what to do about dead ones.
//!
//! Invariant: the live bytes are the sum of the lengths of all locations
//! (`live_bytes_follow_every_call`).

use std::hash::{BuildHasher, Hasher, RandomState};

use super::table::Table;

/// Keys whose places in the table are prefetched together: enough that the waits
/// overlap, few enough that all stay in the processor's cache until used.
const PREFETCHED_KEYS: usize = 64;

/// Bytes of room for keys that an empty list of changes keeps.
const KEPT_KEY_BYTES: usize = 1 << 20;
/// Changes that such a list keeps room for.
const KEPT_CHANGES: usize = 1 << 16;

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
#[derive(Default)]
pub(crate) struct Changes {
    /// The keys, one behind the other.
    keys: Vec<u8>,
    /// The length of each key, and its place.
    entries: Vec<(usize, Option<Location>)>,
}

impl Changes {
    /// None yet, and room for so many with keys of so many bytes.
    pub(crate) fn with_capacity(count: usize, key_bytes: usize) -> Changes {
        Changes { keys: Vec::with_capacity(key_bytes), entries: Vec::with_capacity(count) }
    }

    /// Adds what a record does.
    pub(crate) fn push(&mut self, key: &[u8], location: Option<Location>) {
        self.keys.extend_from_slice(key);
        self.entries.push((key.len(), location));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all their keys.
    pub(crate) fn key_bytes(&self) -> usize {
        self.keys.len()
    }

    /// Forgets all of them, and keeps room for as many as are commonly together.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.keys.shrink_to(KEPT_KEY_BYTES);
        self.entries.clear();
        self.entries.shrink_to(KEPT_CHANGES);
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

    /// Where the newest record of each of these keys, which are few, is: the same as a
    /// call for each, but the waits for memory overlap.
    pub(crate) fn get_all<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Vec<Option<Location>> {
        let hashes: Vec<u64> = keys.clone().map(|key| self.hash(key)).collect();
        self.locations.prefetch(&hashes);
        hashes.iter().zip(keys).map(|(hash, key)| self.locations.get(*hash, key)).collect()
    }

    /// Does to the index what records did: the same as a call for each, but in
    /// groups whose waits for memory overlap.
    /// Hands where each key was before to `replaced`.
    pub(crate) fn play(&mut self, changes: &Changes, mut replaced: impl FnMut(Option<Location>)) {
        let mut keys = changes.keys.as_slice();
        for group in changes.entries.chunks(PREFETCHED_KEYS) {
            let mut hashes = [0; PREFETCHED_KEYS];
            let mut rest = keys;
            for (hash, (len, _)) in hashes.iter_mut().zip(group) {
                let (key, others) = rest.split_at(*len);
                (*hash, rest) = (self.hash(key), others);
            }
            self.locations.prefetch(&hashes[..group.len()]);
            for (hash, (len, location)) in hashes.into_iter().zip(group) {
                let (key, others) = keys.split_at(*len);
                keys = others;
                replaced(match location {
                    Some(location) => self.set_hashed(hash, key, *location),
                    None => self.remove_hashed(hash, key),
                });
            }
        }
    }

    /// Gets ready for so many more keys, which may come or not.
    pub(crate) fn expect(&mut self, keys: u64) {
        self.locations.reserve(keys);
    }

    /// Takes away what [`expect`](Self::expect) got ready and no key came for; the
    /// allocator may keep it.
    pub(crate) fn expect_no_more(&mut self) {
        self.locations.shrink();
    }

    /// Whether no keys should be added any more.
    pub(crate) fn is_full(&self) -> bool {
        self.locations.is_full()
    }

    /// The hash of a key. Unlike that of std for a slice it leaves the length out: no
    /// other field follows that the key would have to be told from.
    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.finish()
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
        let mut changes = Changes::default();
        for nth in 0..200u32 {
            changes.push(&nth.to_be_bytes(), Some(location(1, 20)));
        }
        changes.push(&7u32.to_be_bytes(), None);
        assert_eq!((changes.len(), changes.key_bytes()), (201, 804));
        let mut replaced = Vec::new();
        index.play(&changes, |old| replaced.push(old));
        assert_eq!((index.len(), index.live_bytes()), (199, 199 * 20));
        assert_eq!(replaced[..200], [None; 200]);
        assert_eq!(replaced[200..], [Some(location(1, 20))]);
    }

    #[test]
    fn keys_looked_for_together_are_found_like_each_by_itself() {
        let mut index = Index::default();
        let keys: Vec<[u8; 4]> = (0..100u32).map(u32::to_be_bytes).collect();
        for (nth, key) in (0..).zip(&keys).step_by(3) {
            index.set(key, location(nth, 20));
        }
        let all = index.get_all(keys.iter().map(|key| &key[..]));
        let each: Vec<_> = keys.iter().map(|key| index.get(key)).collect();
        assert_eq!(all, each);
        assert_eq!(all.iter().flatten().count(), 34);
    }

    #[test]
    fn changes_keep_room_for_the_next_but_not_for_uncommonly_many() {
        let mut changes = Changes::default();
        changes.keys.reserve(2 * KEPT_KEY_BYTES);
        changes.entries.reserve(2 * KEPT_KEY_BYTES);
        changes.push(b"key", None);
        changes.clear();
        assert_eq!((changes.keys.len(), changes.len()), (0, 0));
        assert!((500_000..=KEPT_KEY_BYTES).contains(&changes.keys.capacity()));
        assert!((50_000..100_000).contains(&changes.entries.capacity()));
    }
}
