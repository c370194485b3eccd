//! The names on a simulated disk: which are on it, and which changes are not.
//!
//! A name that was made or removed is on the disk once its directory was
//! synced. Until then each change may have reached it or not, whatever became
//! of the changes before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::random::Random;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// The file with this number.
    File(usize),
}

/// The names.
#[derive(Clone, Default)]
pub struct Names {
    /// What the system shows.
    current: BTreeMap<PathBuf, Entry>,
    /// What the disk has.
    durable: BTreeMap<PathBuf, Entry>,
    /// Changes since, in order, each with its number: what a name stands for now, if
    /// anything.
    pending: Vec<(u64, PathBuf, Option<Entry>)>,
    /// The number of the next change.
    next: u64,
}

impl Names {
    /// What a name stands for.
    pub fn get(&self, path: &Path) -> Option<Entry> {
        if path == Path::new("/") {
            return Some(Entry::Directory);
        }
        self.current.get(path).copied()
    }

    /// Makes or removes a name; not on the disk yet.
    pub fn change(&mut self, path: &Path, entry: Option<Entry>) {
        apply(&mut self.current, path, entry);
        self.pending.push((self.next, path.to_owned(), entry));
        self.next += 1;
    }

    /// Makes a name that is on the disk.
    pub fn put(&mut self, path: &Path, entry: Entry) {
        apply(&mut self.current, path, Some(entry));
        apply(&mut self.durable, path, Some(entry));
    }

    /// The names in a directory.
    pub fn list<'a>(&'a self, directory: &'a Path) -> impl Iterator<Item = &'a Path> {
        let paths = self.current.keys().map(PathBuf::as_path);
        paths.filter(move |path| path.parent() == Some(directory))
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = (&Path, usize)> {
        self.current.iter().filter_map(|(path, entry)| match entry {
            Entry::File(inode) => Some((path.as_path(), *inode)),
            Entry::Directory => None,
        })
    }

    /// The number of changes so far.
    pub fn changes(&self) -> u64 {
        self.next
    }

    /// Puts the names in a directory on the disk, as of the first so many changes.
    pub fn sync(&mut self, directory: &Path, changes: u64) {
        let (here, others) = std::mem::take(&mut self.pending).into_iter().partition(
            |(number, path, _): &(u64, PathBuf, _)| {
                *number < changes && path.parent() == Some(directory)
            },
        );
        self.pending = others;
        let here: Vec<_> = here;
        for (_, path, entry) in here {
            apply(&mut self.durable, &path, entry);
        }
    }

    /// The names as they may be found after a loss of power.
    pub fn after_power_loss(&self, random: &mut Random) -> Names {
        let mut durable = self.durable.clone();
        for (_, path, entry) in &self.pending {
            if random.one_in(2) {
                apply(&mut durable, path, *entry);
            }
        }
        let all = durable.clone();
        durable.retain(|path, _| {
            path.ancestors()
                .skip(1)
                .all(|above| above == Path::new("/") || all.get(above) == Some(&Entry::Directory))
        });
        Names { current: durable.clone(), durable, pending: Vec::new(), next: 0 }
    }
}

/// Makes or removes a name.
fn apply(names: &mut BTreeMap<PathBuf, Entry>, path: &Path, entry: Option<Entry>) {
    match entry {
        Some(entry) => drop(names.insert(path.to_owned(), entry)),
        None => drop(names.remove(path)),
    }
}
