//! A server that is killed under load has lost nothing that it acknowledged.
//!
//! Several pipelined writers count upwards, each in keys of its own; the server
//! is killed with SIGKILL in the midst of it, again and again on the same data,
//! and what was acknowledged is looked up. `KVS_TORTURE=n` kills n times as
//! often.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use support::{Server, await_that};

/// Writers at a time.
const WRITERS: u64 = 4;
/// Requests that each has under way.
const DEPTH: u64 = 32;
/// Kills for each policy.
const KILLS: u64 = 5;
/// Acknowledgements that are awaited before each.
const ACKNOWLEDGED: u64 = 3_000;

/// The key of a writer's nth write of a round: few enough that most of them
/// overwrite another, so that there is something to compact.
fn key(writer: u64, nth: u64) -> String {
    format!("w{writer}-{}", nth % 500)
}

/// Writes until the server is gone; how many writes it acknowledged.
fn write(server: TcpStream, writer: u64, round: u64, acknowledged: &AtomicU64) -> u64 {
    let mut replies = BufReader::new(server.try_clone().unwrap()).lines();
    let mut server = server;
    let (mut sent, mut count) = (0, 0);
    loop {
        let mut batch = String::new();
        while sent < count + DEPTH {
            batch += &format!("SET {} {round}:{sent}\n", key(writer, sent));
            sent += 1;
        }
        if server.write_all(batch.as_bytes()).is_err() {
            return count;
        }
        match replies.next() {
            Some(Ok(reply)) if reply == "OK" => count += 1,
            Some(Ok(reply)) => panic!("{reply}"),
            _ => return count,
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Fails unless every key of a writer holds its last acknowledged write, or a
/// later one.
fn check(server: &Server, writer: u64, round: u64, acknowledged: u64) {
    for nth in acknowledged.saturating_sub(500)..acknowledged {
        let reply = server.talk(format!("GET {}\n", key(writer, nth)).as_bytes());
        let value = reply.trim_end().strip_prefix("VALUE ").and_then(|value| value.split_once(':'));
        let (found_round, found) = value.unwrap_or_else(|| panic!("{reply}"));
        let found: u64 = found.parse().unwrap();
        assert!(found_round == round.to_string() && found >= nth, "{reply} for write {nth}");
    }
}

/// Kills a server with these flags again and again.
fn kill_again_and_again(flags: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let torture: u64 = std::env::var("KVS_TORTURE").map_or(1, |text| text.parse().unwrap());
    for round in 0..KILLS * torture {
        let server = Server::start(dir.path(), flags);
        let acknowledged = AtomicU64::new(0);
        let streams: Vec<TcpStream> = (0..WRITERS).map(|_| server.connect()).collect();
        let counts: Vec<u64> = std::thread::scope(|scope| {
            let write = |(writer, stream)| {
                let acknowledged = &acknowledged;
                scope.spawn(move || write(stream, writer, round, acknowledged))
            };
            let writers: Vec<_> = (0..).zip(streams).map(write).collect();
            let wanted = ACKNOWLEDGED * (1 + round % 3);
            await_that("a load", || acknowledged.load(Ordering::Relaxed) >= wanted);
            server.kill();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let server = Server::start(dir.path(), flags);
        for (writer, count) in (0..).zip(counts) {
            check(&server, writer, round, count);
        }
    }
}

/// Flags with which segments are begun, cleaned and removed all the time.
const TINY: [&str; 4] = ["--segment-size", "16K", "--compact-threshold", "4K"];

#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    for fsync in ["always", "everysec", "never"] {
        kill_again_and_again(&[&["--fsync", fsync], &TINY[..]].concat());
    }
}

#[cfg(feature = "sled")]
#[test]
fn nothing_acknowledged_is_lost_by_a_kill_with_sled() {
    kill_again_and_again(&["--engine", "sled"]);
}
