//! Every line of the command line's tables: what the binaries print, where, and
//! with which exit status, and which engine a server opens.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Ran, Server, client, client_with, failed, printed, server};

/// The engines of this build.
const ENGINES: &[&str] = if cfg!(feature = "sled") { &["kvs", "sled"] } else { &["kvs"] };

/// A usage error of the client.
fn usage(fault: &str) -> Ran {
    failed(2, &format!("kvs-client: {fault}; see 'kvs-client --help'\n"))
}

#[test]
fn versions_and_help() {
    let dir = tempfile::tempdir().unwrap();
    for flag in ["-V", "-v", "--version"] {
        assert_eq!(client(&[flag]), printed("kvs-client 0.1.0\n"));
        assert_eq!(server(dir.path(), &[flag]), printed("kvs-server 0.1.0\n"));
    }
    for flag in ["-h", "--help"] {
        let help = client(&["get", flag]);
        assert!(help.status == 0 && help.stdout.contains("\nExit status\n"), "{help:?}");
        let help = server(dir.path(), &["--fsync", "never", flag]);
        assert!(help.status == 0 && help.stdout.contains("--segment-size"), "{help:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn wrong_command_lines_of_the_client() {
    let addr = "it has to be IP:PORT, such as 127.0.0.1:4000 or [::1]:4000";
    let seconds = "it has to be a number of seconds above 0, such as 5 or 0.5";
    let set = "usage: kvs-client set KEY VALUE, or set KEY --stdin";
    for (args, fault) in [
        ("", "a command is missing"),
        ("frob", "there is no command 'frob'"),
        ("set", set),
        ("set a", set),
        ("set a b c", set),
        ("set a b --stdin", set),
        ("get", "usage: kvs-client get KEY"),
        ("get a b", "usage: kvs-client get KEY"),
        ("rm", "usage: kvs-client rm KEY"),
        ("ping a", "usage: kvs-client ping"),
        ("stats a", "usage: kvs-client stats"),
        ("shutdown a", "usage: kvs-client shutdown"),
        ("get a --stdin", "--stdin goes with set only"),
        ("set a b --raw", "--raw goes with get only"),
        ("rm a --fail", "--fail goes with get only"),
        ("get a --frob", "there is no flag '--frob'"),
        ("get a -x", "there is no flag '-x'"),
        ("get a --addr", "--addr needs a value"),
        ("get a --raw=1", "--raw takes no value"),
        ("get a --addr nonsense", &format!("--addr cannot be 'nonsense': {addr}")),
        ("get a --addr=localhost:1", &format!("--addr cannot be 'localhost:1': {addr}")),
        ("get a --timeout 0", &format!("--timeout cannot be '0': {seconds}")),
        ("get a --timeout -1", &format!("--timeout cannot be '-1': {seconds}")),
        ("get a --timeout x", &format!("--timeout cannot be 'x': {seconds}")),
        ("get a --timeout nan", &format!("--timeout cannot be 'nan': {seconds}")),
    ] {
        let args: Vec<&str> = args.split_whitespace().collect();
        assert_eq!(client(&args), usage(fault), "{args:?}");
    }
}

#[test]
fn wrong_command_lines_of_the_server_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let size = "it has to be a number of bytes such as 4096, 64K, 1M or 2G";
    for (args, fault) in [
        ("word", "it takes no words, such as 'word'".to_owned()),
        ("--frob", "there is no flag '--frob'".to_owned()),
        ("-x", "there is no flag '-x'".to_owned()),
        ("--engine", "--engine needs a value".to_owned()),
        (
            "--engine rocks",
            "--engine cannot be 'rocks': no engine is called 'rocks': use 'kvs' or 'sled'"
                .to_owned(),
        ),
        (
            "--addr 1",
            "--addr cannot be '1': it has to be IP:PORT, such as 127.0.0.1:4000 or [::1]:4000"
                .to_owned(),
        ),
        (
            "--fsync often",
            "--fsync cannot be 'often': not one of 'always', 'everysec' and 'never'".to_owned(),
        ),
        (
            "--log loud",
            "--log cannot be 'loud': no level is called 'loud': \
             use one of off, error, warn, info, debug, trace"
                .to_owned(),
        ),
        ("--cache x", format!("--cache cannot be 'x': {size}")),
        (
            "--segment-size 1",
            "--segment-size cannot be '1': it has to be from 512 to 1073741824 bytes".to_owned(),
        ),
        (
            "--max-clients 0",
            "--max-clients cannot be '0': it has to be a number from 1 to 1000000".to_owned(),
        ),
        ("--inspect --engine sled", "--inspect and --repair are for the engine kvs".to_owned()),
    ] {
        let words: Vec<&str> = args.split_whitespace().collect();
        let expected = failed(2, &format!("kvs-server: {fault}; see 'kvs-server --help'\n"));
        assert_eq!(server(dir.path(), &words), expected, "{args}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_wrong_level_in_the_environment_is_a_usage_error_unless_a_flag_says_it() {
    let binary = env!("CARGO_BIN_EXE_kvs-client");
    let output = Command::new(binary).args(["get", "a"]).env("KVS_LOG", "loud").output().unwrap();
    let ran = Ran::from(output);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.starts_with("kvs-client: KVS_LOG: no level is called 'loud'"), "{ran:?}");
    // The flag's level is taken, whatever the environment says.
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvs-server"));
    command.current_dir(dir.path()).args(["--addr", "127.0.0.1:0", "--log", "debug"]);
    command.env("KVS_LOG", "loud");
    let server = Server::from_command(command);
    assert_eq!(server.client("ping"), printed("PONG\n"));
    // An empty one is none.
    let mut ping = Command::new(binary);
    ping.args(["ping", "--addr", &server.addr.to_string()]).env("KVS_LOG", "");
    assert_eq!(Ran::from(ping.output().unwrap()), printed("PONG\n"));
    server.signal("TERM");
    assert!(server.wait().1.contains("DEBUG"));
}

#[test]
fn every_command_with_both_engines() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--engine", engine]);
        assert_eq!(server.client("ping"), printed("PONG\n"));
        assert_eq!(server.client("get a"), printed("Key not found\n"));
        assert_eq!(server.client("get a --fail"), failed(1, "error: Key not found\n"));
        assert_eq!(server.client("rm a"), failed(1, "error: Key not found\n"));
        assert_eq!(server.client("set a 1"), printed(""));
        assert_eq!(server.client("get a"), printed("1\n"));
        assert_eq!(server.client("--raw get a"), printed("1"));
        assert_eq!(server.client("set a 2"), printed(""));
        assert_eq!(server.client("get --fail a"), printed("2\n"));
        assert_eq!(server.client("rm a"), printed(""));
        assert_eq!(server.client("get a"), printed("Key not found\n"));
        assert!(server.client("stats").stdout.contains("\nrequests="));
        assert_eq!(server.client("shutdown"), printed(""));
        assert!(server.wait().0.success());
    }
}

