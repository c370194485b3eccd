//! No reply before the sync that covers it: the system calls of a real server,
//! with either engine, seen with `strace`. Where there is none the test says so;
//! the same order is held by the tests of the server against an engine that
//! fails, and by those of the store on a disk that loses power.

mod support;

use std::process::Command;

use support::{Server, printed};

/// The engines of this build.
const ENGINES: &[&str] = if cfg!(feature = "sled") { &["kvs", "sled"] } else { &["kvs"] };

#[test]
fn a_set_is_synced_before_it_is_answered() {
    if Command::new("strace").arg("-V").output().is_err() {
        return println!("skipped: there is no strace here");
    }
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("trace");
        let mut command = Command::new("strace");
        command
            .args(["-f", "-s", "200", "-o"])
            .arg(&trace)
            .args(["-e", "trace=openat,pwrite64,write,writev,sendto,sendmsg,fsync,fdatasync"])
            .arg(env!("CARGO_BIN_EXE_kvs-server"))
            .args(["--addr", "127.0.0.1:0", "--engine", engine, "--dir"])
            .arg(dir.path().join("data"));
        let server = Server::from_command(command);
        assert_eq!(server.client("set thekey thevalue"), printed(""));
        assert_eq!(server.client("shutdown"), printed(""));
        server.wait();
        check(engine, &std::fs::read_to_string(&trace).unwrap());
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
