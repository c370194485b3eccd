//! No reply before the fsync that covers it: the system calls of a real server, with
//! either engine, seen with `strace`. Where there is none, the test says so. The same
//! order is held by the tests of the server against an engine that fails, and by those
//! of the store on a disk that loses power.

mod support;

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use support::{Server, printed};

/// The engines of this build.
const ENGINES: &[&str] = if cfg!(feature = "sled") { &["kvs", "sled"] } else { &["kvs"] };

/// The system calls of a server with this engine that carries out these client commands,
/// if there is an strace to see them. The directory `data` below `dir` is its own.
fn trace(engine: &str, dir: &Path, requests: &str) -> Option<Vec<String>> {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: there is no strace here");
        return None;
    }
    let trace = dir.join("trace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-s", "200", "-o"])
        .arg(&trace)
        .args(["-e", "trace=openat,pwrite64,write,writev,sendto,sendmsg,fsync,fdatasync"])
        .arg(env!("CARGO_BIN_EXE_kvs-server"))
        .args(["--addr", "127.0.0.1:0", "--engine", engine, "--dir"])
        .arg(dir.join("data"));
    let server = Server::from_command(command);
    let mut stream = server.connect();
    stream.write_all(format!("{requests}QUIT\n").as_bytes()).unwrap();
    let mut replies = String::new();
    let read = stream.read_to_string(&mut replies);
    assert_eq!(server.client("shutdown"), printed(""));
    server.wait();
    assert!(read.is_ok() && replies.lines().all(|reply| reply == "OK"), "{replies}");
    Some(std::fs::read_to_string(&trace).unwrap().lines().map(str::to_owned).collect())
}

/// The first call from `from` on that contains all of `parts`.
fn find(trace: &[String], from: usize, parts: &[&str]) -> usize {
    let is_it = |line: &String| parts.iter().all(|part| line.contains(part));
    let at = trace[from..].iter().position(is_it);
    from + at.unwrap_or_else(|| panic!("no call has {parts:?} in\n{}", trace.join("\n")))
}

/// The descriptor that a call of `openat` returned.
fn descriptor(call: &str) -> &str {
    call.rsplit("= ").next().unwrap()
}

/// The file descriptor that a call of `pwrite64` writes to.
fn written_to(call: &str) -> &str {
    call.split("pwrite64(").nth(1).unwrap().split(',').next().unwrap()
}

#[test]
fn a_set_is_synced_before_it_is_answered() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let Some(trace) = trace(engine, dir.path(), "SET thekey thevalue\n") else { return };
        let written = find(&trace, 0, &["pwrite64(", "thevalue"]);
        let call = format!("fdatasync({}", written_to(&trace[written]));
        // sled's log is fsynced through another descriptor.
        let call = if *engine == "sled" { "fdatasync(" } else { &call };
        let synced = find(&trace, written, &[call]);
        let answered = find(&trace, 0, &["\"OK\\n"]);
        assert!(synced < answered, "{engine}: answered too early in\n{}", trace.join("\n"));
    }
}

/// The directory and the one above it survive a power failure before a set is answered,
/// also if a start that was interrupted has created them.
#[test]
fn names_are_synced_before_a_set_is_answered() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("data")).unwrap();
        let Some(trace) = trace(engine, dir.path(), "SET thekey thevalue\n") else { return };
        let answered = find(&trace, 0, &["\"OK\\n"]);
        for directory in [dir.path(), &dir.path().join("data")] {
            let path = format!("\"{}\",", directory.display());
            // It may be opened more than once, and fsynced through any of the descriptors.
            let is_synced = (0..answered).any(|at| {
                let call = || format!("fsync({}", descriptor(&trace[at]));
                let is_opened = trace[at].contains("openat(") && trace[at].contains(&path);
                is_opened && trace[at..answered].iter().any(|line| line.contains(&call()))
            });
            assert!(is_synced, "{engine}: {directory:?} in\n{}", trace.join("\n"));
        }
    }
}

/// A set that goes to a new segment is answered after the full one is fsynced, then the
/// new one, and the name of the new one.
#[test]
fn a_full_segment_is_synced_before_the_next_one_and_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let value = "v".repeat(900 << 10);
    let requests: String = (0..12).map(|nth| format!("SET key{nth} {value}\n")).collect();
    let Some(trace) = trace("kvs", dir.path(), &requests) else { return };
    let created = find(&trace, 0, &["openat(", "/00000002.kvs\",", "O_CREAT"]);
    let written = find(&trace, created, &["pwrite64(", "vvvvv"]);
    assert_eq!(written_to(&trace[written]), descriptor(&trace[created]));
    let answered = find(&trace, written, &["\"OK\\n"]);
    let sync_of = |file: &str| {
        let call = format!("({file}");
        find(&trace, created, &["sync", &call])
    };
    let full = sync_of(descriptor(&trace[find(&trace, 0, &["/00000001.kvs\",", "O_CREAT"])]));
    let next = sync_of(descriptor(&trace[created]));
    assert!(full < next && next < answered, "{}", trace.join("\n"));
    // The only calls of fsync, rather than fdatasync, are those of directories.
    let names = find(&trace, created, &[" fsync("]);
    assert!(names < answered, "{}", trace.join("\n"));
}
