//! The data files: each is written once, fsynced, and from then on only read or removed.
//!
//! A file has a number for a name and says nothing about keys. It belongs to the store if the index lists it; what is
//! not listed was never acknowledged and is removed at the next start.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::error::StoreError;

/// Numbers per directory, as a power of two: neighbours share one, so that a group of commits syncs few of them.
const PER_DIRECTORY_BITS: u32 = 12;

/// The directory of data files. Outlives every request; there is one per store.
#[derive(Debug)]
pub(super) struct Data {
    root: PathBuf,
    next: AtomicU64,
    /// Directories that are known to exist, by number.
    made: Mutex<u64>,
    pins: Mutex<HashMap<u64, Pinned>>,
    reserve_bytes: u64,
}

#[derive(Debug, Default)]
struct Pinned {
    readers: usize,
    /// What to remove when the last reader is gone.
    obsolete: Vec<u64>,
}

impl Data {
    /// Whether there is content in a directory, which an index must know of.
    pub(super) fn is_there(root: &Path) -> io::Result<bool> {
        let directories = match fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            directories => directories?,
        };
        for directory in directories {
            if fs::read_dir(directory?.path())?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Use a directory, and remove from it what `is_listed` does not know.
    pub(super) fn open(
        root: &Path,
        reserve_bytes: u64,
        mut is_listed: impl FnMut(u64) -> Result<bool, StoreError>,
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(root)?;
        let (mut last, mut removed) = (0_u64, 0_u64);
        for directory in fs::read_dir(root)? {
            let directory = directory?.path();
            for file in fs::read_dir(&directory)? {
                let path = file?.path();
                let number = path.file_name().and_then(|name| u64::from_str_radix(name.to_str()?, 16).ok());
                let Some(number) = number else { continue };
                last = last.max(number);
                if !is_listed(number)? {
                    fs::remove_file(&path)?;
                    removed += 1;
                }
            }
        }
        if removed > 0 {
            tracing::info!(removed, "removed the files of writes that were never acknowledged");
        }
        Ok(Data {
            root: root.to_owned(),
            next: AtomicU64::new(last + 1),
            made: Mutex::new(0),
            pins: Mutex::default(),
            reserve_bytes,
        })
    }

    /// Refuse if a write of `bytes` would not leave the reserve that the index needs.
    pub(super) fn room_for(&self, bytes: u64) -> Result<(), StoreError> {
        let disk = rustix::fs::statvfs(&self.root).map_err(io::Error::from)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < bytes.saturating_add(self.reserve_bytes) { Err(StoreError::Full) } else { Ok(()) }
    }

    /// Make an empty file. It is removed again when the guard is dropped without [`NewFile::keep`].
    pub(super) fn create(self: &Arc<Self>) -> io::Result<NewFile> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory(number);
        {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = (number >> PER_DIRECTORY_BITS) + 1;
            if *made != wanted {
                match fs::create_dir(&directory) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                sync_directory(&self.root)?;
                *made = wanted;
            }
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(self.path(number))?;
        Ok(NewFile { data: Arc::clone(self), number, file, kept: false })
    }

    /// Make a second name for a file's content.
    pub(super) fn link(self: &Arc<Self>, number: u64) -> io::Result<NewFile> {
        let mut new = self.create()?;
        let path = self.path(new.number);
        fs::remove_file(&path)?;
        fs::hard_link(self.path(number), &path)?;
        new.file = File::open(&path)?;
        Ok(new)
    }

    pub(super) fn read(&self, number: u64) -> io::Result<File> {
        File::open(self.path(number))
    }

    /// Make the names of files durable.
    pub(super) fn sync_names(&self, numbers: &[u64]) -> io::Result<()> {
        let mut directories: Vec<u64> = numbers.iter().map(|number| number >> PER_DIRECTORY_BITS).collect();
        directories.sort_unstable();
        directories.dedup();
        directories.into_iter().try_for_each(|number| sync_directory(&self.directory(number << PER_DIRECTORY_BITS)))
    }

    /// Keep the files of a version while the guard lives.
    pub(super) fn pin(self: &Arc<Self>, version: u64) -> Pin {
        self.pins().entry(version).or_default().readers += 1;
        Pin { data: Arc::clone(self), version }
    }

    /// Remove the files of a version that the index no longer lists, once nobody reads them.
    pub(super) fn remove(&self, version: u64, numbers: Vec<u64>) {
        {
            let mut pins = self.pins();
            if let Some(pinned) = pins.get_mut(&version) {
                pinned.obsolete.extend(numbers);
                return;
            }
        }
        self.unlink(&numbers);
    }

    fn unlink(&self, numbers: &[u64]) {
        for number in numbers {
            if let Err(error) = fs::remove_file(self.path(*number)) {
                // It is not listed any more, so the next start tries again.
                tracing::warn!(%error, number, "a data file could not be removed");
            }
        }
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Pinned>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self, number: u64) -> PathBuf {
        self.root.join(format!("{:08x}", number >> PER_DIRECTORY_BITS))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory(number).join(format!("{number:016x}"))
    }
}

/// Make the entries of a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A file that the index does not list yet.
#[derive(Debug)]
pub(super) struct NewFile {
    data: Arc<Data>,
    pub(super) number: u64,
    pub(super) file: File,
    kept: bool,
}

impl NewFile {
    /// The index lists it now.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            self.data.unlink(&[self.number]);
        }
    }
}

