//! The commands of `kvs-client` beyond one request: keys, dump, lines from standard
//! input, the interactive mode, and waiting for a server.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Ran, Server, client, client_with, failed, printed, server};

/// The engines of this build.
const ENGINES: &[&str] = if cfg!(feature = "sled") { &["kvs", "sled"] } else { &["kvs"] };

/// Sends lines with `kvs-client -`.
fn lines(server: &Server, lines: &[u8]) -> Ran {
    client_with(&["-", "--addr", &server.addr.to_string()], lines)
}

/// The sorted lines of a text.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn keys_are_listed_by_prefix() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--engine", engine]);
        assert_eq!(server.client("keys"), printed(""));
        for key in ["user:1", "user:2", "users", "\u{e9} b"] {
            client(&["set", key, "1", "--addr", &server.addr.to_string()]);
        }
        let all = ["user:1", "user:2", "users", "\u{e9} b"];
        assert_eq!(sorted(&server.client("keys").stdout), all);
        assert_eq!(sorted(&server.client("keys user:").stdout), all[..2]);
        assert_eq!(server.client("keys x"), printed(""));
        server.client("rm users");
        assert_eq!(sorted(&server.client("keys users").stdout), [""; 0]);
    }
}

#[test]
fn unusual_keys_are_listed_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    lines(&server, b"SET \"a\\nb\\u001b\" 1\nSET \"\" 1\nSET \"\\\"a\\\"\" 1\nSET a\\\\b 1\n");
    let listed = server.client("keys").stdout;
    assert_eq!(sorted(&listed), [r#""""#, r#""\"a\"""#, r#""a\nb\u001b""#, r"a\b"]);
}

#[test]
fn dump_and_load_copy_every_string() {
    let all: String = ('\0'..'\u{3000}').collect();
    let (from_dir, to_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (from, to) in ENGINES.iter().flat_map(|from| ENGINES.iter().map(move |to| (from, to))) {
        let name = format!("{from}-{to}");
        let from = Server::start(from_dir.path(), &["--engine", from, "--dir", &name]);
        let to = Server::start(to_dir.path(), &["--engine", to, "--dir", &name]);
        for key in ["", "-", "\"", "\\", "\u{1b}[2J", "key 1"] {
            let args = ["set", "--stdin", "--addr", &from.addr.to_string(), "--", key];
            assert_eq!(client_with(&args, all.as_bytes()), printed(""));
        }
        let many: String = (0..20_000).map(|nth| format!("SET k{nth} \"v {nth}\"\n")).collect();
        assert_eq!(lines(&from, many.as_bytes()).status, 0);
        let dumped = from.client("dump").stdout;
        assert_eq!(dumped.lines().count(), 20_006);
        assert_eq!(lines(&to, dumped.as_bytes()), printed(&"OK\n".repeat(20_006)));
        assert_eq!(sorted(&to.client("dump").stdout), sorted(&dumped));
        assert_eq!(from.client("shutdown"), printed(""));
        let exported = server(from_dir.path(), &["--export", "--dir", &name]);
        assert_eq!(exported.status, 0, "{}", exported.stderr);
        assert_eq!(sorted(&exported.stdout), sorted(&dumped));
    }
}

/// The header of a segment of sled is damaged. sled panics, as it does not find pages
/// that later ones need.
#[cfg(feature = "sled")]
#[test]
fn a_panic_of_sled_is_an_error_of_export() {
    let dir = tempfile::tempdir().unwrap();
    let sled = Server::start(dir.path(), &["--engine", "sled", "--dir", "sled"]);
    let value = "x".repeat(1_000);
    let sets: String = (0..3_000).map(|nth| format!("SET key{nth} {value}\n")).collect();
    assert_eq!(lines(&sled, sets.as_bytes()).status, 0);
    assert_eq!(sled.client("shutdown"), printed(""));
    let path = dir.path().join("sled");
    let mut log = fs::read(path.join("db")).unwrap();
    log[3 << 20..][..8].fill(b'X');
    fs::write(path.join("db"), log).unwrap();
    let ran = server(dir.path(), &["--export", "--dir", "sled"]);
    let error = format!("error: cannot open the sled database {}\n", path.display());
    let cause = "caused by: sled has panicked, as its files are damaged\n";
    assert_eq!(ran, failed(1, &(error + cause)));
}

/// Nothing in a dumped line is longer than it was in the line that set it, except that a
/// bare word may get quotes.
#[test]
fn a_dump_fits_the_server_that_it_comes_from() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let start = |limit| {
            let flags = ["--engine", engine, "--max-line", limit];
            Server::start(dir.path(), &flags)
        };
        let server = start("1000");
        let [key, value] = ["\u{7f}".repeat(489), "\u{85}".repeat(245)];
        let sets = [format!("SET \"{key}\" \"\"\n"), format!("SET k \"{value}\"\n")];
        assert_eq!(lines(&server, sets.concat().as_bytes()), printed("OK\nOK\n"));
        let dumped = server.client("dump");
        assert_eq!(dumped.stderr, "");
        assert!(sorted(&dumped.stdout) == sorted(&sets.concat()));
        assert_eq!(server.client("shutdown"), printed(""));
        let server = start("500");
        assert_eq!(lines(&server, dumped.stdout.as_bytes()), printed("OK\nOK\n"));
        assert!(sorted(&server.client("dump").stdout) == sorted(&dumped.stdout));
        assert_eq!(server.client("shutdown"), printed(""));
        let server = start("400");
        let fault = "error: the server answered too-long: the line is longer than the limit of \
            400 bytes (--max-line; 1024 before AUTH)\n";
        assert_eq!(server.client("dump").stderr, fault);
    }
}

