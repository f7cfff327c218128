//! The live page on the server itself, in a real browser.

use std::time::Duration;

use serde_json::json;

use crate::cdp::Browser;
use crate::served::served;

#[test]
fn the_page_asks_the_server_and_shows_both_answers() {
    let served = served();
    let Some(mut browser) = Browser::start() else { return };
    let soon = Duration::from_secs(30);
    browser.set_size(1280, 900);
    browser.open(&format!("http://{}/", served.address));
    browser.wait_until("document.getElementById('mode').options.length === 3", soon);
    browser.type_into("#question", "How far is it? é 😀");
    browser.click("#ask");
    for pane in ["pane-a", "pane-b"] {
        browser.wait_until(
            &format!("document.getElementById('{pane}').dataset.state === 'done'"),
            soon,
        );
    }
    assert_eq!(browser.text("#error").trim(), "");
    // What is shown is what the server says without the page.
    for (pane, mode) in [("pane-a", "specexit"), ("pane-b", "eagle3")] {
        let tokens = browser.evaluate("Number(document.getElementById('tokens')?.value ?? 0)");
        let limit = if tokens.as_u64().unwrap_or(0) > 0 { tokens } else { json!(1536) };
        let more = json!({"max_tokens": limit, "specexit": {"mode": mode}});
        let whole = served.chat("How far is it? é 😀", more).json();
        let shown = browser.evaluate(&format!(
            "document.querySelector('#{pane} [data-role=exit]').dataset.thinkingTokens"
        ));
        assert_eq!(
            shown,
            json!(whole["specexit"]["thinking_tokens"].to_string()),
            "{mode}: {whole}"
        );
    }
    assert_eq!(browser.troubles(), Vec::<String>::new());
}
