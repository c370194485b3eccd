//! A bucket beside a list of pairs.

use super::*;

/// How many buckets a chain has.
fn chain_len(bucket: &Bucket) -> usize {
    1 + bucket.more.as_deref().map_or(0, chain_len)
}

/// All hashes and places, in order.
fn all(bucket: &Bucket) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    bucket.each(|hash, place| all.push((hash, place)));
    all.sort_unstable();
    all
}

#[test]
fn no_further_bucket_of_a_chain_is_empty() {
    let mut bucket = Bucket::EMPTY;
    // Tags and low bits of every kind, some of them the same.
    let hash = |place: u64| ((place % 5) << 29) | ((place % 3) << 25) | (place % 7);
    for place in 1..=20 {
        bucket.push(hash(place), place);
        assert_eq!(chain_len(&bucket), (place as usize).div_ceil(SLOTS));
    }
    let mut model: Vec<(u64, u64)> = (1..=20).map(|place| (hash(place), place)).collect();
    for place in (1..=20).map(|nth| nth * 11 % 21) {
        assert_eq!(bucket.get(hash(place), |found| found == place), Some(place));
        assert_eq!(bucket.remove(hash(place), &|found| found == place), Some(place));
        assert_eq!(bucket.get(hash(place), |found| found == place), None);
        assert_eq!(bucket.remove(hash(place), &|found| found == place), None);
        model.retain(|(_, left)| *left != place);
        model.sort_unstable();
        assert_eq!(all(&bucket), model);
        let mut further = bucket.more.as_deref();
        while let Some(more) = further {
            assert_ne!(more.used(), 0);
            further = more.more.as_deref();
        }
    }
    assert_eq!((bucket.used(), chain_len(&bucket)), (0, 1));
}

#[test]
fn only_slots_in_use_with_tag_and_hash_are_asked_for() {
    let mut bucket = Bucket::EMPTY;
    // Beside the tag of the first, that of the second differs in its lowest bit alone.
    let hashes = [0x1034_5678, 0x1134_5678, 0x1034_5679, 0x0034_5678];
    for (place, hash) in (10..).zip(hashes) {
        bucket.push(hash, place);
    }
    for (place, hash) in (10..).zip(hashes) {
        let mut asked = Vec::new();
        let asked_for = std::cell::RefCell::new(&mut asked);
        let is_it = |place| {
            asked_for.borrow_mut().push(place);
            false
        };
        assert_eq!(bucket.get(hash, is_it), None);
        assert_eq!(asked, [place]);
        assert_eq!(bucket.guess(hash), Some(place));
    }
    // The slot beyond those in use still has what was taken out of it.
    assert_eq!(bucket.remove(hashes[3], &|_| true), Some(13));
    assert_eq!(bucket.guess(hashes[3]), None);
    assert_eq!(bucket.guess(0), None);
}

#[test]
fn places_and_hashes_are_kept_to_their_last_bit() {
    let mut bucket = Bucket::EMPTY;
    let (hash, place) = (u64::MAX, PLACES - 1);
    bucket.push(hash, place);
    assert_eq!(all(&bucket), [(u64::from(u32::MAX), place)]);
    assert_eq!(bucket.get(hash, |_| true), Some(place));
}
