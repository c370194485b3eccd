//! Requests without a connection.

use super::*;
use crate::protocol::decode_request;
use crate::server::testing::MemoryEngine;

/// An executor of an iteration.
fn executor<'a>(
    engine: &'a MemoryEngine,
    options: &'a ServerOptions,
    counters: &'a mut Counters,
) -> Executor<'a, MemoryEngine> {
    let started = Instant::now();
    Executor { engine, options, started, counters, wrote: false, failure: None }
}

/// Executes lines of one client; the replies.
fn execute(engine: &MemoryEngine, options: &ServerOptions, lines: &[&str]) -> Vec<Action> {
    let mut counters = Counters::default();
    let mut executor = executor(engine, options, &mut counters);
    let (peer, mut authenticated) = (([127, 0, 0, 1], 1).into(), options.secret.is_none());
    let requests = lines.iter().map(|line| decode_request(line.as_bytes()).unwrap());
    requests.map(|request| executor.execute(request, peer, &mut authenticated)).collect()
}

/// The only reply to a line.
fn reply(engine: &MemoryEngine, options: &ServerOptions, line: &str) -> Reply {
    match execute(engine, options, &[line]).pop() {
        Some(Action::Reply(reply)) => reply,
        action => panic!("{action:?}"),
    }
}

#[test]
fn only_the_secret_matches() {
    let secret = Secret::new("abab".to_owned()).unwrap();
    assert!(secret.matches("abab"));
    for token in ["", "a", "ab", "aba", "ababa", "abababab", "abaB", "Abab", "baab"] {
        assert!(!secret.matches(token), "{token}");
    }
    assert!(Secret::new(String::new()).is_none());
    assert_eq!(format!("{secret:?}"), "Secret");
}

#[test]
fn strangers_may_only_authenticate() {
    let secret = Secret::new("s".to_owned());
    let options = ServerOptions { secret, ..ServerOptions::default() };
    let engine = MemoryEngine::default();
    for line in ["SET a 1", "GET a", "RM a", "SCAN", "STATS", "SHUTDOWN", "AUTH x"] {
        let Reply::Error(fault) = reply(&engine, &options, line) else { panic!("{line}") };
        assert_eq!(fault.code, Code::Auth, "{line}");
    }
    assert_eq!(reply(&engine, &options, "PING"), Reply::Pong);
    let actions = execute(&engine, &options, &["AUTH s", "SET a 1"]);
    assert!(matches!(actions[..], [Action::Reply(Reply::Ok), Action::Reply(Reply::Ok)]));
}

#[test]
fn stats_shows_the_configuration() {
    let options = ServerOptions {
        engine: "memory".to_owned(),
        directory: "/a b".into(),
        ..ServerOptions::default()
    };
    let engine = MemoryEngine::default();
    let Reply::Stats(stats) = reply(&engine, &options, "STATS") else { panic!() };
    for (name, value) in [
        ("version", env!("CARGO_PKG_VERSION")),
        ("engine", "memory"),
        ("fsync", "always"),
        ("directory", "/a b"),
        ("requests", "1"),
        ("keys", "0"),
    ] {
        assert!(stats.contains(&(name.to_owned(), value.to_owned())), "{name}");
    }
}

#[test]
fn scan_pages_through_all_keys() {
    let (engine, options) = (MemoryEngine::default(), ServerOptions::default());
    execute(&engine, &options, &["SET a 1", "SET b 1", "SET c 1"]);
    let keys = |next: Option<&str>, keys: &[&str]| Reply::Keys {
        next: next.map(str::to_owned),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    assert_eq!(reply(&engine, &options, "SCAN"), keys(Some("c"), &["a", "b"]));
    assert_eq!(reply(&engine, &options, "SCAN c"), keys(None, &["c"]));
    let Reply::Error(fault) = reply(&engine, &options, "SCAN x") else { panic!() };
    assert_eq!(fault.code, Code::Syntax);
}

#[test]
fn only_engine_failures_are_kept() {
    let (engine, options) = (MemoryEngine::default(), ServerOptions::default());
    let mut counters = Counters::default();
    let mut executor = executor(&engine, &options, &mut counters);
    let peer = ([127, 0, 0, 1], 1).into();
    for (line, has_failed) in [("RM a", false), ("SCAN x", false), ("SET full 1", true)] {
        executor.execute(decode_request(line.as_bytes()).unwrap(), peer, &mut true);
        assert_eq!(executor.failure.is_some(), has_failed, "{line}");
        assert!(!executor.wrote);
    }
}

#[test]
fn a_trace_shows_lengths_and_no_values() {
    let request = decode_request(b"SET key secret").unwrap();
    assert_eq!(describe(&request), "SET 3 6");
}
