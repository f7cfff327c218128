//! Heads written and read again: through `HeadFile` in bf16, and as they are with another probe.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use specexit_model::head_file::{HEAD_CONFIG, HEAD_WEIGHTS, HeadFile, SpecExitConfig};
use specexit_model::{Probe, RawHead};

/// Width of the golden heads, and three times that of their target's states.
const H: usize = 32;
const WIDTH: usize = 96;
const FC: &str = "fc.weight";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Type, shape and bytes of every tensor.
type Raw = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

fn raw(dir: &Path) -> Raw {
    let bytes = std::fs::read(dir.join(HEAD_WEIGHTS)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let one = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let dtype = format!("{:?}", view.dtype());
        (name.to_owned(), (dtype, view.shape().to_vec(), view.data().to_vec()))
    };
    file.iter().map(one).collect()
}

fn config(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join(HEAD_CONFIG)).unwrap()).unwrap()
}

#[test]
fn plain_and_fused_heads_come_back_bit_by_bit() {
    for (name, rows) in [("eagle3", H), ("eagle3_fused", H + 3)] {
        let folder = tempfile::tempdir().unwrap();
        let head = HeadFile::open(&golden(name)).unwrap();
        assert_eq!(head.has_probe(), rows > H);
        assert_eq!(head.tensors[FC].shape, [rows, WIDTH]);
        head.save(folder.path()).unwrap();
        assert_eq!(HeadFile::open(folder.path()).unwrap(), head);
        assert_eq!(raw(folder.path()), raw(&golden(name)), "{name}");
        assert_eq!(raw(folder.path())[FC].1, [rows, WIDTH]);
    }
}

/// A plain head of the golden one's numbers in another type, with things nobody knows.
fn strange_head(dir: &Path, dtype: &str) {
    let widen = |bytes: &[u8]| -> Vec<f32> {
        let words = bytes.as_chunks::<2>().0.iter();
        words.map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
    };
    let mut tensors = raw(&golden("eagle3"));
    for (of, _, data) in tensors.values_mut().filter(|t| t.0 == "BF16") {
        let numbers = widen(data);
        *data = match dtype {
            "BF16" => continue,
            "F16" => numbers.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        *of = dtype.to_owned();
    }
    let unknown = ("I32".to_owned(), vec![3], vec![7u8; 12]);
    tensors.insert("somebody.elses".to_owned(), unknown);
    let mut header = serde_json::Map::new();
    let notes = json!({"format": "pt", "a": "1", "b": "2", "c": "3", "d": "4"});
    header.insert("__metadata__".to_owned(), notes);
    let (mut data, mut at) = (Vec::new(), 0);
    for (name, (dtype, shape, bytes)) in &tensors {
        let end = at + bytes.len();
        let place = json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]});
        header.insert(name.clone(), place);
        data.extend_from_slice(bytes);
        at = end;
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    let file = [&length[..], header.as_bytes(), &data[..]].concat();
    std::fs::write(dir.join(HEAD_WEIGHTS), file).unwrap();
    let mut document = config(&golden("eagle3"));
    document["somebody_elses"] = json!({"z": [1, 2.5], "a": null});
    std::fs::write(dir.join(HEAD_CONFIG), document.to_string()).unwrap();
}

