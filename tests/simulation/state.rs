//! The state of a simulated disk: its files, how many calls there were, which
//! one is the last, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use super::file::Inode;
use super::names::Names;
use super::random::Random;

/// The system's numbers of errors that disks give.
pub const EIO: i32 = 5;
/// The process has too many open files.
pub const EMFILE: i32 = 24;
/// The file would be larger than the process may make it.
const EFBIG: i32 = 27;
/// No space is left.
pub const ENOSPC: i32 = 28;

/// The kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    CreateDir,
    List,
    Create,
    Open,
    Remove,
    SyncDir,
    Len,
    Read,
    Write,
    Sync,
    Truncate,
    Lock,
}

impl Call {
    /// Whether the disk is not the same after such a call.
    fn is_change(self) -> bool {
        !matches!(self, Call::List | Call::Open | Call::Len | Call::Read | Call::Lock)
    }
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Calls from one number to another fail, those of one kind or all.
    Calls { first: u64, last: u64, kind: Option<Call>, errno: i32 },
    /// All files together may have so many bytes.
    Full { bytes: usize },
    /// A file may have so many bytes.
    FileSize { bytes: usize },
}

/// What it holds.
pub struct State {
    pub names: Names,
    pub inodes: Vec<Inode>,
    /// The directories that are locked.
    pub locked: BTreeSet<PathBuf>,
    pub random: Random,
    /// Calls so far.
    pub calls: u64,
    /// The same, by kind.
    pub calls_of: BTreeMap<Call, u64>,
    /// Calls so far that change something.
    pub changes: u64,
    /// The change that is the last.
    pub ends_at: Option<u64>,
    /// Whether that has come.
    pub has_ended: bool,
    /// What is wrong.
    pub fault: Option<Fault>,
    /// Calls that failed for it, by kind.
    pub failed: BTreeMap<Call, u64>,
    /// The files that were fsynced, in order.
    pub fsyncs: Vec<usize>,
    /// How often a job in the background is asked before it has ended; `None` for a few
    /// times at random.
    pub job_polls: Option<u64>,
}

impl State {
    /// Counts a call. Fails when it is to fail; `Ok(true)` when it is the last.
    pub fn begin(&mut self, call: Call) -> io::Result<bool> {
        if self.has_ended {
            return Err(ended());
        }
        self.calls += 1;
        *self.calls_of.entry(call).or_default() += 1;
        self.changes += u64::from(call.is_change());
        if let Some(errno) = self.errno(call) {
            *self.failed.entry(call).or_default() += 1;
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.has_ended = call.is_change() && self.ends_at == Some(self.changes);
        Ok(self.has_ended)
    }

    /// Counts a call, and does all of it even when it is the last.
    pub fn begin_whole(&mut self, call: Call) -> io::Result<()> {
        self.begin(call).map(|_| ())
    }

    /// The error that this call fails with.
    pub fn errno(&self, call: Call) -> Option<i32> {
        match self.fault? {
            Fault::Calls { first, last, kind, errno } => {
                let is_hit = (first..=last).contains(&self.calls);
                (is_hit && kind.is_none_or(|kind| kind == call)).then_some(errno)
            }
            Fault::Full { bytes } => {
                (call == Call::Create && self.bytes() >= bytes).then_some(ENOSPC)
            }
            Fault::FileSize { .. } => None,
        }
    }

    /// Bytes in all files that have a name.
    pub fn bytes(&self) -> usize {
        self.names.files().map(|(_, inode)| self.inodes[inode].current.len()).sum()
    }

    /// How many of `len` bytes there is room for at `offset`; what is said when none.
    pub fn room(&self, inode: usize, offset: usize, len: usize) -> (usize, i32) {
        match self.fault {
            Some(Fault::Full { bytes }) => {
                let within = self.inodes[inode].current.len().saturating_sub(offset);
                ((within + bytes.saturating_sub(self.bytes())).min(len), ENOSPC)
            }
            Some(Fault::FileSize { bytes }) => (bytes.saturating_sub(offset).min(len), EFBIG),
            _ => (len, EIO),
        }
    }

    /// How many of `len` bytes are read or written this time.
    pub fn share(&mut self, len: usize) -> io::Result<usize> {
        match self.random.below(64) {
            0 => Err(ErrorKind::Interrupted.into()),
            1 => Ok(self.random.between(1, len.max(1)).min(len)),
            _ => Ok(len),
        }
    }
}

/// The error of every call after the last.
pub fn ended() -> io::Error {
    io::Error::other("the disk has ended")
}
