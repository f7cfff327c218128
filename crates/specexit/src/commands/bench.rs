//! `bench`: how fast this machine decodes a model, and how fast it could.

use std::fmt::Write;

use serde::Serialize;
use specexit_eval::{
    CpuTimes, DRAFTED, Floor, HeadCost, HeadMeter, LlamaBench, Machine, MachineProbe, MachineSpeed,
    Memory, Shape, Speed, SpeedMeter, SpeedOptions, VsLlamaCpp, today,
};
use specexit_exit::Profile;
use specexit_model::Model;

use crate::high::{self, HeadChoice, engine};
use crate::output::{print, print_json, reporter};

/// Share of the machine that others may have had before the numbers are doubtful.
const QUIET: f64 = 0.03;

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    machine: MeasuredMachine,
    date: String,
    model: String,
    head: Option<String>,
    context: usize,
    repetitions: usize,
    #[serde(flatten)]
    speed: Speed,
    /// Tokens per second of 8 sequences together.
    batch8_tok_s: Option<f64>,
    #[serde(flatten)]
    memory: Memory,
    #[serde(flatten)]
    head_cost: Option<HeadCost>,
    vs_llama_cpp: Option<VsLlamaCpp>,
    /// Share of the machine's CPU time that other processes took; `null` where the system does not say.
    others_cpu_share: Option<f64>,
}

/// What the machine is, and what it gives.
#[derive(Serialize)]
struct MeasuredMachine {
    #[serde(flatten)]
    machine: Machine,
    #[serde(flatten)]
    speed: MachineSpeed,
}

pub(crate) fn bench(args: high::Bench) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let options = &args.options;
    let mut meter = SpeedMeter::new(&model.target, options.clone())?;
    let mut probe = MachineProbe::new(&model.target)?;
    let mut head = args.head.as_ref().map(|head| head_meter(&model, head, options)).transpose()?;
    let mut peer = args
        .llama_bench
        .as_ref()
        .map(|(program, file)| LlamaBench::new(program, file, args.model.threads, options));
    let before = CpuTimes::now();
    let mut progress = reporter();
    progress.start("bench", "repetitions", options.repetitions as u64, 0);
    meter.warm_up()?;
    if let Some(head) = &mut head {
        head.warm_up()?;
    }
    // Taking turns, so that a busy machine is busy for all.
    for done in 1..=options.repetitions {
        probe.repeat()?;
        meter.repeat()?;
        if let Some(head) = &mut head {
            head.repeat()?;
        }
        if let Some(peer) = &mut peer {
            peer.repeat()?;
        }
        progress.advance(done as u64, "");
    }
    progress.finish();
    let others = before.zip(CpuTimes::now()).and_then(|(before, now)| now.others_since(&before));
    let machine = probe.result();
    // Its blocks are no part of what a model needs.
    drop(probe);
    let speed = meter.result(&Floor::new(&model.target, &machine));
    let kv_bytes = meter.kv_bytes() + head.as_ref().map_or(0, HeadMeter::kv_bytes);
    let of_head = head.as_ref().map_or(0, HeadMeter::weight_bytes);
    let weight_bytes = model.target.kept_bytes() + of_head;
    let report = Report {
        machine: MeasuredMachine { machine: Machine::of(&model.target), speed: machine },
        date: today(),
        head: args.head.as_ref().map(HeadChoice::name),
        context: options.context,
        repetitions: options.repetitions,
        batch8_tok_s: speed.shapes.get(&Shape::Batch(8)).map(|rate| rate.tok_s),
        memory: Memory::now(weight_bytes, kv_bytes),
        head_cost: head.as_ref().map(HeadMeter::result),
        vs_llama_cpp: peer.as_ref().map(|peer| peer.result(|shape| meter.tok_s(shape))),
        others_cpu_share: others,
        model: model.name,
        speed,
    };
    if args.json { print_json(&report) } else { Ok(print(&text(&report, options))?) }
}

/// A meter of the head, with its own policy where it has one.
fn head_meter(
    model: &Model,
    head: &HeadChoice,
    options: &SpeedOptions,
) -> anyhow::Result<HeadMeter> {
    let mut engine = engine(model, Some(head), 1)?;
    let policy = head.policy.clone().unwrap_or_else(|| Profile::Default.policy());
    Ok(HeadMeter::new(&mut engine, options.context, policy)?)
}

fn text(report: &Report, options: &SpeedOptions) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut text, report, options);
    text
}

