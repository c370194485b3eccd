//! Command lines of both programs: output, exit status, and which engine a server
//! opens. `tests/client_commands.rs` has the client's commands, and `tests/golden`
//! the help texts.

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
        assert_eq!(client(&[flag]), printed("kvs-client 0.2.0\n"));
        assert_eq!(server(dir.path(), &[flag]), printed("kvs-server 0.2.0\n"));
    }
    for flag in ["-h", "--help"] {
        let help = include_str!("golden/kvs-client-help.txt");
        assert_eq!(client(&["get", flag]), printed(help));
        let help = include_str!("golden/kvs-server-help.txt");
        assert_eq!(server(dir.path(), &["--fsync", "never", flag]), printed(help));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn wrong_command_lines_of_the_client() {
    let addr =
        "it has to be HOST:PORT, such as 127.0.0.1:4000, localhost:4000 or [::1]:4000".to_owned();
    let seconds = "it has to be a number of seconds above 0, such as 5 or 0.5";
    let commands = "the commands are set get rm keys dump - ping stats shutdown";
    let set = "usage: kvs-client set KEY VALUE, or set KEY --stdin";
    let get = "usage: kvs-client get KEY [--raw] [--fail]; 'kvs-client -' takes several requests";
    let dashes = "put -- before a key or a value that begins with -";
    let stdin = "'-' is ambiguous: use --stdin to read a value from standard input, \
        or '-- -' for a dash";
    for (args, fault) in [
        ("", &*format!("a command is missing; {commands}")),
        ("frob", &format!("there is no command 'frob'; {commands}")),
        ("set", set),
        ("set a", set),
        ("set a b c", set),
        ("set a b --stdin", set),
        ("set a -", stdin),
        ("get", get),
        ("get a b", get),
        ("keys a b", "usage: kvs-client keys [PREFIX]"),
        ("- a", "usage: kvs-client -"),
        ("ping a", "usage: kvs-client ping"),
        ("stats a", "usage: kvs-client stats"),
        ("shutdown a", "usage: kvs-client shutdown"),
        ("get a --stdin", &format!("get takes no --stdin; {dashes}")),
        ("set a b --raw", &format!("set takes no --raw; {dashes}")),
        ("set a --fail", &format!("set takes no --fail; {dashes}")),
        ("get a --frob", &format!("there is no flag '--frob'; {dashes}")),
        ("set a -5", &format!("there is no flag '-5'; {dashes}")),
        ("set a -v", &format!("there is no flag '-v'; {dashes}")),
        ("--frob", &format!("there is no flag '--frob'; {dashes}")),
        ("--\u{1b}[2J", &format!("there is no flag '--\\u{{1b}}[2J'; {dashes}")),
        ("get a --addr", "--addr needs a value"),
        ("get a --raw=1", "--raw takes no value"),
        ("get a --addr nonsense", &format!("--addr cannot be 'nonsense': {addr}")),
        ("get a --addr :4000", &format!("--addr cannot be ':4000': {addr}")),
        ("get a --addr a:65536", &format!("--addr cannot be 'a:65536': {addr}")),
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
    let size = "it has to be a number such as 4096, 64K, 1M or 2G";
    for (args, fault) in [
        ("word", "'word' is not a flag".to_owned()),
        ("-", "there is no flag '-'".to_owned()),
        ("--repair", "there is no flag '--repair'".to_owned()),
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
            "--segment-size cannot be '1': it has to be from 512 to 1073741824".to_owned(),
        ),
        (
            "--max-clients 0",
            "--max-clients cannot be '0': it has to be from 1 to 1000000".to_owned(),
        ),
    ] {
        let words: Vec<&str> = args.split_whitespace().collect();
        let expected = failed(2, &format!("kvs-server: {fault}; see 'kvs-server --help'\n"));
        assert_eq!(server(dir.path(), &words), expected, "{args}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_flag_overrides_the_level_in_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let command = |level: &str, flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvs-server"));
        command.current_dir(dir.path()).args(["--addr", "127.0.0.1:0"]).args(flags);
        command.env("KVS_LOG", level);
        command
    };
    let ran = Ran::from(command("loud", &[]).output().unwrap());
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.starts_with("kvs-server: KVS_LOG: no level is called 'loud'"), "{ran:?}");
    for level in ["loud", ""] {
        let server = Server::from_command(command(level, &["--log", "debug"]));
        assert_eq!(server.client("ping"), printed("PONG\n"));
        server.signal("TERM");
        assert!(server.wait().1.contains("DEBUG"));
    }
}

