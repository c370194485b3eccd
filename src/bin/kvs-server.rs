//! `kvs-server`: flags, logger and exit status. [`kvs::KvsServer`] is the server.
//!
//! The start checks all flags, binds the address, opens the engine and then serves
//! clients.
//!
//! Invariant: a step that fails leaves nothing of the later steps behind
//! (`a_failed_start_leaves_nothing`).

#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use common::{ADDR, Failure, escape, failed, print, print_failure, read_secret};
use kvs::args::{Arg, ArgsError, Lexer, parse_size};
use kvs::choice::{self, EngineName};
use kvs::logger::{self, Level, info, warn};
use kvs::protocol::LINE_BYTES_LIMIT;
use kvs::{KvStore, KvsError, KvsServer, Options, Secret, ServerOptions, Stop};

/// The text of `--help`. `--segment-size` and `--compact-threshold` are for tests, so
/// they are not in it.
const HELP: &str = "\
kvs-server: a persistent key/value store with a text protocol

Examples:
  kvs-server --dir data                       serve the store in the directory data
  kvs-server --dir data --addr 0.0.0.0:4000 --auth-file secret
  kvs-server --dir data --export > pairs.txt  then load them: kvs-client - < pairs.txt

Usage: kvs-server [FLAGS]            serve until SHUTDOWN, SIGINT, SIGTERM or SIGHUP
       kvs-server --export [FLAGS]   print all pairs as SET lines, even of a damaged
                                     store, and report what is lost
       kvs-server --inspect [FLAGS]  print all records and damaged ranges (engine kvs)

  --addr IP:PORT     address to listen on [127.0.0.1:4000]
  --dir PATH         directory of the store [the current directory]
  --engine kvs|sled  storage engine [the one found in --dir, or kvs]
  --fsync POLICY     when to fsync: always (before replying), everysec, never [always]
  --cache BYTES      size of the read cache, at most 1024G [64M]
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
/// The text of `--version`, which the log repeats at the start.
const VERSION: &str = concat!("kvs-server ", env!("CARGO_PKG_VERSION"));
/// Limits of `--max-line`: the shortest requests fit, and a client can read a value
/// of this length.
const LINE_BYTES: RangeInclusive<u64> = 16..=LINE_BYTES_LIMIT as u64;
/// Limits of `--segment-size`.
const SEGMENT_BYTES: RangeInclusive<u64> = 512..=1 << 30;
/// Limits of `--compact-threshold`.
const THRESHOLD_BYTES: RangeInclusive<u64> = 4096..=u64::MAX;
/// Limits of `--cache`.
const CACHE_BYTES: RangeInclusive<u64> = 0..=1 << 40;
/// Limits of `--max-clients`.
const CLIENTS: RangeInclusive<usize> = 1..=1_000_000;
/// How long a killed process may take to release its address and directory.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(1);

/// What to do with the store.
enum Mode {
    Serve,
    Export,
    Inspect,
}

/// The flags by their names, and the options that they set.
struct Flags {
    mode: Mode,
    addr: SocketAddr,
    engine: Option<EngineName>,
    dir: PathBuf,
    level: Option<Level>,
    auth_file: Option<PathBuf>,
    store: Options,
    server: ServerOptions,
}

fn main() -> ExitCode {
    common::exit("kvs-server", run())
}

/// Does what the command line asks for.
fn run() -> Result<(), Failure> {
    let Some(mut flags) = read_flags()? else { return Ok(()) };
    init_logger(flags.level)?;
    if let Some(path) = &flags.auth_file {
        flags.server.secret = Secret::new(read_secret(path)?);
    }
    match flags.mode {
        Mode::Serve => Ok(serve(flags)?),
        Mode::Export => export(&flags),
        Mode::Inspect => inspect(&flags),
    }
}

