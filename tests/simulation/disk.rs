//! A disk in memory that keeps what is durable apart from what is only written.
//!
//! It counts calls, and can be told to end at the n-th change: from then on all
//! calls fail, and [`after_power_loss`](SimulatedDisk::after_power_loss) or
//! [`after_kill`](SimulatedDisk::after_kill) gives the disk as the next process
//! may find it. Before that, it can be told to fail calls ([`Fault`]), and to
//! do what is always allowed: to read and write less than was asked for, and to
//! be interrupted.
//!
//! Not simulated: several threads or processes at a time, and bytes that change
//! on the disk by themselves (`tests/damage.rs` changes them).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kvs::disk::{Disk, DiskFile, Syncing};

use super::file::Inode;
use super::names::{Entry, Names};
use super::random::Random;
#[allow(unused_imports, reason = "each test file uses a part of it")]
pub use super::state::{Call, EIO, ENOSPC, Fault};
use super::state::{State, ended};

/// Looks after which a sync beside the caller is told to have ended, and one.
const BESIDE_LOOKS_MAX: u64 = 6;

/// The disk; a clone is the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Rc<RefCell<State>>,
}

/// An open file.
pub struct SimulatedFile {
    state: Rc<RefCell<State>>,
    inode: usize,
    holds_lock: Cell<bool>,
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> SimulatedDisk {
        SimulatedDisk::with(Names::default(), Vec::new(), Random::new(seed))
    }

    /// A disk with these files, and the directories they are in.
    pub fn from_files(files: &BTreeMap<PathBuf, Vec<u8>>) -> SimulatedDisk {
        let (mut names, mut inodes) = (Names::default(), Vec::new());
        for (path, bytes) in files {
            for above in path.ancestors().skip(1).filter(|above| *above != Path::new("/")) {
                names.put(above, Entry::Directory);
            }
            names.put(path, Entry::File(inodes.len()));
            inodes.push(Inode::new(bytes.clone()));
        }
        SimulatedDisk::with(names, inodes, Random::new(1))
    }

    fn with(names: Names, inodes: Vec<Inode>, random: Random) -> SimulatedDisk {
        let state = State {
            names,
            inodes,
            random,
            calls: 0,
            calls_of: BTreeMap::new(),
            changes: 0,
            ends_at: None,
            has_ended: false,
            fault: None,
            failed: BTreeMap::new(),
            beside_looks: None,
        };
        SimulatedDisk { state: Rc::new(RefCell::new(state)) }
    }

    /// All files, as reads show them.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state.borrow();
        let bytes = |inode: usize| state.inodes[inode].current.clone();
        state.names.files().map(|(path, inode)| (path.to_owned(), bytes(inode))).collect()
    }

    /// Ends the disk at the n-th change from now on, which may be half done.
    pub fn end_after(&self, changes: u64) {
        let mut state = self.state.borrow_mut();
        state.ends_at = Some(state.changes + changes);
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.state.borrow().has_ended
    }

    /// Sets what is wrong with it from now on.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state.borrow_mut().fault = fault;
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state.borrow().calls
    }

    /// Calls of this kind so far.
    pub fn calls_of(&self, kind: Call) -> u64 {
        self.state.borrow().calls_of.get(&kind).copied().unwrap_or_default()
    }

    /// Has a sync beside the caller end after so many looks at it, and one.
    pub fn set_beside_looks(&self, looks: u64) {
        self.state.borrow_mut().beside_looks = Some(looks);
    }

    /// Calls so far that change something.
    pub fn changes(&self) -> u64 {
        self.state.borrow().changes
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> usize {
        self.state.borrow().bytes()
    }

    /// Calls of these kinds that failed for a fault.
    pub fn failed(&self, kinds: &[Call]) -> u64 {
        let state = self.state.borrow();
        kinds.iter().filter_map(|kind| state.failed.get(kind)).sum()
    }

    /// Calls that failed for a fault.
    pub fn failed_any(&self) -> u64 {
        self.state.borrow().failed.values().sum()
    }

    /// The disk as it may be found when power has come back.
    pub fn after_power_loss(&self) -> SimulatedDisk {
        let state = &mut *self.state.borrow_mut();
        let names = state.names.after_power_loss(&mut state.random);
        let mut inodes = state.inodes.clone();
        for (_, inode) in names.files() {
            let mut random = state.random.fork();
            let other = &state.inodes[random.below(state.inodes.len() as u64) as usize].current;
            inodes[inode] = state.inodes[inode].after_power_loss(other, &mut random);
        }
        SimulatedDisk::with(names, inodes, state.random.fork())
    }

    /// The disk as it is found after the process was killed: the system has all
    /// that it was handed, and has let go of the locks.
    pub fn after_kill(&self) -> SimulatedDisk {
        let state = &mut *self.state.borrow_mut();
        let mut inodes = state.inodes.clone();
        for inode in &mut inodes {
            inode.is_locked = false;
        }
        SimulatedDisk::with(state.names.clone(), inodes, state.random.fork())
    }

    fn file(&self, inode: usize) -> SimulatedFile {
        SimulatedFile { state: self.state.clone(), inode, holds_lock: Cell::new(false) }
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::CreateDir)?;
        match (state.names.get(path), path.parent().and_then(|above| state.names.get(above))) {
            (Some(_), _) => Err(ErrorKind::AlreadyExists.into()),
            (None, Some(Entry::Directory)) => {
                state.names.change(path, Some(Entry::Directory));
                Ok(())
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::List)?;
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        Ok(state.names.list(directory).filter_map(name).collect())
    }

    fn create(&self, path: &Path) -> io::Result<SimulatedFile> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::Create)?;
        if state.names.get(path).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.change(path, Some(Entry::File(inode)));
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<SimulatedFile> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::Open)?;
        match state.names.get(path) {
            Some(Entry::File(inode)) => Ok(self.file(inode)),
            Some(Entry::Directory) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::Remove)?;
        match state.names.get(path) {
            Some(Entry::File(_)) => {
                state.names.change(path, None);
                Ok(())
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        if state.begin(Call::SyncDir)? {
            return Err(ended());
        }
        state.names.sync(directory);
        Ok(())
    }
}

