//! `kvs-server`: flags, logger and exit status. [`kvs::KvsServer`] is the server.
//!
//! The start checks all flags, binds the address, opens the engine and then serves
//! clients.
//!
//! Invariant: a step that fails leaves nothing of the later steps behind
//! (`a_failed_start_leaves_nothing`).

#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::io::{self, BufWriter, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use common::{Failure, VERSION, exit, failed, print_and_exit, read_secret, retry, stdout_error};
use kvs::args::Lexer;
use kvs::choice::{self, EngineName};
use kvs::logger::{self, Level, escape, write};
use kvs::protocol::LINE_BYTES_LIMIT;
use kvs::{KvStore, KvsError, KvsServer, Options, Secret, ServerOptions, Stop};

/// `--segment-size` and `--compact-threshold` are for tests, so the help omits them.
const HELP: &str = "\
kvs-server: a persistent key/value store with a text protocol

Examples:
  kvs-server --dir data                       serve the store in the directory data
  kvs-server --dir data --addr 0.0.0.0:4000 --auth-file secret
  kvs-server --dir data --export > pairs.txt  then load them: kvs-client - < pairs.txt

Usage: kvs-server [FLAGS]            serve until SHUTDOWN, SIGINT, SIGTERM or SIGHUP
       kvs-server --export [FLAGS]   print all pairs as SET lines, even of a damaged
                                     store, and report what is lost; of sled's files,
                                     only what sled can open: copy the directory first
       kvs-server --inspect [FLAGS]  print all records and damaged ranges (engine kvs)

  --addr IP:PORT     address to listen on [127.0.0.1:4000]
  --dir PATH         directory of the store [the current directory]
  --engine kvs|sled  storage engine [the one found in --dir, or kvs]
  --fsync POLICY     when to fsync: always (before replying), everysec, never [always]
  --cache BYTES      size of the block cache, at most 1024G [64M]
  --max-line BYTES   maximum length of a request line, 16 to 256M [1M]
  --max-clients N    maximum number of clients, 1 to 1000000 [4096]
  --auth-file PATH   require clients to authenticate with the secret in this file
                     (AUTH, HELP, PING and QUIT always work)
  --no-shutdown      refuse SHUTDOWN
  --log LEVEL        off, error, warn, info, debug or trace [$KVS_LOG, or info]
  -h, --help         print this help
  -V, -v, --version  print the version

BYTES may end in K, M or G.
Without --auth-file, everybody who reaches the address can read, write and shut
down. Nothing is encrypted, including the secret.

Exit status: 0 after an orderly shutdown; 1 if the server cannot start, the store
failed (as after a failed fsync), or --export or --inspect found damage; 2 if the
flags are wrong; 128+N if a second signal N interrupted the shutdown.
";
/// How long a killed process may take to release its address and directory.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(1);

/// What to do with the store.
#[derive(PartialEq)]
enum Mode {
    Serve,
    Export,
    Inspect,
}

/// The command line.
struct Flags {
    mode: Mode,
    addr: SocketAddr,
    engine: Option<EngineName>,
    dir: PathBuf,
    store: Options,
    server: ServerOptions,
}

fn main() -> ExitCode {
    match read_flags() {
        // A server must end even if nobody reads its stderr.
        Ok(flags) if flags.mode == Mode::Serve => exit(serve(flags).map_err(Failure::from), false),
        flags => exit(flags.and_then(|flags| print_store(&flags)), true),
    }
}