#[test]
fn values_of_every_kind() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let addr = server.addr.to_string();
    let set = |words: &[&str], stdin: &[u8]| {
        let args: Vec<&str> = ["--addr", &addr, "set"].iter().chain(words).copied().collect();
        assert_eq!(client_with(&args, stdin), printed(""));
    };
    let get = |key: &str| client(&["--addr", &addr, "get", "--raw", key]).stdout;
    set(&["--", "-a", "--raw"], b"");
    assert_eq!(client(&["--addr", &addr, "get", "--raw", "--", "-a"]), printed("--raw"));
    set(&["a", "--stdin"], b"line 1\r\n\0\x1b[2J\tline 2\n\n");
    assert_eq!(get("a"), "line 1\r\n\0\x1b[2J\tline 2\n\n");
    set(&["", ""], b"");
    assert_eq!(get(""), "");
    let all: String = ('\0'..'\u{3000}').collect();
    set(&["all", "--stdin"], all.as_bytes());
    assert_eq!(get("all"), all);
    let bad = client_with(&["--addr", &addr, "set", "bad", "--stdin"], b"\xff");
    assert_eq!(bad.status, 1);
    assert!(bad.stderr.starts_with("error: cannot read the value from stdin\ncaused by: "));
}

#[test]
fn a_servers_error_comes_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--max-line", "64"]);
    let ran = server.client(&format!("set a {}", "x".repeat(100)));
    let error =
        "error: the server answered too-long: the line is longer than the limit of 64 bytes\n";
    assert_eq!(ran, failed(1, error));
}

