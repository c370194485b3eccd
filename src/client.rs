//! `KvsClient`: one connection to a server, blocking, for any number of
//! requests.
//!
//! Not here: printing, retries, and the form of a line
//! ([`protocol`](crate::protocol)).
//!
//! Invariants:
//! * Every wait ends: connecting, and each window of requests with its replies,
//!   takes no longer than the timeout, however the bytes drip in
//!   (`a_silent_server_ends_in_an_error_and_the_connection_is_not_used_again`).
//! * A reply is never taken for that of another request. After an error that
//!   leaves the connection between two lines it is not used again
//!   (`every_method_refuses_the_reply_to_another_request`).
//! * Sending cannot block for good on a server that waits to be read from: no
//!   more than [`WINDOW_BYTES_MAX`] of requests, or a single one, are unanswered
//!   (`a_whole_window_and_no_more_is_sent_before_its_replies_are_waited_for`).

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::error::{KvsError, Result};
use crate::protocol::{LineEnding, REPLY_BYTES_MAX, Reply, Request, decode_reply, encode_request};

/// How long a request may take, unless set otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Longer timeouts are without a limit in practice, and overflow an `Instant`.
const TIMEOUT_MAX: Duration = Duration::from_secs(1 << 30);
/// Bytes of pipelined requests that are sent before their replies are read:
/// less than any socket's buffers, so that sending them never waits for long.
const WINDOW_BYTES_MAX: usize = 8 << 10;
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
    /// Bytes that a reply may have.
    reply_bytes_max: usize,
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
        let timeout = timeout.min(TIMEOUT_MAX);
        let stream = TcpStream::connect_timeout(&addr, timeout).map_err(KvsError::io(context()))?;
        stream.set_nodelay(true).map_err(KvsError::io(context()))?;
        let (reply_bytes_max, inbox) = (REPLY_BYTES_MAX, Vec::new());
        Ok(KvsClient { stream, addr, timeout, reply_bytes_max, inbox, is_broken: false })
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) -> Result<()> {
        match self.request(Request::Set {
            key: Cow::Owned(key.into()),
            value: Cow::Owned(value.into()),
        })? {
            Reply::Ok => Ok(()),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// The value of a key; `None` when it has none.
    pub fn get(&mut self, key: impl Into<String>) -> Result<Option<String>> {
        match self.request(Request::Get { key: Cow::Owned(key.into()) })? {
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
        match self.request(Request::Remove { key: Cow::Owned(key.into()) })? {
            Reply::Ok => Ok(()),
            Reply::NotFound => Err(KvsError::KeyNotFound),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// Says the secret that the server was given.
    pub fn authenticate(&mut self, token: impl Into<String>) -> Result<()> {
        match self.request(Request::Auth { token: Cow::Owned(token.into()) })? {
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

    /// The server's figures: names and values.
    pub fn stats(&mut self) -> Result<Vec<(String, String)>> {
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
            if lines.len() > WINDOW_BYTES_MAX {
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
                Err(KvsError::Server { code: fault.code, messages: fault.messages })
            }
            Some(reply) => Ok(reply),
            None => Err(KvsError::BadReply { reason: "there is none".to_owned() }),
        }
    }

    /// The error for a reply that does not answer the request.
    fn unexpected(&mut self, reply: Reply) -> KvsError {
        self.is_broken = true;
        let mut line = Vec::new();
        crate::protocol::encode_reply(&reply, LineEnding::Lf, &mut line);
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
                let reply = decode_reply(LineEnding::split(line).0);
                self.inbox.drain(..=end);
                return reply;
            }
            scanned = self.inbox.len();
            if scanned > self.reply_bytes_max {
                let (len, max) = (scanned as u64, self.reply_bytes_max as u64);
                return Err(KvsError::TooLarge { what: "an unfinished reply", len, max });
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
#[path = "client_tests.rs"]
mod tests;