fn write_all(text: &mut String, report: &Report, options: &SpeedOptions) -> std::fmt::Result {
    let MeasuredMachine { machine, speed } = &report.machine;
    let Report { model, date, context, repetitions, .. } = report;
    writeln!(text, "{machine} · {date}")?;
    writeln!(text, "{model} · context {context} · medians of {repetitions}\n")?;
    writeln!(text, "{:<16}{:>9.1} GB/s read", "memory", speed.bandwidth_gb_s)?;
    writeln!(text, "{:<16}{:>9.1} GFLOP/s in caches", "products", speed.peak_gflops)?;
    let overhead = speed.step_overhead_ms;
    writeln!(text, "{:<16}{overhead:>9.3} ms of 24 layers without weights", "step")?;
    write_shapes(text, report, options)?;
    write_memory(text, &report.memory)?;
    if let Some(cost) = &report.head_cost {
        write_head(text, cost)?;
    }
    if let Some(share) = report.others_cpu_share.filter(|share| *share > QUIET) {
        writeln!(
            text,
            "warning: other processes took {:.0} % of this machine's CPU time; the numbers are doubtful",
            100.0 * share
        )?;
    }
    Ok(())
}

fn write_shapes(text: &mut String, report: &Report, options: &SpeedOptions) -> std::fmt::Result {
    let peer = report.vs_llama_cpp.as_ref();
    write!(
        text,
        "\n{:<16}{:>9}{:>11}{:>9}{:>10}{:>12}",
        "", "tokens/s", "ms/forward", "GB/s", "of floor", "to one row"
    )?;
    writeln!(text, "{}", if peer.is_some() { "   llama.cpp  ours/theirs" } else { "" })?;
    for (shape, rate) in &report.speed.shapes {
        let name = match shape {
            Shape::Decode => "decode".to_owned(),
            Shape::Verify(1) => continue,
            Shape::Verify(rows) => format!("verify {rows} rows"),
            Shape::Prefill(prompt) => format!("prefill {prompt}"),
            Shape::Batch(sequences) => format!("{sequences} sequences"),
        };
        let cost = match shape {
            Shape::Verify(rows) => report.speed.verify_cost.get(rows),
            _ => None,
        };
        let cost = cost.map_or_else(String::new, |cost| format!("{cost:.2}"));
        let theirs = peer.and_then(|peer| Some((peer.tok_s.get(shape)?, peer.ratios.get(shape)?)));
        let theirs =
            theirs.map_or_else(String::new, |(tok_s, ratio)| format!("{tok_s:>12.2}{ratio:>13.2}"));
        let line = format!(
            "{name:<16}{:>9.2}{:>11.2}{:>9.1}{:>8.0} %{cost:>12}{theirs}",
            rate.tok_s,
            rate.forward_ms,
            rate.weight_gb_s,
            100.0 * rate.floor_share,
        );
        writeln!(text, "{}", line.trim_end())?;
    }
    for prompt in &options.prefill {
        if !report.speed.prefill_tok_s.contains_key(prompt) {
            writeln!(text, "prefill {prompt}: more than the model's context holds")?;
        }
    }
    if let Some(peer) = peer {
        let [low, high] = peer.decode_quartiles;
        writeln!(
            text,
            "llama.cpp {}: quartiles of the decode ratio {low:.3} to {high:.3}",
            peer.build
        )?;
    }
    Ok(())
}

fn write_memory(text: &mut String, memory: &Memory) -> std::fmt::Result {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let (weights, kv) = (mb(memory.weight_bytes), mb(memory.kv_bytes));
    let resident = memory.resident_bytes.zip(memory.resident_ratio);
    let resident = resident.map_or_else(String::new, |(bytes, ratio)| {
        format!("; {:.1} MB resident, {ratio:.2} of both", mb(bytes))
    });
    writeln!(
        text,
        "\n{:<16}{weights:>9.1} MB of weights, {kv:.1} MB of keys and values{resident}",
        "memory"
    )
}

fn write_head(text: &mut String, cost: &HeadCost) -> std::fmt::Result {
    writeln!(
        text,
        "{:<16}{:>9.2} ms for {DRAFTED} tokens: {:.1} % of verifying {} rows",
        "drafting",
        cost.draft4_ms,
        100.0 * cost.draft4_share,
        DRAFTED + 1
    )?;
    match cost.signals_ms.zip(cost.signals_share) {
        Some((ms, share)) => writeln!(
            text,
            "{:<16}{ms:>9.3} ms with the exit's decision: {:.2} % of a round",
            "signals",
            100.0 * share
        ),
        None => Ok(()),
    }
}
