//! A disk in memory that keeps what is durable apart from what is only written.
//!
//! It counts calls, and can be told to end at the n-th change: from then on all
//! calls fail, and [`after_power_loss`](SimulatedDisk::after_power_loss) or
//! [`after_kill`](SimulatedDisk::after_kill) gives the disk as the next process
//! may find it. Before that, it can be told to fail calls ([`Fault`]), and to
//! do what is always allowed: to read and write less than was asked for, and to
//! be interrupted.
//!
//! Jobs in the background start at once and end some time later. Until then what they
//! fsync need not be on the disk.
//!
//! Not simulated: several threads or processes at a time, directories that are
//! renamed (`tests/directory.rs` renames real ones), and bytes that change on the disk
//! by themselves (`tests/damage.rs` changes them).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kvs::fs::{Fs, FsDir, FsFile, Job, Task};

use super::file::Inode;
use super::names::{Entry, Names};
use super::random::Random;
#[allow(unused_imports, reason = "each test file uses a part of it")]
pub use super::state::{Call, EIO, EMFILE, ENOSPC, Fault};
use super::state::{State, ended};

/// How often a job in the background is asked before it has ended, at the most.
const JOB_POLLS_MAX: u64 = 6;

/// The disk; a clone is the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Rc<RefCell<State>>,
}

/// An open file.
pub struct SimulatedFile {
    state: Rc<RefCell<State>>,
    inode: usize,
}

/// An open directory.
pub struct SimulatedDir {
    state: Rc<RefCell<State>>,
    path: PathBuf,
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
            locked: BTreeSet::new(),
            random,
            calls: 0,
            calls_of: BTreeMap::new(),
            changes: 0,
            ends_at: None,
            has_ended: false,
            fault: None,
            failed: BTreeMap::new(),
            fsyncs: Vec::new(),
            job_polls: None,
        };
        SimulatedDisk { state: Rc::new(RefCell::new(state)) }
    }

    /// The numbers of the files that were fsynced, in order. Later files have higher ones.
    pub fn fsyncs(&self) -> Vec<usize> {
        self.state.borrow().fsyncs.clone()
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

    /// Lets a job in the background end after it is asked so often.
    pub fn set_job_polls(&self, polls: u64) {
        self.state.borrow_mut().job_polls = Some(polls);
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
        // The blocks of a file that has a name belong to no other file.
        let named: BTreeSet<usize> = state.names.files().map(|(_, inode)| inode).collect();
        let unnamed: Vec<usize> = (0..inodes.len()).filter(|it| !named.contains(it)).collect();
        for (_, inode) in names.files() {
            let mut random = state.random.fork();
            let other = random.below(unnamed.len().max(1) as u64) as usize;
            let other = unnamed.get(other).map_or(&[][..], |other| &state.inodes[*other].current);
            inodes[inode] = state.inodes[inode].after_power_loss(other, &mut random);
        }
        SimulatedDisk::with(names, inodes, state.random.fork())
    }

    /// The disk as it is found after the process was killed: the system has all
    /// that it was handed, and has let go of the locks.
    pub fn after_kill(&self) -> SimulatedDisk {
        let state = &mut *self.state.borrow_mut();
        SimulatedDisk::with(state.names.clone(), state.inodes.clone(), state.random.fork())
    }

    fn file(&self, inode: usize) -> SimulatedFile {
        SimulatedFile { state: self.state.clone(), inode }
    }
}

