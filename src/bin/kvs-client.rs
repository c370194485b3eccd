//! `kvs-client`: sends requests to a server from a shell.
//!
//! [`KvsClient`] knows connections and their timeouts, [`kvs::protocol`] the form of
//! lines.
//!
//! Invariants:
//! * `dump` prints lines that `kvs-client -` loads, for all keys and values
//!   (`dump_and_load_copy_every_string`).
//! * `kvs-client -` sends a line only if it has its ending: a file that was cut off
//!   cannot store half a value (`an_unfinished_line_is_not_sent`).

#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, IsTerminal, Read, Write};
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{ADDR, Failure, failed, print, print_failure, read_secret};
use kvs::args::{Arg, ArgsError, Lexer};
use kvs::protocol::{
    LINE_BYTES_LIMIT, Reply, Request, decode_reply, decode_request, encode_request,
};
use kvs::{KvsClient, KvsError};

/// The text of `--help`.
const HELP: &str = "\
kvs-client: command-line client for kvs-server

Examples:
  kvs-client set greeting 'hello, world'
  kvs-client get greeting
  kvs-client dump > backup.txt                then load it: kvs-client - < backup.txt

Usage: kvs-client set KEY VALUE    set the value of a key
       kvs-client set KEY --stdin  the same; read the value from standard input (UTF-8)
       kvs-client get KEY          print the value of a key
       kvs-client rm KEY           remove a key
       kvs-client keys [PREFIX]    list the keys, one per line; those with control
                                   characters are shown as JSON strings
       kvs-client dump             print all pairs as SET lines
       kvs-client -                send the request lines on standard input, and print
                                   the replies; with a terminal, interactive
       kvs-client ping             wait until a server answers, and print PONG
       kvs-client stats            print the server's statistics
       kvs-client shutdown         shut the server down, and wait until it has ended

Flags, before or after the words; all arguments after -- are words
  --addr HOST:PORT   address of the server [127.0.0.1:4000]
  --timeout SECONDS  timeout for connecting, and for each reply; ping retries until then [30]
  --auth-file PATH   authenticate with the secret in this file
  --stdin            set: read the value from standard input
  --raw              get: print the value without a newline after it
  --fail             get, rm: exit with status 3 if the key is not found
  -h, --help         print this help
  -V, -v, --version  print the version

Exit status: 0 for success, also if get without --fail does not find the key; 1 if
the command failed; 2 if the command line is wrong; 3 as --fail says.
";
/// The text of `--version`.
const VERSION: &str = concat!("kvs-client ", env!("CARGO_PKG_VERSION"), "\n");
/// The maximum of `--timeout` in seconds.
const TIMEOUT_SECONDS_MAX: f64 = 1e9;
/// The commands, and their usage.
const COMMANDS: [(&str, &str); 9] = [
    ("set", "set KEY VALUE, or set KEY --stdin"),
    ("get", "get KEY; 'kvs-client -' takes several requests"),
    ("rm", "rm KEY; 'kvs-client -' takes several requests"),
    ("keys", "keys [PREFIX]"),
    ("dump", "dump"),
    ("-", "-"),
    ("ping", "ping"),
    ("stats", "stats"),
    ("shutdown", "shutdown"),
];
/// The hint for a word that looks like a flag.
const DASHES_HINT: &str = "; put -- before a key or a value that begins with -";
/// Pause between two attempts of `ping` to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Number of bytes of stdin that `kvs-client -` reads at once.
const INPUT_BYTES: usize = 64 << 10;

/// The command line: words, and flags by their names.
struct Line {
    words: Vec<String>,
    addr: String,
    timeout: Duration,
    auth_file: Option<PathBuf>,
    stdin: bool,
    raw: bool,
    fail: bool,
}

fn main() -> ExitCode {
    common::exit("kvs-client", run())
}

