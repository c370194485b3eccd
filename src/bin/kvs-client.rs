//! `kvs-client`: one request to a server, from a shell.
//!
//! Not here: the protocol, which [`KvsClient`] speaks.

#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use common::{ADDR, Failure, init_logger, parse_addr, print, read_secret};
use kvs::args::{Arg, ArgsError, Lexer};
use kvs::logger::Level;
use kvs::{KvsClient, KvsError};

/// What `--help` prints.
const HELP: &str = "\
kvs-client: asks a kvs server

Usage: kvs-client set KEY VALUE        set the value of a key
       kvs-client set KEY --stdin      .. to what stdin holds, byte for byte
       kvs-client get KEY              print the value of a key
       kvs-client rm KEY               remove a key
       kvs-client ping                 print PONG if the server answers
       kvs-client stats                print the server's figures
       kvs-client shutdown             end the server, and wait for its end

Flags, before or after the words; -- ends them, so that a word may begin with -
  --addr IP:PORT     the server's address [127.0.0.1:4000]
  --timeout SECONDS  how long to wait for it [30]
  --auth-file PATH   say the secret that this file holds first
  --stdin            set: read the value from stdin
  --raw              get: print the value without a newline after it
  --fail             get: exit with 1 if the key is not found
  -h, --help         print this
  -V, -v, --version  print the version

Exit status
  0  done; also for a get of a key that is not found, unless --fail is given
  1  it failed: stderr says why
  2  the command line is wrong: stderr says how

Environment
  KVS_LOG   level of messages on stderr: off, error, warn, info, debug, trace
  NO_COLOR  if set, these have no colours
";
/// What `--version` prints.
const VERSION: &str = concat!("kvs-client ", env!("CARGO_PKG_VERSION"), "\n");
/// The longest time that can be waited for: more than anybody will.
const TIMEOUT_SECONDS_MAX: f64 = 1e9;

/// The command line, as it was typed.
struct Line {
    /// The words: a command and what it takes.
    words: Vec<String>,
    /// `--addr`
    addr: SocketAddr,
    /// `--timeout`
    timeout: Duration,
    /// `--auth-file`
    auth_file: Option<PathBuf>,
    /// `--stdin`
    stdin: bool,
    /// `--raw`
    raw: bool,
    /// `--fail`
    fail: bool,
}

/// What the command line asks for.
enum Command {
    /// Set a key to a value; to what stdin holds where there is none.
    Set(String, Option<String>),
    /// Print the value of a key.
    Get(String),
    /// Remove a key.
    Remove(String),
    /// See whether the server answers.
    Ping,
    /// Print the server's figures.
    Stats,
    /// End the server.
    Shutdown,
}

fn main() -> ExitCode {
    common::exit("kvs-client", run())
}

/// Does what the command line asks for.
fn run() -> Result<(), Failure> {
    let Some(line) = read_line()? else { return Ok(()) };
    let command = command(&line)?;
    init_logger(None, Level::Warn)?;
    carry_out(command, &line)
}

/// Reads the command line; `None` when help or version was all it asked for.
fn read_line() -> Result<Option<Line>, Failure> {
    let mut line = Line {
        words: Vec::new(),
        addr: parse_addr(ADDR).map_err(Failure::Usage)?,
        timeout: kvs::TIMEOUT,
        auth_file: None,
        stdin: false,
        raw: false,
        fail: false,
    };
    let mut args = Lexer::new(std::env::args_os().skip(1));
    while let Some(arg) = args.next()? {
        let Arg::Long(flag) = arg else {
            match arg {
                Arg::Short('h') => return print(HELP.as_bytes()).map(|()| None),
                Arg::Short('V' | 'v') => return print(VERSION.as_bytes()).map(|()| None),
                Arg::Word(word) => line.words.push(word),
                _ => return Err(args.unknown().into()),
            }
            continue;
        };
        match flag.as_str() {
            "help" => return print(HELP.as_bytes()).map(|()| None),
            "version" => return print(VERSION.as_bytes()).map(|()| None),
            "addr" => line.addr = args.parsed_value(parse_addr)?,
            "timeout" => line.timeout = args.parsed_value(parse_timeout)?,
            "auth-file" => line.auth_file = Some(PathBuf::from(args.value()?)),
            "stdin" => line.stdin = true,
            "raw" => line.raw = true,
            "fail" => line.fail = true,
            _ => return Err(args.unknown().into()),
        }
    }
    Ok(Some(line))
}

