//! Read-only memory maps.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A file mapped into memory for reading, for weights that should not be copied twice.
///
/// The file must not be changed or cut while it is mapped: its bytes would change under their
/// reader, or the process be killed by `SIGBUS`, as with every memory map.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        // SAFETY: the map is private to this process and read-only. That nobody changes the file
        // meanwhile is a demand on the user (see above) which no program can check; model files are
        // written once, under another name first.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(MappedFile { map })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn maps_what_the_file_holds() {
        let path = std::env::temp_dir().join(format!("specexit-mapped-{}", std::process::id()));
        std::fs::write(&path, b"weights").expect("the temporary directory is writable");
        let map = MappedFile::open(&path).expect("the file was just written");
        assert_eq!(&*map, b"weights");
        std::fs::remove_file(&path).expect("the file was just written");
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let error = MappedFile::open(Path::new("/nonexistent/weights")).expect_err("no such file");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
