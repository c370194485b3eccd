//! `KvsClient`: one connection to a server, blocking, for any number of
//! requests.
//!
//! Not here: printing, retries, and the form of a line
//! ([`protocol`](crate::protocol)).
//!
//! Invariants:
//! * Every wait ends: connecting, and each window of requests with its replies,
//!   takes no longer than the timeout, however the bytes drip in.
//! * A reply is never taken for that of another request. After an error that
//!   leaves the connection between two lines it is not used again.
//! * Sending cannot block for good on a server that waits to be read from: no
//!   more than [`WINDOW_BYTES_MAX`] of requests, or a single one, are unanswered.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::error::{KvsError, Result, ServerMessage};
use crate::protocol::{Reply, Request, decode_reply, encode_request};

/// How long a request may take, unless set otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of pipelined requests that are sent before their replies are read:
/// less than any socket's buffers, so that sending them never waits for long.
const WINDOW_BYTES_MAX: usize = 8 << 10;
/// Bytes of a reply: a value of the largest line, escaped at its worst.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// A connection to a server.
///
/// ```no_run
/// use kvs::KvsClient;
///
/// # fn main() -> kvs::Result<()> {
/// let mut client = KvsClient::connect("127.0.0.1:4000".parse().unwrap())?;
/// client.set("key", "value")?;
/// assert_eq!(client.get("key")?, Some("value".to_owned()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KvsClient {
    /// The connection.
    stream: TcpStream,
    /// The server's address, for messages.
    addr: SocketAddr,
    /// How long a window of requests may take.
    timeout: Duration,
    /// Bytes that were received and not taken as a reply yet.
    inbox: Vec<u8>,
    /// Whether an error has left the connection between two lines.
    is_broken: bool,
}

impl KvsClient {
    /// Connects to a server; a request may take [`TIMEOUT`].
    pub fn connect(addr: SocketAddr) -> Result<KvsClient> {
        KvsClient::connect_with(addr, TIMEOUT)
    }

