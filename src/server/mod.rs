//! [`KvsServer`]: serves an engine to many clients in one thread.
//!
//! A request takes this path, and its reply the same way back:
//!
//! ```text
//! event_loop -> clients -> connection -> input -> execute -> engine
//! ```
//!
//! `shutdown` ends the server. The form of requests and replies belongs to
//! [`protocol`](crate::protocol).

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("the kvs server supports only Linux and macOS");

mod clients;
mod connection;
mod event_loop;
mod execute;
mod input;
mod shutdown;
#[cfg(test)]
mod testing;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

pub use self::execute::Secret;
pub use self::shutdown::{Stop, StopHandle};

use self::clients::Clients;
use self::execute::Executor;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::logger::error;
use crate::protocol::LINE_BYTES_MAX;

/// When an acknowledged write is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fsync {
    /// Before it is acknowledged. No reply, not even to a read, reveals a write
    /// that a power failure could still undo.
    #[default]
    Always,
    /// About a second later. A crash of the process loses nothing.
    EverySec,
    /// When the system writes it back. A crash of the process loses nothing.
    Never,
}

impl Fsync {
    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Fsync::Always => "always",
            Fsync::EverySec => "everysec",
            Fsync::Never => "never",
        }
    }
}

impl FromStr for Fsync {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Fsync, String> {
        let all = [Fsync::Always, Fsync::EverySec, Fsync::Never];
        let found = all.into_iter().find(|policy| policy.as_str() == name);
        found.ok_or_else(|| "not one of 'always', 'everysec' and 'never'".to_owned())
    }
}

/// Options of a server. The defaults suit most uses.
///
/// A client takes at most this many bytes of memory:
///
/// ```text
/// 2 * (line_bytes_max + read_bytes_max + output_bytes_max + longest reply)
/// ```
///
/// All counts twice, because buffers grow by doubling. A value whose characters must
/// all be escaped becomes six times as long. An idle client takes almost nothing.
/// Before `AUTH`, each of the three limits is at most 1 KiB.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// When writes are fsynced.
    pub fsync: Fsync,
    /// Maximum length of a request line. A longer line is answered `ERR too-long`.
    pub line_bytes_max: usize,
    /// Maximum number of clients. One more is answered `ERR busy` and disconnected.
    pub clients_max: usize,
    /// A client is not served while this many bytes of its replies wait to be sent.
    pub output_bytes_max: usize,
    /// Maximum number of bytes that are read from a client in an iteration.
    pub read_bytes_max: usize,
    /// What clients must send with `AUTH` first. It is not encrypted.
    pub secret: Option<Secret>,
    /// Whether `SHUTDOWN` is allowed.
    pub allows_shutdown: bool,
    /// The engine's name, shown by `STATS`.
    pub engine: String,
    /// The engine's directory, shown by `STATS`.
    pub directory: PathBuf,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            fsync: Fsync::default(),
            line_bytes_max: LINE_BYTES_MAX,
            clients_max: 4_096,
            output_bytes_max: 256 << 10,
            read_bytes_max: 16 << 10,
            secret: None,
            allows_shutdown: true,
            engine: String::new(),
            directory: PathBuf::new(),
        }
    }
}

/// A server that listens; [`run`](KvsServer::run) serves.
///
/// ```no_run
/// # fn main() -> kvs::Result<()> {
/// let store = Box::new(kvs::KvStore::open("data")?);
/// let address = ([127, 0, 0, 1], 4000).into();
/// let server = kvs::KvsServer::bind(store, address, kvs::ServerOptions::default())?;
/// server.run(kvs::Stop::never())
/// # }
/// ```
#[derive(Debug)]
pub struct KvsServer<E: ?Sized> {
    address: SocketAddr,
    listener: TcpListener,
    clients: Clients,
    /// When `everysec` syncs.
    sync_at: Option<Instant>,
    /// When the next step of housekeeping is due.
    maintain_at: Instant,
    /// All clients are read into this buffer.
    buffer: Vec<u8>,
    executor: Executor<E>,
}

impl<E: KvsEngine + ?Sized> KvsServer<E> {
    /// Listens on `address`. Port 0 means any free port.
    pub fn bind(engine: Box<E>, address: SocketAddr, options: ServerOptions) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .map_err(KvsError::io(format!("cannot listen on {address}")))?;
        KvsServer::new(listener, engine, options)
    }

    /// Serves clients that connect to `listener`. A caller that listens before it
    /// opens the engine learns that the address is taken before anything is written.
    pub fn new(listener: TcpListener, engine: Box<E>, options: ServerOptions) -> Result<Self> {
        let context = "cannot prepare the listener";
        listener.set_nonblocking(true).map_err(KvsError::io(context))?;
        let address = listener.local_addr().map_err(KvsError::io(context))?;
        let options = Arc::new(options);
        Ok(KvsServer {
            address,
            listener,
            clients: Clients::new(&options),
            sync_at: None,
            maintain_at: Instant::now(),
            buffer: vec![0; options.read_bytes_max.max(1)],
            executor: Executor::new(engine, &options),
        })
    }

    /// The address that clients connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until a client sends `SHUTDOWN` or `stop` asks for it. Then syncs,
    /// sends the replies that are due, and closes the engine.
    ///
    /// # Errors
    ///
    /// The error of the engine if it has failed. The writes of the last iteration
    /// were not acknowledged. [`KvsError::Io`] if `poll` fails.
    pub fn run(mut self, stop: Stop) -> Result<()> {
        while self.run_once(&stop).inspect_err(|e| {
            error!("the server stops without replying: {}", e.chain().join(": "));
        })? {}
        self.shut_down()
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
