//! The training forward against the same model as inference runs it.

use specexit_kernels::Precision;
use specexit_model::{LogitRows, Model, ModelSource, TargetRows, Workspace};
use specexit_testkit as testkit;

use super::twin::{params, tiny};
use super::*;
use crate::pretrain::testing::write_for_tests;

#[test]
fn an_exported_model_computes_the_same_logits() {
    // The tokenizer of the test kit needs its vocabulary.
    let shape = DecoderShape { vocab_size: testkit::VOCAB, ..tiny() };
    let mut params = params(&shape, 50);
    for p in &mut params {
        // As the export rounds, so that only the order of sums differs.
        p.value.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
    }
    let folder = tempfile::tempdir().unwrap();
    testkit::write_model(folder.path(), 1).unwrap();
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    write_for_tests(folder.path(), &shape, &params);
    let source = ModelSource::Folder(folder.path().to_owned());
    let model = Model::load(&source, 1, Precision::F32).unwrap();
    assert!(model.target.config.tie_word_embeddings && model.target.config.qk_norm);

    let texts: [Vec<u32>; 2] =
        [29, 12].map(|n| (0..n).map(|i| (i * i * 31 + i * 7 + n) % 256).collect());
    let mut batch = TextBatch::default();
    texts.iter().for_each(|t| batch.push(t, 0));
    let plain = Plain::new(&shape, Gemm::Candle);
    let trace = plain.forward(&plain.weights(&params).unwrap(), &batch).unwrap();
    let mut fast = Fast::new(&shape, &all_cores());
    fast.prepare(&params);
    fast.forward(&params, &batch);
    let mut ours = trace.logits().chunks_exact(shape.vocab_size);
    let mut rounded = fast.logits(&batch).chunks_exact(shape.vocab_size);
    for text in &texts {
        let mut cache = model.target.new_cache();
        let tokens = &text[..text.len() - 1];
        let rows = TargetRows { tokens, cache: &mut cache, logits: LogitRows::All };
        let mut workspace = Workspace::default();
        model.target.forward(&mut [rows], &mut workspace).unwrap();
        for row in 0..tokens.len() {
            let expected = workspace.logits(row);
            for (a, b) in ours.next().unwrap().iter().zip(expected) {
                assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "row {row}: {a} {b}");
            }
            for (a, b) in rounded.next().unwrap().iter().zip(expected) {
                assert!((a - b).abs() < 3e-2 * b.abs().max(1.0), "row {row}: {a} {b}");
            }
        }
    }
    assert!(ours.next().is_none());
}