#[test]
fn no_server_and_a_silent_one_are_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let silent = client(&["get", "a", "--timeout=0.1", "--addr", &addr]);
    let expected = format!("error: {addr} did not answer within 100ms\ncaused by: timed out\n");
    assert_eq!(silent, failed(1, &expected));
    drop(listener);
    let refused = client(&["get", "a", "--addr", &addr]);
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.starts_with(&format!("error: cannot connect to {addr}\ncaused by: ")));
}

#[test]
fn the_start_is_told_with_version_address_and_engine() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--engine", engine]);
        let told = format!(
            "INFO  kvs-server 0.1.0 listening on {}, engine {engine}, directory .\n",
            server.addr
        );
        assert!(server.start.ends_with(&told), "{}", server.start);
    }
}

#[test]
fn both_ip_versions() {
    let dir = tempfile::tempdir().unwrap();
    if TcpListener::bind("[::1]:0").is_err() {
        return println!("no IPv6 here");
    }
    let server = Server::start_at(dir.path(), "[::1]:0", &[]);
    assert_eq!(server.client("ping"), printed("PONG\n"));
}

/// Writes a file in a directory; its path.
fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn with_a_secret_nothing_is_done_for_who_does_not_say_it() {
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (file(dir.path(), "right", "s3 cret\r\n"), file(dir.path(), "wrong", "x"));
    let server = Server::start(dir.path(), &["--auth-file", &right]);
    let missing = "ERR auth this server has a secret; send it first with AUTH token\n";
    let replies = server.talk(b"SET a 1\nGET a\nSHUTDOWN\nSTATS\nPING\nAUTH x\nRM a\nQUIT\n");
    let expected =
        format!("{}PONG\nERR auth that is not the secret\n{missing}OK\n", missing.repeat(4));
    assert_eq!(replies, expected);
    assert_eq!(server.talk(b"AUTH \"s3 cret\"\nGET a\nAUTH x\nGET a\n").matches("NOT_").count(), 2);
    assert_eq!(server.client(&format!("set a 1 --auth-file {right}")), printed(""));
    assert_eq!(server.client(&format!("get a --auth-file={right}")), printed("1\n"));
    let refused = server.client(&format!("get a --auth-file {wrong}"));
    assert_eq!(refused, failed(1, "error: the server answered auth: that is not the secret\n"));
    assert_eq!(server.client("get a").status, 1);
    assert_eq!(server.client(&format!("shutdown --auth-file {right}")), printed(""));
}

#[test]
fn a_secret_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let long = file(dir.path(), "long", &"x".repeat(1025));
    for (path, cause) in [
        (file(dir.path(), "empty", "\n"), "it is empty"),
        (long, "it has more than 1,024 bytes"),
        (dir.path().join("none").to_str().unwrap().to_owned(), "No such file or directory"),
    ] {
        let ran = server(dir.path(), &["--auth-file", &path]);
        let message = format!("error: cannot read the secret from {path}\ncaused by: {cause}");
        assert!(ran.status == 1 && ran.stderr.starts_with(&message), "{ran:?}");
    }
    let open = Server::start(dir.path(), &[]);
    let answer = "ERR auth this server has no secret, so AUTH is not needed\n";
    assert_eq!(open.talk(b"AUTH x\n"), answer);
}

#[test]
fn shutdown_can_be_forbidden() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--no-shutdown"]);
    let refused = "ERR forbidden this server stops only by a signal\nPONG\n";
    assert_eq!(server.talk(b"SHUTDOWN\nPING\n"), refused);
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn an_address_that_others_reach_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_at(dir.path(), "0.0.0.0:0", &[]);
    assert!(server.start.contains(" WARN  no authentication: "), "{}", server.start);
}

