//! [`KvsClient`]: a blocking connection to a server.
//!
//! Printing and waiting for a server to start belong to the binary, the form of
//! lines to [`protocol`](crate::protocol).
//!
//! Invariants:
//! * Connecting, sending and each reply take at most the timeout, however slowly bytes
//!   arrive (`a_silent_server_is_a_timeout`). The resolution of a host name has no limit.
//! * A reply is never taken for that of another request. After an error in the
//!   middle of an exchange the connection is not used again
//!   (`replies_to_other_requests_are_errors`).
//! * The client never deadlocks with a server that stops reading until its replies
//!   are read: at most [`WINDOW_BYTES_MAX`] bytes of requests, or a single request,
//!   are unanswered (`at_most_one_window_is_unanswered`).

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::engine::{self, Page};
use crate::error::{KvsError, Result};
use crate::protocol::{Fault, REPLY_BYTES_MAX, Reply, Request, decode_reply, encode_request};

/// The default timeout.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest timeout, a century: a deadline that far away can be computed.
const TIMEOUT_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Maximum number of bytes of unanswered requests: what the server reads from a
/// connection at once. Every socket buffer holds that many.
const WINDOW_BYTES_MAX: usize = 16 << 10;

/// A connection to a server.
///
/// ```no_run
/// use kvs::KvsClient;
///
/// # fn main() -> kvs::Result<()> {
/// let mut client = KvsClient::connect("127.0.0.1:4000")?;
/// client.set("key", "value")?;
/// assert_eq!(client.get("key")?, Some("value".to_owned()));
/// for key in client.keys() {
///     println!("{}", key?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KvsClient {
    stream: BufReader<TimedStream>,
    /// The server's address, for messages.
    peer: SocketAddr,
    timeout: Duration,
    reply_bytes_max: usize,
    /// Set during an exchange, and left set if it fails.
    is_broken: bool,
}

impl KvsClient {
    /// Connects to a server, with the default [`TIMEOUT`].
    pub fn connect(addr: impl ToSocketAddrs) -> Result<KvsClient> {
        KvsClient::connect_with(addr, TIMEOUT)
    }