#[test]
fn the_first_failed_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let good = lines(&server, b"SET a 1\r\n\nGET a\n\r\nGET b\n");
    assert_eq!(good, printed("OK\nVALUE 1\nNOT_FOUND\n"));
    let bad = lines(&server, b"PING\n\nFOO\nPING\n");
    assert_eq!(bad.status, 1);
    assert_eq!(bad.stderr, "error: line 3 was answered ERR\n");
    assert_eq!(bad.stdout.lines().count(), 3);
    // The lines are read in several batches.
    let many = "SET a 1\n".repeat(20_000) + "\nFOO\nGET\nPING\nBAR";
    let ran = lines(&server, many.as_bytes());
    assert_eq!((ran.status, ran.stdout.lines().count()), (1, 20_003));
    let errors = "error: line 20002 was answered ERR\nerror: line 20005 was not sent: ";
    assert!(ran.stderr.starts_with(errors), "{}", ran.stderr);
    assert_eq!(lines(&server, b""), printed(""));
}

#[test]
fn an_unfinished_line_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let ran = lines(&server, b"SET a 1\nSET b 123");
    let reason = "it has no newline at its end, or is longer than any server accepts";
    assert_eq!((ran.status, &*ran.stdout), (1, "OK\n"));
    assert_eq!(ran.stderr, format!("error: line 2 was not sent: {reason}\n"));
    assert_eq!(server.client("keys"), printed("a\n"));
}

#[test]
fn lines_after_the_end_of_the_connection_fail() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(lines(&server, b"PING\nQUIT\n"), printed("PONG\nOK\n"));
    let ran = lines(&server, b"QUIT\nPING\n");
    assert_eq!((ran.status, &*ran.stdout), (1, "OK\n"));
    let begins = "error: the lines after line 1 were not all answered\ncaused by: ";
    assert!(ran.stderr.starts_with(begins), "{ran:?}");
    assert_eq!(lines(&server, b"SHUTDOWN\n"), printed("OK\n"));
    assert!(server.wait().0.success());
}

