//! `kvs-server`: flags, logger, exit status. The server itself is
//! [`kvs::KvsServer`].
//!
//! In this order: all arguments are read and checked, the address is bound, the
//! engine is chosen and opened, and then clients are served. A failure of any
//! step leaves nothing of the later ones behind.

#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::fmt::Display;
use std::io::{BufWriter, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use common::{ADDR, Failure, init_logger, parse_addr, print, read_secret};
use kvs::args::{Arg, ArgsError, Lexer, parse_size};
use kvs::choice::{self, EngineName};
use kvs::logger::{Level, info, warn};
use kvs::{KvStore, KvsError, KvsServer, Options, Secret, ServerOptions, Stop};

/// Printed for `--help`.
const HELP: &str = "\
kvs-server serves a persistent key/value store over a text protocol.

Usage: kvs-server [FLAGS]            serve
       kvs-server --inspect [FLAGS]  print every record of the engine kvs
       kvs-server --repair [FLAGS]   keep what is intact of a damaged kvs, which
                                     is set aside, and say what is lost

  --addr IP:PORT             listen there [127.0.0.1:4000]
  --engine kvs|sled          store with that engine [the one in use, else kvs]
  --dir PATH                 keep the data there [the current directory]
  --fsync POLICY             when an answered write is on the disk: always (before
                             it is answered), everysec, never [always]
  --log LEVEL                off, error, warn, info, debug or trace [KVS_LOG, else info]
  --segment-size BYTES       begin a new file after that many [8M]
  --compact-threshold BYTES  compact from that many dead bytes on [1M]
  --cache BYTES              keep that many read bytes in memory [64M]
  --max-line BYTES           refuse longer requests [1M]
  --max-clients N            serve no more at a time [4096]
  --max-replies BYTES        stop reading a client that leaves that many bytes of
                             replies unread [256K]
  --max-read BYTES           read no more of a client in one turn [64K]
  --auth-file PATH           do nothing for clients that do not say the secret in
                             that file, but for AUTH, HELP, PING and QUIT
  --no-shutdown              refuse SHUTDOWN; end by a signal only
  -h, --help                 print this
  -V, -v, --version          print the version

BYTES may end in K, M or G. Sizes of segments go from 512 to 1G, the compaction
threshold is 4K at least, lines and replies have 16 bytes to 256M, reads 1K to 16M.
NO_COLOR switches colours off. Without --auth-file, whoever reaches the address can
read, write and stop. Nothing is encrypted, the secret neither.

A client holds at most a line, a read, and twice the waiting replies and the longest
one; a thousand idle ones some 32M.

Exit status: 0 after SHUTDOWN, SIGINT or SIGTERM; 1 when the server cannot start
or not everything could be kept, or --inspect has found damage; 2 when the flags
are wrong; 128 and the signal's number when a second signal cut the end short.
";

/// What the server is, for `--version` and the line that tells of the start.
const VERSION: &str = concat!("kvs-server ", env!("CARGO_PKG_VERSION"));
/// Bytes of a line: enough for the shortest requests, and no more than can be
/// held for each client.
const LINE_BYTES: RangeInclusive<u64> = 16..=256 << 20;
/// Bytes that are read of a client in one turn.
const READ_BYTES: RangeInclusive<u64> = 1 << 10..=16 << 20;
/// Bytes of a segment.
const SEGMENT_BYTES: RangeInclusive<u64> = kvs::SEGMENT_BYTES_MIN..=kvs::SEGMENT_BYTES_MAX;
/// Dead bytes before compaction.
const THRESHOLD_BYTES: RangeInclusive<u64> = kvs::COMPACT_THRESHOLD_BYTES_MIN..=u64::MAX;
/// Bytes of the cache.
const CACHE_BYTES: RangeInclusive<u64> = 0..=1 << 40;
/// How long a process that was killed may take to let go of what it held.
const LETTING_GO_MAX: Duration = Duration::from_secs(1);
/// Clients at a time.
const CLIENTS: RangeInclusive<usize> = 1..=1_000_000;

/// What is to be done.
enum Mode {
    /// Serve.
    Serve,
    /// Print every record.
    Inspect,
    /// Keep what is intact.
    Repair,
}

/// What was asked for on the command line, checked.
struct Flags {
    /// What is to be done.
    mode: Mode,
    /// Where to listen.
    addr: SocketAddr,
    /// The engine, if one was named.
    engine: Option<EngineName>,
    /// The data directory.
    dir: PathBuf,
    /// The logger's level, if one was named.
    level: Option<Level>,
    /// The built-in engine's options.
    store: Options,
    /// The server's.
    server: ServerOptions,
    /// The file that holds the secret, if there is to be one.
    auth_file: Option<PathBuf>,
}

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
        Mode::Repair => repair(flags),
    }
}