impl Fs for SimulatedDisk {
    type File = SimulatedFile;
    type Dir = SimulatedDir;
    type Task = SimulatedTask;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.reverse();
        for path in above {
            match state.names.get(path) {
                Some(Entry::Directory) => {}
                Some(Entry::File(_)) => return Err(ErrorKind::AlreadyExists.into()),
                None => {
                    state.begin_whole(Call::CreateDir)?;
                    state.names.change(path, Some(Entry::Directory));
                }
            }
        }
        Ok(())
    }

    fn open_dir(&self, path: &Path) -> io::Result<SimulatedDir> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::Open)?;
        match state.names.get(path) {
            Some(Entry::Directory) => {
                Ok(SimulatedDir { state: self.state.clone(), path: path.to_owned() })
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

    fn start(&self, job: Job<SimulatedFile, SimulatedDir>) -> SimulatedTask {
        let polls = {
            let state = &mut *self.state.borrow_mut();
            let any = state.random.below(JOB_POLLS_MAX);
            state.job_polls.unwrap_or(any)
        };
        let begun = self.begin(job);
        SimulatedTask { state: self.state.clone(), begun, polls }
    }
}

impl SimulatedDisk {
    /// Does what a job does at once, and returns what its fsyncs will cover.
    fn begin(&self, job: Job<SimulatedFile, SimulatedDir>) -> io::Result<Begun> {
        let mut begun = Begun { files: Vec::new(), names: None };
        for file in &job.sync_files {
            let mut state = self.state.borrow_mut();
            file.begin_sync(&mut state)?;
            begun.files.push((file.inode, state.inodes[file.inode].current.clone()));
        }
        if job.sync_directory {
            let mut state = self.state.borrow_mut();
            if state.begin(Call::SyncDir)? {
                return Err(ended());
            }
            begun.names = Some((job.directory.1.clone(), state.names.changes()));
        }
        let remove = Job { sync_files: Vec::new(), sync_directory: false, ..job };
        remove.run(|path| self.remove(path)).map(|()| begun)
    }
}

/// What fsyncs in the background cover.
struct Begun {
    /// Files, and their bytes when the fsync started.
    files: Vec<(usize, Vec<u8>)>,
    /// A directory, and the changes of names when the fsync started.
    names: Option<(PathBuf, u64)>,
}

/// A job in the background. It ends after it was asked some times. Until then nothing
/// that it fsyncs need be on the disk.
pub struct SimulatedTask {
    state: Rc<RefCell<State>>,
    /// What it covers, or why it fails.
    begun: io::Result<Begun>,
    /// How often it has yet to be asked.
    polls: u64,
}

impl Task for SimulatedTask {
    fn result(&mut self, wait: bool) -> Option<io::Result<()>> {
        self.polls = self.polls.saturating_sub(1);
        (wait || self.polls == 0).then(|| self.end())
    }
}

impl SimulatedTask {
    /// Ends the job: what its fsyncs cover is on the disk.
    fn end(&mut self) -> io::Result<()> {
        let begun = std::mem::replace(&mut self.begun, Err(ended()))?;
        let mut state = self.state.borrow_mut();
        if state.has_ended {
            return Err(ended());
        }
        for (inode, bytes) in begun.files {
            state.inodes[inode].sync_as_of(&bytes);
        }
        if let Some((directory, changes)) = begun.names {
            state.names.sync(&directory, changes);
        }
        Ok(())
    }
}

impl FsDir for SimulatedDir {
    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::Lock)?;
        Ok(state.locked.insert(self.path.clone()))
    }

    fn unlock(&self) {
        self.state.borrow_mut().locked.remove(&self.path);
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self.state.borrow().names.get(path) == Some(Entry::Directory))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        if state.begin(Call::SyncDir)? {
            return Err(ended());
        }
        let changes = state.names.changes();
        state.names.sync(&self.path, changes);
        Ok(())
    }
}

impl SimulatedFile {
    /// Counts an fsync. One that fails loses some pages.
    fn begin_sync(&self, state: &mut State) -> io::Result<()> {
        state.fsyncs.push(self.inode);
        match state.begin(Call::Sync) {
            Ok(true) => Err(ended()),
            Ok(false) => Ok(()),
            Err(error) => {
                if !state.has_ended {
                    state.inodes[self.inode].fail_to_sync(&mut state.random);
                }
                Err(error)
            }
        }
    }
}

impl FsFile for SimulatedFile {
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
        let mut state = self.state.borrow_mut();
        self.begin_sync(&mut state)?;
        state.inodes[self.inode].sync();
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.begin_whole(Call::Truncate)?;
        state.inodes[self.inode].truncate(len as usize);
        Ok(())
    }
}
