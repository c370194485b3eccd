//! The message of every error, and the chain of its causes.

use super::*;

#[test]
fn every_error_names_what_failed() {
    let path = || PathBuf::from("there");
    let reason = || "why".to_owned();
    for (error, message) in [
        (KvsError::corrupt(&path(), 7, "why"), "there is damaged at byte 7: why"),
        (KvsError::InUse { path: path() }, "there is in use by another process or handle"),
        (
            KvsError::OtherVersion { path: path(), version: "kvs 9".to_owned() },
            "there was written by kvs 9, which this version cannot read",
        ),
        (
            KvsError::TooLarge { what: "a key", len: 9, max: 8 },
            "a key of 9 bytes is over the limit of 8",
        ),
        (KvsError::Failed { cause: reason() }, "the store failed and must be opened again: why"),
        (KvsError::BadCursor("a\n".to_owned()), "no page has the cursor 'a\\n'"),
        (
            KvsError::WrongEngine { path: path(), asked: "kvs", found: "sled" },
            "there holds data of the engine 'sled', so the engine 'kvs' cannot open it",
        ),
        (KvsError::EngineUnusable { reason: reason() }, "why"),
        (KvsError::BadReply { reason: reason() }, "no valid reply from a kvs server: why"),
    ] {
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn the_chain_has_every_cause() {
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

#[test]
fn every_code_has_its_own_name() {
    for (code, name) in Code::NAMES {
        assert_eq!(code.as_str(), name);
    }
}
