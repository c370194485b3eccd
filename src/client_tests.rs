//! The client against servers that send scripted replies.

use super::*;
use crate::protocol::Code;
use std::net::{Shutdown, TcpListener};
use std::thread::{self, JoinHandle};

/// A server that reads `expected`, sends each of `pieces`, and closes.
fn scripted(expected: &'static [u8], pieces: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; expected.len()];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(request, expected);
        for piece in pieces {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; 64]);
    });
    (addr, server)
}

/// What `get a` returns when the server answers with these pieces.
fn get(pieces: &[&[u8]]) -> Result<Option<String>> {
    let (addr, server) = scripted(b"GET a\n", pieces.iter().map(|p| p.to_vec()).collect());
    let mut client = KvsClient::connect(addr).unwrap();
    let value = client.get("a");
    drop(client);
    server.join().unwrap();
    value
}

/// The messages of an error.
fn messages<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().chain().join(" | ")
}

#[test]
fn replies_may_arrive_byte_by_byte() {
    let bytes: Vec<[u8; 1]> = b"VALUE \"x y\"\r\n".iter().map(|byte| [*byte]).collect();
    let pieces: Vec<&[u8]> = bytes.iter().map(|piece| &piece[..]).collect();
    assert_eq!(get(&pieces).unwrap(), Some("x y".to_owned()));
    assert_eq!(get(&[b"NOT_FOUND\n"]).unwrap(), None);
}

#[test]
fn invalid_replies_are_errors() {
    let cut = "closed the connection before it answered | unexpected end of file";
    assert!(messages(get(&[])).ends_with(cut));
    assert!(messages(get(&[b"VALUE x"])).ends_with(cut));
    let junk = "no valid reply from a kvs server: it begins 'HTTP/1.1 400'";
    assert_eq!(messages(get(&[b"HTTP/1.1 400\r\n"])), junk);
    let other = "no valid reply from a kvs server: the reply does not answer that request";
    assert_eq!(messages(get(&[b"PONG\n"])), other);
}

#[test]
fn an_endless_reply_is_an_error() {
    for (len, expected) in [
        (100, "closed the connection before it answered | unexpected end of file"),
        (101, "an unfinished reply of 101 bytes is over the limit of 100"),
    ] {
        let (addr, server) = scripted(b"PING\n", vec![vec![b'x'; len]]);
        let mut client = KvsClient::connect(addr).unwrap();
        client.reply_bytes_max = 100;
        assert!(messages(client.ping()).ends_with(expected), "{len} bytes");
        drop(client);
        server.join().unwrap();
    }
}

#[test]
fn a_very_long_value_is_received() {
    let value = "v".repeat(65 << 20);
    let reply = format!("VALUE {value}\n");
    assert!(get(&[reply.as_bytes()]).unwrap() == Some(value));
}

/// Only Linux tells a reset connection from one that was closed.
#[cfg(target_os = "linux")]
#[test]
fn a_reset_connection_is_an_error_of_sending() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = KvsClient::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.stream.get_mut().stream.write_all(b"PING\n").unwrap();
    server.peek(&mut [0]).unwrap();
    // Closed with input that was not read, it resets the connection.
    drop(server);
    let error = messages(client.ping());
    assert!(error.starts_with("cannot send to "), "{error}");
}

