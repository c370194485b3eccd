//! Output of the programs to a closed pipe, to a full one, and to a full disk.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Ran, Server, client_with, printed, server_command};

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

/// A server that fails ends, also if its last message cannot be written.
#[test]
fn a_full_stderr_does_not_keep_a_server_from_its_end() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("00000001.kvs"), "x".repeat(100)).unwrap();
    let (mut stderr, _unread) = UnixStream::pair().unwrap();
    stderr.set_nonblocking(true).unwrap();
    while stderr.write(&[0; 1024]).is_ok() {}
    stderr.set_nonblocking(false).unwrap();
    let mut command = server_command();
    command.args(["--addr", "127.0.0.1:0", "--dir"]).arg(dir.path());
    let status = command.stderr(std::os::fd::OwnedFd::from(stderr)).status().unwrap();
    assert_eq!(status.code(), Some(1));
}
