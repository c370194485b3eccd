//! What the two binaries share: how they fail, log and print.
//!
//! Not here: any flag but those that both have.

use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use kvs::KvsError;
use kvs::args::ArgsError;
use kvs::logger::{self, Level};

/// The address of a server, unless given otherwise.
pub(crate) const ADDR: &str = "127.0.0.1:4000";
/// Bytes of a secret at the most: well within any line.
const SECRET_BYTES_MAX: u64 = 1024;
/// The exit status of a command that failed.
const FAILED: u8 = 1;
/// The exit status of a command line that cannot be carried out.
const USAGE: u8 = 2;

/// Why a program ends before it is done.
pub(crate) enum Failure {
    /// The command line cannot be carried out.
    Usage(String),
    /// The command failed.
    Failed(Box<dyn Error>),
}

impl From<ArgsError> for Failure {
    fn from(error: ArgsError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

impl From<KvsError> for Failure {
    fn from(error: KvsError) -> Failure {
        Failure::Failed(error.into())
    }
}

/// The exit status of a program, which tells stderr why it failed.
pub(crate) fn exit(program: &str, result: Result<(), Failure>) -> ExitCode {
    let (text, status) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(fault)) => {
            (format!("{program}: {fault}; see '{program} --help'\n"), USAGE)
        }
        Err(Failure::Failed(error)) => (chain_text(&*error), FAILED),
    };
    // An error of this write is ignored: there is nowhere left to tell of it.
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::from(status)
}

/// An error and its causes, a line each.
fn chain_text(error: &dyn Error) -> String {
    let mut text = format!("error: {}\n", escaped(&error.to_string()));
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!("caused by: {}\n", escaped(&error.to_string()));
        cause = error.source();
    }
    text
}

/// Text with its control characters escaped, as a server may have sent it.
fn escaped(text: &str) -> String {
    let escape = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Prints to stdout. That its reader has gone, as `head` does, is no error.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let context = "cannot write to stdout".to_owned();
            Err(KvsError::Io { context, source: error }.into())
        }
        _ => Ok(()),
    }
}

/// Sets the level of the logger: the flag's, else that of `KVS_LOG`, else this.
pub(crate) fn init_logger(flag: Option<Level>, default: Level) -> Result<(), Failure> {
    let level = match (flag, std::env::var("KVS_LOG")) {
        (Some(level), _) => level,
        (None, Ok(name)) if !name.is_empty() => {
            name.parse().map_err(|reason| Failure::Usage(format!("KVS_LOG: {reason}")))?
        }
        _ => default,
    };
    let no_color = std::env::var_os("NO_COLOR");
    logger::init(level, logger::is_coloured(io::stderr().is_terminal(), no_color.as_deref()));
    Ok(())
}

/// Reads a secret from the file that `--auth-file` names: its text, but for the
/// end of a line at its end.
pub(crate) fn read_secret(path: &Path) -> Result<String, Failure> {
    let context = || format!("cannot read the secret from {}", path.display());
    let unfit = |reason: &str| {
        let source = io::Error::new(ErrorKind::InvalidData, reason);
        KvsError::Io { context: context(), source }
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|source| KvsError::Io { context: context(), source })?;
    let mut secret = String::from_utf8(bytes).map_err(|_| unfit("it is not UTF-8"))?;
    secret.truncate(secret.trim_end_matches(['\n', '\r']).len());
    match secret.len() as u64 {
        0 => Err(unfit("it is empty").into()),
        1..=SECRET_BYTES_MAX => Ok(secret),
        _ => Err(unfit("it has more than 1,024 bytes").into()),
    }
}

/// Reads `IP:PORT`.
pub(crate) fn parse_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "it has to be IP:PORT, such as 127.0.0.1:4000 or [::1]:4000".to_owned())
}
