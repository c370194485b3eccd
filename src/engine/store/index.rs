//! The index: where the newest record of each key is.
//!
//! Keys are not held in memory. An entry has 24 bytes: a 96-bit fingerprint of the key, and
//! the location of its record. Hash maps have free slots, so a key costs up to 60 bytes of
//! memory, however long it is. The fingerprint is a keyed hash with a random secret, so
//! clients cannot construct collisions. Among 10^9 keys the chance of any collision is 6 in
//! 10^12, less than that of an undetected disk error. `get` would detect it: it compares
//! the key in the record. `set` and `remove` do not read the record, and would not.
//!
//! A std `HashMap` moves all its entries when it grows, which would stall a write. The
//! index is therefore split into 4,096 maps by some bits of the fingerprint. Growth moves
//! at most about a 4,096th of the entries at a time.
//!
//! Invariant: updates applied together have the effect of single ones
//! (`updates_in_groups_equal_single_ones`).

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::hint::black_box;

/// Number of maps.
pub(super) const MAPS: usize = 4096;
/// Updates or look-ups whose cache misses overlap. More exceed the processor's queue of
/// outstanding loads.
const GROUP: usize = 32;
/// A map shrinks when its length is less than its capacity divided by this.
const SHRINK_DIVISOR: usize = 8;

/// Where a record is: the number of its segment, and its offset and length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// The hash of a key that stands for the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fingerprint([u32; 3]);

impl Fingerprint {
    /// The number of the key's map.
    pub(super) fn map(self) -> usize {
        self.0[2] as usize % MAPS
    }

    /// The fingerprint that is shown as this text.
    pub(super) fn parse(text: &str) -> Option<Fingerprint> {
        let word = |at| u32::from_str_radix(text.get(at..at + 8)?, 16).ok();
        Some(Fingerprint([word(0)?, word(8)?, word(16)?]))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, "{word:08x}"))
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[0]) << 32 | u64::from(self.0[1]));
    }
}

/// Hashes a fingerprint, which is a hash already, to itself.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What a record does to the index: its key has this location now, or none.
pub(super) type Update = (Fingerprint, Option<Location>);

/// Maps keys to locations.
pub(super) struct Index {
    /// The entries, by [`Fingerprint::map`].
    maps: Vec<HashMap<Fingerprint, Location, BuildHasherDefault<Identity>>>,
    secret: RandomState,
}

impl Index {
    pub(super) fn new() -> Index {
        Index { maps: vec![HashMap::default(); MAPS], secret: RandomState::new() }
    }

    /// The fingerprint of a key: two hashes with one secret. A byte after the key
    /// tells them apart. (Two `RandomState`s of one thread would be related.)
    pub(super) fn fingerprint(&self, key: &[u8]) -> Fingerprint {
        let mut hasher = self.secret.build_hasher();
        hasher.write(key);
        let hash = |last: u8| {
            let mut hasher = hasher.clone();
            hasher.write_u8(last);
            hasher.finish()
        };
        let (a, b) = (hash(0), hash(1));
        Fingerprint([(a >> 32) as u32, a as u32, b as u32])
    }

    /// The location of a key's newest record.
    pub(super) fn get(&self, key: Fingerprint) -> Option<Location> {
        self.maps[key.map()].get(&key).copied()
    }

    /// The locations of many keys. Their cache misses overlap.
    pub(super) fn get_all(&self, keys: &[Fingerprint]) -> Vec<Option<Location>> {
        keys.iter().map(|key| self.get(*key)).collect()
    }

    /// The entries of one map that follow `after` in the order of a scan: by map, then by
    /// fingerprint. They are sorted.
    pub(super) fn sorted_after(
        &self,
        map: usize,
        after: Option<Fingerprint>,
    ) -> Vec<(Fingerprint, Location)> {
        let after = after.map(|after| (after.map(), after));
        let entries = self.maps[map].iter().map(|(key, location)| (*key, *location));
        let mut entries: Vec<_> = entries.filter(|(key, _)| Some((map, *key)) > after).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries
    }