/// Does what the command line asks for.
fn run() -> Result<(), Failure> {
    let Some(line) = read_line()? else { return Ok(()) };
    let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
    check_flags(&line)?;
    match words[..] {
        ["set", key, value] if !line.stdin => Ok(connect(&line)?.set(key, value)?),
        ["set", key] if line.stdin => {
            let value = read_value()?;
            Ok(connect(&line)?.set(key, value)?)
        }
        ["get", key] => get(&line, key),
        ["rm", key] => match connect(&line)?.remove(key) {
            Err(KvsError::KeyNotFound) if line.fail => Err(Failure::NotFound),
            removed => Ok(removed?),
        },
        ["keys"] => list_keys(&line, ""),
        ["keys", prefix] => list_keys(&line, prefix),
        ["dump"] => dump(&line),
        ["-"] => send_lines(&line),
        ["ping"] => {
            connect_waiting(&line, line.timeout)?.ping()?;
            print(b"PONG\n")
        }
        ["stats"] => {
            let stats = connect(&line)?.stats()?.into_iter();
            let lines: String = stats.map(|(name, value)| format!("{name}={value}\n")).collect();
            print(lines.as_bytes())
        }
        ["shutdown"] => Ok(connect(&line)?.shutdown()?),
        _ => Err(wrong_words(&words)),
    }
}

/// Reads the command line. Returns `None` after printing help or version.
fn read_line() -> Result<Option<Line>, Failure> {
    let mut line = Line {
        words: Vec::new(),
        addr: ADDR.to_owned(),
        timeout: kvs::TIMEOUT,
        auth_file: None,
        stdin: false,
        raw: false,
        fail: false,
    };
    let mut args = Lexer::new(std::env::args_os().skip(1));
    while let Some(arg) = args.next().map_err(|error| with_hint(error, &line))? {
        let name = match arg {
            Arg::Short('h') => "help".to_owned(),
            // After a command, `-v` is more likely to be meant as a value.
            Arg::Short('V' | 'v') if line.words.is_empty() => "version".to_owned(),
            Arg::Short(_) => return Err(with_hint(args.unknown(), &line)),
            Arg::Word(word) if word == "-" && !line.words.is_empty() && !args.is_words_only() => {
                let hint = "use --stdin to read a value from standard input, or '-- -' for a dash";
                return Err(Failure::Usage(format!("'-' is ambiguous: {hint}")));
            }
            Arg::Word(word) => {
                line.words.push(word);
                continue;
            }
            Arg::Long(name) => name,
        };
        match name.as_str() {
            "help" => return print(HELP.as_bytes()).map(|()| None),
            "version" => return print(VERSION.as_bytes()).map(|()| None),
            "addr" => line.addr = args.parsed_value(parse_addr)?,
            "timeout" => line.timeout = args.parsed_value(parse_timeout)?,
            "auth-file" => line.auth_file = Some(PathBuf::from(args.value()?)),
            "stdin" => line.stdin = true,
            "raw" => line.raw = true,
            "fail" => line.fail = true,
            _ => return Err(with_hint(args.unknown(), &line)),
        }
    }
    Ok(Some(line))
}

/// The failure for a wrong argument. After a command it may be a key or a value.
fn with_hint(error: ArgsError, line: &Line) -> Failure {
    let hint = match error {
        _ if line.words.is_empty() => "",
        ArgsError::UnknownFlag(_) => DASHES_HINT,
        ArgsError::NotUtf8(_) => "; encode binary data as text, for example with base64",
        _ => "",
    };
    Failure::Usage(format!("{error}{hint}"))
}

/// Checks the form `HOST:PORT`.
fn parse_addr(text: &str) -> Result<String, String> {
    let is_addr = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        port.parse::<u16>().is_ok() && !host.is_empty() && (is_bracketed || !host.contains(':'))
    });
    let form = "it has to be HOST:PORT, such as 127.0.0.1:4000, localhost:4000 or [::1]:4000";
    is_addr.then(|| text.to_owned()).ok_or_else(|| form.to_owned())
}

/// Parses a number of seconds.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let is_valid = |seconds: &f64| (f64::MIN_POSITIVE..TIMEOUT_SECONDS_MAX).contains(seconds);
    let timeout = text.parse().ok().filter(is_valid).map(Duration::from_secs_f64);
    let error = || "it has to be a number of seconds above 0, such as 5 or 0.5".to_owned();
    timeout.filter(|timeout| !timeout.is_zero()).ok_or_else(error)
}