/// Reads the command line. Returns `None` after printing help or version.
fn read_flags() -> Result<Option<Flags>, Failure> {
    let mut flags = Flags {
        mode: Mode::Serve,
        addr: parse_addr(ADDR).map_err(Failure::Usage)?,
        engine: None,
        dir: PathBuf::from("."),
        level: None,
        auth_file: None,
        store: Options::default(),
        server: ServerOptions::default(),
    };
    // The server flushes once per iteration of its event loop.
    flags.store.buffered = true;
    let mut args = Lexer::new(std::env::args_os().skip(1));
    while let Some(arg) = args.next()? {
        let name = match arg {
            Arg::Short('h') => "help".to_owned(),
            Arg::Short('V' | 'v') => "version".to_owned(),
            Arg::Short(_) => return Err(args.unknown().into()),
            Arg::Long(name) => name,
            Arg::Word(word) => {
                let reason = format!("'{}' is not a flag", word.escape_debug());
                return Err(Failure::Usage(reason));
            }
        };
        match name.as_str() {
            "help" => return print(HELP.as_bytes()).map(|()| None),
            "version" => return print(format!("{VERSION}\n").as_bytes()).map(|()| None),
            name => set_flag(&mut flags, name, &mut args)?,
        }
    }
    match (&flags.mode, flags.engine) {
        (Mode::Inspect, Some(EngineName::Sled)) => {
            Err(Failure::Usage("--inspect is for the engine kvs".to_owned()))
        }
        _ => Ok(Some(flags)),
    }
}

/// Takes one flag and its value.
fn set_flag<I>(flags: &mut Flags, name: &str, args: &mut Lexer<I>) -> Result<(), ArgsError>
where
    I: Iterator<Item = OsString>,
{
    let (store, server) = (&mut flags.store, &mut flags.server);
    match name {
        "inspect" => flags.mode = Mode::Inspect,
        "export" => flags.mode = Mode::Export,
        "addr" => flags.addr = args.parsed_value(parse_addr)?,
        "dir" => flags.dir = PathBuf::from(args.value()?),
        "engine" => flags.engine = Some(args.parsed_value(parse_name)?),
        "fsync" => server.fsync = args.parsed_value(parse_name)?,
        "log" => flags.level = Some(args.parsed_value(parse_name)?),
        "segment-size" => {
            store.segment_bytes = args.parsed_value(|text| size(text, SEGMENT_BYTES))?;
        }
        "compact-threshold" => {
            store.compact_threshold_bytes =
                args.parsed_value(|text| size(text, THRESHOLD_BYTES))?;
        }
        "cache" => store.cache_bytes = args.parsed_value(|text| size(text, CACHE_BYTES))? as usize,
        "max-line" => {
            server.line_bytes_max = args.parsed_value(|text| size(text, LINE_BYTES))? as usize;
        }
        "max-clients" => server.clients_max = args.parsed_value(parse_clients)?,
        "auth-file" => flags.auth_file = Some(PathBuf::from(args.value()?)),
        "no-shutdown" => server.allows_shutdown = false,
        _ => return Err(args.unknown()),
    }
    Ok(())
}

/// Parses `IP:PORT`.
fn parse_addr(text: &str) -> Result<SocketAddr, String> {
    let form = "it has to be IP:PORT, such as 127.0.0.1:4000 or [::1]:4000";
    text.parse().map_err(|_| form.to_owned())
}

/// Parses one of the names of a type's values.
fn parse_name<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// Parses a number of bytes within limits.
fn size(text: &str, limits: RangeInclusive<u64>) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    let error = || format!("it has to be from {} to {} bytes", limits.start(), limits.end());
    limits.contains(&bytes).then_some(bytes).ok_or_else(error)
}

/// Parses a number of clients.
fn parse_clients(text: &str) -> Result<usize, String> {
    let error = || format!("it has to be a number from {} to {}", CLIENTS.start(), CLIENTS.end());
    text.parse().ok().filter(|count| CLIENTS.contains(count)).ok_or_else(error)
}

