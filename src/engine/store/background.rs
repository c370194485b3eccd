//! The helper thread: fsyncs in the background, and the removal of files.
//!
//! There is one thread. It starts with the first job and ends when its
//! [`HelperThread`] is dropped. If no thread can be started, jobs run inline.
//!
//! Not here: which jobs there are to do ([`log`](super::log)).
//!
//! Invariants:
//! * Jobs run in the order in which they were started
//!   (`jobs_run_in_order_also_without_a_thread`).
//! * A job removes files only while the path leads to the directory of the store
//!   (`a_job_removes_nothing_from_another_directory`).

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::Builder;

use super::fs::{FsDir, FsFile, Task};

/// What a job does, in this order. After an error nothing more is done.
#[derive(Debug)]
pub struct Job<F, D> {
    /// The directory of the store, and its path.
    pub directory: (Arc<D>, PathBuf),
    /// Files to fsync, oldest first.
    pub sync_files: Vec<Arc<F>>,
    /// Whether to fsync the directory after the files.
    pub sync_directory: bool,
    /// Files to remove, oldest first. The directory is fsynced after each.
    pub remove: Vec<PathBuf>,
    /// Open handles of removed files. Closing one frees its blocks, which takes
    /// milliseconds.
    pub close: Vec<Arc<F>>,
}

impl<F: FsFile, D: FsDir> Job<F, D> {
    /// Does the job. `remove` removes one file.
    ///
    /// An error of the system in looking for or removing a file keeps its code: nothing else
    /// has changed, and the job may be tried again. An error without a code is fatal: the
    /// directory was moved, or its fsync after a removal failed.
    pub fn run(self, remove: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let (directory, path) = &self.directory;
        self.sync_files.iter().try_for_each(|file| file.sync())?;
        if self.sync_directory {
            directory.sync()?;
        }
        for file in &self.remove {
            if !directory.is_at(path)? {
                return Err(io::Error::other("the directory was moved or replaced"));
            }
            match remove(file) {
                // An earlier try removed it, and then failed at a later file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            let context = "cannot fsync the directory";
            directory.sync().map_err(|error| io::Error::other(format!("{context}: {error}")))?;
        }
        Ok(())
    }
}

/// A job and where its result goes.
type Queued = (Box<dyn FnOnce() -> io::Result<()> + Send>, Sender<io::Result<()>>);

/// The thread, once a job has started it.
#[derive(Debug, Default)]
pub(crate) struct HelperThread {
    queue: RefCell<Option<Sender<Queued>>>,
}

impl HelperThread {
    /// Starts a job.
    pub(crate) fn start(&self, job: impl FnOnce() -> io::Result<()> + Send + 'static) -> OsTask {
        let (sender, receiver) = channel();
        let mut queue = self.queue.borrow_mut();
        if queue.is_none() {
            *queue = spawn();
        }
        let queued: Queued = (Box::new(job), sender);
        let unsent = match &*queue {
            Some(queue) => queue.send(queued).err().map(|unsent| unsent.0),
            None => Some(queued),
        };
        // There is no thread, or it has panicked.
        if let Some((job, sender)) = unsent {
            let _ = sender.send(job());
        }
        OsTask(receiver)
    }
}

/// Starts the thread; `None` if the system has none to give.
fn spawn() -> Option<Sender<Queued>> {
    let (sender, receiver) = channel::<Queued>();
    let run = move || {
        for (job, result) in receiver {
            // Nobody waits for the result of a store that was dropped.
            let _ = result.send(job());
        }
    };
    Builder::new().name("kvs helper".to_owned()).spawn(run).ok().map(|_| sender)
}

/// Receives the result of a job of the helper thread.
#[derive(Debug)]
pub struct OsTask(Receiver<io::Result<()>>);

impl Task for OsTask {
    fn result(&mut self, wait: bool) -> Option<io::Result<()>> {
        let received = match wait {
            true => self.0.recv().map_err(|_| TryRecvError::Disconnected),
            false => self.0.try_recv(),
        };
        match received {
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(io::Error::other("the helper thread has panicked")))
            }
            Ok(result) => Some(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_job_removes_nothing_from_another_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("data"), dir.path().join("old"));
        let file = path.join("00000001.kvs");
        std::fs::create_dir(&path).unwrap();
        let handle = Arc::new(std::fs::File::open(&path).unwrap());
        std::fs::rename(&path, old).unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::write(&file, "another store's").unwrap();
        let job = Job::<std::fs::File, _> {
            directory: (handle, path),
            sync_files: Vec::new(),
            sync_directory: false,
            remove: vec![file.clone()],
            close: Vec::new(),
        };
        assert!(job.run(|path| std::fs::remove_file(path)).is_err());
        assert!(file.exists());
    }

    #[test]
    fn jobs_run_in_order_also_without_a_thread() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let helper = HelperThread::default();
        let start = |nth: u32| {
            let done = done.clone();
            helper.start(move || {
                done.lock().unwrap().push(nth);
                if nth == 2 { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
            })
        };
        let mut tasks: Vec<OsTask> = (0..4).map(start).collect();
        assert!(tasks.pop().unwrap().result(true).unwrap().is_ok());
        let results = tasks.iter_mut().map(|task| task.result(false).unwrap().is_ok());
        assert_eq!(results.collect::<Vec<_>>(), [true, true, false]);
        assert!(tasks[0].result(true).unwrap().is_err(), "a task has one result");
        // A queue that nobody empties is a thread that has ended.
        *helper.queue.borrow_mut() = Some(channel().0);
        assert!(start(4).result(false).unwrap().is_ok());
        assert_eq!(*done.lock().unwrap(), [0, 1, 2, 3, 4]);
    }
}
