//! Requests without a connection.

use super::*;
use crate::protocol::decode_request;
use crate::server::testing::MemoryEngine;

/// Executes lines of one client; the replies.
fn execute(executor: &mut Executor<MemoryEngine>, lines: &[&str]) -> Vec<Action> {
    let (peer, mut authenticated) = (([127, 0, 0, 1], 1).into(), executor.options.secret.is_none());
    let requests = lines.iter().map(|line| decode_request(line.as_bytes()).unwrap());
    requests.map(|request| executor.execute(request, peer, &mut authenticated)).collect()
}

/// The reply to a line.
fn reply(executor: &mut Executor<MemoryEngine>, line: &str) -> Reply {
    match execute(executor, &[line]).pop() {
        Some(Action::Reply(reply)) => reply,
        action => panic!("{action:?}"),
    }
}

/// An executor with an empty engine.
fn executor(options: ServerOptions) -> Executor<MemoryEngine> {
    Executor::new(Box::default(), &Arc::new(options))
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
    let mut executor = executor(ServerOptions { secret, ..ServerOptions::default() });
    for line in ["SET a 1", "GET a", "RM a", "SCAN", "STATS", "SHUTDOWN", "AUTH x"] {
        let Reply::Error(fault) = reply(&mut executor, line) else { panic!("{line}") };
        assert_eq!(fault.code, Code::Auth, "{line}");
    }
    assert_eq!(reply(&mut executor, "PING"), Reply::Pong);
    let actions = execute(&mut executor, &["AUTH s", "SET a 1"]);
    assert!(matches!(actions[..], [Action::Reply(Reply::Ok), Action::Reply(Reply::Ok)]));
}

#[test]
fn stats_shows_the_configuration() {
    let mut executor = executor(ServerOptions {
        engine: "memory".to_owned(),
        directory: "/a b".into(),
        ..ServerOptions::default()
    });
    let Reply::Stats(stats) = reply(&mut executor, "STATS") else { panic!() };
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
    let mut executor = executor(ServerOptions::default());
    execute(&mut executor, &["SET a 1", "SET b 1", "SET c 1"]);
    let keys = |next: Option<&str>, keys: &[&str]| Reply::Keys {
        next: next.map(str::to_owned),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    assert_eq!(reply(&mut executor, "SCAN"), keys(Some("c"), &["a", "b"]));
    assert_eq!(reply(&mut executor, "SCAN c"), keys(None, &["c"]));
    let Reply::Error(fault) = reply(&mut executor, "SCAN x") else { panic!() };
    assert_eq!(fault.code, Code::Syntax);
}

#[test]
fn writes_and_failures_of_the_engine_need_a_commit() {
    for (line, needs_commit) in [
        ("RM a", false),
        ("SCAN x", false),
        ("GET a", false),
        ("SET a 1", true),
        ("SET full 1", true),
    ] {
        let mut executor = executor(ServerOptions::default());
        execute(&mut executor, &[line]);
        assert_eq!(executor.needs_commit, needs_commit, "{line}");
    }
}