/// Sets the log level: that of the flag, else that of `KVS_LOG`, else `info`.
fn init_logger(flag: Option<Level>) -> Result<(), Failure> {
    let level = match (flag, std::env::var("KVS_LOG")) {
        (Some(level), _) => level,
        (None, Ok(name)) if !name.is_empty() => {
            parse_name(&name).map_err(|reason| Failure::Usage(format!("KVS_LOG: {reason}")))?
        }
        _ => Level::Info,
    };
    logger::init(level);
    Ok(())
}

/// Serves clients until the shutdown.
fn serve(flags: Flags) -> kvs::Result<()> {
    let io_error = |context: String| |source| KvsError::Io { context, source };
    // First, so that a signal during recovery is caught.
    let stop = Stop::on_signals().map_err(io_error("cannot catch signals".to_owned()))?;
    // Before the engine is opened: if the address is in use, nothing is written.
    // Clients wait in the listener's queue until recovery is complete.
    let listener = retry_while_held(|| {
        TcpListener::bind(flags.addr).map_err(io_error(format!("cannot listen on {}", flags.addr)))
    })?;
    let name = choice::choose(&flags.dir, flags.engine)?;
    let engine = retry_while_held(|| choice::open(&flags.dir, name, &flags.store))?;
    let mut options = flags.server;
    options.engine = name.as_str().to_owned();
    options.directory = std::path::absolute(&flags.dir).unwrap_or_else(|_| flags.dir.clone());
    let has_secret = options.secret.is_some();
    let server = KvsServer::new(listener, engine, options)?;
    let address = server.local_addr();
    warn_of_exposure(address, has_secret);
    let (engine, dir) = (name.as_str(), flags.dir.display());
    info!("{VERSION} listening on {address}, engine {engine}, directory {dir}");
    server.run(stop)?;
    info!("stopped");
    Ok(())
}

/// Warns if other machines can reach the server.
fn warn_of_exposure(address: SocketAddr, has_secret: bool) {
    match has_secret {
        _ if address.ip().is_loopback() => {}
        true => warn!("no encryption: the secret and all data pass in clear to {address}"),
        false => warn!("no authentication: whoever reaches {address} can read, write and stop"),
    }
}

/// Retries while another process holds the address or the directory: a killed
/// process releases them a little later.
fn retry_while_held<T>(mut attempt: impl FnMut() -> kvs::Result<T>) -> kvs::Result<T> {
    let begun = Instant::now();
    loop {
        let result = attempt();
        let is_held = match &result {
            Err(KvsError::Io { source, .. }) => source.kind() == ErrorKind::AddrInUse,
            Err(KvsError::InUse { .. }) => true,
            _ => false,
        };
        if !is_held || begun.elapsed() > RELEASE_TIME_MAX {
            return result;
        }
        std::thread::sleep(RELEASE_TIME_MAX / 50);
    }
}

/// Prints all pairs as `SET` lines, and on stderr what was lost.
fn export(flags: &Flags) -> Result<(), Failure> {
    choice::choose(&flags.dir, flags.engine)?;
    let report = &mut |message: &str| {
        let _ = writeln!(io::stderr(), "kvs-server: {}", escape(message));
    };
    match print_all(|out| choice::export(&flags.dir, out, report))? {
        0 => Ok(()),
        lost => Err(failed(format!("{lost} damaged ranges could not be exported"))),
    }
}

/// Prints all records and damaged ranges.
fn inspect(flags: &Flags) -> Result<(), Failure> {
    match print_all(|out| KvStore::inspect(&flags.dir, out))? {
        0 => Ok(()),
        damaged => Err(failed(format!("{damaged} damaged ranges"))),
    }
}

/// Buffers what `write` writes to stdout, and returns its count.
fn print_all(write: impl FnOnce(&mut dyn Write) -> kvs::Result<u64>) -> Result<u64, Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let count = write(&mut out).map_err(|error| match error {
        KvsError::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe => {
            Failure::ReaderGone
        }
        error => error.into(),
    })?;
    out.flush().map_err(print_failure)?;
    Ok(count)
}
