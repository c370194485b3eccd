//! Failures, exit status and output of both programs.
//!
//! Flags and requests belong to the programs.
//!
//! Invariants:
//! * An error on stderr is one line per cause, whatever a server or a file contains
//!   (`errors_on_a_terminal_are_escaped`).
//! * A closed pipe on stdout, as after `head`, is no error
//!   (`a_reader_may_leave`).

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use kvs::KvsError;
use kvs::args::ArgsError;
use kvs::protocol::Code;

/// The default address of a server.
pub(crate) const ADDR: &str = "127.0.0.1:4000";
/// Maximum length of a secret in bytes, so that it fits into any line.
const SECRET_BYTES_MAX: u64 = 1024;

/// Why a program ends early.
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The command failed: the messages of the error and its causes.
    Failed(Vec<String>),
    /// The key was not found, and `--fail` was given.
    #[allow(dead_code, reason = "only the client constructs it")]
    NotFound,
    /// The reader of stdout has closed it.
    ReaderGone,
}

impl From<ArgsError> for Failure {
    fn from(error: ArgsError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

impl From<KvsError> for Failure {
    fn from(error: KvsError) -> Failure {
        let mut messages = error.chain();
        messages[0] += match error {
            KvsError::Server { code: Code::TooLong, .. } => "; kvs-server --max-line raises it",
            KvsError::OtherVersion { .. } => "; choose another --dir, or use that version",
            _ => "",
        };
        Failure::Failed(messages)
    }
}

/// A failure without a cause.
pub(crate) fn failed(message: String) -> Failure {
    Failure::Failed(vec![message])
}

/// The exit status of a program. Prints why it failed.
pub(crate) fn exit(program: &str, result: Result<(), Failure>) -> ExitCode {
    let (text, status) = match result {
        Ok(()) | Err(Failure::ReaderGone) => return ExitCode::SUCCESS,
        Err(Failure::Usage(fault)) => (format!("{program}: {fault}; see '{program} --help'\n"), 2),
        Err(Failure::Failed(messages)) => (error_text(&messages), 1),
        Err(Failure::NotFound) => ("error: Key not found\n".to_owned(), 3),
    };
    // If stderr is closed, only the exit status is left.
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::from(status)
}

/// The text for an error and its causes, a line each.
fn error_text(messages: &[String]) -> String {
    let labels = ["error: "].into_iter().chain(std::iter::repeat("caused by: "));
    labels.zip(messages).map(|(label, message)| format!("{label}{}\n", escape(message))).collect()
}

/// Escapes control characters, which a server may have sent.
pub(crate) fn escape(text: &str) -> String {
    let escape = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    text.chars().map(escape).collect()
}

/// The failure to write to stdout.
pub(crate) fn print_failure(source: io::Error) -> Failure {
    if source.kind() == ErrorKind::BrokenPipe {
        return Failure::ReaderGone;
    }
    KvsError::Io { context: "cannot write to stdout".to_owned(), source }.into()
}

/// Prints to stdout.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(print_failure)
}

/// Reads the secret in the file that `--auth-file` names. A line ending at its end
/// does not belong to it.
pub(crate) fn read_secret(path: &Path) -> Result<String, Failure> {
    let unusable = |source| {
        let context = format!("cannot read the secret from {}", path.display());
        KvsError::Io { context, source }
    };
    let invalid = |reason: &str| unusable(io::Error::new(ErrorKind::InvalidData, reason));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unusable)?;
    let mut secret = String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8"))?;
    secret.truncate(secret.trim_end_matches(['\n', '\r']).len());
    match secret.len() as u64 {
        0 => Err(invalid("it is empty").into()),
        1..=SECRET_BYTES_MAX => Ok(secret),
        _ => Err(invalid("it has more than 1,024 bytes").into()),
    }
}