    /// Connects to a server. Connecting, sending a request, and its reply may each take
    /// `timeout`.
    /// More than a century counts as a century.
    pub fn connect_with(addr: impl ToSocketAddrs, timeout: Duration) -> Result<KvsClient> {
        let timeout = timeout.min(TIMEOUT_MAX);
        let unresolved = "cannot resolve the server's address";
        let mut error = KvsError::io(unresolved)(ErrorKind::NotFound.into());
        let peers: Vec<_> = addr.to_socket_addrs().map_err(KvsError::io(unresolved))?.collect();
        for &peer in &peers {
            // An equal share, so that an address that does not answer leaves time for the others.
            let connected = TcpStream::connect_timeout(&peer, timeout / peers.len() as u32);
            match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
                Ok(stream) => {
                    let stream = TimedStream { stream, deadline: Instant::now() };
                    let stream = BufReader::with_capacity(64 << 10, stream);
                    let (reply_bytes_max, is_broken) = (REPLY_BYTES_MAX, false);
                    return Ok(KvsClient { stream, peer, timeout, reply_bytes_max, is_broken });
                }
                Err(source) => error = KvsError::io(format!("cannot connect to {peer}"))(source),
            }
        }
        Err(error)
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) -> Result<()> {
        let (key, value) = (Cow::Owned(key.into()), Cow::Owned(value.into()));
        self.expect(&Request::Set { key, value }, &Reply::Ok)
    }

    /// Returns the value of a key, or `None` if it has none.
    pub fn get(&mut self, key: impl Into<String>) -> Result<Option<String>> {
        match self.request(&Request::Get { key: Cow::Owned(key.into()) })? {
            Reply::Value(value) => Ok(Some(value)),
            Reply::NotFound => Ok(None),
            _ => Err(self.unexpected()),
        }
    }

    /// Removes a key. [`KvsError::KeyNotFound`] if it has no value.
    pub fn remove(&mut self, key: impl Into<String>) -> Result<()> {
        match self.request(&Request::Remove { key: Cow::Owned(key.into()) })? {
            Reply::Ok => Ok(()),
            Reply::NotFound => Err(KvsError::KeyNotFound),
            _ => Err(self.unexpected()),
        }
    }

    /// Returns some keys, and the cursor of the next page, as
    /// [`KvsEngine::scan`](crate::KvsEngine::scan) does.
    pub fn scan(&mut self, cursor: Option<&str>) -> Result<Page> {
        match self.request(&Request::Scan { cursor: cursor.map(Cow::Borrowed) })? {
            Reply::Keys { next, keys } => Ok(Page { keys, next }),
            _ => Err(self.unexpected()),
        }
    }

    /// Iterates over the keys, in no particular order. A key that exists
    /// all the time is listed at least once. One that is created or removed meanwhile may
    /// be missing. An error is the last item.
    pub fn keys(&mut self) -> impl Iterator<Item = Result<String>> + '_ {
        engine::keys(|cursor| self.scan(cursor))
    }

    /// Authenticates with the server's secret.
    pub fn authenticate(&mut self, token: impl Into<String>) -> Result<()> {
        self.expect(&Request::Auth { token: Cow::Owned(token.into()) }, &Reply::Ok)
    }

    /// Checks that the server answers.
    pub fn ping(&mut self) -> Result<()> {
        self.expect(&Request::Ping, &Reply::Pong)
    }

    /// Returns the server's statistics: names and values.
    pub fn stats(&mut self) -> Result<Vec<(String, String)>> {
        match self.request(&Request::Stats)? {
            Reply::Stats(stats) => Ok(stats),
            _ => Err(self.unexpected()),
        }
    }

    /// Shuts the server down. Returns when everything is on disk, and the server's
    /// address and directory are free.
    pub fn shutdown(mut self) -> Result<()> {
        self.expect(&Request::Shutdown, &Reply::Ok)?;
        match self.receive() {
            Err(KvsError::Io { source, .. }) if source.kind() == ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(self.unexpected()),
        }
    }

    /// Sends request lines, pipelined. Passes the number of each line, from 0, and its
    /// reply line without the ending to `each`. Each line in `lines` must have its
    /// ending. Empty lines get no reply.
    pub fn pipeline<E: From<KvsError>>(
        &mut self,
        lines: &[u8],
        mut each: impl FnMut(usize, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let lines = lines.split_inclusive(|byte| *byte == b'\n').enumerate();
        let mut lines = lines.filter(|(_, line)| !matches!(*line, b"\n" | b"\r\n")).peekable();
        while lines.peek().is_some() {
            let (mut window, mut numbers) = (Vec::new(), Vec::new());
            while let Some((number, line)) = lines.next_if(|(_, line)| {
                window.is_empty() || window.len() + line.len() <= WINDOW_BYTES_MAX
            }) {
                window.extend_from_slice(line);
                numbers.push(number);
            }
            self.begin(&window)?;
            for number in numbers {
                each(number, &self.receive()?)?;
            }
            self.is_broken = false;
        }
        Ok(())
    }

    /// Sends one request, and returns its reply if that is not an error.
    fn request(&mut self, request: &Request<'_>) -> Result<Reply> {
        let mut line = Vec::new();
        encode_request(request, &mut line);
        self.begin(&line)?;
        let reply = decode_reply(&self.receive()?)?;
        self.is_broken = false;
        match reply {
            Reply::Error(Fault { code, messages }) => Err(KvsError::Server { code, messages }),
            reply => Ok(reply),
        }
    }

    /// Sends a request that has only one good reply.
    fn expect(&mut self, request: &Request<'_>, expected: &Reply) -> Result<()> {
        if self.request(request)? == *expected { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Begins an exchange: sends request lines, unless an earlier exchange failed.
    fn begin(&mut self, lines: &[u8]) -> Result<()> {
        if self.is_broken {
            let reason = format!("an earlier error has broken the connection to {}", self.peer);
            return Err(KvsError::BadReply { reason });
        }
        self.is_broken = true;
        self.stream.get_mut().deadline = Instant::now() + self.timeout;
        match self.stream.get_mut().write_all(lines) {
            // The server may have sent its reason before it closed: read that.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(|error| self.failed("send to", error)),
        }
    }

    /// Receives one reply line and removes its ending.
    fn receive(&mut self) -> Result<Vec<u8>> {
        self.stream.get_mut().deadline = Instant::now() + self.timeout;
        let mut line = Vec::new();
        let max = self.reply_bytes_max as u64;
        let read = self.stream.by_ref().take(max + 1).read_until(b'\n', &mut line);
        let len = read.map_err(|error| self.failed("read from", error))? as u64;
        if line.pop_if(|last| *last == b'\n').is_some() {
            line.pop_if(|last| *last == b'\r');
            return Ok(line);
        }
        if len > max {
            return Err(KvsError::TooLarge { what: "an unfinished reply", len, max });
        }
        let context = format!("{} closed the connection before it answered", self.peer);
        Err(KvsError::io(context)(ErrorKind::UnexpectedEof.into()))
    }

    /// The error for a reply that does not answer the request.
    fn unexpected(&mut self) -> KvsError {
        self.is_broken = true;
        KvsError::BadReply { reason: "the reply does not answer that request".to_owned() }
    }

    /// The error for a failed read or write. The system reports a timeout as
    /// `WouldBlock`.
    fn failed(&self, what: &str, error: io::Error) -> KvsError {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                let context = format!("{} did not answer within {:?}", self.peer, self.timeout);
                KvsError::io(context)(ErrorKind::TimedOut.into())
            }
            _ => KvsError::io(format!("cannot {what} {}", self.peer))(error),
        }
    }
}

/// A socket whose reads and writes fail after a deadline.
#[derive(Debug)]
struct TimedStream {
    stream: TcpStream,
    deadline: Instant,
}

impl TimedStream {
    fn time_left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for TimedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.time_left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for TimedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.time_left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
