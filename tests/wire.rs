//! The protocol over real sockets: netcat sessions from files, lines cut at
//! every byte, junk, and peers that half-close, idle, or ask for too much.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;

use support::{Server, await_that, printed};

/// A server on a new directory, which goes with it.
fn start(flags: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), flags);
    (dir, server)
}

/// Plays a transcript: sends what stands behind `> ` a line at a time, and
/// compares each reply with what stands behind `< `.
fn play(server: &Server, transcript: &str) {
    let mut replies = BufReader::new(server.connect());
    for line in transcript.lines() {
        if let Some(request) = line.strip_prefix("> ") {
            replies.get_mut().write_all(format!("{request}\r\n").as_bytes()).unwrap();
        } else if let Some(expected) = line.strip_prefix("< ") {
            let mut reply = String::new();
            replies.read_line(&mut reply).unwrap();
            assert_eq!(reply.trim_end_matches('\n'), expected, "in\n{transcript}");
        }
    }
}

#[test]
fn transcripts_are_what_happens() {
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
fn the_session_of_the_readme_is_what_happens() {
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
fn lines_may_come_cut_at_every_byte_or_all_at_once() {
    let requests = "SET a \"x y\"\r\nGET a\n\n\r\nGET b\r\nFROB\nRM a\nPING\n".as_bytes();
    let replies = "OK\nVALUE \"x y\"\nNOT_FOUND\n\
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
fn a_line_cut_off_by_the_end_is_never_carried_out() {
    let (_dir, server) = start(&[]);
    let replies = server.talk(b"SET a 1\nSET a 2");
    let fault = "ERR incomplete the input ended within this line, so it was not carried out\n";
    assert_eq!(replies, format!("OK\n{fault}"));
    assert_eq!(server.talk(b"GET a\n"), "VALUE 1\n");
}

#[test]
fn a_line_that_is_too_long_is_skipped() {
    let (_dir, server) = start(&["--max-line", "64"]);
    let fault = "ERR too-long the line is longer than the limit of 64 bytes\n";
    for len in [65, 66, 1_000, 200_000] {
        let line = "x".repeat(len);
        let requests = format!("SET a 1\n{line}\nGET a\n{line}\r\nGET a\n");
        let replies = server.talk(requests.as_bytes());
        assert_eq!(replies, format!("OK\n{fault}VALUE 1\n{fault}VALUE 1\n"), "{len}");
    }
    let longest = format!("SET a {}", "x".repeat(58));
    assert_eq!(server.talk(format!("{longest}\r\n{longest}\n").as_bytes()), "OK\nOK\n");
}

#[test]
fn ten_gets_of_a_large_value_all_come_back_after_a_half_close() {
    let (_dir, server) = start(&["--max-line", "2M"]);
    let value = "v".repeat(1_000_000);
    assert_eq!(server.talk(format!("SET big {value}\n").as_bytes()), "OK\n");
    let replies = server.talk("GET big\n".repeat(10).as_bytes());
    assert!(replies == format!("VALUE {value}\n").repeat(10), "{} bytes", replies.len());
}

#[test]
fn junk_is_answered_line_by_line_and_never_stops_the_server() {
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
fn a_web_page_cannot_drive_the_server() {
    let (_dir, server) = start(&[]);
    for head in ["POST / HTTP/1.1", "GET / HTTP/1.1", "Host: 127.0.0.1"] {
        let replies = server.talk(format!("{head}\r\nSET a 1\r\nSHUTDOWN\r\n").as_bytes());
        assert_eq!(replies, "ERR http this is no web server; the connection ends\n", "{head}");
    }
    assert_eq!(server.talk(b"GET a\n"), "NOT_FOUND\n");
}

#[test]
fn a_web_page_cannot_drive_the_server_by_lines_that_are_too_long() {
    let (_dir, server) = start(&["--max-line", "64"]);
    let (path, name) = ("x".repeat(100), "x".repeat(5_000));
    let heads = [
        format!("POST /{path} HTTP/1.1\r\nHost: {path}"),
        format!("GET /{path} HTTP/1.1\r\nhost: {name}.localhost"),
    ];
    for head in heads {
        let replies = server.talk(format!("{head}\r\nSET a 1\r\nSHUTDOWN\r\n").as_bytes());
        let last = replies.lines().last().unwrap();
        assert_eq!(last, "ERR http this is no web server; the connection ends", "{head}");
    }
    assert_eq!(server.talk(b"GET a\n"), "NOT_FOUND\n");
}

#[test]
fn nothing_after_quit_is_looked_at() {
    let (_dir, server) = start(&[]);
    assert_eq!(server.talk(b"QUIT\nSET a 1\n"), "OK\n");
    assert_eq!(server.talk(b"GET a\n"), "NOT_FOUND\n");
}

#[test]
fn shutdown_is_answered_when_all_is_over() {
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
fn an_idle_client_and_half_a_line_make_nobody_wait() {
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
fn a_client_that_does_not_read_is_not_read_and_costs_the_others_nothing() {
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
fn one_client_too_many_is_told_so() {
    let (_dir, server) = start(&["--max-clients", "2"]);
    let (first, mut second) = (server.connect(), server.connect());
    second.write_all(b"PING\n").unwrap();
    second.read_exact(&mut [0; 5]).unwrap();
    let busy = "ERR busy the server serves 2 clients, which is its limit\n";
    assert_eq!(server.talk(b"PING\n"), busy);
    drop(first);
    await_that("a free place", || server.talk(b"PING\n") == "PONG\n");
}

#[test]
fn peers_that_vanish_leave_nothing_behind() {
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
