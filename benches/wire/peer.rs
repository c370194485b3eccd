//! The two servers: how each is started and loaded, and what it is sent and
//! answers.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::Result;

/// How long a server may take to start or to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of values that one batch loads, about.
const LOAD_BYTES: usize = 16 << 10;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Set a key.
    Set,
    /// Get one.
    Get,
}

/// Keys and values: key n has a value that tells it from the others.
pub(crate) struct Data {
    /// How many keys.
    pub(crate) keys: u64,
    /// Bytes of each value, 12 at the least.
    pub(crate) value_bytes: usize,
    /// What kvs-server has to be told for it.
    pub(crate) kvs_flags: &'static [&'static str],
}

impl Data {
    /// The value of a key.
    fn value(&self, key: u64) -> String {
        let mut value = format!("{key:012}");
        value.extend(std::iter::repeat_n('v', self.value_bytes - value.len()));
        value
    }
}

/// Which server speaks, and so which protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// kvs-server.
    Kvs,
    /// redis-server, in RESP (redis.io, "Redis serialization protocol").
    Redis,
}

/// Requests that are sent together, and what has to come back.
#[derive(Default)]
pub(crate) struct Batch {
    /// The requests.
    pub(crate) request: Vec<u8>,
    /// The replies.
    pub(crate) reply: Vec<u8>,
}

impl Batch {
    /// Adds a request that succeeds.
    pub(crate) fn push(&mut self, peer: Peer, verb: Verb, key: u64, data: &Data) {
        let value = data.value(key);
        let len = value.len();
        let (request, reply) = match (peer, verb) {
            (Peer::Kvs, Verb::Set) => (format!("SET key:{key:012} {value}\n"), "OK\n".to_owned()),
            (Peer::Kvs, Verb::Get) => (format!("GET key:{key:012}\n"), format!("VALUE {value}\n")),
            (Peer::Redis, Verb::Set) => (
                format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${len}\r\n{value}\r\n"),
                "+OK\r\n".to_owned(),
            ),
            (Peer::Redis, Verb::Get) => (
                format!("*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n"),
                format!("${len}\r\n{value}\r\n"),
            ),
        };
        self.request.extend_from_slice(request.as_bytes());
        self.reply.extend_from_slice(reply.as_bytes());
    }

    /// Reads until the replies have come; fails on any other byte.
    pub(crate) fn receive(&self, stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
        let mut rest = &self.reply[..];
        while !rest.is_empty() {
            let len = stream.read(buffer)?;
            let bytes = &buffer[..len];
            rest = rest.strip_prefix(bytes).filter(|_| len > 0).ok_or_else(|| {
                let shown = &bytes[..len.min(200)];
                format!("a wrong reply: {}", String::from_utf8_lossy(shown).escape_debug())
            })?;
        }
        Ok(())
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    /// Its process.
    child: Child,
    /// Its data.
    _directory: tempfile::TempDir,
    /// Where it listens.
    addr: SocketAddr,
    /// Which it is.
    pub(crate) peer: Peer,
    /// Connections that stay and do nothing.
    idle: Vec<TcpStream>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A process as a server, which is killed from here on if it does not start.
    fn new(child: Child, directory: tempfile::TempDir, addr: SocketAddr, peer: Peer) -> Server {
        Server { child, _directory: directory, addr, peer, idle: Vec::new() }
    }

    /// Starts a server with this policy; `None` where there is no Redis.
    pub(crate) fn start(peer: Peer, fsync: &str, data: &Data) -> Result<Option<Server>> {
        match peer {
            Peer::Kvs => Server::kvs(fsync, data).map(Some),
            Peer::Redis => Server::redis(fsync),
        }
    }

    /// Starts kvs-server.
    fn kvs(fsync: &str, data: &Data) -> Result<Server> {
        let directory = tempfile::tempdir_in(".")?;
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let child = Command::new(env!("CARGO_BIN_EXE_kvs-server"))
            .args(["--addr", &any_port.to_string(), "--fsync", fsync])
            .args(data.kvs_flags)
            .arg("--dir")
            .arg(directory.path())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut server = Server::new(child, directory, any_port, Peer::Kvs);
        let line = await_line(server.child.stderr.take(), " listening on ")?;
        let addr = line.split(" listening on ").nth(1).and_then(|rest| rest.split(',').next());
        server.addr = addr.ok_or("kvs-server told no address")?.parse()?;
        Ok(server)
    }

    /// Starts redis-server; `None` where there is none.
    fn redis(fsync: &str) -> Result<Option<Server>> {
        let directory = tempfile::tempdir_in(".")?;
        // It takes no port 0, so one is found for it that was free just now.
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new("redis-server")
            .args(["--port", &addr.port().to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", fsync, "--dir"])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn();
        let child = match child {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            child => child?,
        };
        let mut server = Server::new(child, directory, addr, Peer::Redis);
        await_line(server.child.stdout.take(), "Ready to accept connections")?;
        Ok(Some(server))
    }

    /// Connects.
    pub(crate) fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Sends a batch and awaits its replies.
    fn exchange(&self, stream: &mut TcpStream, batch: &Batch) -> Result<()> {
        stream.write_all(&batch.request)?;
        batch.receive(stream, &mut [0; 4 << 10])
    }

    /// Sets every key once.
    pub(crate) fn load(&self, data: &Data) -> Result<()> {
        let mut stream = self.connect()?;
        let step = (LOAD_BYTES / data.value_bytes).max(1);
        for first in (0..data.keys).step_by(step) {
            let mut batch = Batch::default();
            (first..data.keys)
                .take(step)
                .for_each(|key| batch.push(self.peer, Verb::Set, key, data));
            self.exchange(&mut stream, &batch)?;
        }
        Ok(())
    }

    /// Adds idle connections. Each has had one answer, so the server knows of it.
    pub(crate) fn add_idle(&mut self, count: usize, data: &Data) -> Result<()> {
        let mut batch = Batch::default();
        batch.push(self.peer, Verb::Get, 0, data);
        for _ in 0..count {
            let mut stream = self.connect()?;
            self.exchange(&mut stream, &batch)?;
            self.idle.push(stream);
        }
        Ok(())
    }
}

/// The first line with `text` in it. The later ones are read too, and dropped,
/// as a full pipe would hold the server up.
fn await_line(source: Option<impl Read + Send + 'static>, text: &'static str) -> Result<String> {
    let source = BufReader::new(source.ok_or("the server's output is taken already")?);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = source.lines().map_while(|line| line.ok());
        if let Some(line) = lines.find(|line| line.contains(text)) {
            let _ = sender.send(line);
        }
        lines.for_each(drop);
    });
    receiver.recv_timeout(PATIENCE).map_err(|_| format!("a server did not print '{text}'").into())
}
