//! The shell blocks of README, in a directory of their own, with the built programs
//! and a free port.
//!
//! `sh -e` runs all blocks as one script, so a command that fails ends it. Then the
//! tests check what the script has left: files, and the pairs in the store.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Server, client};

/// The blocks of README in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let parts = include_str!("../README.md").split("```").skip(1).step_by(2);
    parts.filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// A port at which nothing listens.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Writes an executable script.
fn executable(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A home directory whose `bin` has the programs, with another default port.
fn home(port: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for (name, path) in [
        ("kvs-client", env!("CARGO_BIN_EXE_kvs-client")),
        ("kvs-server", env!("CARGO_BIN_EXE_kvs-server")),
    ] {
        executable(&bin.join(name), &format!("exec '{path}' --addr 127.0.0.1:{port} \"$@\""));
    }
    executable(&bin.join("cargo"), "test \"$*\" = 'install --path .'");
    home
}

/// A command that runs a script in this home.
fn shell(home: &Path, script: &str) -> Command {
    let path = format!("{}:{}", home.join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(home).stdin(Stdio::null());
    command.env("HOME", home).env("PATH", path).env_remove("KVS_LOG");
    command
}

/// Whether this machine has a program.
fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let has = found.unwrap().status.success();
    if !has {
        println!("skipped in part: there is no {program} here");
    }
    has
}

/// The pairs of a TSV file, with everything that needs quoting.
fn tsv() -> String {
    (0..10_000).map(|nth| format!("key {nth}\t\"{nth}\" \\ \u{e9}\ttab {nth}\n")).collect()
}

#[test]
fn the_readme_blocks_work() {
    let (port, other_port) = (free_port(), free_port());
    let home = home(&port);
    let image: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    fs::write(home.path().join("image.png"), &image).unwrap();
    fs::write(home.path().join("notes.txt"), "no newline\r\n\tat \u{1b} the end").unwrap();
    fs::write(home.path().join("pairs.tsv"), tsv()).unwrap();
    let mut blocks = blocks("sh");
    assert!(blocks.len() >= 5, "the blocks were not found");
    if !has("jq") {
        blocks.retain(|block| !block.contains("jq "));
    }
    if !cfg!(feature = "sled") {
        blocks.retain(|block| !block.contains("--engine sled"));
    }
    // So that the server ends, whatever happens.
    let script = format!(
        "trap 'kvs-client shutdown' EXIT\n{}\nkvs-client dump > all.txt",
        blocks.concat().replace(":4001", &format!(":{other_port}"))
    );
    let output = shell(home.path(), &script).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.starts_with("PONG\nhello, world\ngreeting\n1\nVALUE \"hello, world\"\n"));
    let left = |name: &str| fs::read(home.path().join(name)).unwrap();
    assert_eq!(left("copy.txt"), left("notes.txt"));
    assert_eq!(left("copy.png"), image);
    let all = String::from_utf8(left("all.txt")).unwrap();
    assert!(all.contains("\nSET token new\n") || all.starts_with("SET token new\n"));
    if has("jq") {
        let expected = r#"SET "key 77" "\"77\" \\ é\ttab 77""#;
        assert!(all.lines().any(|line| line == expected), "{expected}");
        assert_eq!(all.lines().count(), 10_004);
    }
}

#[test]
fn ten_thousand_pairs_load_at_once() {
    let port = free_port();
    let home = home(&port);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    fs::write(home.path().join("pairs.tsv"), tsv()).unwrap();
    let python = "import json, sys\n\
        for line in sys.stdin:\n    \
            key, value = line.rstrip('\\n').split('\\t', 1)\n    \
            print('SET', json.dumps(key), json.dumps(value))";
    if !has("python3") {
        return;
    }
    let script = format!(
        "python3 -c \"$SCRIPT\" < pairs.tsv | kvs-client - --addr {} > replies.txt",
        server.addr
    );
    let begun = Instant::now();
    let status = shell(home.path(), &script).env("SCRIPT", python).status().unwrap();
    let elapsed = begun.elapsed();
    assert!(status.success());
    println!("10,000 pairs took {elapsed:?}");
    // One process for each pair takes at least three times as long.
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    let addr = server.addr.to_string();
    let value = client(&["get", "key 9999", "--addr", &addr]).stdout;
    assert_eq!(value, "\"9999\" \\ \u{e9}\ttab 9999\n");
}

#[test]
fn netcat_needs_no_flags() {
    let readme = include_str!("../README.md");
    let at = readme.find("`printf '").unwrap();
    let command = readme[at + 1..].split('`').next().unwrap();
    if !has("nc") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let command = command.replace("4000", &server.addr.port().to_string());
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "OK\nVALUE 1\nOK\n");
}

#[test]
fn the_demo_works_and_leaves_nothing() {
    let bin = Path::new(env!("CARGO_BIN_EXE_kvs-client")).parent().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo.sh");
    let temporary = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .arg(script)
        .arg(bin)
        .current_dir(temporary.path())
        .env("TMPDIR", temporary.path())
        .env_remove("KVS_LOG")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}");
    assert_eq!(stdout.matches("\nhello, world\n").count(), 2, "{stdout}");
    assert_eq!(stdout.matches("\nKey not found\n").count(), 2, "{stdout}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}