    /// Connects to a server; connecting, and then each request, may take `timeout`.
    pub fn connect_with(addr: SocketAddr, timeout: Duration) -> Result<KvsClient> {
        let context = || format!("cannot connect to {addr}");
        let stream = TcpStream::connect_timeout(&addr, timeout).map_err(KvsError::io(context()))?;
        stream.set_nodelay(true).map_err(KvsError::io(context()))?;
        Ok(KvsClient { stream, addr, timeout, inbox: Vec::new(), is_broken: false })
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) -> Result<()> {
        match self.request(Request::Set { key: key.into(), value: value.into() })? {
            Reply::Ok => Ok(()),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// The value of a key; `None` when it has none.
    pub fn get(&mut self, key: impl Into<String>) -> Result<Option<String>> {
        match self.request(Request::Get { key: key.into() })? {
            Reply::Value(value) => Ok(Some(value)),
            Reply::NotFound => Ok(None),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// [`KvsError::KeyNotFound`] when there is none.
    pub fn remove(&mut self, key: impl Into<String>) -> Result<()> {
        match self.request(Request::Remove { key: key.into() })? {
            Reply::Ok => Ok(()),
            Reply::NotFound => Err(KvsError::KeyNotFound),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// Says the secret that the server was given.
    pub fn authenticate(&mut self, token: impl Into<String>) -> Result<()> {
        match self.request(Request::Auth { token: token.into() })? {
            Reply::Ok => Ok(()),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// Asks whether the server answers.
    pub fn ping(&mut self) -> Result<()> {
        match self.request(Request::Ping)? {
            Reply::Pong => Ok(()),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// The server's figures, each a name and a number.
    pub fn stats(&mut self) -> Result<Vec<(String, u64)>> {
        match self.request(Request::Stats)? {
            Reply::Stats(stats) => Ok(stats),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// Shuts the server down, and returns once it has ended: all is on its disk,
    /// and its address and directory are free.
    pub fn shutdown(mut self) -> Result<()> {
        match self.request(Request::Shutdown)? {
            Reply::Ok => self.await_end(),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// Sends requests without waiting for each reply; the replies, in order.
    ///
    /// # Errors
    ///
    /// A fault that the server answers is among the replies, not an error.
    pub fn pipeline(&mut self, requests: &[Request]) -> Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(requests.len());
        let mut lines = Vec::new();
        let mut unanswered = 0;
        for request in requests {
            let window = lines.len();
            encode_request(request, &mut lines);
            unanswered += 1;
            if lines.len() > WINDOW_BYTES_MAX && unanswered > 1 {
                let rest = lines.split_off(window);
                self.exchange(&lines, unanswered - 1, &mut replies)?;
                lines = rest;
                unanswered = 1;
            }
        }
        self.exchange(&lines, unanswered, &mut replies)?;
        Ok(replies)
    }

    /// Sends one request; its reply, where that is no error.
    fn request(&mut self, request: Request) -> Result<Reply> {
        match self.pipeline(&[request])?.pop() {
            Some(Reply::Error(fault)) => {
                let messages = fault.messages.iter().map(String::as_str);
                Err(KvsError::Server {
                    code: fault.code,
                    source: ServerMessage::from_chain(messages),
                })
            }
            Some(reply) => Ok(reply),
            None => Err(KvsError::BadReply { reason: "there is none".to_owned() }),
        }
    }

    /// The error for a reply that does not answer the request.
    fn unexpected(&mut self, reply: Reply) -> KvsError {
        self.is_broken = true;
        let mut line = Vec::new();
        crate::protocol::encode_reply(&reply, &mut line);
        let word: String = String::from_utf8_lossy(&line).split_whitespace().take(1).collect();
        KvsError::BadReply { reason: format!("{word} does not answer that request") }
    }

    /// Sends lines and reads as many replies as they are to have.
    fn exchange(&mut self, lines: &[u8], count: usize, replies: &mut Vec<Reply>) -> Result<()> {
        if self.is_broken {
            let reason = format!("an earlier error has broken the connection to {}", self.addr);
            return Err(KvsError::BadReply { reason });
        }
        self.is_broken = true;
        let deadline = Instant::now() + self.timeout;
        self.send(lines, deadline)?;
        for _ in 0..count {
            let reply = self.receive(deadline)?;
            replies.push(reply);
        }
        self.is_broken = false;
        Ok(())
    }

    /// Sends all of `bytes`.
    fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<()> {
        while !bytes.is_empty() {
            let left = self.time_left(deadline)?;
            let sent =
                self.stream.set_write_timeout(Some(left)).and_then(|()| self.stream.write(bytes));
            match sent {
                Ok(count) => bytes = &bytes[count..],
                // The server may have said why before it hung up: read that.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => self.check_passing(error, "send to")?,
            }
        }
        Ok(())
    }

    /// Reads one reply.
    fn receive(&mut self, deadline: Instant) -> Result<Reply> {
        let mut scanned = 0;
        loop {
            if let Some(at) = self.inbox[scanned..].iter().position(|byte| *byte == b'\n') {
                let end = scanned + at;
                let line = &self.inbox[..end];
                let reply = decode_reply(line.strip_suffix(b"\r").unwrap_or(line));
                self.inbox.drain(..=end);
                return reply;
            }
            scanned = self.inbox.len();
            if scanned > REPLY_BYTES_MAX {
                let reason = format!("a line of more than {REPLY_BYTES_MAX} bytes");
                return Err(KvsError::BadReply { reason });
            }
            if self.fill(deadline)? == 0 {
                let context = format!("{} closed the connection before it answered", self.addr);
                return Err(KvsError::io(context)(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads what has come; how many bytes, 0 at the end.
    fn fill(&mut self, deadline: Instant) -> Result<usize> {
        let before = self.inbox.len();
        loop {
            let left = self.time_left(deadline)?;
            self.inbox.resize(before + READ_BYTES, 0);
            let read = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(&mut self.inbox[before..]));
            self.inbox.truncate(before + read.as_ref().map_or(0, |count| *count));
            match read {
                Ok(count) => return Ok(count),
                Err(error) => self.check_passing(error, "read from")?,
            }
        }
    }

    /// Reads the end of the connection, after which the server has ended.
    fn await_end(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        match self.inbox.is_empty() && self.fill(deadline)? == 0 {
            true => Ok(()),
            false => {
                Err(KvsError::BadReply { reason: "more came after the last reply".to_owned() })
            }
        }
    }

    /// How long may still be waited.
    fn time_left(&self, deadline: Instant) -> Result<Duration> {
        let left = deadline.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Ok(left);
        }
        let context = format!("{} did not answer within {:?}", self.addr, self.timeout);
        Err(KvsError::io(context)(io::ErrorKind::TimedOut.into()))
    }

    /// Passes over an interruption, and over a timeout, which is seen again by
    /// [`time_left`](Self::time_left); fails for any other error.
    fn check_passing(&self, error: io::Error, what: &str) -> Result<()> {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        if matches!(error.kind(), Interrupted | TimedOut | WouldBlock) {
            return Ok(());
        }
        Err(KvsError::io(format!("cannot {what} {}", self.addr))(error))
    }
}

#[cfg(test)]
mod tests {
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
        let endless = vec![b'x'; READ_BYTES];
        let error = get(&vec![&endless[..]; REPLY_BYTES_MAX / READ_BYTES + 2]);
        assert!(messages(error).ends_with("a line of more than 67108864 bytes"));
    }

    #[test]
    fn a_servers_error_comes_with_its_code_and_causes() {
        let error = get(&[b"ERR storage cannot append; caused by: no space\n"]).unwrap_err();
        assert!(matches!(error, KvsError::Server { code: Code::Storage, .. }));
        assert_eq!(error.chain(), ["the server answered storage", "cannot append", "no space"]);
    }

    #[test]
    fn a_silent_server_ends_in_an_error_and_the_connection_is_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut client = KvsClient::connect_with(addr, Duration::from_millis(50)).unwrap();
        assert_eq!(
            messages(client.ping()),
            format!("{addr} did not answer within 50ms | timed out")
        );
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
        let keys: Vec<String> = (0..2_000)
            .map(|nth| if nth % 500 == 9 { big.clone() } else { nth.to_string() })
            .collect();
        let requests: Vec<Request> =
            keys.iter().map(|key| Request::Get { key: key.clone() }).collect();
        let expected: Vec<Reply> = keys.into_iter().map(Reply::Value).collect();
        assert_eq!(client.pipeline(&requests).unwrap(), expected);
        assert_eq!(client.pipeline(&[]).unwrap(), []);
        drop(client);
        server.join().unwrap();
    }
}