/// Fails if a flag does not belong to the command.
fn check_flags(line: &Line) -> Result<(), Failure> {
    for (flag, is_given, commands) in [
        ("--stdin", line.stdin, &["set"][..]),
        ("--raw", line.raw, &["get"]),
        ("--fail", line.fail, &["get", "rm"]),
    ] {
        if is_given && line.words.first().is_some_and(|name| !commands.contains(&name.as_str())) {
            let commands = commands.join(" and ");
            return Err(Failure::Usage(format!("{flag} goes with {commands} only{DASHES_HINT}")));
        }
    }
    Ok(())
}

/// The failure for words that make no command.
fn wrong_words(words: &[&str]) -> Failure {
    let name = words.first().copied().unwrap_or_default();
    if let Some((_, usage)) = COMMANDS.iter().find(|(command, _)| *command == name) {
        return Failure::Usage(format!("usage: kvs-client {usage}"));
    }
    let names: Vec<&str> = COMMANDS.iter().map(|(command, _)| *command).collect();
    let fault = match words.is_empty() {
        true => "a command is missing".to_owned(),
        false => format!("there is no command '{}'", name.escape_debug()),
    };
    Failure::Usage(format!("{fault}; the commands are {}", names.join(" ")))
}

/// Reads a value from stdin.
fn read_value() -> Result<String, Failure> {
    let mut value = Vec::new();
    let context = "cannot read the value from standard input".to_owned();
    let read = io::stdin().lock().read_to_end(&mut value);
    read.map_err(|source| KvsError::Io { context, source })?;
    String::from_utf8(value).map_err(|error| {
        let at = error.utf8_error().valid_up_to() + 1;
        let hint = "encode binary data as text, for example with base64";
        failed(format!("the value is not UTF-8 from byte {at} on; {hint}"))
    })
}

/// Connects and authenticates.
fn connect(line: &Line) -> Result<KvsClient, Failure> {
    connect_waiting(line, Duration::ZERO)
}

/// Connects and authenticates. For this long, a refused connection is retried.
fn connect_waiting(line: &Line, wait: Duration) -> Result<KvsClient, Failure> {
    let secret = line.auth_file.as_deref().map(read_secret).transpose()?;
    let unresolved = |source| {
        let context = format!("cannot resolve {}", line.addr);
        KvsError::Io { context, source }
    };
    let addrs: Vec<_> = line.addr.to_socket_addrs().map_err(unresolved)?.collect();
    let begun = Instant::now();
    let mut client = loop {
        match KvsClient::connect_with(&addrs[..], line.timeout) {
            Err(KvsError::Io { source, .. })
                if source.kind() == ErrorKind::ConnectionRefused && begun.elapsed() < wait =>
            {
                std::thread::sleep(RETRY_PAUSE);
            }
            connected => break connected?,
        }
    };
    secret.map(|secret| client.authenticate(secret)).transpose()?;
    Ok(client)
}

/// Prints the value of a key.
fn get(line: &Line, key: &str) -> Result<(), Failure> {
    match connect(line)?.get(key)? {
        Some(value) if line.raw => print(value.as_bytes()),
        Some(value) => print((value + "\n").as_bytes()),
        None if line.fail => Err(Failure::NotFound),
        None => print(b"Key not found\n"),
    }
}

/// Lists the keys with this prefix.
fn list_keys(line: &Line, prefix: &str) -> Result<(), Failure> {
    let mut client = connect(line)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for key in client.keys() {
        let key = key?;
        if !key.starts_with(prefix) {
            continue;
        }
        // A key is quoted if it would not be one line, or could be taken for a
        // quoted one.
        let is_plain = !key.is_empty() && !key.starts_with('"') && !key.contains(char::is_control);
        let shown = if is_plain { key } else { quoted(&key) };
        writeln!(out, "{shown}").map_err(print_failure)?;
    }
    out.flush().map_err(print_failure)
}

/// A JSON string for a key that the protocol quotes.
fn quoted(key: &str) -> String {
    let mut line = Vec::new();
    encode_request(&Request::Get { key: key.into() }, &mut line);
    String::from_utf8_lossy(&line[b"GET ".len()..]).trim_end().to_owned()
}

