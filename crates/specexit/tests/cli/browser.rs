//! A real browser, where there is one.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Names of browsers that can print what they made of a page.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// The browser that `SPECEXIT_BROWSER` names, or the first Chromium or Chrome on the path.
fn browser() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SPECEXIT_BROWSER") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let places = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.into_iter().find(|place| place.is_file())
}

/// The document that a headless browser makes of a page on disk, without any network; `None`, with a word
/// about it, where no browser is installed.
pub(crate) fn opened(page: &Path) -> Option<String> {
    let Some(browser) = browser() else {
        eprintln!("no Chromium or Chrome is on the path: the page is checked as a file only");
        return None;
    };
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(&browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        // Whatever the page asked for would fail, and the counts with it.
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", browser.display()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {said}", browser.display());
    Some(String::from_utf8(output.stdout).unwrap())
}
