//! What chunks there are while entries come and go.

use super::*;

/// A location that no other number has.
fn location(nth: u32) -> Location {
    Location { segment: nth, offset: nth + 1, len: nth + 2 }
}

/// As many entries with keys of four bytes as fit into a common chunk.
const PER_CHUNK: u32 = (CHUNK_BYTES / (KEY + 4)) as u32;

/// Entries with the first `count` keys of four bytes, and their places.
fn filled(count: u32) -> (Entries, Vec<u64>) {
    let mut entries = Entries::default();
    let push = |nth: u32| entries.push(nth.into(), &nth.to_be_bytes(), location(nth));
    let places = (0..count).map(push).collect();
    (entries, places)
}

#[test]
fn entries_stay_where_they_are() {
    let (mut entries, places) = filled(3 * PER_CHUNK);
    let long = vec![1; 2 * CHUNK_BYTES];
    let place_of_long = entries.push(9, &long, location(9));
    let place_of_empty = entries.push(9, b"", location(10));
    // The empty key's fits behind the others.
    assert_eq!(entries.chunks_in_use(), 4 + 1);
    for (nth, place) in (0u32..).zip(&places) {
        assert_eq!(entries.key(*place), nth.to_be_bytes());
        assert_eq!(entries.replace(*place, location(nth + 1)), location(nth));
        assert_eq!(entries.location(*place), location(nth + 1));
    }
    assert_eq!(entries.key(place_of_long), long);
    assert_eq!(entries.location(place_of_long), location(9));
    assert_eq!(entries.key(place_of_empty), b"");
    assert_eq!(entries.location(place_of_empty), location(10));
}

#[test]
fn what_is_left_of_a_chunk_is_to_be_moved_when_about_half_is_removed() {
    let (mut entries, places) = filled(6 * PER_CHUNK);
    for (nth, chunk) in places.chunks(PER_CHUNK as usize).enumerate() {
        let sparse: Vec<Option<usize>> = chunk.iter().map(|place| entries.remove(*place)).collect();
        let kept = sparse.iter().position(Option::is_some).unwrap();
        let (least, most) = (PER_CHUNK as usize * 6 / 16, PER_CHUNK as usize * 9 / 16);
        assert!((least - 1..=most).contains(&kept), "{kept}");
        assert_eq!(sparse[kept], Some(nth));
    }
    // The one that entries were added to last is among them.
    assert_eq!(entries.head, None);
}

#[test]
fn what_is_taken_is_added_again_and_the_chunk_used_again() {
    let (mut entries, places) = filled(2 * PER_CHUNK);
    let bytes = entries.take(0);
    let each: Vec<(u64, u64, &[u8])> = each(0, &bytes).collect();
    assert_eq!(each.len(), PER_CHUNK as usize);
    let moved: Vec<u64> = each.iter().map(|(_, _, entry)| entries.push_again(entry)).collect();
    entries.give_back(0);
    for (nth, (place, hash, _)) in (0..).zip(&each) {
        assert_eq!((*place, *hash), (places[nth as usize], nth));
    }
    for (nth, place) in (0u32..).zip(moved) {
        assert_eq!(entries.key(place), nth.to_be_bytes());
        assert_eq!(entries.location(place), location(nth));
    }
    assert_eq!((entries.chunks.len(), entries.chunks_in_use()), (3, 2));
    let long = entries.push(0, &[0; CHUNK_BYTES], location(0));
    assert_eq!((position(long), entries.chunks.len()), ((0, 0), 3));
}

#[test]
fn a_long_entry_has_a_chunk_of_its_own_and_no_chunk_more_room_than_it_needs() {
    let mut entries = Entries::default();
    let short = entries.push(0, b"key", location(0));
    let long = entries.push(1, &[1; LONG_BYTES - KEY], location(1));
    let next = entries.push(2, &[2; LONG_BYTES - KEY - 4], location(2));
    assert_eq!([short, long, next].map(position), [(0, 0), (1, 0), (0, 24)]);
    let room = |entries: &Entries, nth: usize| entries.chunks[nth].bytes.capacity();
    assert_eq!([0, 1].map(|nth| room(&entries, nth)), [CHUNK_BYTES, LONG_BYTES]);
    assert_eq!(entries.remove(long), Some(1));
    // Those that do not fit close the chunk.
    (0..3).for_each(|nth| _ = entries.push(nth, &[3; LONG_BYTES - KEY - 4], location(3)));
    assert_eq!([0, 2].map(|nth| room(&entries, nth)), [24 + 3 * (LONG_BYTES - 4), CHUNK_BYTES]);
}

#[test]
fn a_chunk_is_filled_to_its_last_byte() {
    let (mut entries, per_chunk) = (Entries::default(), CHUNK_BYTES / 32);
    for nth in 0..per_chunk {
        assert_eq!(position(entries.push(0, &[0; 32 - KEY], location(0))), (0, nth * 32));
    }
    assert_eq!(position(entries.push(0, b"", location(0))), (1, 0));
}