/// A sync beside the caller: it ends some looks later, and covers what had been
/// written when it began. Until it has ended nothing of that need be on the disk.
pub struct SimulatedSync {
    state: Rc<RefCell<State>>,
    inode: usize,
    /// The file when it began, or why it fails.
    begun: io::Result<Vec<u8>>,
    looks: Cell<u64>,
}

impl Syncing for SimulatedSync {
    fn is_done(&self) -> bool {
        self.looks.replace(self.looks.get().saturating_sub(1)) == 0
    }

    fn wait(self) -> io::Result<()> {
        let bytes = self.begun?;
        let mut state = self.state.borrow_mut();
        if state.has_ended {
            return Err(ended());
        }
        state.inodes[self.inode].sync_as_of(&bytes);
        Ok(())
    }
}

impl DiskFile for SimulatedFile {
    type Syncing = SimulatedSync;

    fn len(&self) -> io::Result<u64> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::Len)?;
        Ok(state.inodes[self.inode].current.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::Read)?;
        let share = state.share(buffer.len())?;
        let bytes = &state.inodes[self.inode].current;
        let rest = &bytes[(offset as usize).min(bytes.len())..];
        let len = share.min(rest.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let offset = offset as usize;
        let is_last = match state.begin(Call::Write) {
            Err(error) if !state.has_ended && state.random.one_in(2) => {
                // The first part of what fails is often written.
                let len = state.random.between(0, bytes.len().saturating_sub(1));
                if len > 0 {
                    state.inodes[self.inode].write(&bytes[..len], offset);
                    return Ok(len);
                }
                return Err(error);
            }
            begun => begun?,
        };
        let (room, errno) = state.room(self.inode, offset, bytes.len());
        if room == 0 && !bytes.is_empty() {
            *state.failed.entry(Call::Write).or_default() += 1;
            return Err(io::Error::from_raw_os_error(errno));
        }
        let len = match is_last {
            true => state.random.between(0, room),
            false => state.share(room)?,
        };
        state.inodes[self.inode].write(&bytes[..len], offset);
        if is_last { Err(ended()) } else { Ok(len) }
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        match state.begin(Call::Sync) {
            Ok(true) => Err(ended()),
            Ok(false) => {
                state.inodes[self.inode].sync();
                Ok(())
            }
            Err(error) => {
                if !state.has_ended {
                    state.inodes[self.inode].fail_to_sync(&mut state.random);
                }
                Err(error)
            }
        }
    }

    fn sync_beside(&self) -> io::Result<SimulatedSync> {
        let state = &mut *self.state.borrow_mut();
        let any = state.random.below(BESIDE_LOOKS_MAX);
        let looks = Cell::new(state.beside_looks.unwrap_or(any));
        let begun = match state.begin(Call::Sync) {
            Ok(true) => return Err(ended()),
            Ok(false) => Ok(state.inodes[self.inode].current.clone()),
            Err(error) => {
                if !state.has_ended {
                    state.inodes[self.inode].fail_to_sync(&mut state.random);
                }
                Err(error)
            }
        };
        Ok(SimulatedSync { state: self.state.clone(), inode: self.inode, begun, looks })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::Truncate)?;
        state.inodes[self.inode].truncate(len as usize);
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::Lock)?;
        let inode = &mut state.inodes[self.inode];
        let is_free = !inode.is_locked;
        inode.is_locked = true;
        self.holds_lock.set(is_free);
        Ok(is_free)
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        if self.holds_lock.get() {
            self.state.borrow_mut().inodes[self.inode].is_locked = false;
        }
    }
}
