//! Files compiled into a program.

use std::path::{Path, PathBuf};

use crate::error::{ModelError, Result};

/// Files that stand in the program itself, in the place of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// What to call the model or head.
    pub name: &'static str,
    /// Name and contents of each file.
    pub files: &'static [(&'static str, &'static [u8])],
}

impl Embedded {
    /// The folder that messages name.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("(embedded)").join(self.name)
    }

    /// The contents of a file.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn file(&self, name: &str) -> Result<&'static [u8]> {
        let found = self.files.iter().find(|(file, _)| *file == name);
        found.map(|(_, contents)| *contents).ok_or_else(|| ModelError::MissingFile {
            folder: self.path(),
            file: name.to_owned(),
            advice: "this program was built without it; build it again".to_owned(),
        })
    }

    /// The contents of a text file.
    ///
    /// # Errors
    /// When there is no such file, or it is not UTF-8.
    pub fn text(&self, name: &str) -> Result<&'static str> {
        std::str::from_utf8(self.file(name)?).map_err(|error| ModelError::BadFile {
            path: self.path().join(name),
            problem: error.to_string(),
        })
    }
}