#[test]
fn replies_to_other_requests_are_errors() {
    type Call = fn(KvsClient) -> Result<()>;
    let calls: [(&'static [u8], &[u8], Call); 9] = [
        (b"SET a 1\n", b"PONG\n", |mut client| client.set("a", "1")),
        (b"GET a\n", b"OK\n", |mut client| client.get("a").map(|_| ())),
        (b"RM a\n", b"PONG\n", |mut client| client.remove("a")),
        (b"AUTH a\n", b"PONG\n", |mut client| client.authenticate("a")),
        (b"PING\n", b"OK\n", |mut client| client.ping()),
        (b"STATS\n", b"OK\n", |mut client| client.stats().map(|_| ())),
        (b"SCAN\n", b"OK\n", |mut client| client.scan(None).map(|_| ())),
        (b"SCAN a\n", b"OK\n", |mut client| client.scan(Some("a")).map(|_| ())),
        (b"SHUTDOWN\n", b"PONG\n", |client| client.shutdown()),
    ];
    for (request, reply, call) in calls {
        let (addr, server) = scripted(request, vec![reply.to_vec()]);
        let error = messages(call(KvsClient::connect(addr).unwrap()));
        assert!(error.ends_with(" does not answer that request"), "{request:?}: {error}");
        server.join().unwrap();
    }
}

#[test]
fn server_errors_have_code_and_causes() {
    let error = get(&[b"ERR storage cannot append; caused by: no space\n"]).unwrap_err();
    assert!(matches!(error, KvsError::Server { code: Code::Storage, .. }));
    assert_eq!(error.chain(), ["the server answered storage: cannot append: no space"]);
}

#[test]
fn a_silent_server_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut client = KvsClient::connect_with(addr, Duration::from_millis(50)).unwrap();
    assert_eq!(messages(client.ping()), format!("{addr} did not answer within 50ms | timed out"));
    assert!(messages(client.ping()).contains("an earlier error has broken the connection"));
}

#[test]
fn a_refused_connection_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let error = messages(KvsClient::connect(addr));
    assert!(error.starts_with(&format!("cannot connect to {addr} | ")), "{error}");
}

#[test]
fn shutdown_waits_until_the_connection_closes() {
    let (addr, server) = scripted(b"SHUTDOWN\n", vec![b"OK\n".to_vec()]);
    KvsClient::connect(addr).unwrap().shutdown().unwrap();
    server.join().unwrap();
    let (addr, server) = scripted(b"SHUTDOWN\n", vec![b"OK\nOK\n".to_vec()]);
    let error = messages(KvsClient::connect(addr).unwrap().shutdown());
    assert!(error.ends_with(" does not answer that request"), "{error}");
    server.join().unwrap();
}

#[test]
fn a_reset_connection_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        // Closing a socket with unread input resets the connection.
        stream.peek(&mut [0]).unwrap();
    });
    let error = messages(KvsClient::connect(addr).unwrap().ping());
    assert!(error.starts_with(&format!("cannot read from {addr} | ")), "{error}");
    server.join().unwrap();
}

#[test]
fn a_reply_before_the_close_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = KvsClient::connect(listener.local_addr().unwrap()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"ERR busy too many\n").unwrap();
    drop(stream);
    let error = client.set("a", "v".repeat(32 << 20)).unwrap_err();
    assert!(matches!(error, KvsError::Server { code: Code::Busy, .. }), "{error:?}");
}

#[test]
fn at_most_one_window_is_unanswered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).unwrap();
        sent.len()
    });
    let lines = b"GET 0123456789a\n".repeat(1 + WINDOW_BYTES_MAX / 16);
    let mut client = KvsClient::connect(addr).unwrap();
    let error = messages(client.pipeline(&lines, |_, _| Ok::<_, KvsError>(())));
    assert!(error.contains("closed the connection before it answered"), "{error}");
    drop(client);
    assert_eq!(server.join().unwrap(), WINDOW_BYTES_MAX);
}

/// A server that answers each line as soon as it has read it.
fn echo() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for line in lines.map_while(io::Result::ok) {
            let key = line.trim_end().rsplit(' ').next().unwrap();
            stream.write_all(format!("VALUE {key}\r\n").as_bytes()).unwrap();
        }
    });
    (addr, server)
}

