//! [`KvsClient`]: a blocking connection to a server.
//!
//! Printing and waiting for a server to start belong to the binary, the form of
//! lines to [`protocol`](crate::protocol).
//!
//! Invariants:
//! * Every wait has a limit: connecting, sending and each reply take at most the
//!   timeout, however slowly bytes arrive (`a_silent_server_is_a_timeout`).
//! * A reply is never taken for that of another request. After an error in the
//!   middle of an exchange the connection is not used again
//!   (`replies_to_other_requests_are_errors`).
//! * The client never deadlocks with a server that stops reading until its replies
//!   are read: at most [`WINDOW_BYTES_MAX`] bytes of requests, or a single request,
//!   are unanswered (`at_most_one_window_is_unanswered`).

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::engine::{self, Page};
use crate::error::{KvsError, Result};
use crate::protocol::{LineEnding, REPLY_BYTES_MAX, Reply, Request, decode_reply, encode_request};

/// The default timeout.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of bytes of unanswered requests: what the server reads from a
/// connection at once. Every socket buffer holds that many.
const WINDOW_BYTES_MAX: usize = 16 << 10;
/// Number of bytes read at once.
const READ_BYTES: usize = 64 << 10;

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
    /// The connection, and bytes that were received but not taken as a reply yet.
    stream: BufReader<TcpStream>,
    /// The server's address, for messages.
    peer: SocketAddr,
    /// Maximum duration of a wait.
    timeout: Duration,
    /// Maximum length of a reply.
    reply_bytes_max: usize,
    /// Set during an exchange, and left set if it fails.
    is_broken: bool,
}

impl KvsClient {
    /// Connects to a server, with the default [`TIMEOUT`].
    pub fn connect(addr: impl ToSocketAddrs) -> Result<KvsClient> {
        KvsClient::connect_with(addr, TIMEOUT)
    }

