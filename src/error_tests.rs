//! What every error says, and the chain of its causes.

use super::*;

#[test]
fn every_error_says_what_it_is_about() {
    let path = || PathBuf::from("there");
    let reason = || "why".to_owned();
    for (error, message) in [
        (KvsError::corrupt(&path(), 7, "why"), "there is damaged at byte 7: why"),
        (KvsError::InUse { path: path(), pid: Some(9) }, "there is in use by process 9"),
        (KvsError::InUse { path: path(), pid: None }, "there is in use by another process"),
        (
            KvsError::TooLarge { what: "a key", len: 9, max: 8 },
            "a key of 9 bytes is over the limit of 8",
        ),
        (
            KvsError::WritesRefused { cause: reason() },
            "no writes are accepted until the store is opened anew: why",
        ),
        (
            KvsError::WrongEngine { path: path(), asked: "kvs", found: "sled" },
            "there holds data of the engine 'sled', so the engine 'kvs' cannot open it",
        ),
        (
            KvsError::BothEngines { path: path() },
            "there holds data of both engines: move its 'kvs' or its 'sled' away",
        ),
        (
            KvsError::UnknownEngine("a\n".to_owned()),
            "no engine is called 'a\\n': use 'kvs' or 'sled'",
        ),
        (
            KvsError::EngineNotBuilt("sled"),
            "this kvs was built without the engine 'sled': build it with `--features sled`",
        ),
        (KvsError::BadReply { reason: reason() }, "not a kvs server's answer: why"),
    ] {
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn the_chain_holds_every_cause() {
    let cause = || std::io::Error::other("the cause");
    let context = || "what was tried".to_owned();
    for error in [
        KvsError::Io { context: context(), source: cause() },
        KvsError::Engine { context: context(), source: Box::new(cause()) },
    ] {
        assert_eq!(error.chain(), ["what was tried", "the cause"]);
    }
    let messages = vec!["what was tried".to_owned(), "the cause".to_owned()];
    let error = KvsError::Server { code: Code::Storage, messages };
    assert_eq!(error.chain(), ["the server answered storage: what was tried: the cause"]);
    assert_eq!(KvsError::KeyNotFound.chain(), [KvsError::KeyNotFound.to_string()]);
}
