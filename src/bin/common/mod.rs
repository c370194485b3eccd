//! Failures, exit status and output of both programs.
//!
//! Invariants:
//! * An error on stderr is one line per cause, whatever a server or a file contains
//!   (`errors_on_a_terminal_are_escaped`).
//! * A closed pipe on stdout, as after `head`, is no error (`a_reader_may_leave`).

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use kvs::KvsError;
use kvs::logger::{escape, is_writable};
use kvs::protocol::Code;

pub(crate) const VERSION: &str =
    concat!(env!("CARGO_BIN_NAME"), " ", env!("CARGO_PKG_VERSION"), "\n");
/// Maximum length of a secret in bytes, so that it fits into any line.
const SECRET_BYTES_MAX: usize = 1024;
/// What the error of a failed write to stdout says.
const STDOUT_CONTEXT: &str = "cannot write to stdout";
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Why a program ends early: its exit status, and the text for stderr.
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) text: String,
}

/// A wrong command line.
impl From<String> for Failure {
    fn from(fault: String) -> Failure {
        let (program, fault) = (env!("CARGO_BIN_NAME"), escape(&fault));
        Failure { status: 2, text: format!("{program}: {fault}; see '{program} --help'\n") }
    }
}

impl From<KvsError> for Failure {
    fn from(error: KvsError) -> Failure {
        let hint = match &error {
            KvsError::Io { context, source }
                if context == STDOUT_CONTEXT && source.kind() == ErrorKind::BrokenPipe =>
            {
                // The reader of stdout has closed it.
                return Failure { status: 0, text: String::new() };
            }
            KvsError::Server { code: Code::Auth, .. } => "; see --auth-file",
            KvsError::OtherVersion { .. } => "; choose another --dir, or use that version",
            _ => "",
        };
        let mut messages = error.chain();
        messages[0] += hint;
        failed(&messages)
    }
}

/// The failure for an error and its causes.
pub(crate) fn failed(messages: &[String]) -> Failure {
    let lines: Vec<String> = messages.iter().map(|message| escape(message)).collect();
    Failure { status: 1, text: format!("error: {}\n", lines.join("\ncaused by: ")) }
}

/// Prints why a program failed, and returns its exit status. A program that `waits`
/// does so until stderr takes the text.
pub(crate) fn exit(result: Result<(), Failure>, waits: bool) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    let mut stderr = io::stderr();
    // Every system's pipe takes 512 bytes at once if it is writable. If stderr is closed,
    // only the exit status is left.
    let mut chunks = failure.text.as_bytes().chunks(512);
    chunks.all(|chunk| (waits || is_writable(&stderr)) && stderr.write_all(chunk).is_ok());
    ExitCode::from(failure.status)
}

pub(crate) fn print(text: &str) -> kvs::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(stdout_error)
}

/// Prints the help or the version, and ends the program.
pub(crate) fn print_and_exit(text: &str) -> kvs::Result<()> {
    print(text)?;
    std::process::exit(0);
}

pub(crate) fn stdout_error(source: io::Error) -> KvsError {
    KvsError::io(STDOUT_CONTEXT)(source)
}

/// Reads the secret in the file that `--auth-file` names, without a line ending at
/// its end.
pub(crate) fn read_secret(path: &Path) -> kvs::Result<String> {
    // No more than its limit, as the path may lead to an endless device.
    let bounded = File::open(path).map(|file| file.take(SECRET_BYTES_MAX as u64 + 3));
    let read = bounded.and_then(io::read_to_string).and_then(|text| {
        let secret = text.trim_end_matches(['\n', '\r']);
        match secret.len() {
            0 => Err(io::Error::other("it is empty")),
            1..=SECRET_BYTES_MAX => Ok(secret.to_owned()),
            _ => Err(io::Error::other("it has more than 1,024 bytes")),
        }
    });
    read.map_err(KvsError::io(format!("cannot read the secret from {}", path.display())))
}

/// Calls `attempt` again for up to `time` after errors that may pass.
pub(crate) fn retry<T>(
    time: Duration,
    mut attempt: impl FnMut() -> kvs::Result<T>,
) -> kvs::Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if may_pass(&error) && begun.elapsed() < time => thread::sleep(RETRY_PAUSE),
            result => return result,
        }
    }
}

/// Returns true if another process has the address or the directory, or if a server may be
/// about to listen, to restart, or to accept a client.
fn may_pass(error: &KvsError) -> bool {
    use ErrorKind::{AddrInUse, ConnectionRefused, ConnectionReset, UnexpectedEof};
    match error {
        KvsError::Io { source, .. } => {
            [AddrInUse, ConnectionRefused, ConnectionReset, UnexpectedEof].contains(&source.kind())
        }
        error => {
            matches!(error, KvsError::InUse { .. } | KvsError::Server { code: Code::Busy, .. })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_stdout_is_no_failure() {
        let error = || io::Error::from(ErrorKind::BrokenPipe);
        let stdout = Failure::from(stdout_error(error()));
        assert!(stdout.status == 0 && stdout.text.is_empty());
        let socket = Failure::from(KvsError::io("cannot read from 127.0.0.1:4000")(error()));
        assert!(socket.status == 1 && socket.text.starts_with("error: cannot read from "));
    }
}
