//! What a server inherits from the process that starts it: ignored signals, and a lack of
//! threads. (`tests/hostile.rs` limits its descriptors.)

mod support;

use std::process::Command;

use support::{Server, printed, server_command};

#[test]
fn nohup_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" --addr 127.0.0.1:0"]);
    shell.arg(server_command().get_program());
    shell.env_remove("KVS_LOG").current_dir(dir.path());
    let server = Server::from_command(shell);
    server.signal("HUP");
    assert_eq!(server.client("set a 1"), printed(""));
    assert_eq!(server.client("ping"), printed("PONG\n"));
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

/// No thread has a stack of that size, so none can be started.
#[test]
fn a_server_works_without_a_helper_thread() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = server_command();
    command.env("RUST_MIN_STACK", (1u64 << 60).to_string()).current_dir(dir.path());
    command.args(["--addr", "127.0.0.1:0", "--fsync", "everysec"]);
    command.args(["--segment-size", "512", "--compact-threshold", "4096"]);
    let server = Server::from_command(command);
    let lines: String = (0..2_000).map(|nth| format!("SET key{} value{nth}\n", nth % 10)).collect();
    assert_eq!(server.talk(lines.as_bytes()), "OK\n".repeat(2_000));
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}
