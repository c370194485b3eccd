//! The servers: which ones take part, how each is started, and its protocol.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// The time that a server has to start or to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of values in one batch while keys are loaded, about.
const LOAD_BYTES: usize = 16 << 10;

/// What a request does.
#[derive(Clone, Copy)]
pub(crate) enum Verb {
    /// Sets a key.
    Set,
    /// Gets a key.
    Get,
}

/// The pairs that a section loads. Each key has a value of its own.
pub(crate) struct Data {
    /// Number of keys.
    pub(crate) keys: u64,
    /// Bytes of each value, at least 12.
    pub(crate) value_bytes: usize,
    /// Flags that kvs-server needs for this data.
    pub(crate) kvs_flags: &'static [&'static str],
}

/// A program that takes part.
pub(crate) struct Peer {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// Its executable.
    program: OsString,
    /// True if it is redis-server, which speaks RESP and has flags of its own.
    is_redis: bool,
}

/// The programs that take part: kvs-server of this build, the one that
/// `KVS_BASELINE` names, and redis-server if it is installed.
pub(crate) fn peers() -> Vec<Peer> {
    let kvs = OsString::from(env!("CARGO_BIN_EXE_kvs-server"));
    let mut peers = vec![Peer { name: "kvs", program: kvs, is_redis: false }];
    if let Some(program) = std::env::var_os("KVS_BASELINE") {
        peers.push(Peer { name: "baseline", program, is_redis: false });
    }
    if Command::new("redis-server").arg("--version").output().is_ok() {
        peers.push(Peer { name: "Redis", program: "redis-server".into(), is_redis: true });
    }
    peers
}

/// Requests that are sent together, and the replies that must come back.
#[derive(Default)]
pub(crate) struct Batch {
    /// The requests.
    pub(crate) request: Vec<u8>,
    /// The replies.
    pub(crate) reply: Vec<u8>,
}

impl Peer {
    /// Makes requests for these keys. All of them succeed.
    pub(crate) fn batch(&self, verb: Verb, data: &Data, keys: impl Iterator<Item = u64>) -> Batch {
        let mut batch = Batch::default();
        let len = data.value_bytes;
        for key in keys {
            let key = format!("{key:012}");
            let value = key.clone() + &"v".repeat(len - key.len());
            let (request, reply) = match (verb, self.is_redis) {
                (Verb::Set, false) => (format!("SET key:{key} {value}\n"), "OK\n".to_owned()),
                (Verb::Get, false) => (format!("GET key:{key}\n"), format!("VALUE {value}\n")),
                (Verb::Set, true) => (
                    format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{key}\r\n${len}\r\n{value}\r\n"),
                    "+OK\r\n".to_owned(),
                ),
                (Verb::Get, true) => (
                    format!("*2\r\n$3\r\nGET\r\n$16\r\nkey:{key}\r\n"),
                    format!("${len}\r\n{value}\r\n"),
                ),
            };
            batch.request.extend_from_slice(request.as_bytes());
            batch.reply.extend_from_slice(reply.as_bytes());
        }
        batch
    }
}

impl Batch {
    /// Reads until all replies have come. Any other byte is an error.
    pub(crate) fn receive(&self, stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
        let mut rest = &self.reply[..];
        while !rest.is_empty() {
            let len = stream.read(buffer)?;
            rest = rest.strip_prefix(&buffer[..len]).filter(|_| len > 0).ok_or_else(|| {
                format!("a wrong reply: {}", buffer[..len.min(200)].escape_ascii())
            })?;
        }
        Ok(())
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Server<'a> {
    /// What it runs.
    pub(crate) peer: &'a Peer,
    /// Connections that stay open and do nothing.
    pub(crate) idle: Vec<TcpStream>,
    /// The address that it listens on.
    addr: SocketAddr,
    /// Its process.
    child: Child,
    /// The directory of its data.
    _directory: tempfile::TempDir,
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Server<'a> {
    /// Starts a server with this fsync policy, loads the data, and opens so many
    /// idle connections.
    pub(crate) fn start(
        peer: &'a Peer,
        fsync: &str,
        data: &Data,
        idle: usize,
    ) -> Result<Server<'a>> {
        let directory = tempfile::tempdir_in(".")?;
        // Redis does not choose a port itself. This one was free a moment ago.
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(&peer.program);
        if peer.is_redis {
            command.args(["--bind", "127.0.0.1", "--port", &addr.port().to_string()]);
            command.args(["--save", "", "--appendonly", "yes", "--appendfsync", fsync]);
        } else {
            command.args(["--addr", &addr.to_string(), "--fsync", fsync]).args(data.kvs_flags);
            command.env("KVS_LOG", "error");
        }
        command.arg("--dir").arg(directory.path()).stdout(Stdio::null());
        let child = command.spawn()?;
        let mut server = Server { peer, idle: Vec::new(), addr, child, _directory: directory };
        server.wait_until_ready()?;
        server.load(data)?;
        server.add_idle(idle, data)?;
        Ok(server)
    }

    /// Waits until the server accepts connections.
    fn wait_until_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = self.connect() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} did not start: {status}", self.peer.name).into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Connects to the server.
    pub(crate) fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Sets every key once.
    fn load(&self, data: &Data) -> Result<()> {
        let mut stream = self.connect()?;
        let step = (LOAD_BYTES / data.value_bytes).max(1);
        for first in (0..data.keys).step_by(step) {
            let keys = (first..data.keys).take(step);
            ask(&mut stream, &self.peer.batch(Verb::Set, data, keys))?;
        }
        Ok(())
    }

    /// Opens idle connections. Each gets one answer first, so the server has
    /// accepted it.
    fn add_idle(&mut self, count: usize, data: &Data) -> Result<()> {
        let batch = self.peer.batch(Verb::Get, data, 0..1);
        for _ in 0..count {
            let mut stream = self.connect()?;
            ask(&mut stream, &batch)?;
            self.idle.push(stream);
        }
        Ok(())
    }
}

/// Sends a batch, and waits for its replies.
fn ask(stream: &mut TcpStream, batch: &Batch) -> Result<()> {
    stream.write_all(&batch.request)?;
    batch.receive(stream, &mut [0; 4 << 10])
}
