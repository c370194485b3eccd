//! What playing a segment sends to the index, and when.

use super::*;

#[test]
fn changes_are_sent_in_groups_while_a_segment_is_played() {
    let header = Header { number: 1, store: 2, salt: 3 };
    let mut bytes = header.encode().to_vec();
    for nth in 0..10_000u32 {
        record::encode(&mut bytes, header.salt, Kind::Set, nth == 7, &nth.to_be_bytes(), b"");
    }
    let mut index = Index::default();
    let (sender, receiver) = sync_channel(Player::QUEUED_MAX);
    let mut player = Player { sender, changes: Changes::of(&index), retired: 0 };
    let played = player.play(Path::new("segment"), header, &bytes).unwrap();
    assert_eq!((played.len, played.synced), (bytes.len() as u64, 32 + 7 * 17));
    player.send();
    drop(player);
    let sent: Vec<Changes> = receiver.into_iter().collect();
    assert_eq!(sent.iter().map(Changes::len).collect::<Vec<_>>(), [4_096, 4_096, 1_808]);
    sent.iter().for_each(|changes| index.play(changes, |_| {}));
    assert_eq!(index.len(), 10_000);
}
