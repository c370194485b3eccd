//! The last segment that can be numbered.

use super::*;
use crate::engine::KvsEngine;
use crate::engine::store::{KvStore, Options};

#[test]
fn when_no_number_is_left_writes_are_told_so_and_reads_go_on() {
    let parent = tempfile::tempdir().unwrap();
    let header = Header { number: u32::MAX, store: 1, salt: 2 };
    let mut bytes = header.encode().to_vec();
    let retired = (u32::MAX - 1).to_string();
    record::encode(&mut bytes, header.salt, Kind::Retired, true, retired.as_bytes(), b"");
    record::encode(&mut bytes, header.salt, Kind::Set, false, b"key", &[b'v'; 600]);
    std::fs::write(parent.path().join(format!("{}.seg", u32::MAX)), bytes).unwrap();
    let options = Options { segment_bytes: 512, ..Options::default() };
    let store = KvStore::open_with(parent.path(), options).unwrap();
    for _ in 0..2 {
        let error = store.set("other".to_owned(), String::new()).unwrap_err();
        let KvsError::TooLarge { len, max, .. } = error else { panic!("{error:?}") };
        assert_eq!((len, max), (1 << 32, (1 << 32) - 1));
        assert_eq!(store.get("key".to_owned()).unwrap(), Some("v".repeat(600)));
        assert_eq!(store.get("other".to_owned()).unwrap(), None);
    }
}
