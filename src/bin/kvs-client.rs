//! `kvs-client`: sends requests to a server from a shell.
//!
//! [`KvsClient`] knows connections and their timeouts, [`kvs::protocol`] the form of
//! lines.
//!
//! Invariants:
//! * `dump` prints lines that `kvs-client -` loads, for all keys and values
//!   (`dump_and_load_copy_every_string`).
//! * `kvs-client -` sends a line only if it has its ending: a file that was cut off
//!   cannot store half a value (`an_unfinished_line_is_not_sent`). Nor can a line that
//!   a terminal cuts (`a_terminal_gets_a_prompt`).

#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, StdinLock, Write};
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use common::{Failure, VERSION, failed, print, print_and_exit, read_secret, retry, stdout_error};
use kvs::args::Lexer;
use kvs::protocol::{
    Fault, LINE_BYTES_LIMIT, Reply, Request, decode_reply, decode_request, encode_request, quoted,
};
use kvs::{KvsClient, KvsError};

/// A terminal cuts a longer line to this many bytes and a newline (`termios(3)`).
const TERMINAL_LINE_BYTES_MAX: usize = 4_095;

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
/// The commands, with the flags that belong to them.
const USAGES: [&str; 9] = [
    "set KEY VALUE, or set KEY --stdin",
    "get KEY [--raw] [--fail]; 'kvs-client -' takes several requests",
    "rm KEY [--fail]; 'kvs-client -' takes several requests",
    "keys [PREFIX]",
    "dump",
    "-",
    "ping",
    "stats",
    "shutdown",
];
const DASHES_HINT: &str = "put -- before a key or a value that begins with -";
const BASE64_HINT: &str = "encode binary data as text, for example with base64";
const STDIN_HINT: &str = "use --stdin to read a value from standard input, or '-- -' for a dash";

/// The command line.
struct CommandLine {
    words: Vec<String>,
    addr: String,
    timeout: Duration,
    auth_file: Option<PathBuf>,
    /// Those of `--stdin`, `--raw` and `--fail` that are given.
    switches: Vec<String>,
}

fn main() -> ExitCode {
    common::exit(run(), true)
}

fn run() -> Result<(), Failure> {
    let line = parse_command_line()?;
    let usage = usage(&line)?;
    let has = |switch: &str| line.switches.iter().any(|given| given == switch);
    let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
    let not_found = || Failure { status: 3, ..KvsError::KeyNotFound.into() };
    match words[..] {
        ["set", key, value] if !has("--stdin") => connect(&line)?.set(key, value)?,
        ["set", key] if has("--stdin") => {
            let not_read = format!("cannot read UTF-8 from standard input; {BASE64_HINT}");
            let value = io::read_to_string(io::stdin()).map_err(KvsError::io(not_read))?;
            connect(&line)?.set(key, value)?;
        }
        ["get", key] => match connect(&line)?.get(key)? {
            Some(value) if has("--raw") => print(&value)?,
            Some(value) => print(&(value + "\n"))?,
            None if has("--fail") => return Err(not_found()),
            None => print("Key not found\n")?,
        },
        ["rm", key] => match connect(&line)?.remove(key) {
            Err(KvsError::KeyNotFound) if has("--fail") => return Err(not_found()),
            removed => removed?,
        },
        ["keys"] => list_keys(&line, "")?,
        ["keys", prefix] => list_keys(&line, prefix)?,
        ["dump"] => dump(&line)?,
        ["-"] => send_lines(&line)?,
        ["ping"] => {
            retry(line.timeout, || connect(&line)?.ping())?;
            print("PONG\n")?;
        }
        ["stats"] => {
            let stats = connect(&line)?.stats()?.into_iter();
            print(&stats.map(|(name, value)| format!("{name}={value}\n")).collect::<String>())?;
        }
        ["shutdown"] => connect(&line)?.shutdown()?,
        _ => return Err(format!("usage: kvs-client {usage}").into()),
    }
    Ok(())
}

fn parse_command_line() -> Result<CommandLine, Failure> {
    let not_utf8 = |fault| format!("{fault}; {BASE64_HINT}");
    let mut args = Lexer::new(std::env::args_os().skip(1)).map_err(not_utf8)?;
    let mut line = CommandLine {
        words: Vec::new(),
        addr: "127.0.0.1:4000".to_owned(),
        timeout: kvs::TIMEOUT,
        auth_file: None,
        switches: Vec::new(),
    };
    while let Some(flag) = args.next_flag()? {
        match flag.as_str() {
            "-h" | "--help" => print_and_exit(HELP)?,
            // After a command, `-v` is more likely to be meant as a value.
            "-v" | "-V" | "--version" if flag == "--version" || args.words.is_empty() => {
                print_and_exit(VERSION)?;
            }
            "--addr" => line.addr = args.parsed_value(parse_addr)?,
            "--timeout" => line.timeout = args.parsed_value(parse_timeout)?,
            "--auth-file" => line.auth_file = Some(args.value()?.into()),
            "--stdin" | "--raw" | "--fail" => line.switches.push(flag),
            "-" if args.words.is_empty() => args.words.push(flag),
            "-" => return Err(format!("'-' is ambiguous: {STDIN_HINT}").into()),
            _ => return Err(format!("there is no flag '{flag}'; {DASHES_HINT}").into()),
        }
    }
    line.words = args.words;
    Ok(line)
}

fn parse_addr(text: &str) -> Result<String, &'static str> {
    let is_valid = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
    match text.rsplit_once(':').is_some_and(is_valid) {
        true => Ok(text.to_owned()),
        false => {
            Err("it has to be HOST:PORT, such as 127.0.0.1:4000, localhost:4000 or [::1]:4000")
        }
    }
}

