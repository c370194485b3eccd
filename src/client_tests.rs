//! The client against servers that answer what a script says.

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
fn a_reply_may_come_byte_by_byte() {
    let bytes: Vec<[u8; 1]> = b"VALUE \"x y\"\r\n".iter().map(|byte| [*byte]).collect();
    let pieces: Vec<&[u8]> = bytes.iter().map(|piece| &piece[..]).collect();
    assert_eq!(get(&pieces).unwrap(), Some("x y".to_owned()));
    assert_eq!(get(&[b"NOT_FOUND\n"]).unwrap(), None);
}

#[test]
fn what_is_no_answer_is_an_error_that_says_so() {
    let cut = "closed the connection before it answered | unexpected end of file";
    assert!(messages(get(&[])).ends_with(cut));
    assert!(messages(get(&[b"VALUE x"])).ends_with(cut));
    let junk = "not a kvs server's answer: it begins 'HTTP/1.1 400'";
    assert_eq!(messages(get(&[b"HTTP/1.1 400\r\n"])), junk);
    let other = "not a kvs server's answer: PONG does not answer that request";
    assert_eq!(messages(get(&[b"PONG\n"])), other);
}

#[test]
fn a_reply_ends_within_its_limit_or_is_an_error_that_names_it() {
    let (addr, server) = scripted(b"PING\n", vec![vec![b'x'; 101]]);
    let mut client = KvsClient::connect(addr).unwrap();
    client.reply_bytes_max = 100;
    let expected = "an unfinished reply of 101 bytes is over the limit of 100";
    assert_eq!(messages(client.ping()), expected);
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_value_comes_back_that_only_a_server_of_long_lines_can_hold() {
    let value = "v".repeat(65 << 20);
    let reply = format!("VALUE {value}\n");
    assert!(get(&[reply.as_bytes()]).unwrap() == Some(value));
}

#[test]
fn every_method_refuses_the_reply_to_another_request() {
    type Call = fn(KvsClient) -> Result<()>;
    let calls: [(&'static [u8], &[u8], Call); 7] = [
        (b"SET a 1\n", b"PONG\n", |mut client| client.set("a", "1")),
        (b"GET a\n", b"OK\n", |mut client| client.get("a").map(|_| ())),
        (b"RM a\n", b"PONG\n", |mut client| client.remove("a")),
        (b"AUTH a\n", b"PONG\n", |mut client| client.authenticate("a")),
        (b"PING\n", b"OK\n", |mut client| client.ping()),
        (b"STATS\n", b"OK\n", |mut client| client.stats().map(|_| ())),
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
fn a_servers_error_comes_with_its_code_and_causes() {
    let error = get(&[b"ERR storage cannot append; caused by: no space\n"]).unwrap_err();
    assert!(matches!(error, KvsError::Server { code: Code::Storage, .. }));
    assert_eq!(error.chain(), ["the server answered storage: cannot append: no space"]);
}

#[test]
fn a_silent_server_ends_in_an_error_and_the_connection_is_not_used_again() {
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
fn shutdown_waits_for_the_end_of_the_connection() {
    let (addr, server) = scripted(b"SHUTDOWN\n", vec![b"OK\n".to_vec()]);
    KvsClient::connect(addr).unwrap().shutdown().unwrap();
    server.join().unwrap();
    let (addr, server) = scripted(b"SHUTDOWN\n", vec![b"OK\nOK\n".to_vec()]);
    let error = messages(KvsClient::connect(addr).unwrap().shutdown());
    assert!(error.ends_with("more came after the last reply"), "{error}");
    server.join().unwrap();
}

#[test]
fn a_connection_that_breaks_is_told_with_its_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        // With input unread, its end is a reset.
        stream.peek(&mut [0]).unwrap();
    });
    let error = messages(KvsClient::connect(addr).unwrap().ping());
    assert!(error.starts_with(&format!("cannot read from {addr} | ")), "{error}");
    server.join().unwrap();
}

#[test]
fn what_a_server_said_before_it_hung_up_is_told_also_if_the_request_cannot_be_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = KvsClient::connect(listener.local_addr().unwrap()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"ERR busy too many\n").unwrap();
    drop(stream);
    let error = client.set("a", "v".repeat(32 << 20)).unwrap_err();
    assert!(matches!(error, KvsError::Server { code: Code::Busy, .. }), "{error:?}");
}

#[test]
fn a_whole_window_and_no_more_is_sent_before_its_replies_are_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).unwrap();
        sent.len()
    });
    let request = Request::Get { key: "0123456789a".into() };
    let mut client = KvsClient::connect(addr).unwrap();
    let error = messages(client.pipeline(&vec![request; 1 + WINDOW_BYTES_MAX / 16]));
    assert!(error.contains("closed the connection before it answered"), "{error}");
    drop(client);
    assert_eq!(server.join().unwrap(), WINDOW_BYTES_MAX);
}

/// A server that answers each line only once it has it, and reads no more
/// than a window ahead.
#[test]
fn a_pipeline_goes_in_windows_and_keeps_order() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = io::BufRead::lines(io::BufReader::new(stream.try_clone().unwrap()));
        let mut stream = stream;
        while let Some(Ok(line)) = lines.next() {
            let key = line.rsplit(' ').next().unwrap();
            stream.write_all(format!("VALUE {key}\n").as_bytes()).unwrap();
        }
    });
    let mut client = KvsClient::connect(addr).unwrap();
    let big = "x".repeat(3 * WINDOW_BYTES_MAX);
    let keys: Vec<String> =
        (0..2_000).map(|nth| if nth % 500 == 9 { big.clone() } else { nth.to_string() }).collect();
    let requests: Vec<Request> = keys.iter().map(|key| Request::Get { key: key.into() }).collect();
    let expected: Vec<Reply> = keys.iter().cloned().map(Reply::Value).collect();
    assert_eq!(client.pipeline(&requests).unwrap(), expected);
    assert_eq!(client.pipeline(&[]).unwrap(), []);
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_timeout_without_a_limit_works() {
    let (addr, server) = scripted(b"PING\n", vec![b"PONG\n".to_vec()]);
    KvsClient::connect_with(addr, Duration::MAX).unwrap().ping().unwrap();
    server.join().unwrap();
}
