//! The live page in a real browser, against a server that follows a script.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod cdp;
mod fake;
mod script;

use std::path::Path;
use std::time::Duration;

use cdp::Browser;
use fake::Fake;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// A browser that shows the page of a server, once it knows the modes; `None` without a browser.
fn shown(fake: &Fake) -> Option<Browser> {
    let mut browser = Browser::start()?;
    browser.set_size(1280, 900);
    browser.open(&format!("{}/", fake.url));
    browser.wait_until("document.getElementById('mode').options.length > 1", SOON);
    Some(browser)
}

fn state(pane: &str, state: &str) -> String {
    format!("document.getElementById('{pane}').dataset.state === '{state}'")
}

/// Saves what is on the screen where `SPECEXIT_PICTURES` names a folder, for a person to look at.
fn picture(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("SPECEXIT_PICTURES") {
        browser.screenshot(&Path::new(&folder).join(format!("{name}.png")));
    }
}

#[test]
fn a_question_streams_into_two_panes_and_is_summed_up() {
    let fake = Fake::start();
    let Some(mut browser) = shown(&fake) else { return };
    picture(&mut browser, "empty");
    browser.type_into("#question", "gated: solve 5k + 3 = 28 ✓");
    browser.click("#ask");

    // In the middle of the thought: tokens are there, the signals of the last paragraph are not.
    browser.wait_until("document.querySelectorAll('#pane-a .t').length === 15", SOON);
    browser.wait_until(&state("pane-a", "running"), SOON);
    assert_eq!(browser.evaluate("document.getElementById('ask').disabled"), json!(true));
    let thought = "document.querySelector('#pane-a [data-role=thought]').textContent";
    let half = "Subtract 3 from both sides → 5·k = 25.\n\nDivide both sides by 5";
    assert_eq!(browser.evaluate(thought), json!(half));
    let shades =
        "[...document.querySelectorAll('#pane-a .t')].map(t => t.className.slice(2)).join()";
    let (shaded, unshaded) = ("p2,".repeat(10), ",".repeat(4));
    assert_eq!(browser.evaluate(shades), json!(format!("{shaded}{unshaded}")));
    // The counters are brought up to date ten times a second.
    let counters = "['tokens', 'thinking'].map(stat => \
        document.querySelector(`#pane-a [data-stat=${stat}]`).textContent).join() === '16,15'";
    browser.wait_until(counters, SOON);
    assert_eq!(browser.text("#pane-b [data-role=thought]"), "", "the second runs after the first");
    picture(&mut browser, "running");

    fake.open_gate();
    browser.wait_until(&state("pane-a", "done"), SOON);
    browser.wait_until(&state("pane-b", "done"), SOON);
    let exit = "(({ reason, thinkingTokens }) => [reason, thinkingTokens])\
                (document.querySelector('#pane-a [data-role=exit]').dataset)";
    let kept = script::thinking("specexit");
    assert_eq!(browser.evaluate(exit), json!(["signals", kept.to_string()]));
    let marker = format!("exit: signals, after {kept} thinking tokens");
    assert_eq!(browser.text("#pane-a [data-role=exit]"), marker);
    assert_eq!(browser.text("#pane-a [data-role=answer]").trim(), "k = 5");
    let late = format!("{}{}{}", "p2,".repeat(10), "p6,".repeat(11), "p9,".repeat(12));
    assert_eq!(browser.evaluate(shades), json!(late), "each signal shades what led to it");
    let behind = "document.querySelector('#pane-a [data-role=exit]').nextSibling.textContent";
    assert_eq!(
        browser.evaluate(behind),
        json!(script::CLOSING),
        "forced words are not the model's"
    );

    let whole = script::thinking("eagle3");
    let other = "document.querySelector('#pane-b [data-role=exit]').dataset.thinkingTokens";
    assert_eq!(browser.evaluate(other), json!(whole.to_string()));
    browser.wait_until("document.getElementById('summary').textContent", SOON);
    let summary = browser.text("#summary");
    let less = whole + 4 - (kept + 5);
    assert!(summary.contains(&format!("{less} tokens saved")), "{summary}");
    assert!(summary.contains(", same answer."), "white space does not count: {summary}");
    picture(&mut browser, "done");

    let asked = fake.asked();
    assert_eq!(asked.len(), 2);
    let expected = json!({"model": "fake", "stream": true, "temperature": 0, "max_tokens": 1536,
        "messages": [{"role": "user", "content": "gated: solve 5k + 3 = 28 ✓"}],
        "stream_options": {"include_usage": true}, "specexit": {"mode": "specexit", "trace": true}});
    assert_eq!(asked[0], expected);
    assert_eq!(asked[1]["specexit"]["mode"], "eagle3");
    assert_eq!(browser.troubles(), Vec::<String>::new());
}