fn metadata(dir: &Path) -> std::collections::HashMap<String, String> {
    let bytes = std::fs::read(dir.join(HEAD_WEIGHTS)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    header.metadata().clone().unwrap()
}

fn rows() -> Probe {
    Probe::Rows((0..3 * WIDTH).map(|i| (i as f32 - 100.0) / 1024.0).collect())
}

fn mlp() -> Probe {
    Probe::Mlp { up: vec![0.1; 2 * WIDTH], down: vec![0.3; 6], bias: [1.0, 2.0, 3.0] }
}

fn origin() -> SpecExitConfig {
    SpecExitConfig { version: 2, target_hash: "abc".to_owned(), ..SpecExitConfig::default() }
}

#[test]
fn a_probe_is_added_and_nothing_else_changes() {
    for (dtype, size) in [("BF16", 2), ("F16", 2), ("F32", 4)] {
        let folder = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let dir = folder.path().join(name);
            std::fs::create_dir_all(&dir).unwrap();
            dir
        };
        let base = dir("base");
        strange_head(&base, dtype);
        let head = RawHead::open(&base).unwrap();
        assert!(!head.has_probe());
        head.save_with_probe(&dir("rows"), &rows(), &origin()).unwrap();
        head.save_with_probe(&dir("mlp"), &mlp(), &origin()).unwrap();

        let (before, with_rows, with_mlp) = (raw(&base), raw(&dir("rows")), raw(&dir("mlp")));
        let (of, shape, data) = &with_rows[FC];
        assert_eq!((&of[..], &shape[..]), (dtype, &[H + 3, WIDTH][..]));
        assert_eq!(data[..H * WIDTH * size], before[FC].2);
        assert_eq!(data.len(), (H + 3) * WIDTH * size);
        for (name, tensor) in &before {
            assert_eq!(&with_mlp[name], tensor);
            assert!(name == FC || &with_rows[name] == tensor, "{name}");
        }
        assert_eq!(with_rows.len(), before.len());
        assert_eq!(with_mlp.len(), before.len() + 3);
        // Read as any head is: the same numbers, which all three types hold exactly.
        let read = HeadFile::open(&dir("rows")).unwrap();
        assert_eq!(Probe::of_head(&read), Some(rows()), "{dtype}");
        assert_eq!(Probe::of_head(&HeadFile::open(&dir("mlp")).unwrap()), Some(mlp()));

        for name in ["rows", "mlp"] {
            assert_eq!(metadata(&dir(name)), metadata(&base));
            let mut document = config(&dir(name));
            let specexit = document.as_object_mut().unwrap().shift_remove("specexit").unwrap();
            assert_eq!(specexit["target_hash"], "abc");
            assert_eq!(document.to_string(), config(&base).to_string());
        }

        // Each probe replaces the other, to the same bytes, and again.
        let file = |name: &str| std::fs::read(dir(name).join(HEAD_WEIGHTS)).unwrap();
        for (from, probe, expected) in
            [("rows", mlp(), "mlp"), ("mlp", rows(), "rows"), ("rows", rows(), "rows")]
        {
            let head = RawHead::open(&dir(from)).unwrap();
            assert!(head.has_probe());
            head.save_with_probe(&dir("again"), &probe, &origin()).unwrap();
            assert!(file("again") == file(expected), "{dtype} {from}");
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    strange_head(folder.path(), "F16");
    let head = RawHead::open(folder.path()).unwrap();
    let out = folder.path().join("out");
    let error = |probe: Probe| head.save_with_probe(&out, &probe, &origin()).unwrap_err();
    let large = error(Probe::Rows(vec![1e6; 3 * WIDTH])).to_string();
    assert!(large.contains("a probe row beyond the largest f16"), "{large}");
    let narrow = error(Probe::Rows(vec![1.0; 3])).to_string();
    assert!(narrow.contains("does not read states of width 96"), "{narrow}");
    let odd = Probe::Mlp { up: vec![0.0; 7], down: vec![0.0; 6], bias: [0.0; 3] };
    assert!(error(odd).to_string().contains("does not read states"));

    let wrong = |width, vocab| head.check_target(width, vocab, "x").unwrap_err().to_string();
    assert!(wrong(64, 256).contains("it reads states of width 32, the target's have 64"));
    assert!(wrong(32, 99).contains("its vocabulary has 256 tokens, the target's 99"));
    head.check_target(32, 256, "x").unwrap();
    head.save_with_probe(&out, &rows(), &origin()).unwrap();
    let ours = RawHead::open(&out).unwrap();
    ours.check_target(32, 256, "abc").unwrap();
    let error = ours.check_target(32, 256, "x").unwrap_err().to_string();
    assert!(error.contains("belongs to another model: it was trained on"), "{error}");
    assert_ne!(ours.hash(), head.hash());
    assert_eq!(ours.hash(), RawHead::open(&out).unwrap().hash());
}

#[test]
fn broken_heads_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(HEAD_WEIGHTS);
    strange_head(folder.path(), "F32");
    let whole = std::fs::read(&path).unwrap();
    for keep in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        assert!(RawHead::open(folder.path()).is_err(), "{keep}");
    }
    std::fs::write(&path, whole).unwrap();
    std::fs::write(folder.path().join(HEAD_CONFIG), "{}").unwrap();
    let error = RawHead::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("not the config of an EAGLE-3 head"), "{error}");
}