#[test]
fn data_outlives_a_restart_and_a_kill() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--engine", engine]);
        assert_eq!(server.client("set a 1"), printed(""));
        let addr = server.addr.to_string();
        server.kill();
        let server = Server::start_at(dir.path(), &addr, &["--engine", engine]);
        // What was written ahead of records is no torn tail to be warned of.
        assert!(!server.start.contains(" WARN "), "{}", server.start);
        assert_eq!(server.client("get a"), printed("1\n"));
        assert_eq!(server.client("set a 2"), printed(""));
        assert_eq!(server.client("shutdown"), printed(""));
        let server = Server::start_at(dir.path(), &addr, &[]);
        assert!(server.start.contains(&format!("engine {engine}")));
        assert_eq!(server.client("get a"), printed("2\n"));
    }
}

#[test]
fn a_server_that_is_not_gone_yet_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::start(dir.path(), &[]);
    let addr = first.addr.to_string();
    let mut command = support::server_command();
    command.args(["--addr", &addr, "--log", "trace"]).current_dir(dir.path());
    let second = std::thread::spawn(|| Server::from_command(command));
    first.signal("KILL");
    assert_eq!(second.join().unwrap().client("ping"), printed("PONG\n"));
}

#[cfg(feature = "sled")]
#[test]
fn the_other_engine_is_refused_before_anything_is_written() {
    for (used, other) in [("kvs", "sled"), ("sled", "kvs")] {
        let dir = tempfile::tempdir().unwrap();
        Server::start(dir.path(), &["--engine", used]).kill();
        let ran = server(dir.path(), &["--addr", "127.0.0.1:0", "--engine", other]);
        let expected = format!(
            "error: . holds data of the engine '{used}', so the engine '{other}' cannot open it\n"
        );
        assert_eq!(ran, failed(1, &expected));
        assert!(!dir.path().join(other).exists());
    }
}

#[cfg(not(feature = "sled"))]
#[test]
fn an_engine_that_was_left_out_is_refused_with_how_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let ran = server(dir.path(), &["--addr", "127.0.0.1:0", "--engine", "sled"]);
    let expected = "error: this kvs was built without the engine 'sled': \
        build it with `--features sled`\n";
    assert_eq!(ran, failed(1, expected));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_start_that_fails_leaves_the_choice_of_engine_open() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let ran = server(dir.path(), &["--addr", &addr]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.starts_with(&format!("error: cannot listen on {addr}\ncaused by: ")));
    fs::write(dir.path().join("kvs"), "a file in its way").unwrap();
    let ran = server(dir.path(), &["--addr", "127.0.0.1:0"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    fs::remove_file(dir.path().join("kvs")).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_in_use_is_refused_with_the_holders_pid() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let first = Server::start(dir.path(), &["--engine", engine]);
        let begun = Instant::now();
        let ran = server(dir.path(), &["--addr", "127.0.0.1:0"]);
        let expected = format!("error: ./{engine} is in use by process {}\n", first.child.id());
        assert_eq!(ran, failed(1, &expected));
        // Its holder was given the time to let go of it: at least that long.
        assert!(begun.elapsed() >= Duration::from_secs(1));
    }
}

/// Calls `look` with every file and directory below this one.
fn walk(directory: &Path, look: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        look(&path);
        if path.is_dir() {
            walk(&path, look);
        }
    }
}

#[test]
fn files_are_their_owners_only() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--engine", engine, "--dir", "new/data"]);
        server.client("set a 1");
        walk(dir.path(), &mut |path| {
            let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "{}", path.display());
        });
    }
}

#[test]
fn shutdown_returns_when_port_and_directory_are_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut addr = "127.0.0.1:0".to_owned();
    for _ in 0..5 {
        let server = Server::start_at(dir.path(), &addr, &[]);
        addr = server.addr.to_string();
        assert_eq!(server.client("shutdown"), printed(""));
    }
}

