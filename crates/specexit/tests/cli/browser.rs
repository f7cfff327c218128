//! A real browser, where there is one.

use std::path::Path;
use std::process::Command;

use specexit_testkit::browser;

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