#[test]
fn every_command_with_both_engines() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--engine", engine]);
        assert_eq!(server.client("ping"), printed("PONG\n"));
        assert_eq!(server.client("get a"), printed("Key not found\n"));
        assert_eq!(server.client("get a --fail"), failed(3, "error: Key not found\n"));
        assert_eq!(server.client("rm a --fail"), failed(3, "error: Key not found\n"));
        assert_eq!(server.client("rm a"), failed(1, "error: Key not found\n"));
        assert_eq!(server.client("set a 1"), printed(""));
        assert_eq!(server.client("get a"), printed("1\n"));
        assert_eq!(server.client("--raw get a"), printed("1"));
        assert_eq!(server.client("set a 2"), printed(""));
        assert_eq!(server.client("get --fail a"), printed("2\n"));
        assert_eq!(server.client("keys"), printed("a\n"));
        assert_eq!(server.client("dump"), printed("SET a 2\n"));
        assert_eq!(server.client("rm a --fail"), printed(""));
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
    set(&["dash", "--", "-"], b"");
    assert_eq!(get("dash"), "-");
    set(&["", ""], b"");
    assert_eq!(get(""), "");
    let all: String = ('\0'..'\u{3000}').collect();
    set(&["all", "--stdin"], all.as_bytes());
    assert_eq!(get("all"), all);
    let bad = client_with(&["--addr", &addr, "set", "bad", "--stdin"], b"\xff");
    let expected = "error: cannot read UTF-8 from standard input; \
        encode binary data as text, for example with base64\ncaused by: ";
    assert!(bad.status == 1 && bad.stderr.starts_with(expected), "{bad:?}");
}

#[test]
fn a_servers_error_comes_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--max-line", "64"]);
    let ran = server.client(&format!("set a {}", "x".repeat(100)));
    let causes = "error: the server answered too-long: the line is longer than the limit of \
        64 bytes (--max-line; 1024 before AUTH)\n";
    assert_eq!(ran, failed(1, causes));
}

#[test]
fn the_log_starts_with_version_address_and_engine() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--engine", engine]);
        let told = format!(
            "INFO  kvs-server 0.2.0 listening on {}, engine {engine}, directory .\n",
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
fn clients_without_the_secret_are_refused() {
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
    assert_eq!(
        refused,
        failed(1, "error: the server answered auth: that is not the secret; see --auth-file\n")
    );
    assert_eq!(server.client("get a").status, 1);
    assert_eq!(server.client(&format!("shutdown --auth-file {right}")), printed(""));
}

#[test]
fn an_unusable_secret_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let long = file(dir.path(), "long", &"x".repeat(1025));
    for (path, cause) in [
        (file(dir.path(), "empty", "\n"), "it is empty"),
        (long, "it has more than 1,024 bytes"),
        ("/dev/zero".to_owned(), "it has more than 1,024 bytes"),
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
fn a_public_address_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_at(dir.path(), "0.0.0.0:0", &[]);
    assert!(server.start.contains(" WARN  no authentication: "), "{}", server.start);
}

#[test]
fn data_survives_a_restart_and_a_kill() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--engine", engine]);
        assert_eq!(server.client("set a 1"), printed(""));
        let addr = server.addr.to_string();
        server.kill();
        let server = Server::start_at(dir.path(), &addr, &["--engine", engine]);
        // Preallocated space is not a torn tail.
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
fn a_start_waits_for_a_killed_server() {
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
    }
}