#[test]
fn an_answer_that_differs_is_said_to_and_numbers_of_a_token_are_told_by_key() {
    let fake = Fake::start();
    let Some(mut browser) = shown(&fake) else { return };
    browser.type_into("#question", "differ");
    browser.evaluate("document.getElementById('order').value = 'together'");
    browser.evaluate("document.getElementById('risk').value = '0.05'");
    browser.press("Enter", 13, 2);
    browser.wait_until("document.getElementById('summary').textContent", SOON);
    let summary = browser.text("#summary");
    assert!(summary.contains("not the same answer"), "{summary}");
    assert!(summary.contains("Both ran at the same time"), "{summary}");
    let asked = fake.asked();
    let risks: Vec<_> = asked.iter().map(|body| body["specexit"].get("risk").is_some()).collect();
    assert_eq!(risks.iter().filter(|with| **with).count(), 1, "a risk goes with exits only");

    browser.evaluate("document.querySelector('#pane-a [data-role=thought]').focus()");
    browser.press("ArrowRight", 39, 0);
    let told = browser.text("#pane-a [data-role=probe]");
    assert!(told.starts_with("Token 1 “Subtract”: progress 0.29,"), "{told}");
    assert!(told.ends_with("(by token 10)"), "{told}");
    browser.press("ArrowRight", 39, 0);
    assert!(browser.text("#pane-a [data-role=probe]").starts_with("Token 2 “ 3”"));
}

#[test]
fn stop_ends_the_stream_and_the_page_can_be_asked_again() {
    let fake = Fake::start();
    let Some(mut browser) = shown(&fake) else { return };
    browser.type_into("#question", "endless");
    browser.click("#ask");
    browser.wait_until("document.querySelectorAll('#pane-a .t').length === 15", SOON);
    browser.click("#stop");
    browser.wait_until(&state("pane-a", "done"), SOON);
    assert_eq!(browser.text("#summary"), "Stopped.");
    assert_eq!(browser.text("#error"), "");
    assert_eq!(browser.evaluate(&state("pane-b", "idle")), json!(true));
    for _ in 0..500 {
        if fake.hung_up() == 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fake.hung_up(), 1, "the server sees that nobody listens any more");

    browser.click("#compare");
    browser.type_into("#question", "again");
    browser.click("#ask");
    browser.wait_until(&state("pane-a", "done"), SOON);
    browser.wait_until("document.getElementById('summary').textContent.includes('tokens')", SOON);
    assert_eq!(browser.evaluate("document.getElementById('pane-b').hidden"), json!(true));
    assert_eq!(fake.asked().len(), 2);
}

#[test]
fn what_goes_wrong_is_said_in_words() {
    let fake = Fake::start();
    let Some(mut browser) = shown(&fake) else { return };
    for (question, words) in [
        ("busy", "The server is busy; ask again in a moment (429): 64 questions wait already"),
        ("broken", "The server broke off: the engine ran out of <b>memory</b>"),
        ("cut off", "The connection broke off in the middle of the answer."),
    ] {
        browser.type_into("#question", question);
        browser.click("#ask");
        browser.wait_until(&state("pane-a", "error"), SOON);
        assert_eq!(browser.text("#error"), words);
        browser.wait_until("!document.getElementById('ask').disabled", SOON);
    }
    assert_eq!(fake.asked().len(), 3, "the second pane is not asked where the first failed");
    picture(&mut browser, "error");
    browser.type_into("#question", " ");
    browser.click("#ask");
    assert_eq!(browser.text("#error"), "Type a question first.");
}

