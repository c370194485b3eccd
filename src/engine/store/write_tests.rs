//! The room that a batch keeps.

use super::*;

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
