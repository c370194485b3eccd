//! Output of the programs to a closed pipe, to a full one, and to a full disk, and what
//! is logged of clients.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{PATIENCE, Ran, Server, client_with, printed, server_command};

/// The results of a `get` and of an inspection that print to `stdout`.
fn print_to(stdout: impl Fn() -> Stdio) -> [Ran; 2] {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.client("set a 1"), printed(""));
    let mut get = Command::new(env!("CARGO_BIN_EXE_kvs-client"));
    get.args(["get", "a", "--addr", &server.addr.to_string()]);
    let got = get.stdout(stdout()).output().unwrap();
    assert_eq!(server.client("shutdown"), printed(""));
    let mut inspect = server_command();
    inspect.arg("--inspect").current_dir(dir.path());
    [got.into(), inspect.stdout(stdout()).output().unwrap().into()]
}

#[test]
fn a_reader_may_leave() {
    let gone = || std::io::pipe().unwrap().1.into();
    assert_eq!(print_to(gone), [printed(""), printed("")]);
}

#[test]
fn output_to_a_full_disk_fails() {
    if !Path::new("/dev/full").exists() {
        return println!("no /dev/full here");
    }
    for ran in print_to(|| File::create("/dev/full").unwrap().into()) {
        assert!(ran.status == 1 && ran.stderr.starts_with("error: cannot "), "{ran:?}");
        assert!(ran.stderr.contains("\ncaused by: "), "{ran:?}");
    }
    for program in [env!("CARGO_BIN_EXE_kvs-client"), env!("CARGO_BIN_EXE_kvs-server")] {
        let full = Stdio::from(File::create("/dev/full").unwrap());
        let ran: Ran = Command::new(program).arg("--help").stdout(full).output().unwrap().into();
        let message = "error: cannot write to stdout";
        assert!(ran.status == 1 && ran.stderr.starts_with(message), "{ran:?}");
    }
}

#[test]
fn a_closed_stdout_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let value = "x".repeat(500_000);
    let addr = server.addr.to_string();
    client_with(&["set", "a", "--stdin", "--addr", &addr], value.as_bytes());
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvs-client"))
        .args(["get", "a", "--addr", &addr])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Runs the server with this flag in a damaged directory. Nobody reads its stderr, which
/// is full, until the server has ended or this time has passed. Returns its exit status
/// if it has ended by then, and what it has written.
fn run_unread(flag: &str, time: Duration) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("00000001.kvs"), "x".repeat(100)).unwrap();
    let (mut stderr, mut reader) = UnixStream::pair().unwrap();
    stderr.set_nonblocking(true).unwrap();
    let filled: usize = std::iter::from_fn(|| stderr.write(&[0; 1024]).ok()).sum();
    stderr.set_nonblocking(false).unwrap();
    let mut command = server_command();
    command.args(["--addr", "127.0.0.1:0", flag, "--dir"]).arg(dir.path());
    command.stdout(Stdio::null()).stderr(std::os::fd::OwnedFd::from(stderr));
    let mut child = command.spawn().unwrap();
    // It holds the other end, too.
    drop(command);
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() && begun.elapsed() < time {
        std::thread::yield_now();
    }
    let status = child.try_wait().unwrap().and_then(|status| status.code());
    let mut text = Vec::new();
    reader.read_to_end(&mut text).unwrap();
    child.wait().unwrap();
    (status, String::from_utf8(text[filled..].to_vec()).unwrap())
}

#[test]
fn a_full_stderr_does_not_keep_a_server_from_its_end() {
    assert_eq!(run_unread("--no-shutdown", PATIENCE), (Some(1), String::new()));
}

#[test]
fn an_inspection_waits_for_the_reader_of_its_error() {
    let (status, text) = run_unread("--inspect", Duration::from_millis(300));
    assert!(status.is_none() && text.starts_with("error: "), "{status:?}, {text}");
}

#[test]
fn refused_clients_are_logged_at_the_usual_level() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--max-clients", "20"]);
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    // The last one has been refused.
    clients[39].read_exact(&mut [0; 9]).unwrap();
    server.signal("TERM");
    let (_, stderr) = server.wait();
    let refusals = stderr.matches(": refused, 20 are connected\n").count();
    assert!((1..=20).contains(&refusals), "{stderr}");
}