/// Reads a number of seconds.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let seconds =
        text.parse().ok().filter(|s| (f64::MIN_POSITIVE..TIMEOUT_SECONDS_MAX).contains(s));
    let timeout = seconds.map(Duration::from_secs_f64).filter(|timeout| !timeout.is_zero());
    timeout.ok_or_else(|| "it has to be a number of seconds above 0, such as 5 or 0.5".to_owned())
}

/// What the words ask for.
fn command(line: &Line) -> Result<Command, Failure> {
    let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
    let is = |name: &str| words.first() == Some(&name);
    check_flag("--stdin", line.stdin, is("set"), "set")?;
    check_flag("--raw", line.raw, is("get"), "get")?;
    check_flag("--fail", line.fail, is("get"), "get")?;
    let usage = match words[..] {
        ["set", key, value] if !line.stdin => {
            return Ok(Command::Set(key.to_owned(), Some(value.to_owned())));
        }
        ["set", key] if line.stdin => return Ok(Command::Set(key.to_owned(), None)),
        ["get", key] => return Ok(Command::Get(key.to_owned())),
        ["rm", key] => return Ok(Command::Remove(key.to_owned())),
        ["ping"] => return Ok(Command::Ping),
        ["stats"] => return Ok(Command::Stats),
        ["shutdown"] => return Ok(Command::Shutdown),
        [] => "a command is missing".to_owned(),
        ["set", ..] => "usage: kvs-client set KEY VALUE, or set KEY --stdin".to_owned(),
        [name @ ("get" | "rm"), ..] => format!("usage: kvs-client {name} KEY"),
        [name @ ("ping" | "stats" | "shutdown"), ..] => format!("usage: kvs-client {name}"),
        [name, ..] => format!("there is no command '{}'", name.escape_debug()),
    };
    Err(ArgsError::Words(usage).into())
}

/// Fails for a flag of another command.
fn check_flag(flag: &str, given: bool, fits: bool, command: &str) -> Result<(), Failure> {
    if !given || fits {
        return Ok(());
    }
    Err(ArgsError::Words(format!("{flag} goes with {command} only")).into())
}

/// Sends the request and prints the answer.
fn carry_out(command: Command, line: &Line) -> Result<(), Failure> {
    let value = match &command {
        Command::Set(_, None) => read_stdin()?,
        _ => String::new(),
    };
    let secret = line.auth_file.as_deref().map(read_secret).transpose()?;
    let mut client = KvsClient::connect_with(line.addr, line.timeout)?;
    if let Some(secret) = secret {
        client.authenticate(secret)?;
    }
    match command {
        Command::Set(key, given) => client.set(key, given.unwrap_or(value))?,
        Command::Get(key) => return print_value(client.get(key)?, line),
        Command::Remove(key) => client.remove(key)?,
        Command::Ping => {
            client.ping()?;
            print(b"PONG\n")?;
        }
        Command::Stats => {
            let lines =
                client.stats()?.into_iter().map(|(name, value)| format!("{name}={value}\n"));
            print(lines.collect::<String>().as_bytes())?;
        }
        Command::Shutdown => client.shutdown()?,
    }
    Ok(())
}

/// All that stdin holds.
fn read_stdin() -> Result<String, Failure> {
    let mut value = String::new();
    let context = "cannot read the value from stdin".to_owned();
    let read = std::io::stdin().read_to_string(&mut value);
    read.map_err(|source| KvsError::Io { context, source })?;
    Ok(value)
}

/// Prints what a `get` found.
fn print_value(value: Option<String>, line: &Line) -> Result<(), Failure> {
    match value {
        Some(value) if line.raw => print(value.as_bytes()),
        Some(value) => print((value + "\n").as_bytes()),
        None if line.fail => Err(KvsError::KeyNotFound.into()),
        None => print(b"Key not found\n"),
    }
}