/// Reads the command line, and sets the log level.
fn read_flags() -> Result<Flags, Failure> {
    let mut flags = Flags {
        mode: Mode::Serve,
        addr: SocketAddr::from(([127, 0, 0, 1], 4000)),
        engine: None,
        dir: PathBuf::from("."),
        store: Options::default(),
        server: ServerOptions::default(),
    };
    let (store, server, mut level) = (&mut flags.store, &mut flags.server, None);
    // The server flushes once per iteration of its event loop.
    store.buffered = true;
    let mut args = Lexer::new(std::env::args_os().skip(1))?;
    while let Some(flag) = args.next_flag()? {
        match flag.as_str() {
            "-h" | "--help" => print_and_exit(HELP)?,
            "-v" | "-V" | "--version" => print_and_exit(VERSION)?,
            "--inspect" => flags.mode = Mode::Inspect,
            "--export" => flags.mode = Mode::Export,
            "--addr" => flags.addr = args.parsed_value(parse_addr)?,
            "--dir" => flags.dir = args.value()?.into(),
            "--engine" => flags.engine = Some(args.parsed_value(str::parse)?),
            "--log" => level = Some(args.parsed_value(str::parse)?),
            "--fsync" => server.fsync = args.parsed_value(str::parse)?,
            "--segment-size" => store.segment_bytes = args.number(512..=1 << 30)?,
            "--compact-threshold" => {
                store.compact_threshold_bytes = args.number(4096..=u64::MAX)?;
            }
            "--cache" => store.cache_bytes = args.number(0..=1 << 40)? as usize,
            "--max-line" => {
                server.line_bytes_max = args.number(16..=LINE_BYTES_LIMIT as u64)? as usize;
            }
            "--max-clients" => server.clients_max = args.number(1..=1_000_000)? as usize,
            "--auth-file" => server.secret = Secret::new(read_secret(args.value()?.as_ref())?),
            "--no-shutdown" => server.allows_shutdown = false,
            _ => return Err(format!("there is no flag '{flag}'").into()),
        }
    }
    logger::init(log_level(level)?);
    match args.words.first() {
        Some(word) => Err(format!("'{word}' is not a flag").into()),
        None => Ok(flags),
    }
}

fn parse_addr(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "it has to be IP:PORT, such as 127.0.0.1:4000 or [::1]:4000")
}

/// The log level: that of the flag, else that of `KVS_LOG`, else `info`.
fn log_level(flag: Option<Level>) -> Result<Level, String> {
    let name = std::env::var("KVS_LOG").unwrap_or_default();
    match flag {
        Some(level) => Ok(level),
        None if name.is_empty() => Ok(Level::Info),
        None => name.parse().map_err(|reason| format!("KVS_LOG: {reason}")),
    }
}

/// Serves clients until the shutdown.
fn serve(flags: Flags) -> kvs::Result<()> {
    // First, so that a signal during recovery is caught.
    let stop = Stop::on_signals().map_err(KvsError::io("cannot catch signals"))?;
    // Before the engine is opened: if the address is in use, nothing is written.
    // Clients wait in the listener's queue until recovery is complete.
    let listener = retry(RELEASE_TIME_MAX, || {
        TcpListener::bind(flags.addr)
            .map_err(KvsError::io(format!("cannot listen on {}", flags.addr)))
    })?;
    let name = choice::choose(&flags.dir, flags.engine)?;
    let engine = retry(RELEASE_TIME_MAX, || choice::open(&flags.dir, name, &flags.store))?;
    let mut options = flags.server;
    options.engine = name.as_str().to_owned();
    options.directory = std::path::absolute(&flags.dir).unwrap_or_else(|_| flags.dir.clone());
    let has_secret = options.secret.is_some();
    let server = KvsServer::new(listener, engine, options)?;
    let address = server.local_addr();
    let warning = match has_secret {
        true => "no encryption: the secret and all data pass in clear to",
        false => "no authentication: everybody can read, write and shut down",
    };
    if !address.ip().is_loopback() {
        write(Level::Warn, format_args!("{warning} {address}"));
    }
    let (version, engine, dir) = (VERSION.trim_end(), name.as_str(), flags.dir.display());
    let started =
        format_args!("{version} listening on {address}, engine {engine}, directory {dir}");
    write(Level::Info, started);
    server.run(stop)?;
    write(Level::Info, format_args!("stopped"));
    Ok(())
}

/// Prints the pairs or records of a store. Fails if it is damaged.
fn print_store(flags: &Flags) -> Result<(), Failure> {
    if choice::choose(&flags.dir, flags.engine)? == EngineName::Sled {
        // A panic of sled at damaged files becomes an error, which is enough to print.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = match flags.mode {
        Mode::Inspect => KvStore::inspect(&flags.dir, &mut out),
        _ => choice::export(&flags.dir, &mut out, &mut |message| {
            let _ = writeln!(io::stderr(), "kvs-server: {}", escape(message));
        }),
    };
    let damaged = printed.map_err(|error| match error {
        KvsError::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe => {
            stdout_error(source)
        }
        error => error,
    })?;
    out.flush().map_err(stdout_error)?;
    match damaged {
        0 => Ok(()),
        _ => Err(failed(&[format!("{damaged} damaged ranges")])),
    }
}