/// Reads the command line; `None` when help or version was all it asked for.
fn read_flags() -> Result<Option<Flags>, Failure> {
    let mut flags = Flags {
        mode: Mode::Serve,
        addr: parse_addr(ADDR).map_err(Failure::Usage)?,
        engine: None,
        dir: PathBuf::from("."),
        level: None,
        store: Options::default(),
        server: ServerOptions::default(),
        auth_file: None,
    };
    // In the server a turn's writes go to the system together.
    flags.store.buffered = true;
    let version = format!("{VERSION}\n");
    let mut args = Lexer::new(std::env::args_os().skip(1));
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Short('h') => return print(HELP.as_bytes()).map(|()| None),
            Arg::Short('V' | 'v') => return print(version.as_bytes()).map(|()| None),
            Arg::Long(name) => match name.as_str() {
                "help" => return print(HELP.as_bytes()).map(|()| None),
                "version" => return print(version.as_bytes()).map(|()| None),
                name => set_flag(&mut flags, name, &mut args)?,
            },
            Arg::Short(_) => return Err(args.unknown().into()),
            Arg::Word(word) => {
                let reason = format!("it takes no words, such as '{}'", word.escape_debug());
                return Err(ArgsError::Words(reason).into());
            }
        }
    }
    Ok(Some(flags))
}

/// Takes one flag, and its value.
fn set_flag<I>(flags: &mut Flags, name: &str, args: &mut Lexer<I>) -> Result<(), ArgsError>
where
    I: Iterator<Item = std::ffi::OsString>,
{
    let (store, server) = (&mut flags.store, &mut flags.server);
    let line_bytes = |text: &str| size(text, LINE_BYTES).map(|bytes| bytes as usize);
    let cache_bytes = |text: &str| size(text, CACHE_BYTES).map(|bytes| bytes as usize);
    match name {
        "inspect" => flags.mode = Mode::Inspect,
        "repair" => flags.mode = Mode::Repair,
        "addr" => flags.addr = args.parsed_value(parse_addr)?,
        "engine" => flags.engine = Some(args.parsed_value(parsed)?),
        "dir" => flags.dir = PathBuf::from(args.value()?),
        "fsync" => server.fsync = args.parsed_value(parsed)?,
        "log" => flags.level = Some(args.parsed_value(parsed)?),
        "segment-size" => store.segment_bytes = args.parsed_value(|t| size(t, SEGMENT_BYTES))?,
        "compact-threshold" => {
            store.compact_threshold_bytes = args.parsed_value(|t| size(t, THRESHOLD_BYTES))?;
        }
        "cache" => store.cache_bytes = args.parsed_value(cache_bytes)?,
        "max-line" => server.line_bytes_max = args.parsed_value(line_bytes)?,
        "max-replies" => server.outbox_bytes_max = args.parsed_value(line_bytes)?,
        "max-read" => {
            server.read_bytes_max = args.parsed_value(|t| size(t, READ_BYTES))? as usize;
        }
        "auth-file" => flags.auth_file = Some(PathBuf::from(args.value()?)),
        "no-shutdown" => server.allows_shutdown = false,
        "max-clients" => server.clients_max = args.parsed_value(clients)?,
        _ => return Err(args.unknown()),
    }
    Ok(())
}

/// Reads a value by the names that its type has.
fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// Reads a number of bytes within limits.
fn size(text: &str, limits: RangeInclusive<u64>) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if limits.contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("it has to be from {} to {} bytes", limits.start(), limits.end()))
}

/// Reads a number of clients.
fn clients(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| CLIENTS.contains(count));
    let limits = || format!("it has to be a number from {} to {}", CLIENTS.start(), CLIENTS.end());
    count.ok_or_else(limits)
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
    let server = KvsServer::new(listener, engine, flags.server)?;
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

/// Keeps what is intact of the store, and prints what is not.
fn repair(flags: Flags) -> Result<(), Failure> {
    let repair = KvStore::repair(&kvs_directory(&flags)?)?;
    let lost = repair.lost.iter().map(|lost| format!("lost: {lost}\n"));
    let mut text: String = lost.collect();
    text += &match repair.set_aside {
        None => format!("nothing is damaged; the store has {} keys\n", repair.keys),
        Some(path) => format!(
            "the repaired store has {} keys; the damaged one is in {}\n",
            repair.keys,
            path.display()
        ),
    };
    print(text.as_bytes())
}

/// The directory of the engine kvs, which only it is to be looked at with.
fn kvs_directory(flags: &Flags) -> Result<PathBuf, Failure> {
    if flags.engine == Some(EngineName::Sled) {
        let reason = "--inspect and --repair are for the engine kvs".to_owned();
        return Err(ArgsError::Words(reason).into());
    }
    Ok(flags.dir.join(EngineName::Kvs.as_str()))
}
