//! `generate`: one prompt, its text as it comes.

use std::io::IsTerminal;

use serde::Serialize;
use specexit_engine::{Engine, Event, Exit, Finish, Method, Output, Request, TokenId};
use specexit_model::Model;

use crate::high::{self, engine};
use crate::output::{Parts, Shown, TokenStream, print_json};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    head: Option<String>,
    method: Method,
    /// Everything generated but special tokens; markers included.
    text: &'a str,
    thinking: &'a str,
    answer: &'a str,
    token_ids: &'a [TokenId],
    prompt_tokens: usize,
    thinking_tokens: usize,
    finish: Finish,
    exit: Option<Exit>,
    tau: f64,
    rounds: usize,
    drafted: usize,
    accepted: usize,
    wall_s: f64,
    first_answer_s: Option<f64>,
}

pub(crate) fn generate(args: high::Generate) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let mut engine = engine(&model, args.head.as_ref(), 1)?;
    let (prompt, phase) = args.style.encode(&model, engine.markers(), &args.prompt)?;
    let prompt_tokens = prompt.len();
    let method = args.request.method;
    let request = Request { prompt, phase, ..args.request };
    let shown = if args.json { Shown::Nowhere } else { Shown::on_stdout() };
    let stream = TokenStream::new(&model, &engine, phase, shown);
    let (parts, output) = stream_out(&mut engine, request, stream)?;
    if args.json {
        let head = args.head.as_ref().map(high::HeadChoice::name);
        return print_json(&report(&model, head, method, prompt_tokens, &parts, &output));
    }
    if std::io::stderr().is_terminal() {
        eprintln!("{}", summary(&output, method));
    }
    Ok(())
}

/// Serves the request, showing every token as soon as it is committed.
fn stream_out(
    engine: &mut Engine,
    request: Request,
    mut stream: TokenStream,
) -> anyhow::Result<(Parts, Output)> {
    engine.submit(request)?;
    loop {
        for event in engine.step()? {
            match event {
                Event::Tokens { tokens, .. } => stream.push(&tokens)?,
                Event::Signals { .. } => {}
                Event::Done(output) => return Ok((stream.finish()?, *output)),
            }
        }
    }
}

fn report<'a>(
    model: &'a Model,
    head: Option<String>,
    method: Method,
    prompt_tokens: usize,
    parts: &'a Parts,
    output: &'a Output,
) -> Report<'a> {
    Report {
        model: &model.name,
        head,
        method,
        text: &parts.text,
        thinking: &parts.thinking,
        answer: &parts.answer,
        token_ids: &output.token_ids,
        prompt_tokens,
        thinking_tokens: output.thinking_tokens,
        finish: output.finish,
        exit: output.exit,
        tau: output.tau(),
        rounds: output.rounds,
        drafted: output.drafted,
        accepted: output.accepted,
        wall_s: output.wall_s,
        first_answer_s: output.first_answer_s,
    }
}

/// One line of numbers for a reader at a terminal.
fn summary(output: &Output, method: Method) -> String {
    let tokens = output.token_ids.len();
    let exit = output.exit.map_or_else(String::new, |exit| {
        format!(" · thought ended by {} at token {}", exit.reason, exit.token_index)
    });
    let tau = if method.drafts() { format!(" · τ {:.2}", output.tau()) } else { String::new() };
    format!(
        "[{method} · {tokens} tokens, {} thinking · {:.1} s · {:.1} tokens/s{tau}{exit}]",
        output.thinking_tokens,
        output.wall_s,
        tokens as f64 / output.wall_s.max(1e-9)
    )
}