#[test]
fn a_signal_is_an_orderly_end() {
    for signal in ["INT", "TERM"] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--fsync", "never"]);
        server.client("set a 1");
        server.signal(signal);
        let (status, stderr) = server.wait();
        assert!(status.success() && stderr.ends_with("INFO  stopped\n"), "{status} {stderr}");
        let server = Server::start(dir.path(), &["--log", "warn", "--log", "info"]);
        assert!(!server.start.contains("WARN"), "nothing to recover: {}", server.start);
        assert_eq!(server.client("get a"), printed("1\n"));
    }
}

#[test]
fn a_damaged_store_is_inspected_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let server_at = |flags: &[&str]| server(dir.path(), flags);
    let running = Server::start(dir.path(), &[]);
    running.client("set a 1");
    running.client("set b 2");
    let in_use = format!("error: ./kvs is in use by process {}\n", running.child.id());
    assert_eq!(server_at(&["--inspect"]), failed(1, &in_use));
    assert_eq!(server_at(&["--repair"]), failed(1, &in_use));
    running.client("shutdown");
    let intact = server_at(&["--inspect"]);
    assert!(intact.status == 0 && intact.stdout.contains(" set \"b\" \"2\""), "{intact:?}");
    let path = dir.path().join("kvs/00000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = server_at(&["--addr", "127.0.0.1:0"]);
    let damaged = "error: ./kvs/00000001.seg is damaged at byte 32: ";
    assert!(refused.status == 1 && refused.stderr.starts_with(damaged), "{refused:?}");
    let inspected = server_at(&["--inspect"]);
    assert!(inspected.stdout.contains("\n  32 DAMAGED up to "), "{inspected:?}");
    assert_eq!((inspected.status, &*inspected.stderr), (1, "error: 1 damaged ranges\n"));
    let repaired = server_at(&["--repair"]);
    assert!(
        repaired
            .stdout
            .ends_with("the repaired store has 1 keys; the damaged one is in ./kvs.damaged-1\n")
    );
    let again = Server::start(dir.path(), &[]);
    assert_eq!(again.client("get a"), printed("Key not found\n"));
    assert_eq!(again.client("get b"), printed("2\n"));
}

#[test]
fn what_a_peer_sends_cannot_forge_a_line_of_the_logger() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--log", "trace"]);
    let mut stream = server.connect();
    stream.write_all(b"FOO\x1b[2J\rERROR\x00 x\nSHUTDOWN\n").unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    let (_, stderr) = server.wait();
    assert!(!stderr.contains(['\x1b', '\r', '\0']), "{stderr:?}");
}

#[test]
fn a_file_that_may_not_grow_fails_its_writes_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    // The shell's unit is 512 or 1,024 bytes: the limit is 32 or 64 KiB.
    let mut command = Command::new("sh");
    let script =
        format!("ulimit -f 64; exec {} --addr 127.0.0.1:0", env!("CARGO_BIN_EXE_kvs-server"));
    command.args(["-c", &script]).current_dir(dir.path());
    let server = Server::from_command(command);
    let set = |key: &str| format!("SET {key} {}\n", key.repeat(5_000));
    assert_eq!(server.talk(set("a").as_bytes()), "OK\n");
    let replies = server.talk(set("b").repeat(20).as_bytes());
    let refused = replies.lines().filter(|line| line.starts_with("ERR storage cannot append"));
    assert!(refused.count() > 0, "{replies}");
    for (key, ok) in [("a", true), ("none", false)] {
        let got = server.talk(format!("GET {key}\n").as_bytes());
        assert_eq!(got.starts_with("VALUE"), ok, "{got}");
    }
    let told = server.talk(b"GET b\n");
    assert!(server.client("set c 1").status == 0, "a small one has room");
    server.kill();
    let again = Server::start(dir.path(), &[]);
    assert_eq!(again.talk(b"GET b\n"), told);
    assert_eq!(again.client("get c"), printed("1\n"));
}
