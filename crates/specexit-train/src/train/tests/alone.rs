//! A probe for a finished head.

use std::path::PathBuf;

use specexit_model::head_file::{HeadConfig, SpecExitConfig};

use super::*;

/// A head that a joint run trained, without its probe, and a label file beside it.
fn plain_head(folder: &Path) -> PathBuf {
    write_labels(&folder.join("labels.jsonl"), "toy");
    let joint = TrainOptions { out: folder.join("joint"), epochs: 1, ..options(folder) };
    run(&joint, &mut Silent).unwrap();
    let mut head = HeadFile::open(&joint.out.join("head")).unwrap();
    let fc = head.tensors.get_mut("fc.weight").unwrap();
    fc.shape[0] = WIDTH;
    fc.data.truncate(WIDTH * 3 * WIDTH);
    head.config.specexit = None;
    head.save(&folder.join("plain")).unwrap();
    folder.join("plain")
}

fn alone(folder: &Path, head: &Path) -> TrainOptions {
    TrainOptions {
        labels: folder.join("labels.jsonl"),
        out: folder.join("run"),
        signals_only: Some(head.to_owned()),
        batch_tokens: 60,
        probe_epochs: 20,
        probe_lr: 2e-2,
        held_out: 0.2,
        ..TrainOptions::default()
    }
}

/// A head without its probe and what is said about it.
fn without_probe(dir: &Path) -> HeadFile {
    let mut head = HeadFile::open(dir).unwrap();
    let fc = head.tensors.get_mut("fc.weight").unwrap();
    fc.shape[0] = WIDTH;
    fc.data.truncate(WIDTH * 3 * WIDTH);
    head.tensors.retain(|name, _| !name.starts_with("probe."));
    head.config = HeadConfig { specexit: None, ..head.config };
    head
}

#[test]
fn a_plain_head_learns_to_signal_and_drafts_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let base = plain_head(folder.path());
    for (probe, positions) in [
        (ProbeKind::Fc, Positions::Dense),
        (ProbeKind::Mlp, Positions::Boundaries),
        (ProbeKind::Fc, Positions::Boundaries),
    ] {
        let out = folder.path().join(format!("{probe:?}-{positions:?}"));
        let options =
            TrainOptions { probe, positions, out: out.clone(), ..alone(folder.path(), &base) };
        let summary = run(&options, &mut Silent).unwrap();
        let report = summary.report.unwrap();
        let quality = report.held_out.unwrap();
        assert_eq!(quality.draft, DraftQuality::default());
        if positions == Positions::Dense {
            let signal = &quality.signals[1];
            assert!(signal.mse < 0.8 * signal.mse_of_mean, "{signal:?}");
        }
        let head = HeadFile::open(&out.join("head")).unwrap();
        assert!(head.has_probe());
        assert_eq!(head.config.specexit.unwrap().positions, positions);
        assert_eq!(without_probe(&out.join("head")), without_probe(&base));

        // Of labelled positions only: 6 H_t bytes each, and a checksum a sequence.
        let states = std::fs::metadata(out.join("states.bin")).unwrap().len();
        let labels = report.data.train_labels + quality.signals[1].labels;
        assert_eq!(states, (labels * 6 * WIDTH + 24 * 8) as u64);
        let page = std::fs::read_to_string(out.join("report.html")).unwrap();
        assert!(page.contains("byte for byte") && !page.contains("Draft layer</th>"), "{page}");
        assert!(!page.contains("Drafting chains") && !page.contains("ttt_steps"), "{page}");
        assert!(!page.contains("0 positions to draft from"));
    }
}

#[test]
fn an_interrupted_run_ends_like_an_unbroken_one() {
    let folder = tempfile::tempdir().unwrap();
    let base = plain_head(folder.path());
    for (probe, cap_gb) in [(ProbeKind::Fc, 10e-6), (ProbeKind::Mlp, 0.0)] {
        let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
        let options = TrainOptions { probe, probe_epochs: 4, ..alone(folder.path(), &base) };
        let summary =
            run(&TrainOptions { out: whole.join("run"), ..options.clone() }, &mut Silent).unwrap();
        assert!(summary.finished && summary.total_steps > 8, "{summary:?}");
        let mut runs = 0;
        loop {
            // Under other caps each time.
            let cache_gb = if runs % 2 == 0 { cap_gb } else { 1.0 };
            let options = TrainOptions { out: broken.join("run"), cache_gb, ..options.clone() };
            runs += 1;
            let mut stop = StopAfter { left: 3, training: false };
            if run(&options, &mut stop).unwrap().finished {
                break;
            }
        }
        assert!(runs > 2);
        assert!(results(&whole) == results(&broken), "{probe:?}");
        std::fs::remove_dir_all(whole).unwrap();
        std::fs::remove_dir_all(broken).unwrap();
    }
}

#[test]
fn a_probe_that_is_there_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let base = plain_head(folder.path());
    // The joint run's own head, whose probe is another one.
    let fused = folder.path().join("joint/head");
    let train = |head: &Path, out: &str| {
        let out = folder.path().join(out);
        run(&TrainOptions { out: out.clone(), ..alone(folder.path(), head) }, &mut Silent).unwrap();
        std::fs::read(out.join("head/model.safetensors")).unwrap()
    };
    let before = std::fs::read(fused.join("model.safetensors")).unwrap();
    let replaced = train(&fused, "from-fused");
    assert!(before != replaced);
    // What was there before has no part in the result.
    assert!(replaced == train(&base, "from-plain"));
}

#[test]
fn wrong_heads_and_changed_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let base = plain_head(folder.path());
    let error = |options: &TrainOptions| run(options, &mut Silent).unwrap_err().to_string();
    let given = alone(folder.path(), &base);
    run(&given, &mut StopAfter { left: 1, training: false }).unwrap();
    let change = |f: &dyn Fn(&mut HeadFile)| {
        let mut head = HeadFile::open(&base).unwrap();
        f(&mut head);
        head.save(&folder.path().join("changed")).unwrap();
        TrainOptions { signals_only: Some(folder.path().join("changed")), ..given.clone() }
    };
    let other = error(&change(&|head| {
        head.tensors.get_mut("norm.weight").unwrap().data[0] += 1.0;
    }));
    assert!(other.contains("base_head"), "{other}");
    let vocab = error(&change(&|head| {
        head.config.vocab_size = VOCAB + 1;
        head.d2t = Some((0..VOCAB as u32).collect());
    }));
    assert!(vocab.contains("its vocabulary has 31 tokens, the target's 30"), "{vocab}");
    let target = error(&change(&|head| {
        let target_hash = "another".to_owned();
        head.config.specexit = Some(SpecExitConfig { target_hash, ..SpecExitConfig::default() });
    }));
    assert!(target.contains("belongs to another model"), "{target}");
    let missing = error(&TrainOptions { signals_only: Some("nowhere".into()), ..given.clone() });
    assert!(missing.contains("nowhere has no config.json"), "{missing}");
    let draft = error(&TrainOptions { epochs: 3, ..given });
    assert!(draft.starts_with("epochs is about the draft layer"), "{draft}");
}
