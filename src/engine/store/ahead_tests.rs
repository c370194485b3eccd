//! Steps over a segment, short and long ones, beside its bytes.

use super::*;
use crate::engine::store::directory::Directory;
use crate::engine::store::disk::OsDisk;
use crate::engine::store::header::Header;

#[test]
fn what_is_read_ahead_is_what_is_there() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::open(OsDisk, parent.path().to_owned()).unwrap();
    let mut ahead = Ahead::default();
    for number in [1, 2] {
        let header = Header { number, store: 1, salt: number };
        let mut segment = Segment::create(&directory, header).unwrap();
        let bytes: Vec<u8> =
            (0..90_000).map(|at: u32| (at.wrapping_mul(at) / (number + 6)) as u8).collect();
        segment.append(&bytes).unwrap();
        let whole = [&header.encode()[..], &bytes].concat();
        let (mut offset, mut step) = (32, 0);
        while offset < whole.len() {
            step += 1;
            for len in [100, 2_000, if step % 9 == 0 { 20_000 } else { 10 }] {
                let found = ahead.bytes(&segment, offset as u64, len).unwrap();
                assert_eq!(found, &whole[offset..whole.len().min(offset + len)]);
            }
            assert!(ahead.bytes.capacity() <= READ_BYTES.max(20_000));
            offset += 10 + step * 311 % 2_000;
        }
    }
}
