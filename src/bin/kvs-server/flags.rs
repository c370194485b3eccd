//! The flags of `kvs-server`: their names, limits and help.
//!
//! Not here: what any of them does.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use kvs::args::{Arg, ArgsError, Lexer, parse_size};
use kvs::choice::EngineName;
use kvs::logger::Level;
use kvs::protocol::LINE_BYTES_LIMIT;
use kvs::{Options, ServerOptions};

use super::common::{ADDR, Failure, parse_addr, print};

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
  --max-read BYTES           read no more of a client at a time [64K]
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
pub(crate) const VERSION: &str = concat!("kvs-server ", env!("CARGO_PKG_VERSION"));
/// Bytes of a line: enough for the shortest requests, and no more than a client
/// reads back.
const LINE_BYTES: RangeInclusive<u64> = 16..=LINE_BYTES_LIMIT as u64;
/// Bytes that are read of a client at a time.
const READ_BYTES: RangeInclusive<u64> = 1 << 10..=16 << 20;
/// Bytes of a segment.
const SEGMENT_BYTES: RangeInclusive<u64> = 512..=1 << 30;
/// Dead bytes before compaction.
const THRESHOLD_BYTES: RangeInclusive<u64> = 4096..=u64::MAX;
/// Bytes of the cache.
const CACHE_BYTES: RangeInclusive<u64> = 0..=1 << 40;
/// Clients at a time.
const CLIENTS: RangeInclusive<usize> = 1..=1_000_000;

/// What is to be done.
pub(crate) enum Mode {
    /// Serve.
    Serve,
    /// Print every record.
    Inspect,
}

/// What was asked for on the command line, checked.
pub(crate) struct Flags {
    /// What is to be done.
    pub(crate) mode: Mode,
    /// Where to listen.
    pub(crate) addr: SocketAddr,
    /// The engine, if one was named.
    pub(crate) engine: Option<EngineName>,
    /// The data directory.
    pub(crate) dir: PathBuf,
    /// The logger's level, if one was named.
    pub(crate) level: Option<Level>,
    /// The built-in engine's options.
    pub(crate) store: Options,
    /// The server's.
    pub(crate) server: ServerOptions,
    /// The file that holds the secret, if there is to be one.
    pub(crate) auth_file: Option<PathBuf>,
}

/// Reads the command line; `None` when help or version was all it asked for.
pub(crate) fn read_flags() -> Result<Option<Flags>, Failure> {
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
        "max-replies" => server.output_bytes_max = args.parsed_value(line_bytes)?,
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