#[cfg(not(feature = "sled"))]
#[test]
fn an_engine_not_built_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let ran = server(dir.path(), &["--addr", "127.0.0.1:0", "--engine", "sled"]);
    let expected = "error: this kvs was built without sled: build it with `--features sled`\n";
    assert_eq!(ran, failed(1, expected));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_failed_start_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let ran = server(dir.path(), &["--addr", &addr]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.starts_with(&format!("error: cannot listen on {addr}\ncaused by: ")));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_in_use_is_refused() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let first = Server::start(dir.path(), &["--engine", engine]);
        let begun = Instant::now();
        let ran = server(dir.path(), &["--addr", "127.0.0.1:0"]);
        assert!(ran.status == 1 && ran.stderr.contains(" is in use by another process"), "{ran:?}");
        // The second server has waited for the first to release the directory.
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!(first.client("ping"), printed("PONG\n"));
    }
}

#[test]
fn a_directory_of_version_0_1_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("kvs")).unwrap();
    file(&dir.path().join("kvs"), "00000001.seg", "");
    for mode in ["--inspect", "--export", "--no-shutdown"] {
        let ran = server(dir.path(), &["--addr", "127.0.0.1:0", mode]);
        let hint = "was written by kvs 0.1, which this version cannot read; \
            choose another --dir, or use that version\n";
        assert!(ran.status == 1 && ran.stderr.ends_with(hint), "{mode}: {ran:?}");
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
fn a_damaged_store_is_inspected_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let server_at = |flags: &[&str]| server(dir.path(), flags);
    let running = Server::start(dir.path(), &[]);
    running.client("set a 1");
    running.client("set b 2");
    for mode in ["--inspect", "--export"] {
        let ran = server_at(&[mode]);
        assert!(ran.status == 1 && ran.stderr.contains(" is in use by another process"), "{ran:?}");
    }
    running.client("shutdown");
    let intact = server_at(&["--inspect"]);
    assert!(intact.status == 0 && intact.stdout.contains(" set \"b\" \"2\""), "{intact:?}");
    assert_eq!(server_at(&["--export"]), printed("SET a 1\nSET b 2\n"));
    let path = dir.path().join("00000001.kvs");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(2).position(|window| window == b"a1").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = server_at(&["--addr", "127.0.0.1:0"]);
    assert!(refused.status == 1 && refused.stderr.contains(" is damaged at byte "), "{refused:?}");
    let inspected = server_at(&["--inspect"]);
    assert!(inspected.stdout.contains(" DAMAGED up to "), "{inspected:?}");
    assert_eq!((inspected.status, &*inspected.stderr), (1, "error: 1 damaged ranges\n"));
    let exported = server_at(&["--export"]);
    assert_eq!((exported.status, &*exported.stdout), (1, "SET b 2\n"));
    assert!(exported.stderr.contains("00000001.kvs: bytes "), "{exported:?}");
    assert!(exported.stderr.ends_with("error: 1 damaged ranges\n"));
}

#[test]
fn peers_cannot_forge_log_lines() {
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
fn a_write_over_the_file_limit_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    // The shell's unit is 512 or 1,024 bytes: the limit is 32 or 64 KiB.
    let mut command = Command::new("sh");
    let script =
        format!("ulimit -f 64; exec {} --addr 127.0.0.1:0", env!("CARGO_BIN_EXE_kvs-server"));
    command.args(["-c", &script]).current_dir(dir.path());
    let server = Server::from_command(command);
    let set = |key: &str, len| format!("SET {key} {}\n", key.repeat(len));
    assert_eq!(server.talk(set("a", 5_000).as_bytes()), "OK\n");
    // No file can hold a record of this length.
    let refused = server.talk(set("a", 100_000).as_bytes());
    assert!(refused.starts_with("ERR storage "), "{refused}");
    assert_eq!(server.client("set c 1"), printed(""));
    let before = server.talk(b"GET a\nGET none\n");
    assert_eq!(before, format!("VALUE {}\nNOT_FOUND\n", "a".repeat(5_000)));
    server.kill();
    let again = Server::start(dir.path(), &[]);
    assert_eq!(again.talk(b"GET a\nGET none\n"), before);
    assert_eq!(again.client("get c"), printed("1\n"));
}