/// Somebody reads the files of a version.
#[derive(Debug)]
pub(super) struct Pin {
    data: Arc<Data>,
    version: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let obsolete = {
            let mut pins = self.data.pins();
            let Some(pinned) = pins.get_mut(&self.version) else { return };
            pinned.readers -= 1;
            if pinned.readers > 0 {
                return;
            }
            pins.remove(&self.version).map(|pinned| pinned.obsolete).unwrap_or_default()
        };
        self.data.unlink(&obsolete);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn open(root: &Path, listed: &[u64]) -> Arc<Data> {
        Arc::new(Data::open(root, 0, |number| Ok(listed.contains(&number))).unwrap())
    }

    #[test]
    fn what_the_index_does_not_list_is_removed_at_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let data = open(root.path(), &[]);
        let (kept, lost, dropped) = (data.create().unwrap(), data.create().unwrap(), data.create().unwrap());
        let numbers = [kept.number, lost.number, dropped.number];
        kept.keep();
        lost.keep();
        drop(dropped);
        assert!(data.read(numbers[2]).is_err());
        let data = open(root.path(), &numbers[..1]);
        assert!(data.read(numbers[0]).is_ok());
        assert!(data.read(numbers[1]).is_err());
        assert!(data.create().unwrap().number > numbers[1], "a number was given twice");
    }

    #[test]
    fn files_that_somebody_reads_are_removed_when_the_last_reader_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let data = open(root.path(), &[]);
        let new = data.create().unwrap();
        let number = new.number;
        new.keep();
        let (first, second) = (data.pin(7), data.pin(7));
        data.remove(7, vec![number]);
        drop(first);
        assert!(data.read(number).is_ok());
        drop(second);
        assert!(data.read(number).is_err());
    }

    #[test]
    fn a_linked_file_outlives_the_one_that_it_was_linked_to() {
        let root = tempfile::tempdir().unwrap();
        let data = open(root.path(), &[]);
        let mut first = data.create().unwrap();
        first.file.write_all(b"content").unwrap();
        let second = data.link(first.number).unwrap();
        drop(first);
        assert_eq!(io::read_to_string(data.read(second.number).unwrap()).unwrap(), "content");
    }

    #[test]
    fn a_write_that_would_eat_the_reserve_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let data = Data::open(root.path(), u64::MAX / 2, |_| Ok(true)).unwrap();
        assert!(matches!(data.room_for(1), Err(StoreError::Full)));
    }
}
