//! What playing a segment sends to the index, and when.

use super::super::directory::Directory;
use super::super::disk::OsDisk;
use super::super::segment::read_header;
use super::*;

/// What is sent when a segment with these records, which so many others follow, is
/// played, and the segment then.
fn played(
    later: usize,
    records: impl Fn(&mut Vec<u8>, u32),
) -> (Vec<Sent>, Segment<std::fs::File>) {
    let directory = tempfile::tempdir().unwrap();
    let directory = Directory::open(OsDisk, directory.path().join("store")).unwrap();
    let header = Header { number: 1, store: 2, salt: 3 };
    let mut segment = Segment::create(&directory, header).unwrap();
    let mut bytes = Vec::new();
    records(&mut bytes, header.salt);
    segment.append(&bytes).unwrap();
    let file = directory.open_segment(1).unwrap();
    let (header, len) = read_header(&file, &segment.path).unwrap();
    let mut segment = Segment::found(segment.path, header.unwrap(), len, file);
    let (sender, receiver) = sync_channel(1_000);
    let mut player = Player::new(sender);
    assert!(matches!(player.play(&mut segment, later).unwrap(), End::Whole { marked: false }));
    drop(player);
    (receiver.into_iter().collect(), segment)
}

#[test]
fn changes_are_sent_in_groups_while_a_segment_is_played() {
    let (sent, segment) = played(0, |bytes, salt| {
        for nth in 0..10_000u32 {
            record::encode(bytes, salt, Kind::Set, nth == 7, &nth.to_be_bytes(), b"");
        }
    });
    assert_eq!((segment.len, segment.synced), (32 + 10_000 * 17, 32 + 7 * 17));
    let counts: Vec<usize> = sent.iter().map(|sent| sent.changes.len()).collect();
    assert_eq!(counts, [&[SENT_CHANGES; 9][..], &[784]].concat());
    let expected: Vec<u64> = sent.iter().map(|sent| sent.expected).collect();
    assert_eq!(expected[..2], [10_000 - 1_024, 10_000 - 2_048]);
    assert_eq!(expected[9], 0);
    let mut index = Index::default();
    sent.iter().for_each(|sent| index.play(&sent.changes, |_| {}));
    assert_eq!(index.len(), 10_000);
}

#[test]
fn later_segments_are_expected_to_be_like_this_one() {
    let expected = |later| -> Vec<u64> {
        let (sent, _) = played(later, |bytes, salt| {
            for nth in 0..1_500u32 {
                record::encode(bytes, salt, Kind::Set, false, &nth.to_be_bytes(), b"");
            }
        });
        sent.iter().map(|sent| sent.expected).collect()
    };
    assert_eq!(expected(0), [1_500 - 1_024, 0]);
    // The header counts as a record or two.
    assert_eq!(expected(2), [3 * 1_500 - 1_024 + 3, 2 * 1_500 + 3]);
}

#[test]
fn as_many_keys_are_expected_as_were_added_before() {
    let mut changes = Changes::default();
    (0..100u8).for_each(|key| changes.push(&[key], None));
    let sent = Sent { changes, expected: 5_000 };
    assert_eq!([0, 30, 100].map(|added| sent.expected_keys(added)), [0, 1_500, 5_000]);
    let none = Sent { changes: Changes::default(), expected: u64::MAX };
    assert_eq!([0, 7].map(|added| none.expected_keys(added)), [0, u64::MAX]);
}

#[test]
fn few_changes_with_long_keys_are_sent_too() {
    let key = |nth: u8| vec![nth; SENT_KEY_BYTES / 2 + 1];
    let (sent, _) = played(0, |bytes, salt| {
        (0..9).for_each(|nth| record::encode(bytes, salt, Kind::Set, false, &key(nth), b""));
    });
    let counts: Vec<usize> = sent.iter().map(|sent| sent.changes.len()).collect();
    assert_eq!(counts, [2, 2, 2, 2, 1]);
}

#[test]
fn a_record_longer_than_what_is_read_at_a_time_is_played_too() {
    let value = vec![7; 2 * RUN_BYTES];
    let (sent, segment) = played(0, |bytes, salt| {
        for nth in 0..9u8 {
            let value = if nth % 4 == 1 { &value[..] } else { b"short" };
            record::encode(bytes, salt, Kind::Set, nth == 6, &[nth], value);
        }
    });
    let short = 13 + 1 + 5;
    let long = 13 + 1 + value.len() as u64;
    assert_eq!(segment.len, 32 + 7 * short + 2 * long);
    assert_eq!(segment.synced, 32 + 4 * short + 2 * long);
    assert_eq!(sent.iter().map(|sent| sent.changes.len()).sum::<usize>(), 9);
}
