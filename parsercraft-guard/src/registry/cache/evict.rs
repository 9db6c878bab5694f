//! The cache's size bound: what was not used for the longest time goes first.
//! Nothing is counted at start; the folder is walked when enough was written since the last walk, so that opening a
//! large cache costs nothing. The bound is therefore approximate: about a sixteenth may come on top.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Unfinished files older than this belong to nobody: no download takes that long.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Use is recorded this coarsely, so that reading costs a write once an hour at most.
const USE_GRAIN: Duration = Duration::from_secs(60 * 60);

#[derive(Debug)]
pub(super) struct Bound {
    max_bytes: u64,
    /// Bytes written since the last walk began.
    written: AtomicU64,
    /// Held by whoever walks; nobody waits for it.
    walking: Mutex<()>,
}

struct Entry {
    path: PathBuf,
    len: u64,
    used: SystemTime,
}

impl Bound {
    pub(super) fn new(max_bytes: u64) -> Self {
        // The first file stored starts a walk, since nobody knows what is there.
        Self { max_bytes, written: AtomicU64::new(max_bytes / 16), walking: Mutex::new(()) }
    }

    /// Counts what was stored; walks and evicts when it is time.
    pub(super) fn added(&self, bytes: u64, root: &Path) {
        // Relaxed: only the number matters, and a walk a moment late does no harm.
        let written = self.written.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if written > self.max_bytes / 16
            && let Ok(_walking) = self.walking.try_lock()
        {
            self.written.store(0, Ordering::Relaxed);
            remove_abandoned(&root.join("tmp"));
            evict(root, self.max_bytes);
        }
    }
}

/// Notes that a file was used. A failure costs only a worse choice later.
pub(super) fn used(file: &File) {
    let now = SystemTime::now();
    let known = file.metadata().and_then(|metadata| metadata.modified());
    if known.is_ok_and(|known| now.duration_since(known).is_ok_and(|age| age > USE_GRAIN)) {
        let _ = file.set_modified(now);
    }
}

/// Removes the longest unused files until nine tenths of the bound are left. Files that vanish meanwhile were removed
/// by another process, which is as good.
fn evict(root: &Path, max_bytes: u64) {
    let mut entries = Vec::new();
    for kind in ["answer", "blob"] {
        for folder in list(&root.join(kind)) {
            entries.extend(list(&folder).into_iter().filter_map(|path| {
                let metadata = fs::metadata(&path).ok()?;
                Some(Entry { path, len: metadata.len(), used: metadata.modified().ok()? })
            }));
        }
    }
    let mut total: u64 = entries.iter().map(|entry| entry.len).sum();
    if total <= max_bytes {
        return;
    }
    entries.sort_by_key(|entry| entry.used);
    for entry in entries {
        if total <= max_bytes / 10 * 9 {
            break;
        }
        if fs::remove_file(&entry.path).is_ok() {
            total -= entry.len;
        }
    }
}

fn remove_abandoned(folder: &Path) {
    let now = SystemTime::now();
    for path in list(folder) {
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > ABANDONED)) {
            let _ = fs::remove_file(path);
        }
    }
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    entries.unwrap_or_default().into_iter().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Cache, Lookup};
    use super::*;
    use crate::registry::Checksum;

    fn set_age(path: &Path, age: Duration) {
        File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn the_longest_unused_files_go_first_and_using_one_saves_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 10_000).unwrap();
        let content = |number: u8| vec![number; 1000];
        let hit = |number: u8| matches!(cache.artifact(&Checksum::of(&content(number))).unwrap(), Lookup::Hit(_));
        for number in 0..10 {
            let artifact = cache.store(&Checksum::of(&content(number)), &content(number)).unwrap();
            set_age(artifact.path(), Duration::from_secs(100_000 - u64::from(number) * 100));
        }
        assert!(hit(0), "used again, so it is the newest now");
        cache.store(&Checksum::of(&content(10)), &content(10)).unwrap();
        assert_eq!((0..=10).filter(|number| hit(*number)).collect::<Vec<_>>(), [0, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn abandoned_unfinished_files_are_removed_and_young_ones_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), u64::MAX).unwrap();
        let (old, young) = (cache.temporary_folder().join("old"), cache.temporary_folder().join("young"));
        fs::write(&old, b"x").unwrap();
        fs::write(&young, b"x").unwrap();
        set_age(&old, ABANDONED * 2);
        cache.store(&Checksum::of(b"y"), b"y").unwrap();
        assert_eq!((old.exists(), young.exists()), (false, true));
    }
}
