//! `kvs-server`: flags, logger, exit status. The server itself is
//! [`kvs::KvsServer`].
//!
//! In this order: all arguments are read and checked, the address is bound, the
//! engine is chosen and opened, and then clients are served. A failure of any
//! step leaves nothing of the later ones behind.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use kvs::args::{Arg, Lexer, parse_size};
use kvs::choice::{self, EngineName};
use kvs::logger::{self, Level, info, warn};
use kvs::{KvsError, KvsServer, Options, ServerOptions, Stop};

/// Printed for `--help`.
const HELP: &str = "\
kvs-server serves a persistent key/value store over a text protocol.

Usage: kvs-server [FLAGS]

  --addr IP:PORT             listen there [127.0.0.1:4000]
  --engine kvs|sled          store with that engine [the one in use, else kvs]
  --dir PATH                 keep the data there [the current directory]
  --fsync POLICY             when an answered write is on the disk: always (before
                             it is answered), everysec, never [always]
  --log LEVEL                off, error, warn, info, debug or trace [KVS_LOG, else info]
  --segment-size BYTES       begin a new file after that many [32M]
  --compact-threshold BYTES  compact from that many dead bytes on [1M]
  --cache BYTES              keep that many read bytes in memory [64M]
  --max-line BYTES           refuse longer requests [1M]
  --max-clients N            serve no more at a time [4096]
  -h, --help                 print this
  -V, -v, --version          print the version

BYTES may end in K, M or G. NO_COLOR switches colours off.
There is no authentication: whoever reaches the address can read, write and stop.

Exit status: 0 after SHUTDOWN, SIGINT or SIGTERM; 1 when the server cannot start
or not everything could be kept; 2 when the flags are wrong; 128 and the signal's
number when a second signal cut the end short.
";

/// Printed for `--version`, and first in the line that tells of the start.
const VERSION: &str = concat!("kvs-server ", env!("CARGO_PKG_VERSION"));
/// The same as a line.
const VERSION_LINE: &str = concat!("kvs-server ", env!("CARGO_PKG_VERSION"), "\n");

/// The exit status for wrong flags.
const EXIT_USAGE: u8 = 2;

/// What was asked for on the command line, checked.
struct Flags {
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
}

