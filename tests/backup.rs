//! Backups of a running server under load: `dump` and `cp -r`, both engines.
//!
//! A writer sets a few keys in turn to the numbers 1, 2, 3 and so on. So each backup
//! tells which writes it contains: a copy must be the state after exactly one of the
//! writes during the copy, and each key of a dump must have a value from that time.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kvs::KvsClient;
use support::{Server, await_that, client_with, server};

/// The engines of this build.
const ENGINES: &[&str] = if cfg!(feature = "sled") { &["kvs", "sled"] } else { &["kvs"] };
/// Number of keys that the writer sets.
const KEYS: u64 = 500;
/// Number of backups of each kind.
const BACKUPS: usize = 10;
/// Flags with which segments are begun and cleaned all the time.
const FLAGS: [&str; 6] =
    ["--fsync", "never", "--segment-size", "64K", "--compact-threshold", "16K"];

/// The key of a write.
fn key(write: u64) -> String {
    format!("key {}", write % KEYS)
}

/// The pairs after a number of writes.
fn state(writes: u64) -> BTreeMap<String, u64> {
    (writes.saturating_sub(KEYS - 1).max(1)..=writes).map(|write| (key(write), write)).collect()
}

/// The pairs of a server.
fn pairs(server: &Server) -> BTreeMap<String, u64> {
    let mut client = KvsClient::connect(server.addr).unwrap();
    let keys: Vec<String> = client.keys().map(Result::unwrap).collect();
    let number = |value: String| value.split(' ').next().unwrap().parse().unwrap();
    keys.into_iter().map(|key| (key.clone(), number(client.get(key).unwrap().unwrap()))).collect()
}

/// Runs `body` while a writer is at work. Passes the number of acknowledged writes.
fn under_load(server: &Server, body: impl FnOnce(&AtomicU64)) {
    let (acknowledged, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = KvsClient::connect(server.addr).unwrap();
            let padding = "x".repeat(500);
            for write in 1.. {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                client.set(key(write), format!("{write} {padding}")).unwrap();
                acknowledged.store(write, Ordering::SeqCst);
            }
        });
        await_that("the first writes", || acknowledged.load(Ordering::SeqCst) > 2 * KEYS);
        body(&acknowledged);
        is_over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_dump_under_load_restores_a_recent_state() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let from = Server::start(dir.path(), &[&["--engine", engine], &FLAGS[..]].concat());
        under_load(&from, |acknowledged| {
            for _ in 0..BACKUPS {
                let begin = acknowledged.load(Ordering::SeqCst);
                let dump = from.client("dump");
                assert_eq!(dump.status, 0, "{}", dump.stderr);
                let end = acknowledged.load(Ordering::SeqCst) + 1;
                for other in ENGINES {
                    let dir = tempfile::tempdir().unwrap();
                    let to = Server::start(dir.path(), &["--engine", other]);
                    let args = ["-", "--addr", &to.addr.to_string()];
                    assert_eq!(client_with(&args, dump.stdout.as_bytes()).status, 0);
                    let restored = pairs(&to);
                    assert_eq!(restored.len() as u64, KEYS, "{engine}");
                    for (key, oldest) in state(begin) {
                        let found = restored[&key];
                        assert!((oldest..=end).contains(&found), "{engine}: {key} is {found}");
                    }
                }
            }
        });
    }
}

/// Copies a directory with `cp -r`. Returns false if that fails, as it does if a file
/// is removed meanwhile.
fn copy(from: &Path, to: &Path) -> bool {
    Command::new("cp").arg("-r").args([from, to]).output().unwrap().status.success()
}

#[test]
fn a_copy_under_load_opens_to_one_state() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let flags = [&["--engine", engine, "--dir", "data"], &FLAGS[..]].concat();
        let from = Server::start(dir.path(), &flags);
        let (mut opened, mut refused) = (0, 0);
        under_load(&from, |acknowledged| {
            for nth in 0..10 * BACKUPS {
                let begin = acknowledged.load(Ordering::SeqCst);
                let to = dir.path().join(format!("copy {nth}"));
                let is_copied = copy(&dir.path().join("data"), &to);
                let end = acknowledged.load(Ordering::SeqCst) + 1;
                if !is_copied {
                    continue;
                }
                let name = to.to_str().unwrap();
                let exported = server(dir.path(), &["--export", "--dir", name]);
                match opens_to(&to) {
                    Some(found) => {
                        let last = found.values().copied().max().unwrap_or(0);
                        assert!((begin..=end).contains(&last), "{engine}: {begin} {last} {end}");
                        assert!(found == state(last), "{engine}: not the state after {last}");
                        assert_eq!(exported.status, 0, "{}", exported.stderr);
                        opened += 1;
                    }
                    None => refused += 1,
                }
                fs::remove_dir_all(&to).unwrap();
                if opened >= BACKUPS {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        println!("{engine}: {opened} copies opened, {refused} were refused");
        assert!(opened > 0, "{engine}: no copy could be opened");
    }
}

/// The pairs of the store in a directory; `None` if it is refused.
fn opens_to(directory: &Path) -> Option<BTreeMap<String, u64>> {
    let mut command = support::server_command();
    command.args(["--addr", "127.0.0.1:0", "--dir"]).arg(directory);
    let name = kvs::choice::choose(directory, None).ok()?;
    match kvs::choice::open(directory, name, &kvs::Options::default()) {
        Ok(engine) => drop(engine),
        Err(_) => return None,
    }
    Some(pairs(&Server::from_command(command)))
}
