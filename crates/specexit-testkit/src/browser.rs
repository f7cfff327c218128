//! A real browser, where there is one.

use std::path::PathBuf;

/// Names of browsers that can print what they made of a page.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// The browser that `SPECEXIT_BROWSER` names, or the first Chromium or Chrome on the path.
#[must_use]
pub fn browser() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SPECEXIT_BROWSER") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let places = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.into_iter().find(|place| place.is_file())
}