#[test]
fn lines_without_a_reader_fail() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvs-client"))
        .args(["-", "--addr", &server.addr.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::from(std::io::pipe().unwrap().1))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(&b"SET a 1\n".repeat(100_000));
    let ran = Ran::from(child.wait_with_output().unwrap());
    let begins = "error: the lines after line ";
    assert!(ran.status == 1 && ran.stderr.starts_with(begins), "{ran:?}");
    assert!(ran.stderr.contains("caused by: cannot write to stdout\n"), "{ran:?}");
}

/// The replies are a thousand times as long as the requests. A client that sends
/// everything before it reads would wait for the server, and the server for it.
#[test]
fn long_replies_do_not_deadlock() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let value = "v".repeat(100_000);
    let set = format!("SET a {value}\n");
    assert_eq!(lines(&server, set.as_bytes()), printed("OK\n"));
    let ran = lines(&server, "GET a\n".repeat(2_000).as_bytes());
    assert_eq!((ran.status, ran.stdout.len()), (0, 2_000 * "VALUE \n".len() + 2_000 * value.len()));
}

#[test]
fn lines_are_answered_before_more_come() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvs-client"))
        .args(["-", "--addr", &server.addr.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut replies = BufReader::new(stdout).lines();
    for (request, reply) in [("SET a 1\nGET", "OK"), (" a\nPI", "VALUE 1"), ("NG\n", "PONG")] {
        stdin.write_all(request.as_bytes()).unwrap();
        assert_eq!(replies.next().unwrap().unwrap(), reply);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// What `kvs-client -` prints on a terminal, which `script` gives it, when this is typed;
/// `None` if there is no such `script` here.
fn typed(server: &Server, text: &str) -> Option<String> {
    if !cfg!(target_os = "linux") || Command::new("script").arg("--version").output().is_err() {
        println!("skipped: there is no script(1) of util-linux here");
        return None;
    }
    // An echo of what is typed could be anywhere in the output.
    let command = env!("CARGO_BIN_EXE_kvs-client");
    let command = format!("stty -echo; {command} - --addr {}", server.addr);
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    Some(printed)
}

#[test]
fn a_terminal_gets_a_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let cut = "x".repeat(5_000);
    let lines = format!("SET a \"x y\"\nFOO\n\nGET a\nSET cut {cut}\nGET cut\nQUIT\n");
    let Some(text) = typed(&server, &lines) else { return };
    assert!(text.ends_with("kvs> OK\r\n"), "{text}");
    assert_eq!(text.matches("kvs> ").count(), 7, "{text}");
    assert!(text.contains("VALUE \"x y\"\r\n"), "{text}");
    assert!(
        text.contains("error: the line was not sent: a terminal cuts it at 4,095 bytes"),
        "{text}"
    );
    assert!(text.contains("NOT_FOUND\r\n"), "{text}");
}

#[test]
fn control_d_ends_the_interactive_mode() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let Some(text) = typed(&server, "PING\n\x04") else { return };
    assert!(text.ends_with("kvs> PONG\r\nkvs> \r\n"), "{text:?}");
}

/// The address of a server that answers one client's lines with these.
fn scripted(replies: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        for reply in replies {
            lines.read_line(&mut String::new()).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    addr
}

#[test]
fn a_dump_skips_removed_keys_and_refuses_other_replies() {
    let addr = scripted(&["KEYS - a b\n", "NOT_FOUND\n", "VALUE 1\n"]).to_string();
    assert_eq!(client(&["dump", "--addr", &addr]), printed("SET b 1\n"));
    let addr = scripted(&["KEYS - a\n", "PONG\n"]).to_string();
    let ran = client(&["dump", "--addr", &addr]);
    assert!(ran.status == 1 && ran.stderr.contains("does not answer GET"), "{ran:?}");
}

/// An address at which nothing listens.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn ping_waits_until_a_server_listens() {
    let dir = tempfile::tempdir().unwrap();
    let addr = free_address().to_string();
    let args = ["ping", "--timeout", "30", "--addr", &addr];
    let ping = Command::new(env!("CARGO_BIN_EXE_kvs-client"))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _server = Server::start_at(dir.path(), &addr, &[]);
    assert_eq!(Ran::from(ping.wait_with_output().unwrap()), printed("PONG\n"));
}

/// Answers the first line of each connection.
fn answer_as(replies: Vec<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for reply in replies {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    addr
}

#[test]
fn ping_waits_until_a_server_has_a_place() {
    let addr = answer_as(vec!["", "ERR busy full\n", "PONG\n"]).to_string();
    assert_eq!(client(&["ping", "--addr", &addr]), printed("PONG\n"));
}

#[test]
fn another_servers_answers_are_a_failure() {
    for reply in ["OK\nHTTP/1.1 400\r\n", "OK\n-ERR unknown command\r\n", "OK\nERROR\r\n"] {
        let addr = answer_as(vec![reply]).to_string();
        let ran = client_with(&["-", "--addr", &addr], b"SET a 1\nSET b 2\n");
        assert_eq!((ran.status, &*ran.stdout), (1, "OK\n"));
        let begins = "error: the lines after line 1 were not all answered\n\
            caused by: no valid reply from a kvs server: it begins '";
        assert!(ran.stderr.starts_with(begins), "{ran:?}");
    }
}

#[test]
fn ping_gives_up_at_its_timeout() {
    let addr = free_address().to_string();
    let begun = Instant::now();
    let ran = client(&["ping", "--timeout", "0.3", "--addr", &addr]);
    assert!(ran.stderr.starts_with(&format!("error: cannot connect to {addr}\n")), "{ran:?}");
    assert_eq!(ran.status, 1);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let get = client(&["get", "a", "--fail", "--addr", &addr]);
    assert_eq!(get.status, 1, "no server is not the same as no key: {get:?}");
}

#[test]
fn servers_have_host_names() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let addr = format!("localhost:{}", server.addr.port());
    assert_eq!(client(&["ping", "--addr", &addr]), printed("PONG\n"));
    let unknown = client(&["get", "a", "--addr", "name.invalid:4000"]);
    assert_eq!(unknown.status, 1);
    let expected = "error: cannot resolve name.invalid:4000\ncaused by: ";
    assert!(unknown.stderr.starts_with(expected), "{unknown:?}");
}

#[test]
fn errors_on_a_terminal_are_escaped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"ERR storage bad \x1b[2J\n").unwrap();
        let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
    });
    let ran = client(&["get", "a", "--addr", &addr]);
    assert_eq!(ran, failed(1, "error: the server answered storage: bad \\u{1b}[2J\n"));
    server.join().unwrap();
}

#[test]
fn a_store_has_the_same_directory_everywhere() {
    use kvs::KvsEngine;
    let dir = tempfile::tempdir().unwrap();
    let store = kvs::KvStore::open(dir.path().join("data")).unwrap();
    store.set("a".to_owned(), "1".to_owned()).unwrap();
    drop(store);
    let server = Server::start(dir.path(), &["--dir", "data"]);
    assert_eq!(server.client("get a"), printed("1\n"));
    assert!(
        fs::read_dir(dir.path().join("data")).unwrap().all(|entry| entry.unwrap().path().is_file())
    );
}

#[test]
fn no_server_and_a_silent_one_are_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let silent = client(&["get", "a", "--timeout=0.1", "--addr", &addr]);
    let expected = format!("error: {addr} did not answer within 100ms\ncaused by: timed out\n");
    assert_eq!(silent, failed(1, &expected));
    drop(listener);
    // Another test may take the address meanwhile.
    let mut refused = (0..9).map(|_| client(&["get", "a", "--addr", &free_address().to_string()]));
    assert!(refused.any(|ran| ran.status == 1 && ran.stderr.starts_with("error: cannot connect")));
}