fn parse_timeout(text: &str) -> Result<Duration, &'static str> {
    let timeout = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let timeout = timeout.filter(|timeout| !timeout.is_zero());
    timeout.ok_or("it has to be a number of seconds above 0, such as 5 or 0.5")
}

/// Returns the usage of the command. Fails if there is no such command, or if it does
/// not have one of the given switches.
fn usage(line: &CommandLine) -> Result<&'static str, String> {
    let name_of = |usage: &'static str| usage.split(' ').next().unwrap_or_default();
    let names = USAGES.map(name_of).join(" ");
    let Some(name) = line.words.first() else {
        return Err(format!("a command is missing; the commands are {names}"));
    };
    let Some(usage) = USAGES.into_iter().find(|usage| name_of(usage) == name) else {
        return Err(format!("there is no command '{name}'; the commands are {names}"));
    };
    match line.switches.iter().find(|switch| !usage.contains(switch.as_str())) {
        Some(switch) => Err(format!("{name} takes no {switch}; {DASHES_HINT}")),
        None => Ok(usage),
    }
}

fn connect(line: &CommandLine) -> kvs::Result<KvsClient> {
    let unresolved = KvsError::io(format!("cannot resolve {}", line.addr));
    let addrs: Vec<_> = line.addr.to_socket_addrs().map_err(unresolved)?.collect();
    let mut client = KvsClient::connect_with(&addrs[..], line.timeout)?;
    if let Some(path) = &line.auth_file {
        client.authenticate(read_secret(path)?)?;
    }
    Ok(client)
}

fn list_keys(line: &CommandLine, prefix: &str) -> kvs::Result<()> {
    let mut client = connect(line)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for key in client.keys() {
        let key = key?;
        if !key.starts_with(prefix) {
            continue;
        }
        // As it is, it would not be one line, or could be taken for a JSON string.
        let is_unusual = key.is_empty() || key.starts_with('"') || key.contains(char::is_control);
        let shown = if is_unusual { quoted(&key) } else { key };
        writeln!(out, "{shown}").map_err(stdout_error)?;
    }
    out.flush().map_err(stdout_error)
}

/// Prints all pairs as `SET` lines. Skips a key that was removed meanwhile.
fn dump(line: &CommandLine) -> kvs::Result<()> {
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
                out.write_all(&set).map_err(stdout_error)
            }
            Reply::NotFound => Ok(()),
            Reply::Error(Fault { code, messages }) => Err(KvsError::Server { code, messages }),
            _ => Err(KvsError::BadReply { reason: "the reply does not answer GET".to_owned() }),
        })?;
        cursor = page.next;
        if cursor.is_none() {
            return out.flush().map_err(stdout_error);
        }
    }
}

/// Sends the lines of stdin, pipelined, and prints the replies. A terminal gets a
/// prompt. Without a terminal, an `ERR` reply makes the program fail in the end.
fn send_lines(line: &CommandLine) -> Result<(), Failure> {
    let mut client = connect(line)?;
    let mut input = BufReader::with_capacity(64 << 10, io::stdin().lock());
    let mut out = BufWriter::new(io::stdout().lock());
    let is_terminal = io::stdin().is_terminal();
    let prompt = if is_terminal { "kvs> " } else { "" };
    let (mut sent, mut answered) = (0, 0);
    let (mut result, mut is_over) = (Ok(()), false);
    while !is_over {
        let _ = write!(io::stderr(), "{prompt}");
        let lines = read_request_lines(&mut input)
            .map_err(KvsError::io("cannot read from standard input"))?;
        if lines.last().is_some_and(|last| *last != b'\n') {
            let reason = "it has no newline at its end, or is longer than any server accepts";
            return Err(failed(&[format!("line {} was not sent: {reason}", sent + 1)]));
        }
        if is_terminal && lines.len() > TERMINAL_LINE_BYTES_MAX {
            let hint = "a terminal cuts it at 4,095 bytes; use a pipe, or set KEY --stdin < FILE";
            let _ = writeln!(io::stderr(), "error: the line was not sent: {hint}");
            continue;
        }
        is_over = lines.is_empty();
        if is_over && is_terminal {
            let _ = writeln!(io::stderr());
        }
        let exchanged = client.pipeline(&lines, |nth, reply| {
            let is_error = matches!(decode_reply(reply)?, Reply::Error(_));
            answered = sent + nth + 1;
            if is_error && !is_terminal && result.is_ok() {
                let _ = writeln!(io::stderr(), "error: line {answered} was answered ERR");
                result = Err(Failure { status: 1, text: String::new() });
            }
            is_over = is_terminal && reply == b"OK" && ends_connection(&lines);
            out.write_all(&[reply, b"\n"].concat()).map_err(stdout_error)
        });
        // Unlike elsewhere, a closed stdout is an error: lines were left unsent.
        exchanged.and_then(|()| out.flush().map_err(stdout_error)).map_err(|error| {
            let context = format!("the lines after line {answered} were not all answered");
            failed(&[vec![context], error.chain()].concat())
        })?;
        sent += lines.split_inclusive(|byte| *byte == b'\n').count();
    }
    result
}

/// Reads a line and the complete lines that are already in the buffer. Returns
/// nothing at the end of the input.
fn read_request_lines(input: &mut BufReader<StdinLock<'_>>) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    input.by_ref().take(LINE_BYTES_LIMIT as u64 + 2).read_until(b'\n', &mut lines)?;
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
