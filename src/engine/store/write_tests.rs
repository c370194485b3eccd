//! The room that a batch keeps, and a full index.

use super::*;
use crate::{KvStore, KvsEngine};

#[test]
fn a_batch_keeps_room_for_a_common_one_and_gives_back_that_of_a_large_one() {
    let mut batch = Batch::default();
    batch.bytes.reserve(3 * BATCH_ROOM_BYTES_MAX);
    batch.replaced.reserve(3 * BATCH_ROOM_BYTES_MAX);
    batch.bytes.push(1);
    batch.replaced.push(None);
    batch.clear();
    assert!(batch.bytes.is_empty() && batch.replaced.is_empty());
    let kept = [batch.bytes.capacity(), batch.replaced.capacity() * size_of::<Option<Location>>()];
    for bytes in kept {
        assert!((1 << 20..=4 << 20).contains(&bytes), "{bytes} bytes of room are kept");
    }
}

/// Long keys fill the index soonest.
#[test]
fn a_full_index_takes_no_more_keys_and_all_else_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = KvStore::open(directory.path()).unwrap();
    let key = |nth: usize| format!("{nth:09000}");
    let kept = (0..).find(|nth| store.set(key(*nth), "value".to_owned()).is_err()).unwrap();
    assert!(kept > 500, "{kept}");
    let error = store.set(key(kept), "value".to_owned()).unwrap_err();
    assert_eq!(error.to_string(), "the index has as many keys as it can");
    assert_eq!(store.get(key(kept)).unwrap(), None);
    assert_eq!(store.get(key(kept - 1)).unwrap().as_deref(), Some("value"));
    store.remove(key(0)).unwrap();
    store.set(key(kept), "value".to_owned()).unwrap();
    drop(store);
    let store = KvStore::open(directory.path()).unwrap();
    assert_eq!(store.get(key(kept)).unwrap().as_deref(), Some("value"));
    assert_eq!(store.get(key(0)).unwrap(), None);
}
