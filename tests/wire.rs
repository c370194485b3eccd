//! The protocol over real sockets: sessions from files, lines split at every
//! byte, junk, and peers that half-close, idle, or ask for too much.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;

use support::{Server, await_that, printed};

/// A server on a new directory.
fn start(flags: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), flags);
    (dir, server)
}

/// Sends the lines after `> ` with CR LF, and compares the replies with the lines
/// after `< `.
fn play(server: &Server, transcript: &str) {
    let mut replies = BufReader::new(server.connect());
    for line in transcript.lines() {
        if let Some(request) = line.strip_prefix("> ") {
            replies.get_mut().write_all(format!("{request}\r\n").as_bytes()).unwrap();
        } else if let Some(expected) = line.strip_prefix("< ") {
            let mut reply = String::new();
            replies.read_line(&mut reply).unwrap();
            assert_eq!(reply, format!("{expected}\r\n"), "in\n{transcript}");
        }
    }
}

#[test]
fn transcripts_match() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let (_dir, server) = start(&[]);
        play(&server, &fs::read_to_string(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn the_readme_session_works() {
    let readme = include_str!("../README.md");
    let session = readme.split("```netcat\n").nth(1).unwrap().split("```").next().unwrap();
    let (_dir, server) = start(&[]);
    let mut stream = server.connect();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    for exchange in session.split_inclusive('\n').skip(1).collect::<Vec<_>>().chunks(2) {
        stream.write_all(exchange[0].as_bytes()).unwrap();
        let mut reply = String::new();
        replies.read_line(&mut reply).unwrap();
        assert_eq!(reply, exchange[1]);
    }
}

#[test]
fn replies_do_not_depend_on_splits_of_the_input() {
    let requests = " SET a \"x y\"\r\n\tGET a\n\n\r\nGET b\r\nFROB\nRM a\nPING\n".as_bytes();
    let replies = "OK\r\nVALUE \"x y\"\nNOT_FOUND\r\n\
        ERR unknown-verb no verb is called 'FROB'; HELP lists them\nOK\nPONG\n";
    let (_dir, server) = start(&["--fsync", "never"]);
    for cut in 0..=requests.len() {
        let mut stream = server.connect();
        stream.set_nodelay(true).unwrap();
        let (head, tail) = requests.split_at(cut);
        stream.write_all(head).unwrap();
        // The reply to another client shows that the server has read the head.
        assert_eq!(server.talk(b"PING\n"), "PONG\n");
        stream.write_all(tail).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        assert_eq!(all, replies, "cut at {cut}");
    }
    let many = server.talk(&requests.repeat(500));
    assert_eq!(many, replies.repeat(500));
}

#[test]
fn a_line_without_an_end_is_not_executed() {
    let (_dir, server) = start(&[]);
    let replies = server.talk(b"SET a 1\nSET a 2");
    let fault = "ERR incomplete the input ended within this line, so it was not executed\n";
    assert_eq!(replies, format!("OK\n{fault}"));
    assert_eq!(server.talk(b"GET a\n"), "VALUE 1\n");
}

#[test]
fn a_line_over_the_limit_is_skipped() {
    let (_dir, server) = start(&["--max-line", "64"]);
    let fault = "ERR too-long the line is longer than the limit of 64 bytes (--max-line; 1024 before AUTH)\n";
    for len in [65, 66, 1_000, 200_000] {
        let line = "x".repeat(len);
        let requests = format!("SET a 1\n{line}\nGET a\n{line}\r\nGET a\n");
        let replies = server.talk(requests.as_bytes());
        let with_cr = fault.replace('\n', "\r\n");
        assert_eq!(replies, format!("OK\n{fault}VALUE 1\n{with_cr}VALUE 1\n"), "{len}");
    }
    let longest = format!("SET a {}", "x".repeat(58));
    assert_eq!(server.talk(format!("{longest}\r\n{longest}\n").as_bytes()), "OK\r\nOK\n");
}

#[test]
fn large_replies_arrive_after_a_half_close() {
    let (_dir, server) = start(&["--max-line", "2M"]);
    let value = "v".repeat(1_000_000);
    assert_eq!(server.talk(format!("SET big {value}\n").as_bytes()), "OK\n");
    let replies = server.talk("GET big\n".repeat(10).as_bytes());
    assert!(replies == format!("VALUE {value}\n").repeat(10), "{} bytes", replies.len());
}

#[test]
fn junk_is_answered_line_by_line() {
    let (_dir, server) = start(&["--fsync", "never"]);
    let mut random = 99u64;
    for _ in 0..200 {
        let mut junk = Vec::new();
        for _ in 0..200 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let byte = (random >> 56) as u8;
            junk.push(if byte < 24 { b'\n' } else { byte });
        }
        junk.extend_from_slice(b"\nPING\n");
        let lines = junk.split(|byte| *byte == b'\n');
        let asked = lines.filter(|line| ![&b""[..], b"\r"].contains(line)).count();
        let replies = server.talk(&junk);
        assert_eq!(replies.lines().count(), asked, "{replies}");
        assert!(replies.ends_with("PONG\n"));
    }
    for bytes in [&b"\xff\xfb\x01\xff\xfd\x03\n"[..], b"\xff\xfeG\0E\0T\0\n", b"\0\n", b"a\rb\n"] {
        assert!(server.talk(bytes).starts_with("ERR "));
    }
}

#[test]
fn a_web_page_cannot_control_the_server() {
    let (_dir, server) = start(&[]);
    for head in ["POST / HTTP/1.1", "GET / HTTP/1.1", "Host: 127.0.0.1"] {
        let replies = server.talk(format!("{head}\r\nSET a 1\r\nSHUTDOWN\r\n").as_bytes());
        assert_eq!(
            replies, "ERR http this is not a web server; the connection closes\r\n",
            "{head}"
        );
    }
    assert_eq!(server.talk(b"GET a\n"), "NOT_FOUND\n");
}

#[test]
fn a_web_page_cannot_use_long_lines_either() {
    let (_dir, server) = start(&["--max-line", "64"]);
    let (path, name) = ("x".repeat(100), "x".repeat(5_000));
    let heads = [
        format!("POST /{path} HTTP/1.1\r\nHost: {path}"),
        format!("GET /{path} HTTP/1.1\r\nhost: {name}.localhost"),
    ];
    for head in heads {
        let replies = server.talk(format!("{head}\r\nSET a 1\r\nSHUTDOWN\r\n").as_bytes());
        let last = replies.lines().last().unwrap();
        assert_eq!(last, "ERR http this is not a web server; the connection closes", "{head}");
    }
    assert_eq!(server.talk(b"GET a\n"), "NOT_FOUND\n");
}

#[test]
fn nothing_after_quit_is_executed() {
    let (_dir, server) = start(&[]);
    assert_eq!(server.talk(b"QUIT\nSET a 1\n"), "OK\n");
    assert_eq!(server.talk(b"GET a\n"), "NOT_FOUND\n");
}

#[test]
fn shutdown_frees_port_and_directory() {
    let (dir, server) = start(&["--fsync", "never"]);
    let mut idle = server.connect();
    let addr = server.addr;
    assert_eq!(server.talk(b"SET a 1\nSHUTDOWN\nSET a 2\n"), "OK\nOK\n");
    assert!(TcpStream::connect(addr).is_err(), "the port is free");
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    assert!(server.wait().0.success());
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.talk(b"GET a\n"), "VALUE 1\n");
}

