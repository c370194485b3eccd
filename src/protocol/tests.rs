//! Every verb, reply and fault, encoded and decoded.

use std::borrow::Cow;

use super::*;
use crate::KvsError;

/// A request's line, its ending cut off.
fn request_line(request: &Request) -> String {
    let mut out = Vec::new();
    encode_request(request, &mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    String::from_utf8(out).unwrap()
}

/// A reply's line, its ending cut off.
fn reply_line(reply: &Reply) -> String {
    let mut out = Vec::new();
    encode_reply(reply, LineEnding::Lf, &mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    String::from_utf8(out).unwrap()
}

/// A page of a scan.
fn page(next: Option<&str>, keys: &[&str]) -> Reply {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    Reply::Keys { next: next.map(str::to_owned), keys }
}

/// Owned names and values.
fn stats(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The fault of a line, as the server would answer it.
fn fault(line: &[u8]) -> String {
    let fault = decode_request(line).unwrap_err();
    assert_eq!(fault.closes(), fault.code == Code::Http);
    reply_line(&Reply::Error(fault))
}

#[test]
fn every_request_has_its_line() {
    let (key, value) = (Cow::Borrowed("a b"), Cow::Borrowed("1"));
    for (request, line) in [
        (Request::Set { key: key.clone(), value }, "SET \"a b\" 1"),
        (Request::Get { key: key.clone() }, "GET \"a b\""),
        (Request::Remove { key: key.clone() }, "RM \"a b\""),
        (Request::Scan { cursor: None }, "SCAN"),
        (Request::Scan { cursor: Some(key) }, "SCAN \"a b\""),
        (Request::Ping, "PING"),
        (Request::Stats, "STATS"),
        (Request::Auth { token: "a b".into() }, "AUTH \"a b\""),
        (Request::Help, "HELP"),
        (Request::Quit, "QUIT"),
        (Request::Shutdown, "SHUTDOWN"),
    ] {
        assert_eq!(request_line(&request), line);
        assert_eq!(decode_request(line.as_bytes()), Ok(request.clone()));
        let lower = format!(" \t{} \t", line.to_lowercase());
        assert_eq!(decode_request(lower.as_bytes()), Ok(request));
    }
}

#[test]
fn every_reply_has_its_line() {
    let fault = Fault { code: Code::Storage, messages: vec!["a: b".to_owned(), "c".to_owned()] };
    for (reply, line) in [
        (Reply::Ok, "OK"),
        (Reply::Value("x y".to_owned()), "VALUE \"x y\""),
        (Reply::Value(String::new()), "VALUE \"\""),
        (Reply::NotFound, "NOT_FOUND"),
        (Reply::Pong, "PONG"),
        (
            Reply::Stats(stats(&[("keys", "1"), ("directory", "/a b=\"c"), ("engine", "")])),
            r#"STATS keys=1 directory="/a b=\"c" engine="""#,
        ),
        (page(None, &[]), "KEYS -"),
        (page(None, &["-", "a b", ""]), "KEYS - - \"a b\" \"\""),
        (page(Some("c 1"), &["a"]), "KEYS \"c 1\" a"),
        (page(Some("-"), &["a"]), "KEYS \"-\" a"),
        (Reply::Stats(vec![]), "STATS"),
        (Reply::Help(HELP.to_owned()), &format!("HELP {HELP}")),
        (Reply::Error(fault), "ERR storage a: b; caused by: c"),
    ] {
        assert_eq!(reply_line(&reply), line);
        assert_eq!(decode_reply(line.as_bytes()).unwrap(), reply);
    }
}

#[test]
fn a_line_ends_as_asked() {
    for (line, text, ending) in [
        (&b"OK\r"[..], &b"OK"[..], LineEnding::CrLf),
        (b"OK", b"OK", LineEnding::Lf),
        (b"\r\r", b"\r", LineEnding::CrLf),
    ] {
        assert_eq!(LineEnding::split(line), (text, ending));
    }
    let mut out = Vec::new();
    encode_reply(&Reply::Ok, LineEnding::CrLf, &mut out);
    encode_reply(&Reply::Pong, LineEnding::Lf, &mut out);
    assert_eq!(out, b"OK\r\nPONG\n");
}

#[test]
fn every_code_is_read_as_it_is_written() {
    for (code, _) in Code::NAMES {
        let reply = Reply::Error(Fault::new(code, "m"));
        assert_eq!(decode_reply(reply_line(&reply).as_bytes()).unwrap(), reply);
    }
}

#[test]
fn faults_say_what_is_wrong() {
    for (line, expected) in [
        (&b"GET"[..], "ERR syntax usage: GET key"),
        (b"GET a b", "ERR syntax usage: GET key"),
        (b"SET a", "ERR syntax usage: SET key value"),
        (b"rm", "ERR syntax usage: RM key"),
        (b"Auth a b", "ERR syntax usage: AUTH token"),
        (b"PING x", "ERR syntax usage: PING"),
        (b"STATS x", "ERR syntax usage: STATS"),
        (b"HELP x", "ERR syntax usage: HELP"),
        (b"QUIT x", "ERR syntax usage: QUIT"),
        (b"SHUTDOWN x", "ERR syntax usage: SHUTDOWN"),
        (b"SET a \"b", "ERR syntax a quoted word has no closing quote"),
        (b"SCAN a b", "ERR syntax usage: SCAN [cursor]"),
        (b" \t ", "ERR syntax the line has no verb; HELP lists them"),
        (b"FOO\x1b a", "ERR unknown-verb no verb is called 'FOO\\u001b'; HELP lists them"),
        (
            b"GET \xff",
            "ERR utf8 the line is not UTF-8 from byte 5 on; store binary data as text, such as base64",
        ),
        (b"GET a\rb", "ERR syntax a control character at byte 6; escape it"),
    ] {
        assert_eq!(fault(line), expected);
    }
    let long = fault("X".repeat(1_000).as_bytes());
    assert_eq!(
        long,
        format!("ERR unknown-verb no verb is called '{}'; HELP lists them", "X".repeat(32))
    );
}

#[test]
fn http_ends_the_connection_unless_it_is_a_request() {
    for line in [
        &b"GET / HTTP/1.1"[..],
        b"POST",
        b"POST / x",
        b"Host: localhost:4000",
        b"host: x",
        b"OPTIONS * HTTP/1.1",
        b"\xff HTTP/1.0",
    ] {
        assert!(fault(line).starts_with("ERR http "), "{line:?}");
    }
    assert!(decode_request(b"SET proto HTTP/1.1").is_ok());
    assert!(decode_request(b"GET HTTP/1.1").is_ok());
    assert!(fault(b"GET a HTTP").starts_with("ERR syntax "));
}

#[test]
fn no_message_can_forge_a_line() {
    let reply = Reply::Error(Fault::new(Code::Storage, "a\nOK\u{9b}"));
    assert_eq!(reply_line(&reply), "ERR storage a\\nOK\\u009b");
}

#[test]
fn what_is_no_reply_is_refused() {
    for line in [
        &b""[..],
        b"OK x",
        b"OK ",
        b"PONG  ",
        b"NOT_FOUND\t",
        b"NOT_FOUND \t",
        b"VALUE",
        b"VALUE a ",
        b"VALUE a b",
        b"VALUE \"",
        b"STATS a",
        b"STATS a=\"",
        b"STATS =",
        b"STATS ",
        b"STATS a=1 ",
        b"KEYS",
        b"KEYS - ",
        b"KEYS - a\t",
        b"KEYS \"",
        b"ERR",
        b"ERR what x",
        b"ok",
        b"+OK",
        b"HTTP/1.1 400 Bad Request",
        b"\xff",
    ] {
        assert!(matches!(decode_reply(line), Err(KvsError::BadReply { .. })), "{line:?}");
    }
}

#[test]
fn an_escape_is_at_most_six_times_longer() {
    for char in '\0'..=char::MAX {
        let reply = reply_line(&Reply::Value(char.to_string()));
        let most = "VALUE \"\"".len() + ESCAPE_FACTOR_MAX * char.len_utf8();
        assert!(reply.len() <= most, "{char:?}");
    }
}

#[test]
fn engine_errors_have_codes() {
    let too_large = KvsError::TooLarge { what: "a key", len: 9, max: 8 };
    assert_eq!(Fault::from(&too_large).code, Code::TooLong);
    assert_eq!(Fault::from(&KvsError::BadCursor("x".to_owned())).code, Code::Syntax);
    let refused = KvsError::Failed { cause: "why".to_owned() };
    assert_eq!(Fault::from(&refused).code, Code::Storage);
}

#[test]
fn any_bytes_decode_without_a_panic() {
    let mut random = 1u64;
    let pieces: [&[u8]; 12] = [
        b"SET", b" ", b"\t", b"\"", b"\\", b"\\ud83d", b"\\ude00", b"\r", b"\0", b"\xc2", b"\x9b",
        b"a",
    ];
    for _ in 0..50_000 {
        let mut line = b"SET ".to_vec();
        for _ in 0..10 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            line.extend_from_slice(pieces[(random >> 33) as usize % pieces.len()]);
        }
        if let Ok(request) = decode_request(&line) {
            let again = request_line(&request);
            assert_eq!(decode_request(again.as_bytes()), Ok(request));
        }
        let _ = decode_reply(&line);
    }
}
