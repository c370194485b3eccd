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
fn entries_stay_where_they_are_and_no_place_is_0() {
    let (mut entries, places) = filled(3 * PER_CHUNK);
    let long = vec![1; 2 * CHUNK_BYTES];
    let place_of_long = entries.push(9, &long, location(9));
    let place_of_empty = entries.push(9, b"", location(10));
    assert_eq!(entries.bytes(), 6 * CHUNK_BYTES as u64);
    assert!(places.iter().all(|place| *place != 0));
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
fn a_chunk_goes_when_half_of_it_is_removed() {
    let (mut entries, places) = filled(2 * PER_CHUNK);
    let half = PER_CHUNK as usize / 2;
    let sparse: Vec<Option<usize>> =
        places[..=half].iter().map(|place| entries.remove(*place)).collect();
    assert!(sparse[..half - 1].iter().all(Option::is_none), "{sparse:?}");
    assert_eq!(sparse[half], Some(1));
    let bytes = entries.take(1);
    let each: Vec<(u64, u64, &[u8])> = each(1, &bytes).collect();
    assert_eq!(each.len(), PER_CHUNK as usize);
    let moved: Vec<u64> =
        each[half + 1..].iter().map(|(_, _, entry)| entries.push_again(entry)).collect();
    entries.free(1);
    for (nth, (place, hash, _)) in (0..).zip(&each) {
        assert_eq!((*place, *hash), (places[nth as usize], nth));
    }
    for (nth, place) in (half as u32 + 1..).zip(moved) {
        assert_eq!(entries.key(place), nth.to_be_bytes());
        assert_eq!(entries.location(place), location(nth));
    }
    // That which has no room, the second, and the one that was moved to.
    assert_eq!((entries.chunks.len(), entries.bytes()), (4, 3 * CHUNK_BYTES as u64));
    let last = entries.push(0, &[0; CHUNK_BYTES - KEY], location(0));
    assert_eq!((position(last), entries.chunks.len()), ((1, 0), 4));
}

#[test]
fn the_chunk_that_entries_are_added_to_goes_likewise() {
    let (mut entries, places) = filled(PER_CHUNK / 2 + 2);
    let sparse: Vec<Option<usize>> = places.iter().map(|place| entries.remove(*place)).collect();
    assert_eq!(sparse[places.len() - 3], None);
    assert_eq!(sparse[places.len() - 2], Some(1));
    assert_eq!(entries.push(0, b"", location(0)), 2 * CHUNK_PLACES);
}

#[test]
fn a_chunk_has_no_more_room_than_it_needs_once_it_is_closed() {
    let mut entries = Entries::default();
    let place = entries.push(0, b"key", location(0));
    entries.push(1, &[1; CHUNK_BYTES], location(1));
    let chunk = &entries.chunks[position(place).0].bytes;
    assert_eq!((chunk.len(), chunk.capacity()), (24, 24));
    let long = &entries.chunks[entries.head].bytes;
    assert_eq!(long.capacity(), CHUNK_BYTES + KEY);
}