#[test]
fn an_unfinished_line_delays_nobody() {
    let (_dir, server) = start(&[]);
    let _idle = server.connect();
    let mut half = server.connect();
    half.write_all(b"SET half ").unwrap();
    assert_eq!(server.client("set a 1"), printed(""));
    assert_eq!(server.client("get a --timeout 5"), printed("1\n"));
    half.write_all(b"typed\nQUIT\n").unwrap();
    let mut replies = String::new();
    half.read_to_string(&mut replies).unwrap();
    assert_eq!(replies, "OK\nOK\n");
    assert_eq!(server.client("get half"), printed("typed\n"));
}

#[test]
fn a_client_that_never_reads_delays_nobody() {
    let (_dir, server) = start(&[]);
    let value = "v".repeat(500_000);
    server.talk(format!("SET big {value}\n").as_bytes());
    let mut greedy = server.connect();
    greedy.set_write_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    let requests = "GET big\n".repeat(10_000);
    // Five gigabytes of replies: the server stops reading long before.
    while greedy.write_all(requests.as_bytes()).is_ok() {}
    assert_eq!(server.talk(b"GET none\n"), "NOT_FOUND\n");
    let mut first = vec![0; 6 + value.len() + 1];
    greedy.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"VALUE vvv") && first.ends_with(b"v\n"));
}

#[test]
fn one_client_too_many_is_refused() {
    let (_dir, server) = start(&["--max-clients", "2"]);
    let (first, mut second) = (server.connect(), server.connect());
    second.write_all(b"PING\n").unwrap();
    second.read_exact(&mut [0; 5]).unwrap();
    let busy = "ERR busy the server has 2 clients, which is its limit\n";
    assert_eq!(server.talk(b"PING\n"), busy);
    drop(first);
    await_that("a free slot", || server.talk(b"PING\n") == "PONG\n");
}

#[test]
fn abrupt_disconnects_leave_nothing_behind() {
    let (_dir, server) = start(&["--fsync", "never"]);
    for round in 0..300 {
        let mut stream = server.connect();
        let _ = stream.write_all(&b"SET a 1\nGET a\nGET"[..round % 17]);
        if round % 3 == 0 {
            // Closing with replies unread resets the connection.
            let _ = stream.write_all(&b"PING\n".repeat(100));
        }
    }
    let is_alone = || server.talk(b"STATS\n").contains(" clients=1 ");
    await_that("the end of all other clients", is_alone);
}

#[test]
fn json_strings_are_understood_both_ways() {
    let (_dir, server) = start(&[]);
    // Output of Python's json.dumps, with and without ensure_ascii.
    for (sent, returned) in [
        (r#""k\u00e9""#, "k\u{e9}"),
        (r#""a\/b\ud83d\ude00""#, "a/b\u{1f600}"),
        ("\"\u{7f}\u{9b} \\u0000\"", r#""\u007f\u009b \u0000""#),
        (r#""\b\f\n\r\t\"\\""#, r#""\b\f\n\r\t\"\\""#),
    ] {
        let replies = server.talk(format!("SET a {sent}\nGET a\n").as_bytes());
        assert_eq!(replies, format!("OK\nVALUE {returned}\n"));
    }
    for lone in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx""#, r#""\x41""#, r#""\u{e9}""#] {
        assert!(server.talk(format!("SET a {lone}\n").as_bytes()).starts_with("ERR syntax "));
    }
}

#[test]
fn stats_names_engine_policy_version_and_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b");
    std::fs::create_dir(&path).unwrap();
    let server = Server::start(&path, &["--fsync", "never"]);
    let stats = server.talk(b"STATS\n");
    let version = env!("CARGO_PKG_VERSION");
    assert!(stats.starts_with(&format!("STATS version={version} engine=kvs fsync=never ")));
    assert!(stats.contains(&format!(" directory=\"{}", path.canonicalize().unwrap().display())));
}
