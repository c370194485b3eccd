//! [`KvsServer`]: serves an engine to many clients, in one thread.
//!
//! One pass of its loop is a turn ([`turn`]): wait, accept, read, execute,
//! commit, send. A request's way through the files is
//!
//! ```text
//! poll -> accept -> table -> connection -> inbox -> protocol -> execute -> engine
//! poll <---------- table <- connection <- outbox <- protocol <- durability <-+
//! ```
//!
//! Not here: the form of requests and replies ([`protocol`](crate::protocol)),
//! what an engine does, command lines.

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("the kvs server knows poll(2) and signal(2) of Linux and macOS only");

mod accept;
mod buffer;
mod chores;
mod connection;
mod counters;
mod durability;
mod end;
mod execute;
mod group;
mod inbox;
mod life;
mod options;
mod outbox;
mod outcome;
mod pace;
mod poll;
mod secret;
mod signal;
mod stop;
mod table;
#[cfg(test)]
mod testing;
mod turn;

use std::net::{SocketAddr, TcpListener};

pub use options::{Fsync, ServerOptions, UnknownFsync};
pub use secret::Secret;
pub use stop::{Stop, StopHandle};

use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use turn::Running;

/// A server that listens; [`run`](KvsServer::run) serves.
///
/// ```no_run
/// # fn main() -> kvs::Result<()> {
/// let store = kvs::KvStore::open("data")?;
/// let address = ([127, 0, 0, 1], 4000).into();
/// let server = kvs::KvsServer::bind(store, address, kvs::ServerOptions::default())?;
/// server.run(kvs::Stop::never())
/// # }
/// ```
#[derive(Debug)]
pub struct KvsServer<E> {
    /// What accepts clients.
    listener: TcpListener,
    /// Where it does.
    address: SocketAddr,
    /// Where their keys and values are.
    engine: E,
    /// What they may ask for.
    options: ServerOptions,
}

impl<E: KvsEngine> KvsServer<E> {
    /// Listens on `address`; port 0 is any free one.
    ///
    /// # Errors
    ///
    /// [`KvsError::Io`] when that address cannot be had.
    pub fn bind(engine: E, address: SocketAddr, options: ServerOptions) -> Result<KvsServer<E>> {
        let listener = TcpListener::bind(address)
            .map_err(KvsError::io(format!("cannot listen on {address}")))?;
        KvsServer::new(listener, engine, options)
    }

    /// Serves those who connect to `listener`. Who listens before opening the
    /// engine learns that the address is taken before anything is written;
    /// clients that connect in between wait in the system's queue.
    ///
    /// # Errors
    ///
    /// [`KvsError::Io`] when the system refuses to make the listener non-blocking.
    pub fn new(listener: TcpListener, engine: E, options: ServerOptions) -> Result<KvsServer<E>> {
        let context = "cannot prepare the listener";
        listener.set_nonblocking(true).map_err(KvsError::io(context))?;
        let address = listener.local_addr().map_err(KvsError::io(context))?;
        Ok(KvsServer { listener, address, engine, options })
    }

    /// The address that clients connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until a client sends `SHUTDOWN` or `stop` is told, then answers
    /// what has been executed, syncs and closes the engine.
    ///
    /// # Errors
    ///
    /// [`KvsError::Io`] when `poll` fails, and whatever the engine's last `sync`
    /// fails with: not everything that was answered is then on the disk, or an
    /// earlier sync failed and writes have been refused since.
    pub fn run(self, stop: Stop) -> Result<()> {
        let mut running = Running::new(self.listener, self.engine, self.options, stop);
        let served = running.run();
        running.end().and(served)
    }
}

#[cfg(test)]
mod tests;