/// Prints all pairs as `SET` lines. Skips a key that was removed meanwhile.
fn dump(line: &Line) -> Result<(), Failure> {
    let mut client = connect(line)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut cursor = None;
    loop {
        let page = client.scan(cursor.as_deref())?;
        let mut gets = Vec::new();
        for key in &page.keys {
            encode_request(&Request::Get { key: key.into() }, &mut gets);
        }
        client.pipeline(&gets, |nth, reply| match decode_reply(reply)? {
            Reply::Value(value) => {
                let mut set = Vec::new();
                let (key, value) = (page.keys[nth].as_str().into(), value.into());
                encode_request(&Request::Set { key, value }, &mut set);
                out.write_all(&set).map_err(print_failure)
            }
            Reply::NotFound => Ok(()),
            Reply::Error(fault) => Err(Failure::Failed(fault.messages)),
            _ => Err(failed("the reply does not answer GET".to_owned())),
        })?;
        cursor = page.next;
        if cursor.is_none() {
            return out.flush().map_err(print_failure);
        }
    }
}

/// Sends the lines of stdin, pipelined, and prints the replies. A terminal gets a
/// prompt. Without a terminal, an `ERR` reply is a failure in the end.
fn send_lines(line: &Line) -> Result<(), Failure> {
    let mut client = connect(line)?;
    let mut input = BufReader::with_capacity(INPUT_BYTES, io::stdin().lock());
    let is_terminal = io::stdin().is_terminal();
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut sent, mut answered, mut errors, mut first_error) = (0, 0, 0, 0);
    let mut is_over = false;
    while !is_over {
        if is_terminal {
            let _ = io::stderr().write_all(b"kvs> ");
        }
        let lines = match read_lines(&mut input, sent) {
            Err(_) if errors > 0 => break,
            lines => lines?,
        };
        is_over = lines.is_empty();
        if is_over && is_terminal {
            let _ = io::stderr().write_all(b"\n");
        }
        let exchanged = client.pipeline(&lines, |nth, reply| {
            answered = sent + nth + 1;
            if reply.starts_with(b"ERR ") {
                errors += 1;
                first_error = if errors == 1 { answered } else { first_error };
            }
            is_over = is_terminal && reply == b"OK" && ends_connection(&lines);
            out.write_all(&[reply, b"\n"].concat()).map_err(reply_failure)
        });
        exchanged.and_then(|()| out.flush().map_err(reply_failure)).map_err(|error| {
            let context = format!("the lines after line {answered} were not all answered");
            Failure::Failed([vec![context], error.chain()].concat())
        })?;
        sent += lines.split_inclusive(|byte| *byte == b'\n').count();
    }
    match errors {
        0 => Ok(()),
        _ if is_terminal => Ok(()),
        1 => Err(failed(format!("line {first_error} was answered ERR"))),
        _ => Err(failed(format!("{errors} lines were answered ERR, first line {first_error}"))),
    }
}

/// The error for a reply that cannot be printed. Lines are sent only while their
/// replies are read, so a closed pipe is an error too.
fn reply_failure(source: io::Error) -> KvsError {
    KvsError::Io { context: "cannot write to stdout".to_owned(), source }
}

/// Reads a line and the complete lines that are already in the buffer. Returns
/// nothing at the end of the input.
fn read_lines(
    input: &mut BufReader<io::StdinLock<'_>>,
    lines_before: usize,
) -> Result<Vec<u8>, Failure> {
    let mut lines = Vec::new();
    let context = "cannot read from standard input".to_owned();
    let read = input.by_ref().take(LINE_BYTES_LIMIT as u64 + 2).read_until(b'\n', &mut lines);
    read.map_err(|source| KvsError::Io { context, source })?;
    if lines.last().is_some_and(|last| *last != b'\n') {
        let reason = match lines.len() > LINE_BYTES_LIMIT {
            true => "is longer than any server accepts",
            false => "has no newline at its end, so it may be incomplete",
        };
        let number = lines_before + 1;
        return Err(failed(format!("line {number} was not sent: it {reason}")));
    }
    let buffered = input.buffer();
    let len = buffered.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    lines.extend_from_slice(&buffered[..len]);
    input.consume(len);
    Ok(lines)
}

/// Whether the server closes the connection after it answers this line `OK`.
fn ends_connection(line: &[u8]) -> bool {
    matches!(decode_request(line.trim_ascii_end()), Ok(Request::Quit | Request::Shutdown))
}
