//! What of a server can be set, each with its unit and the reason of its
//! default, and the worst case of memory that follows from it.

use std::str::FromStr;

use super::secret::Secret;
use crate::protocol::LINE_BYTES_MAX;

/// When a write that was answered is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Before it is answered: no reply tells of what a power loss could undo.
    #[default]
    Always,
    /// At most about a second later; the end of the process loses nothing.
    EverySec,
    /// When the operating system or the engine sees fit; the end of the process loses
    /// nothing.
    Never,
}

impl Fsync {
    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Fsync::Always => "always",
            Fsync::EverySec => "everysec",
            Fsync::Never => "never",
        }
    }
}

/// Not the name of a policy; the names are listed in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFsync;

impl std::fmt::Display for UnknownFsync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not one of 'always', 'everysec' and 'never'")
    }
}

impl std::error::Error for UnknownFsync {}

impl FromStr for Fsync {
    type Err = UnknownFsync;

    fn from_str(name: &str) -> Result<Fsync, UnknownFsync> {
        [Fsync::Always, Fsync::EverySec, Fsync::Never]
            .into_iter()
            .find(|policy| policy.as_str() == name)
            .ok_or(UnknownFsync)
    }
}

/// How a server behaves; `ServerOptions::default()` suits most.
///
/// A client holds at most
///
/// ```text
/// line_bytes_max + read_bytes_max + 2 * (outbox_bytes_max + one reply)
/// ```
///
/// bytes, the replies twice as what is sent leaves only when it is the larger part,
/// and one that has been answered and is idle at most 32 KiB. A
/// reply is longest for a value that must be escaped: about four times its length.
/// All clients together hold `clients_max` times as much.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// When a write that was answered is on the disk.
    pub fsync: Fsync,
    /// Bytes that a request's line may have, its ending left out. A longer one
    /// is answered `ERR too-long` and skipped, or `ERR http` and closed if it
    /// begins as HTTP does.
    pub line_bytes_max: usize,
    /// Clients served at a time; one more is answered `ERR busy` and closed.
    /// The default is well above what one thread serves and what a system's
    /// usual limit of descriptors allows.
    pub clients_max: usize,
    /// Bytes of replies waiting for a client above which nothing more is read
    /// or executed for it. The default holds the replies of some thousand
    /// small requests, so that a client in step never meets it.
    pub outbox_bytes_max: usize,
    /// Bytes taken from one client at a time, so that none keeps the others
    /// waiting. The default is past the point where the cost of the system
    /// call still shows.
    pub read_bytes_max: usize,
    /// What a client has to say before anything is done for it; `None` when it
    /// need not. It passes in clear, so it is no more than the network is safe.
    pub secret: Option<Secret>,
    /// Whether a client's `SHUTDOWN` ends the server. Where it does not, only a
    /// signal does.
    pub allows_shutdown: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            fsync: Fsync::default(),
            line_bytes_max: LINE_BYTES_MAX,
            clients_max: 4_096,
            outbox_bytes_max: 256 << 10,
            read_bytes_max: 64 << 10,
            secret: None,
            allows_shutdown: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_by_the_name_it_prints() {
        for policy in [Fsync::Always, Fsync::EverySec, Fsync::Never] {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        assert_eq!("Always".parse::<Fsync>(), Err(UnknownFsync));
    }
}