#[test]
fn a_pipeline_keeps_its_order() {
    let (addr, server) = echo();
    let mut client = KvsClient::connect(addr).unwrap();
    let big = "x".repeat(3 * WINDOW_BYTES_MAX);
    let keys: Vec<String> =
        (0..4_000).map(|nth| if nth % 500 == 9 { big.clone() } else { nth.to_string() }).collect();
    let lines: String = keys.iter().map(|key| format!("\r\nGET {key}\n")).collect();
    let mut replies = Vec::new();
    let each = |number, reply: &[u8]| {
        replies.push((number, String::from_utf8(reply.to_vec()).unwrap()));
        Ok::<_, KvsError>(())
    };
    client.pipeline(lines.as_bytes(), each).unwrap();
    let expected: Vec<(usize, String)> =
        keys.iter().enumerate().map(|(nth, key)| (2 * nth + 1, format!("VALUE {key}"))).collect();
    assert!(replies == expected);
    client.pipeline(b"", |_, _| -> Result<()> { panic!("there is no line") }).unwrap();
    assert_eq!(client.get("a").unwrap().as_deref(), Some("a"));
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_failed_callback_breaks_the_connection() {
    let (addr, server) = echo();
    let mut client = KvsClient::connect(addr).unwrap();
    let failed = client.pipeline(b"GET a\nGET b\n", |_, _| Err(KvsError::KeyNotFound));
    assert!(matches!(failed, Err(KvsError::KeyNotFound)));
    assert!(messages(client.get("c")).contains("an earlier error has broken the connection"));
    drop(client);
    server.join().unwrap();
}

#[test]
fn keys_are_listed_page_by_page() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let pages = [
            ("SCAN", "KEYS \"-\" a \"b c\""),
            ("SCAN -", "KEYS n"),
            ("SCAN n", "KEYS - d"),
            ("SCAN", "ERR storage broken"),
        ];
        for ((request, reply), line) in pages.into_iter().zip(lines) {
            assert_eq!(line.unwrap(), request);
            stream.write_all(format!("{reply}\n").as_bytes()).unwrap();
        }
    });
    let mut client = KvsClient::connect(addr).unwrap();
    let keys: Vec<String> = client.keys().map(Result::unwrap).collect();
    assert_eq!(keys, ["a", "b c", "d"]);
    let mut keys = client.keys();
    assert!(matches!(keys.next(), Some(Err(KvsError::Server { code: Code::Storage, .. }))));
    assert!(keys.next().is_none());
    server.join().unwrap();
}

#[test]
fn the_longest_timeout_has_no_limit() {
    let (addr, server) = echo();
    let mut client = KvsClient::connect_with(addr, Duration::MAX).unwrap();
    assert_eq!(client.get("a").unwrap().as_deref(), Some("a"));
    drop(client);
    server.join().unwrap();
}

#[test]
fn every_address_of_a_name_is_tried() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (open, server) = echo();
    let mut client = KvsClient::connect(&[closed, open][..]).unwrap();
    assert_eq!(client.get("a").unwrap().as_deref(), Some("a"));
    drop(client);
    server.join().unwrap();
    let error = messages(KvsClient::connect(&[][..]));
    assert!(error.starts_with("cannot resolve the server's address"), "{error}");
}

/// A client with a short timeout, the other end of its connection, and its error when the
/// server takes too long.
fn impatient() -> (KvsClient, TcpStream, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let client = KvsClient::connect_with(addr, Duration::from_millis(200)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    (client, stream, format!("{addr} did not answer within 200ms | timed out"))
}

#[test]
fn shutdown_waits_for_the_end_no_longer_than_the_timeout() {
    let (client, mut stream, error) = impatient();
    stream.write_all(b"OK\n").unwrap();
    assert_eq!(messages(client.shutdown()), error);
}

/// The server sends for longer than the timeout, and then closes.
#[test]
fn a_reply_that_trickles_is_a_timeout() {
    let (mut client, mut stream, error) = impatient();
    let server = thread::spawn(move || {
        for _ in 0..5_000 {
            if stream.write_all(b"x").is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(messages(client.ping()), error);
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_server_that_does_not_read_is_a_timeout() {
    let (mut client, _stream, error) = impatient();
    assert_eq!(messages(client.set("a", "v".repeat(64 << 20))), error);
}