/// What the command line asks for.
enum Command {
    /// To serve.
    Serve(Box<Flags>),
    /// To print this and no more.
    Print(&'static str),
}

fn main() -> ExitCode {
    let command = match parse(Lexer::new(std::env::args_os().skip(1))) {
        Ok(command) => command,
        Err(message) => {
            complain(&format!("error: {message}; try 'kvs-server --help'"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match command {
        Command::Print(text) => print(text),
        Command::Serve(flags) => match serve(*flags) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                complain(&format!("error: {}", e.chain().join("\ncaused by: ")));
                ExitCode::FAILURE
            }
        },
    }
}

/// Reads the whole command line; the error is what is wrong with it.
fn parse(mut lexer: Lexer) -> Result<Command, String> {
    let mut flags = Flags {
        addr: SocketAddr::from(([127, 0, 0, 1], 4000)),
        engine: None,
        dir: PathBuf::from("."),
        level: level_of_environment()?,
        store: Options::default(),
        server: ServerOptions::default(),
    };
    // In the server a turn's writes go to the system together.
    flags.store.buffered = true;
    while let Some(arg) = lexer.next().map_err(text)? {
        match arg {
            Arg::Short('h') => return Ok(Command::Print(HELP)),
            Arg::Short('V' | 'v') => return Ok(Command::Print(VERSION_LINE)),
            Arg::Long(name) => match name.as_str() {
                "help" => return Ok(Command::Print(HELP)),
                "version" => return Ok(Command::Print(VERSION_LINE)),
                name => set_flag(&mut flags, name, &mut lexer)?,
            },
            Arg::Short(letter) => return Err(unknown(&format!("-{letter}"))),
            Arg::Word(word) => return Err(format!("unexpected argument '{}'", shown(&word))),
        }
    }
    Ok(Command::Serve(Box::new(flags)))
}

/// Takes the value of one flag.
fn set_flag(flags: &mut Flags, name: &str, lexer: &mut Lexer) -> Result<(), String> {
    let (store, server) = (&mut flags.store, &mut flags.server);
    match name {
        "addr" => flags.addr = parsed(name, lexer)?,
        "engine" => flags.engine = Some(lexer.value().map_err(text)?.parse().map_err(text)?),
        "dir" => flags.dir = PathBuf::from(lexer.value().map_err(text)?),
        "fsync" => server.fsync = parsed(name, lexer)?,
        "log" => flags.level = Some(parsed(name, lexer)?),
        "segment-size" => store.segment_bytes = size(name, lexer)?,
        "compact-threshold" => store.compact_threshold_bytes = size(name, lexer)?,
        "cache" => store.cache_bytes = usize_size(name, lexer)?,
        "max-line" => server.line_bytes_max = usize_size(name, lexer)?.max(1),
        "max-clients" => server.clients_max = parsed(name, lexer)?,
        _ => return Err(unknown(&format!("--{name}"))),
    }
    Ok(())
}

/// The value of a flag, of whatever kind it has.
fn parsed<T: std::str::FromStr<Err: Display>>(name: &str, lexer: &mut Lexer) -> Result<T, String> {
    let value = lexer.value().map_err(text)?;
    value.parse().map_err(|e| format!("--{name} '{}': {e}", shown(&value)))
}

/// The value of a flag that is a number of bytes.
fn size(name: &str, lexer: &mut Lexer) -> Result<u64, String> {
    let value = lexer.value().map_err(text)?;
    parse_size(&value).map_err(|e| format!("--{name}: {e}"))
}

/// The value of a flag that is a number of bytes in memory.
fn usize_size(name: &str, lexer: &mut Lexer) -> Result<usize, String> {
    usize::try_from(size(name, lexer)?).map_err(|_| format!("--{name}: more than memory has"))
}

/// The level that `KVS_LOG` names.
fn level_of_environment() -> Result<Option<Level>, String> {
    let Ok(name) = std::env::var("KVS_LOG") else { return Ok(None) };
    name.parse().map(Some).map_err(|e| format!("KVS_LOG '{}': {e}", shown(&name)))
}

/// What is wrong with a flag that there is not.
fn unknown(flag: &str) -> String {
    format!("unknown flag '{}'", shown(flag))
}

/// What was typed, so that it cannot drive the terminal it is shown on.
fn shown(typed: &str) -> impl Display {
    typed.escape_debug()
}

/// An error as text.
fn text(e: impl Display) -> String {
    e.to_string()
}

/// Serves until the end.
fn serve(flags: Flags) -> kvs::Result<()> {
    let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && io::IsTerminal::is_terminal(&io::stderr());
    logger::init(flags.level.unwrap_or(Level::Info), has_colour);
    // Before anything that takes long, so that a signal during recovery is heard.
    let stop = Stop::on_signals()
        .map_err(|source| KvsError::Io { context: "cannot catch signals".to_owned(), source })?;
    // Before the engine, so that a taken address leaves nothing behind; clients
    // wait in the listener's queue until the engine is open.
    let listener = TcpListener::bind(flags.addr).map_err(|source| KvsError::Io {
        context: format!("cannot listen on {}", flags.addr),
        source,
    })?;
    let name = choice::choose(&flags.dir, flags.engine)?;
    let engine = choice::open(&flags.dir, name, &flags.store)?;
    let server = KvsServer::new(listener, engine, flags.server)?;
    let address = server.local_addr();
    if !address.ip().is_loopback() {
        warn!("no authentication: whoever reaches {address} can read, write and stop this server");
    }
    let (engine, dir) = (name.as_str(), flags.dir.display());
    info!("{VERSION} listening on {address}, engine {engine}, directory {dir}");
    server.run(stop)?;
    info!("stopped");
    Ok(())
}

/// Prints to stdout. A reader that has closed it has read enough.
fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Prints to stderr. When that fails, nobody is left to be told.
fn complain(message: &str) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}
