//! `kvs-server`: flags, logger, exit status. The server itself is
//! [`kvs::KvsServer`].
//!
//! In this order: all arguments are read and checked, the address is bound, the
//! engine is chosen and opened, and then clients are served. A failure of any
//! step leaves nothing of the later ones behind.

#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod flags;

use std::io::{BufWriter, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{Failure, init_logger, read_secret};
use flags::{Flags, Mode, VERSION, read_flags};
use kvs::args::ArgsError;
use kvs::choice::{self, EngineName};
use kvs::logger::{Level, info, warn};
use kvs::{KvStore, KvsError, KvsServer, Secret, Stop};

/// How long a process that was killed may take to let go of what it held.
const LETTING_GO_MAX: Duration = Duration::from_secs(1);
fn main() -> ExitCode {
    common::exit("kvs-server", run())
}

/// Does what the command line asks for.
fn run() -> Result<(), Failure> {
    let Some(mut flags) = read_flags()? else { return Ok(()) };
    init_logger(flags.level, Level::Info)?;
    if let Some(path) = &flags.auth_file {
        flags.server.secret = Secret::new(read_secret(path)?);
    }
    match flags.mode {
        Mode::Serve => Ok(serve(flags)?),
        Mode::Inspect => inspect(flags),
    }
}

/// Serves until the end.
fn serve(flags: Flags) -> kvs::Result<()> {
    // Before anything that takes long, so that a signal during recovery is heard.
    let context = "cannot catch signals".to_owned();
    let stop = Stop::on_signals().map_err(|source| KvsError::Io { context, source })?;
    // Before the engine, so that a taken address leaves nothing behind; clients
    // wait in the listener's queue until the engine is open.
    let context = || format!("cannot listen on {}", flags.addr);
    let bind = || TcpListener::bind(flags.addr);
    let listener =
        patiently(|| bind().map_err(|source| KvsError::Io { context: context(), source }))?;
    let name = choice::choose(&flags.dir, flags.engine)?;
    let engine = patiently(|| choice::open(&flags.dir, name, &flags.store))?;
    let has_secret = flags.server.secret.is_some();
    let mut options = flags.server;
    options.engine = name.as_str().to_owned();
    options.directory = std::path::absolute(&flags.dir).unwrap_or_else(|_| flags.dir.clone());
    let server = KvsServer::new(listener, engine, options)?;
    let address = server.local_addr();
    warn_of_others(address, has_secret);
    let (engine, dir) = (name.as_str(), flags.dir.display());
    info!("{VERSION} listening on {address}, engine {engine}, directory {dir}");
    server.run(stop)?;
    info!("stopped");
    Ok(())
}

/// Tells what those can do who reach the server from elsewhere.
fn warn_of_others(address: SocketAddr, has_secret: bool) {
    if address.ip().is_loopback() {
        return;
    }
    match has_secret {
        true => warn!("no encryption: the secret and all data pass in clear to {address}"),
        false => warn!("no authentication: whoever reaches {address} can read, write and stop"),
    }
}

/// Does again, for a while, what fails as another process holds the address or
/// the directory: one that was just killed lets go of them a little later.
fn patiently<T>(mut attempt: impl FnMut() -> kvs::Result<T>) -> kvs::Result<T> {
    let begun = Instant::now();
    loop {
        let result = attempt();
        let is_held = match &result {
            Err(KvsError::Io { source, .. }) => source.kind() == ErrorKind::AddrInUse,
            Err(KvsError::InUse { .. }) => true,
            _ => false,
        };
        if !is_held || begun.elapsed() > LETTING_GO_MAX {
            return result;
        }
        std::thread::sleep(LETTING_GO_MAX / 50);
    }
}

/// Prints every record of the store.
fn inspect(flags: Flags) -> Result<(), Failure> {
    let directory = kvs_directory(&flags)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let context = "cannot print".to_owned();
    let inspected = KvStore::inspect(&directory, &mut out);
    let printed = out.flush().map_err(|source| KvsError::Io { context, source });
    match inspected.and_then(|damaged| printed.map(|()| damaged)) {
        Ok(0) => Ok(()),
        Ok(damaged) => Err(Failure::Failed(format!("{damaged} damaged ranges").into())),
        // Its reader has gone, as `head` does.
        Err(KvsError::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The directory of the engine kvs, which only it is to be looked at with.
fn kvs_directory(flags: &Flags) -> Result<PathBuf, Failure> {
    if flags.engine == Some(EngineName::Sled) {
        let reason = "--inspect is for the engine kvs".to_owned();
        return Err(ArgsError::Words(reason).into());
    }
    Ok(flags.dir.clone())
}
