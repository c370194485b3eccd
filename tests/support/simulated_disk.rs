//! A disk in memory that keeps apart what is durable and what is merely
//! written, can lose power at any call, and can fail any call.
//!
//! What a loss of power may leave of a file that was not synced: all that was
//! written, nothing of it, a part cut at any byte, or its length with any of its
//! 4 KiB pages missing, which then hold zeros, random bytes, or what the file
//! held there before. Of names that were created or removed and not synced, each
//! may be as it was or as it is. Bytes that were synced stay.
//!
//! Not simulated: damage to synced bytes (`damage.rs` has that), disks that lie
//! about a sync, and sectors that tear within a page of synced bytes.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "each test file is a crate of its own")]

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kvs::disk::{Disk, DiskFile};

use crate::random::Random;

/// Bytes of a page, which reaches the disk as a whole.
const PAGE_BYTES: usize = 4096;
/// `EIO`
pub const EIO: i32 = 5;
/// `ENOSPC`
pub const ENOSPC: i32 = 28;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Work,
    /// Power is lost at this call; every later one fails.
    LosePower(u64),
    /// This call fails with this error; a write may have written a part.
    Fail(u64, i32),
    /// Calls that need room fail, from this call to that one.
    Full(u64, u64),
}

/// A file's contents.
#[derive(Clone, Debug, Default)]
struct Inode {
    /// What reads see.
    bytes: Vec<u8>,
    /// What has been synced.
    durable: Vec<u8>,
    /// The longest that the file was since it was synced: what its blocks hold.
    stale: Vec<u8>,
    /// Whether a handle holds its lock.
    locked: bool,
}

/// Everything on the disk, and how it behaves.
#[derive(Debug)]
struct World {
    /// All files ever created.
    inodes: Vec<Inode>,
    /// Names as they are seen.
    names: BTreeMap<PathBuf, usize>,
    /// Names as they were when their directory was synced.
    durable_names: BTreeMap<PathBuf, usize>,
    /// Calls so far.
    calls: u64,
    /// What goes wrong.
    plan: Plan,
    /// For parts of writes.
    random: Random,
}

/// The disk.
#[derive(Clone, Debug)]
pub struct SimulatedDisk(Rc<RefCell<World>>);

/// An open file on it.
#[derive(Debug)]
pub struct SimulatedFile {
    /// Where it is.
    disk: SimulatedDisk,
    /// Which file it is.
    inode: usize,
    /// Whether this handle holds its lock.
    holds_lock: std::cell::Cell<bool>,
}

impl World {
    /// Counts a call; fails it if it is to fail. `needs_room` says whether a full
    /// disk fails it.
    fn call(&mut self, needs_room: bool) -> io::Result<()> {
        self.calls += 1;
        let error = match self.plan {
            Plan::LosePower(at) if self.calls >= at => EIO,
            Plan::Fail(at, error) if self.calls == at => error,
            Plan::Full(from, to) if needs_room && (from..to).contains(&self.calls) => ENOSPC,
            _ => return Ok(()),
        };
        Err(io::Error::from_raw_os_error(error))
    }
}

impl Inode {
    /// Puts bytes where they belong.
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[offset..end].copy_from_slice(bytes);
        let stale_from = self.stale.len();
        self.stale.extend_from_slice(self.bytes.get(stale_from..).unwrap_or_default());
    }

    /// What may be left of it after a loss of power.
    fn left(&self, random: &mut Random) -> Vec<u8> {
        let synced = self.durable.len();
        if self.bytes == self.durable || random.below(4) == 0 {
            return self.durable.clone();
        }
        if self.bytes.len() <= synced || random.below(3) == 0 {
            return self.bytes.clone();
        }
        let len = synced + random.below((self.bytes.len() - synced) as u64 + 1) as usize;
        if random.below(2) == 0 {
            return self.bytes[..len].to_vec();
        }
        let mut left = self.bytes.clone();
        for start in (synced / PAGE_BYTES * PAGE_BYTES..left.len()).step_by(PAGE_BYTES) {
            let end = (start + PAGE_BYTES).min(left.len());
            let page = &mut left[start.max(synced)..end];
            match random.below(5) {
                0 => page.fill(0),
                1 => page.fill_with(|| random.below(256) as u8),
                2 => page.copy_from_slice(&self.stale[start.max(synced)..end]),
                _ => {}
            }
        }
        left
    }
}

impl SimulatedDisk {
    /// An empty disk with a root directory.
    pub fn new(plan: Plan) -> SimulatedDisk {
        SimulatedDisk::of(Vec::new(), BTreeMap::new(), plan)
    }

    /// A disk on which everything there is is durable.
    fn of(inodes: Vec<Inode>, names: BTreeMap<PathBuf, usize>, plan: Plan) -> SimulatedDisk {
        let durable_names = names.clone();
        let random = Random::new(7);
        let world = World { inodes, names, durable_names, calls: 0, plan, random };
        SimulatedDisk(Rc::new(RefCell::new(world)))
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.0.borrow().calls
    }

