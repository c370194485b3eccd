//! The table beside a map of std.

use super::*;
use std::collections::HashMap;

/// Stands in for a hash: the table only wants bits that differ.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(7, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3))
}

#[test]
fn it_holds_what_a_hash_map_holds() {
    assert_eq!(size_of::<Bucket>(), 256);
    let (mut table, mut model) = (Table::default(), HashMap::new());
    let mut random = 1u64;
    for step in 0..60_000u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = format!("{:x}", (random >> 33) % 20_000).repeat((random >> 60) as usize);
        let key = key.into_bytes();
        let location = Location { segment: step, offset: !step, len: step / 3 };
        table.fetch([hash(&key)].into_iter());
        if random >> 32 & 3 == 0 {
            assert_eq!(table.remove(hash(&key), &key), model.remove(&key));
        } else {
            let old = table.insert(hash(&key), &key, location);
            assert_eq!(old, model.insert(key, location));
        }
        assert_eq!(table.len(), model.len());
    }
    assert!(table.buckets > CHUNK_BUCKETS, "{} buckets", table.buckets);
    for (key, location) in &model {
        assert_eq!(table.get(hash(key), key), Some(*location));
    }
    for (key, location) in &model {
        assert_eq!(table.remove(hash(key), key), Some(*location));
    }
    assert_eq!((table.len(), table.entry_bytes, table.chunks.len()), (0, 0, 1));
    // The last of all removals may leave some more than one.
    assert!(table.buckets < 8, "{} buckets", table.buckets);
}