    /// Connects to a server. Connecting, and later each request, may take `timeout`.
    /// `Duration::MAX` waits without a limit.
    pub fn connect_with(addr: impl ToSocketAddrs, timeout: Duration) -> Result<KvsClient> {
        let deadline = Instant::now().checked_add(timeout);
        let unresolved = "cannot resolve the server's address";
        let mut error = KvsError::io(unresolved)(io::ErrorKind::NotFound.into());
        for peer in addr.to_socket_addrs().map_err(KvsError::io(unresolved))? {
            match connect_until(peer, deadline) {
                Ok(stream) => {
                    let stream = BufReader::with_capacity(READ_BYTES, stream);
                    let reply_bytes_max = REPLY_BYTES_MAX;
                    return Ok(KvsClient {
                        stream,
                        peer,
                        timeout,
                        reply_bytes_max,
                        is_broken: false,
                    });
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
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// [`KvsError::KeyNotFound`] if it has no value.
    pub fn remove(&mut self, key: impl Into<String>) -> Result<()> {
        match self.request(&Request::Remove { key: Cow::Owned(key.into()) })? {
            Reply::Ok => Ok(()),
            Reply::NotFound => Err(KvsError::KeyNotFound),
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Returns some keys, and the cursor of the next page, as
    /// [`KvsEngine::scan`](crate::KvsEngine::scan) does.
    pub fn scan(&mut self, cursor: Option<&str>) -> Result<Page> {
        match self.request(&Request::Scan { cursor: cursor.map(Cow::Borrowed) })? {
            Reply::Keys { next, keys } => Ok(Page { keys, next }),
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Iterates over the keys, in no particular order. A key that is written
    /// meanwhile may be missing or repeated. An error is the last item.
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
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Shuts the server down. Returns when everything is on disk, and the server's
    /// address and directory are free.
    pub fn shutdown(mut self) -> Result<()> {
        self.expect(&Request::Shutdown, &Reply::Ok)?;
        let deadline = Instant::now().checked_add(self.timeout);
        match self.fill(deadline)? {
            [] => Ok(()),
            _ => Err(KvsError::BadReply { reason: "more came after the last reply".to_owned() }),
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
            let fits = |window: &[u8], line: &[u8]| window.len() + line.len() <= WINDOW_BYTES_MAX;
            while let Some((number, line)) =
                lines.next_if(|(_, line)| window.is_empty() || fits(&window, line))
            {
                window.extend_from_slice(line);
                numbers.push(number);
            }
            self.begin()?;
            self.send(&window)?;
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
        self.begin()?;
        self.send(&line)?;
        let reply = decode_reply(&self.receive()?)?;
        self.is_broken = false;
        match reply {
            Reply::Error(fault) => {
                Err(KvsError::Server { code: fault.code, messages: fault.messages })
            }
            reply => Ok(reply),
        }
    }

    /// Sends a request that has only one good reply.
    fn expect(&mut self, request: &Request<'_>, expected: &Reply) -> Result<()> {
        match self.request(request)? {
            reply if reply == *expected => Ok(()),
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Begins an exchange, unless an earlier one failed.
    fn begin(&mut self) -> Result<()> {
        if self.is_broken {
            let reason = format!("an earlier error has broken the connection to {}", self.peer);
            return Err(KvsError::BadReply { reason });
        }
        self.is_broken = true;
        Ok(())
    }

    /// The error for a reply that does not answer the request.
    fn unexpected(&mut self, reply: &Reply) -> KvsError {
        self.is_broken = true;
        let mut line = Vec::new();
        crate::protocol::encode_reply(reply, LineEnding::Lf, &mut line);
        let word: String = String::from_utf8_lossy(&line).split_whitespace().take(1).collect();
        KvsError::BadReply { reason: format!("{word} does not answer that request") }
    }

    /// Sends all of `bytes`.
    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        let deadline = Instant::now().checked_add(self.timeout);
        while !bytes.is_empty() {
            let left = self.time_left(deadline)?;
            let stream = self.stream.get_mut();
            match stream.set_write_timeout(left).and_then(|()| stream.write(bytes)) {
                Ok(count) => bytes = &bytes[count..],
                // The server may have sent its reason before it closed: read that.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => self.check_passing(error, "send to")?,
            }
        }
        Ok(())
    }

    /// Reads one reply line and removes its ending.
    fn receive(&mut self) -> Result<Vec<u8>> {
        let deadline = Instant::now().checked_add(self.timeout);
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if line.len() > self.reply_bytes_max {
                let (len, max) = (line.len() as u64, self.reply_bytes_max as u64);
                return Err(KvsError::TooLarge { what: "an unfinished reply", len, max });
            }
            let bytes = self.fill(deadline)?;
            if bytes.is_empty() {
                let context = format!("{} closed the connection before it answered", self.peer);
                return Err(KvsError::io(context)(io::ErrorKind::UnexpectedEof.into()));
            }
            let len = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            line.extend_from_slice(&bytes[..len]);
            self.stream.consume(len);
        }
        line.pop();
        line.truncate(LineEnding::split(&line).0.len());
        Ok(line)
    }

    /// Returns received bytes; none at the end of the connection.
    fn fill(&mut self, deadline: Option<Instant>) -> Result<&[u8]> {
        while self.stream.buffer().is_empty() {
            let left = self.time_left(deadline)?;
            let timeout_set = self.stream.get_ref().set_read_timeout(left);
            match timeout_set.and_then(|()| self.stream.fill_buf().map(drop)) {
                Ok(()) => break,
                Err(error) => self.check_passing(error, "read from")?,
            }
        }
        Ok(self.stream.buffer())
    }

    /// The time before the deadline; `None` if there is no deadline.
    fn time_left(&self, deadline: Option<Instant>) -> Result<Option<Duration>> {
        time_left(deadline).map_err(|error| {
            let context = format!("{} did not answer within {:?}", self.peer, self.timeout);
            KvsError::io(context)(error)
        })
    }

    /// Ignores an interruption, and a timeout, which [`time_left`](Self::time_left)
    /// finds again. Fails for any other error.
    fn check_passing(&self, error: io::Error, what: &str) -> Result<()> {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        if matches!(error.kind(), Interrupted | TimedOut | WouldBlock) {
            return Ok(());
        }
        Err(KvsError::io(format!("cannot {what} {}", self.peer))(error))
    }
}

/// Connects to one address.
fn connect_until(addr: SocketAddr, deadline: Option<Instant>) -> io::Result<TcpStream> {
    let stream = match time_left(deadline)? {
        Some(left) => TcpStream::connect_timeout(&addr, left)?,
        None => TcpStream::connect(addr)?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The time before the deadline; `None` if there is no deadline.
fn time_left(deadline: Option<Instant>) -> io::Result<Option<Duration>> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    match left {
        Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