    /// Applies updates in order. Passes each to `replaced`, with the location that
    /// the key had before.
    pub(super) fn apply(
        &mut self,
        updates: &[Update],
        mut replaced: impl FnMut(Option<Location>, Option<Location>),
    ) {
        for group in updates.chunks(GROUP) {
            if group.len() > 1 {
                // Independent look-ups first: they load the entries into the processor's
                // cache, and their cache misses overlap.
                let found = group.iter().filter(|(key, _)| self.get(*key).is_some()).count();
                black_box(found);
            }
            for (key, new) in group {
                let old = self.replace(*key, *new);
                replaced(*new, old);
            }
        }
    }

    /// Sets or removes the location of a key, and returns the one before.
    fn replace(&mut self, key: Fingerprint, new: Option<Location>) -> Option<Location> {
        let map = &mut self.maps[key.map()];
        let old = match new {
            Some(location) => map.insert(key, location),
            None => map.remove(&key),
        };
        if map.len() < map.capacity() / SHRINK_DIVISOR {
            map.shrink_to_fit();
        }
        old
    }

    /// Number of keys that have a value.
    pub(super) fn len(&self) -> u64 {
        self.maps.iter().map(|map| map.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn location(nth: u32) -> Location {
        Location { segment: 1, offset: nth, len: 20 }
    }

    #[test]
    fn updates_in_groups_equal_single_ones() {
        let (mut grouped, mut model) = (Index::new(), BTreeMap::new());
        let mut replaced = Vec::new();
        let mut expected = Vec::new();
        let mut updates = Vec::new();
        for nth in 0..5_000u32 {
            let key = (nth.wrapping_mul(2_654_435_761) >> 16) % 700;
            let new = (nth % 3 != 0).then(|| location(nth));
            updates.push((grouped.fingerprint(&key.to_le_bytes()), new));
            expected.push(match new {
                Some(new) => model.insert(key, new),
                None => model.remove(&key),
            });
        }
        grouped.apply(&updates, |_, old| replaced.push(old));
        assert_eq!(replaced, expected);
        assert_eq!(grouped.len(), model.len() as u64);
        let keys: Vec<_> = (0..700u32).map(|key| grouped.fingerprint(&key.to_le_bytes())).collect();
        let found = grouped.get_all(&keys);
        let wanted: Vec<_> = (0..700).map(|key| model.get(&key).copied()).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn both_halves_of_a_fingerprint_depend_on_the_key() {
        let index = Index::new();
        let (a, b) = (index.fingerprint(b"a"), index.fingerprint(b"b"));
        assert!(a == index.fingerprint(b"a") && (0..3).all(|part| a.0[part] != b.0[part]));
        assert!(a.0[2] != a.0[1] && a != Index::new().fingerprint(b"a"));
    }

    /// Otherwise growth moves many entries at a time, or look-ups compare many.
    #[test]
    fn keys_are_spread_over_maps_and_buckets() {
        let index = Index::new();
        let keys = (0..100_000u32).map(|key| index.fingerprint(&key.to_le_bytes()));
        let mut found = [(); 3].map(|()| BTreeSet::new());
        for key in keys {
            // A map takes the bucket from the low bits of the hash, and a tag from the high ones.
            let hash = BuildHasherDefault::<Identity>::default().hash_one(key);
            found[0].insert(key.map() as u64);
            found[1].insert(hash % 1024);
            found[2].insert(hash >> 57);
        }
        assert_eq!(found.map(|found| found.len()), [MAPS, 1024, 128]);
    }

    #[test]
    fn memory_is_given_back_after_removals() {
        let mut index = Index::new();
        let keys: Vec<_> =
            (0..1_000_000u32).map(|key| index.fingerprint(&key.to_le_bytes())).collect();
        let capacity = |index: &Index| index.maps.iter().map(HashMap::capacity).sum::<usize>();
        let all: Vec<Update> = keys.iter().map(|key| (*key, Some(location(1)))).collect();
        index.apply(&all, |_, _| {});
        let full = capacity(&index);
        let none: Vec<Update> = keys.iter().map(|key| (*key, None)).collect();
        index.apply(&none, |_, _| {});
        assert!(index.len() == 0 && capacity(&index) < full / 4);
    }
}
