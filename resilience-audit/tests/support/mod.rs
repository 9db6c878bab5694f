//! A simulated disk: files in memory that can fail, tear and forget at any I/O step, as real ones do.
//! It tells what is durable from what is only in the cache, also after a failed sync, and obeys a plan of one fault.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use resilience_audit::storage::{PathInfo, Storage, StorageFile};

/// What happens at the planned step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The step fails and does nothing.
    Io,
    /// The step fails for want of space; a write has left half of its bytes behind.
    Full,
    /// A write takes only half of its bytes and says so; other steps work.
    Short,
    /// A sync fails and the dirty pages are forgotten; other steps fail and do nothing.
    ForgetfulSync,
    /// The power goes before the step.
    Crash,
    /// The power goes in the middle of a write.
    TornCrash,
}

pub(crate) const FAULTS: [Fault; 6] =
    [Fault::Io, Fault::Full, Fault::Short, Fault::ForgetfulSync, Fault::Crash, Fault::TornCrash];

/// What a crash leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survives {
    Nothing,
    Everything,
    /// All but the second half of the last write.
    HalfOfTheLast,
    /// Every other sector of the last write; zeros in between.
    EveryOtherSector,
    /// All of the last write but its first sector: whole records behind a hole.
    AllButTheFirstSector,
}

pub(crate) const SURVIVES: [Survives; 5] = [
    Survives::Nothing,
    Survives::Everything,
    Survives::HalfOfTheLast,
    Survives::EveryOtherSector,
    Survives::AllButTheFirstSector,
];

const SECTOR: usize = 64;

enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::SetLen(len) => content.resize(*len, 0),
        }
    }
}

#[derive(Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: Vec<Change>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    directories: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    steps: Vec<String>,
    plan: Option<(usize, Fault)>,
    /// Every write fails for want of space.
    full: bool,
    crashed: bool,
    paused: bool,
    waiting: usize,
}

/// Cheap to clone; all clones are one disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<(Mutex<State>, Condvar)>);

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    pub(crate) fn new() -> Self {
        let disk = Self::default();
        disk.lock().directories.insert(PathBuf::from("/"));
        disk
    }

    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// Lets the `step`th step from now fail.
    pub(crate) fn plan(&self, step: usize, fault: Fault) {
        let mut state = self.lock();
        let step = state.steps.len() + step;
        state.plan = Some((step, fault));
    }

    /// Takes the plan back; whether the fault had struck.
    pub(crate) fn disarm(&self) -> bool {
        let mut state = self.lock();
        let steps = state.steps.len();
        state.plan.take().is_some_and(|(step, _)| step < steps)
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// The steps made so far.
    pub(crate) fn steps(&self) -> Vec<String> {
        self.lock().steps.clone()
    }

    pub(crate) fn crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Holds every write until `resume`.
    pub(crate) fn pause(&self) {
        self.lock().paused = true;
    }

    pub(crate) fn resume(&self) {
        self.lock().paused = false;
        self.0.1.notify_all();
    }

    /// Waits until a write is held.
    pub(crate) fn wait_for_held_write(&self) {
        let mut state = self.lock();
        while state.waiting == 0 && !state.crashed {
            let (next, timeout) = self.0.1.wait_timeout(state, Duration::from_secs(30)).unwrap();
            assert!(!timeout.timed_out(), "no write came");
            state = next;
        }
    }

    /// The power goes and comes back: what was not synced survives as told, and no plan is left.
    pub(crate) fn reboot(&self, survives: Survives) {
        let mut state = self.lock();
        for inode in &mut state.inodes {
            let mut dirty = std::mem::take(&mut inode.dirty);
            let last = dirty.iter().rposition(|change| matches!(change, Change::Write(..)));
            match survives {
                Survives::Nothing => dirty.clear(),
                Survives::Everything => {}
                Survives::HalfOfTheLast => {
                    if let Some(last) = last
                        && let Change::Write(_, bytes) = &mut dirty[last]
                    {
                        bytes.truncate(bytes.len() / 2);
                        dirty.truncate(last + 1);
                    }
                }
                Survives::EveryOtherSector => {
                    if let Some(last) = last
                        && let Change::Write(_, bytes) = &mut dirty[last]
                    {
                        bytes.chunks_mut(SECTOR).step_by(2).for_each(|sector| sector.fill(0));
                    }
                }
                Survives::AllButTheFirstSector => {
                    if let Some(last) = last
                        && let Change::Write(_, bytes) = &mut dirty[last]
                    {
                        bytes.chunks_mut(SECTOR).take(1).for_each(|sector| sector.fill(0));
                    }
                }
            }
            let mut durable = std::mem::take(&mut inode.durable);
            for change in &dirty {
                change.apply(&mut durable);
            }
            inode.cached = durable.clone();
            inode.durable = durable;
        }
        if survives == Survives::Nothing {
            state.names = state.durable_names.clone();
        } else {
            state.durable_names = state.names.clone();
        }
        state.locks.clear();
        state.plan = None;
        state.full = false;
        state.crashed = false;
    }

    /// The bytes of a file as readers see them, to look at or to change behind the log's back.
    pub(crate) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let inode = state.names[path];
        let inode = &mut state.inodes[inode];
        edit(&mut inode.cached);
        inode.durable = inode.cached.clone();
        inode.dirty.clear();
    }

    pub(crate) fn names(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    pub(crate) fn remove_name(&self, path: &Path) {
        let mut state = self.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Counts a step and says whether it may go on.
    fn step(&self, what: impl Into<String>) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.lock();
        if state.crashed {
            return Err(io::Error::other("the power is off"));
        }
        let number = state.steps.len();
        state.steps.push(what.into());
        match state.plan {
            Some((planned, Fault::Crash)) if planned == number => {
                state.crashed = true;
                self.0.1.notify_all();
                Err(io::Error::other("the power is off"))
            }
            Some((planned, fault)) if planned == number => Ok((state, Some(fault))),
            _ => Ok((state, None)),
        }
    }

    /// A step that is not a write or a sync: it works or it does nothing.
    fn simple(&self, what: impl Into<String>) -> io::Result<MutexGuard<'_, State>> {
        match self.step(what)? {
            (state, None | Some(Fault::Short)) => Ok(state),
            (_, Some(Fault::Full)) => Err(io::ErrorKind::StorageFull.into()),
            (mut state, Some(Fault::TornCrash)) => {
                state.crashed = true;
                self.0.1.notify_all();
                Err(io::Error::other("the power is off"))
            }
            (_, Some(_)) => Err(io::Error::other("injected I/O error")),
        }
    }
}