    /// What goes wrong from now on, counted from now.
    pub fn set_plan(&self, plan: Plan) {
        let mut world = self.0.borrow_mut();
        world.plan = plan;
        world.calls = 0;
    }

    /// The disk as a loss of power may leave it.
    pub fn after_power_loss(&self, seed: u64, plan: Plan) -> SimulatedDisk {
        let world = self.0.borrow();
        let mut random = Random::new(seed);
        let paths: BTreeSet<&PathBuf> =
            world.names.keys().chain(world.durable_names.keys()).collect();
        let (mut inodes, mut names) = (Vec::new(), BTreeMap::new());
        for path in paths {
            let which = [&world.names, &world.durable_names][random.below(2) as usize];
            if let Some(inode) = which.get(path) {
                let bytes = world.inodes[*inode].left(&mut random);
                names.insert(path.clone(), inodes.len());
                inodes.push(Inode {
                    durable: bytes.clone(),
                    stale: bytes.clone(),
                    bytes,
                    locked: false,
                });
            }
        }
        SimulatedDisk::of(inodes, names, plan)
    }

    /// The disk as the end of the process leaves it: all that was written is
    /// there, and is no more durable than before.
    pub fn after_process_end(&self, plan: Plan) -> SimulatedDisk {
        let world = self.0.borrow();
        let mut inodes = world.inodes.clone();
        inodes.iter_mut().for_each(|inode| inode.locked = false);
        let disk = SimulatedDisk::of(inodes, world.names.clone(), plan);
        disk.0.borrow_mut().durable_names = world.durable_names.clone();
        disk
    }

    /// Every file and its bytes.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let world = self.0.borrow();
        let bytes = |inode: &usize| world.inodes[*inode].bytes.clone();
        world.names.iter().map(|(path, inode)| (path.clone(), bytes(inode))).collect()
    }

    /// A disk with these files, all durable.
    pub fn with_files(files: &BTreeMap<PathBuf, Vec<u8>>) -> SimulatedDisk {
        let durable = |bytes: &Vec<u8>| Inode {
            bytes: bytes.clone(),
            durable: bytes.clone(),
            stale: bytes.clone(),
            locked: false,
        };
        let inodes = files.values().map(durable).collect();
        let names = files.keys().cloned().enumerate().map(|(nth, path)| (path, nth)).collect();
        SimulatedDisk::of(inodes, names, Plan::Work)
    }

    /// Damages a file that may be open.
    pub fn flip_bit(&self, path: &Path, byte: usize, bit: u32) {
        let mut world = self.0.borrow_mut();
        let inode = world.names[path];
        world.inodes[inode].bytes[byte] ^= 1 << bit;
    }

    /// A handle on a file.
    fn file(&self, inode: usize) -> SimulatedFile {
        SimulatedFile { disk: self.clone(), inode, holds_lock: false.into() }
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let world = self.0.borrow();
        let here = world.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(here.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<SimulatedFile> {
        let mut world = self.0.borrow_mut();
        world.call(true)?;
        if world.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.names.insert(path.to_owned(), inode);
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<SimulatedFile> {
        let world = self.0.borrow();
        let inode = world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(*inode))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.call(false)?;
        world.names.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.call(false)?;
        world.durable_names = world.names.clone();
        Ok(())
    }
}

impl SimulatedFile {
    /// The file's contents.
    fn inode(&self) -> RefMut<'_, Inode> {
        RefMut::map(self.disk.0.borrow_mut(), |world| &mut world.inodes[self.inode])
    }

    /// Counts a call.
    fn call(&self, needs_room: bool) -> io::Result<()> {
        self.disk.0.borrow_mut().call(needs_room)
    }

    /// The part of a failing write that is done: none once there is no power.
    fn part<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let mut world = self.disk.0.borrow_mut();
        if matches!(world.plan, Plan::LosePower(at) if world.calls > at) {
            return &[];
        }
        let len = world.random.below(bytes.len() as u64 + 1);
        &bytes[..len as usize]
    }
}

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inode().bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call(false)?;
        let inode = self.inode();
        let rest = inode.bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let called = self.call(true);
        let written = if called.is_ok() { bytes } else { self.part(bytes) };
        if !written.is_empty() {
            self.inode().write(written, offset as usize);
        }
        called.map(|()| bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.call(false)?;
        let mut inode = self.inode();
        inode.durable = inode.bytes.clone();
        inode.stale = inode.bytes.clone();
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.call(false)?;
        self.inode().bytes.resize(len as usize, 0);
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let is_free = !std::mem::replace(&mut self.inode().locked, true);
        self.holds_lock.set(is_free);
        Ok(is_free)
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        if self.holds_lock.get() {
            self.inode().locked = false;
        }
    }
}
