//! No reply before the sync that covers it: the system calls of a real server,
//! with either engine, seen with `strace`. Where there is none the test says so;
//! the same order is held by the tests of the server against an engine that
//! fails, and by those of the store on a disk that loses power.

mod support;

use std::path::Path;
use std::process::Command;

use support::{Server, printed};

/// The engines of this build.
const ENGINES: &[&str] = if cfg!(feature = "sled") { &["kvs", "sled"] } else { &["kvs"] };

/// What a server with this engine calls until it has answered a `set`, if there is
/// an strace to see it. The directory `data` below `dir` is its own.
fn trace(engine: &str, dir: &Path) -> Option<String> {
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
    assert_eq!(server.client("set thekey thevalue"), printed(""));
    assert_eq!(server.client("shutdown"), printed(""));
    server.wait();
    Some(std::fs::read_to_string(&trace).unwrap())
}

#[test]
fn a_set_is_synced_before_it_is_answered() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        if let Some(trace) = trace(engine, dir.path()) {
            check(engine, &trace);
        }
    }
}

#[test]
fn the_name_of_a_directory_that_a_start_left_behind_is_synced_before_a_set_is_answered() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("data").join(engine)).unwrap();
        let Some(trace) = trace(engine, dir.path()) else { return };
        let before: Vec<&str> =
            trace.lines().take_while(|line| !line.contains(r#""OK\n""#)).collect();
        let above = format!("\"{}\", ", dir.path().join("data").display());
        let opened = before.iter().position(|line| line.contains(&above));
        let is_synced = opened.is_some_and(|at| {
            let call = format!("fsync({}", before[at].rsplit("= ").next().unwrap());
            before[at..].iter().any(|line| line.contains(&call))
        });
        assert!(is_synced, "{engine}: the directory above was not synced in\n{trace}");
    }
}

/// Fails unless the record was written, then synced, and then the `OK` was sent;
/// and, where the segment is ours, unless its name was synced before all that.
fn check(engine: &str, trace: &str) {
    let lines: Vec<&str> = trace.lines().collect();
    let find = |from: usize, is_it: &dyn Fn(&str) -> bool| {
        let at = lines[from..].iter().position(|line| is_it(line));
        from + at.unwrap_or_else(|| panic!("{engine}: a step is missing in\n{trace}"))
    };
    let written = find(0, &|line| line.contains("pwrite64(") && line.contains("thevalue"));
    let file = lines[written].split("pwrite64(").nth(1).unwrap().split(',').next().unwrap();
    let calls = [format!("fdatasync({file}"), format!("fsync({file}")];
    let is_sync = |line: &str| calls.iter().any(|call| line.contains(call.as_str()));
    let synced = find(written, &|line| is_sync(line) || line.contains("fdatasync("));
    let answered = find(0, &|line| line.contains("\"OK\\n\""));
    assert!(synced < answered, "{engine}: answered before the sync in\n{trace}");
    if engine == "kvs" {
        let created =
            find(0, &|line| line.contains("00000001.seg\", ") && line.contains("O_CREAT"));
        let opened =
            find(created, &|line| line.contains("openat(") && line.contains("/data/kvs\", "));
        let directory = format!("fsync({})", lines[opened].rsplit("= ").next().unwrap());
        let named = find(opened, &|line| line.contains(&directory));
        assert!(named < written, "written before the file's name was on the disk, in\n{trace}");
    }
}