impl Storage for Disk {
    fn info(&self, path: &Path) -> io::Result<Option<PathInfo>> {
        let state = self.simple("info")?;
        let is_dir = state.directories.contains(path);
        Ok((is_dir || state.names.contains_key(path)).then_some(PathInfo { is_dir, mode: None }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.simple("create_dir")?.directories.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let state = self.simple("list")?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name().map(ToOwned::to_owned)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut state = self.simple("create")?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(path.to_owned(), number);
        Ok(Box::new(OpenFile { disk: self.clone(), inode: number, write: true }))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn StorageFile>> {
        let state = self.simple("open")?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(OpenFile { disk: self.clone(), inode, write }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.simple("rename")?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.simple("remove")?.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.simple("sync_dir")?;
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn lock(&self, path: &Path, _: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let mut state = self.simple("lock")?;
        let taken = state.locks.insert(path.to_owned());
        Ok(taken.then(|| Box::new(Held(self.clone(), path.to_owned())) as Box<dyn Any + Send + Sync>))
    }
}

struct Held(Disk, PathBuf);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock().locks.remove(&self.1);
    }
}

struct OpenFile {
    disk: Disk,
    inode: usize,
    write: bool,
}

impl StorageFile for OpenFile {
    fn len(&mut self) -> io::Result<u64> {
        let state = self.disk.simple("len")?;
        Ok(state.inodes[self.inode].cached.len() as u64)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.simple("read")?;
        let content = &state.inodes[self.inode].cached;
        let from = usize::try_from(offset).unwrap().min(content.len());
        let count = buffer.len().min(content.len() - from);
        buffer[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        assert!(self.write, "written through a file opened for reading");
        {
            let mut state = self.disk.lock();
            state.waiting += 1;
            self.disk.0.1.notify_all();
            while state.paused && !state.crashed {
                state = self.disk.0.1.wait(state).unwrap();
            }
            state.waiting -= 1;
        }
        let (mut state, fault) = self.disk.step("write")?;
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = match fault {
            None => bytes.len(),
            Some(Fault::Short | Fault::Full | Fault::TornCrash) => bytes.len() / 2,
            Some(_) => return Err(io::Error::other("injected I/O error")),
        };
        let change = Change::Write(usize::try_from(offset).unwrap(), bytes[..taken].to_vec());
        let inode = &mut state.inodes[self.inode];
        change.apply(&mut inode.cached);
        inode.dirty.push(change);
        match fault {
            None | Some(Fault::Short) => Ok(taken),
            Some(Fault::TornCrash) => {
                state.crashed = true;
                self.disk.0.1.notify_all();
                Err(io::Error::other("the power is off"))
            }
            Some(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.simple("set_len")?;
        let change = Change::SetLen(usize::try_from(len).unwrap());
        let inode = &mut state.inodes[self.inode];
        change.apply(&mut inode.cached);
        inode.dirty.push(change);
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let (mut state, fault) = self.disk.step("sync")?;
        let inode = &mut state.inodes[self.inode];
        match fault {
            None | Some(Fault::Short) => {
                let dirty = std::mem::take(&mut inode.dirty);
                for change in &dirty {
                    change.apply(&mut inode.durable);
                }
                Ok(())
            }
            Some(Fault::ForgetfulSync) => {
                inode.dirty.clear();
                Err(io::Error::other("injected I/O error"))
            }
            Some(Fault::TornCrash) => {
                state.crashed = true;
                self.disk.0.1.notify_all();
                Err(io::Error::other("the power is off"))
            }
            Some(_) => Err(io::Error::other("injected I/O error")),
        }
    }
}