#[test]
fn text_of_the_model_stays_text_and_no_trace_is_needed() {
    let fake = Fake::start();
    let Some(mut browser) = shown(&fake) else { return };
    browser.type_into("#question", "untraced");
    browser.click("#compare");
    browser.click("#ask");
    browser.wait_until(&state("pane-a", "done"), SOON);
    assert!(browser.text("#pane-a [data-role=thought]").starts_with("<img src=x onerror="));
    assert_eq!(browser.text("#pane-a [data-role=answer]"), "<script>1</script>");
    assert_eq!(browser.evaluate("document.images.length"), json!(0));
    assert_eq!(browser.text("title"), "specexit: ask");
    assert_eq!(browser.text("#examples button:nth-of-type(2)"), "What is <b>1</b> + 1?");
    browser.click("#examples button");
    let question = "document.getElementById('question').value";
    assert_eq!(browser.evaluate(question), json!("Solve for k: 5k + 3 = 28."));
}

#[test]
fn a_link_asks_at_once_and_a_phone_shows_all_of_it() {
    let fake = Fake::start();
    let Some(mut browser) = Browser::start() else { return };
    browser.set_size(360, 740);
    let question = "What%20is%20%F0%9F%A7%AE%201+1%3F";
    browser.open(&format!("{}/#ask={question}&compare=1", fake.url));
    browser.wait_until("document.getElementById('summary').textContent", SOON);
    assert_eq!(fake.asked()[0]["messages"][0]["content"], "What is 🧮 1+1?");
    assert_eq!(fake.asked().len(), 2);
    let below = "(t => t.scrollTop > 0 && t.scrollHeight - t.scrollTop - t.clientHeight < 2)\
        (document.querySelector('#pane-b [data-role=thought]'))";
    assert_eq!(browser.evaluate(below), json!(true), "a long thought is followed to its end");
    for width in [360, 320, 1280] {
        browser.set_size(width, 740);
        let widths = "document.documentElement.scrollWidth <= innerWidth";
        browser.wait_until(widths, Duration::from_secs(2));
    }
    let tops = "[...document.querySelectorAll('.pane')].map(p => p.getBoundingClientRect().top)";
    let beside = format!("(([a, b]) => a === b)({tops})");
    assert_eq!(browser.evaluate(&beside), json!(true), "side by side where there is room");
    browser.set_size(360, 740);
    assert_eq!(browser.evaluate(&beside), json!(false), "stacked on a phone");
    picture(&mut browser, "phone");
    browser.prefer("prefers-color-scheme", "dark");
    std::thread::sleep(Duration::from_millis(400));
    picture(&mut browser, "phone-dark");
    browser.set_size(1280, 900);
    picture(&mut browser, "dark");
}

#[test]
fn a_key_is_asked_for_and_kept_in_the_tab_only() {
    let fake = Fake::with(&["plain", "eagle3"], Some("geheim"));
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&format!("{}/", fake.url));
    browser.wait_until("document.getElementById('error').textContent", SOON);
    let said =
        "The server wants an API key, or does not know this one (401): this key is not known";
    assert_eq!(browser.text("#error"), said);
    browser.type_into("#key", "geheim");
    browser.type_into("#question", "hello");
    browser.wait_until("document.getElementById('mode').options.length === 2", SOON);
    browser.wait_until("!document.getElementById('error').textContent", SOON);
    browser.click("#ask");
    browser.wait_until("document.getElementById('summary').textContent", SOON);
    let modes: Vec<_> = fake.asked().iter().map(|b| b["specexit"]["mode"].clone()).collect();
    assert_eq!(
        modes,
        ["eagle3", "plain"],
        "without signals, exit off is what plain decoding meets"
    );
    assert_eq!(browser.evaluate("localStorage.length + document.cookie.length"), json!(0));
}

#[test]
fn everything_that_can_be_used_has_a_name() {
    let fake = Fake::start();
    let Some(mut browser) = shown(&fake) else { return };
    let nameless = "[...document.querySelectorAll('button, input, select, textarea, [role=region]')]\
        .filter(e => !e.textContent.trim() && !e.labels?.length && !e.getAttribute('aria-label'))\
        .map(e => e.outerHTML)";
    assert_eq!(browser.evaluate(nameless), json!([]));
    let ids = "[...document.querySelectorAll('[id]')].map(e => e.id)\
        .filter((id, at, all) => all.indexOf(id) !== at)";
    assert_eq!(browser.evaluate(ids), json!([]), "no id twice");
    assert_eq!(browser.evaluate("document.getElementById('error').role"), json!("alert"));
    assert_eq!(browser.evaluate("document.getElementById('summary').role"), json!("status"));
}
