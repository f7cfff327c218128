//! `bench`: how fast this machine decodes a model.

use std::fmt::Write;

use serde::Serialize;
use specexit_eval::{LlamaBench, Machine, Speed, SpeedMeter, VsLlamaCpp, today};

use crate::high;
use crate::output::{print, print_json, reporter};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    date: String,
    model: String,
    context: usize,
    repetitions: usize,
    #[serde(flatten)]
    speed: Speed,
    vs_llama_cpp: Option<VsLlamaCpp>,
}

pub(crate) fn bench(args: high::Bench) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let mut meter = SpeedMeter::new(&model.target, args.options.clone())?;
    let mut peer = args
        .llama_bench
        .as_ref()
        .map(|(program, file)| LlamaBench::new(program, file, args.model.threads, &args.options));
    let mut progress = reporter();
    progress.start("bench", "repetitions", args.options.repetitions as u64, 0);
    // Taking turns, so that a busy machine is busy for both.
    for done in 1..=args.options.repetitions {
        meter.repeat()?;
        if let Some(peer) = &mut peer {
            peer.repeat()?;
        }
        progress.advance(done as u64, "");
    }
    progress.finish();
    let speed = meter.result();
    let report = Report {
        machine: Machine::of(&model.target),
        date: today(),
        model: model.name,
        context: args.options.context,
        repetitions: args.options.repetitions,
        vs_llama_cpp: peer.as_ref().map(|peer| peer.result(&speed)),
        speed,
    };
    if args.json { print_json(&report) } else { Ok(print(&text(&report))?) }
}

fn text(report: &Report) -> String {
    let Report { machine, date, model, context, repetitions, speed, vs_llama_cpp } = report;
    let mut text =
        format!("{machine} · {model} · {date} · context {context} · medians of {repetitions}\n");
    let mut line = |name: String, number: f64, what: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<24}{number:8.2} {what}");
    };
    let weights = format!("tokens/s, {:.1} GB/s of weights", speed.weight_gb_s);
    line("plain decoding".to_owned(), speed.decode_tok_s, weights);
    for (rows, cost) in &speed.verify_cost {
        line(format!("{rows} rows"), *cost, "times one row".to_owned());
    }
    if let Some(peer) = vs_llama_cpp {
        let ours = format!("tokens/s; ours are {:.2} of theirs", peer.decode_ratio);
        line(format!("llama.cpp ({})", peer.build), peer.decode_tok_s, ours);
        for (rows, cost) in &peer.verify_cost {
            let ratio = peer.forward_time_ratio.get(rows).copied().unwrap_or(f64::NAN);
            let ours = format!("times one row; our time is {ratio:.2} of theirs");
            line(format!("{rows} rows"), *cost, ours);
        }
    }
    text
}
