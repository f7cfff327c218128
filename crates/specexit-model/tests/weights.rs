//! safetensors files: what is read from sound ones, and what is said about the others.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};

use specexit_model::{ModelError, Weights};
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A safetensors file with that header and data.
fn write(folder: &TempDir, name: &str, header: &str, data: &[u8]) -> PathBuf {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn one(folder: &TempDir, dtype: &str, shape: &str, data: &[u8]) -> Weights {
    let header = format!(
        r#"{{"x": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [0, {}]}}}}"#,
        data.len()
    );
    Weights::open_safetensors_file(&write(folder, "x.safetensors", &header, data)).unwrap()
}

/// Opening the folder must fail with one sentence that holds `part`.
#[track_caller]
fn refused(result: Result<Weights, ModelError>, part: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(part) && !error.contains('\n'), "{error}");
}

#[test]
fn every_number_type_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let floats = |dtype: &str, data: &[u8]| {
        let weights = one(&folder, dtype, "[1, 2]", data);
        let (shape, values) = weights.f32("x").unwrap();
        assert_eq!(shape, [1, 2]);
        let matrix = weights.matrix("x", 1, 2).unwrap();
        let mut row = [0.0; 2];
        matrix.read_row(0, &mut row);
        assert_eq!(row[..], values[..]);
        assert_eq!(weights.dtype("x").unwrap(), dtype);
        values
    };
    assert_eq!(floats("F32", &[0, 0, 192, 63, 0, 0, 0, 192]), [1.5, -2.0]);
    assert_eq!(floats("F16", &[0, 62, 0, 192]), [1.5, -2.0]);
    assert_eq!(floats("BF16", &[192, 63, 0, 192]), [1.5, -2.0]);
    let f64s: Vec<u8> = [1.5_f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(floats("F64", &f64s), [1.5, -2.0]);

    let i64s: Vec<u8> = [7_i64, -1].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(one(&folder, "I64", "[2]", &i64s).integers("x", 2).unwrap(), [7, -1]);
    let i32s: Vec<u8> = [7_i32, -1].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(one(&folder, "I32", "[2]", &i32s).integers("x", 2).unwrap(), [7, -1]);
    assert_eq!(
        one(&folder, "BOOL", "[3]", &[1, 0, 1]).booleans("x", 3).unwrap(),
        [true, false, true]
    );
    assert_eq!(one(&folder, "U8", "[2]", &[1, 0]).booleans("x", 2).unwrap(), [true, false]);
    assert_eq!(
        one(&folder, "BF16", "[2]", &[192, 63, 0, 192]).vector("x", 2).unwrap(),
        [1.5, -2.0]
    );
}

#[test]
fn empty_tensors_take_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let weights = one(&folder, "F32", "[1152921504606846975, 0]", &[]);
    assert!(weights.f32("x").unwrap().1.is_empty());
    assert_eq!(weights.matrix("x", 1_152_921_504_606_846_975, 0).unwrap().cols(), 0);
    assert!(one(&folder, "F32", "[0, 9223372036854775807]", &[]).f32("x").unwrap().1.is_empty());
}

#[test]
fn wrong_questions_name_tensor_and_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let weights = one(&folder, "F32", "[1, 2]", &[0; 8]);
    let say = |error: ModelError, parts: &[&str]| {
        let error = error.to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(error.contains("x.safetensors"), "{error}");
    };
    say(weights.matrix("y", 1, 2).unwrap_err(), &["no tensor `y`"]);
    say(weights.matrix("x", 2, 1).unwrap_err(), &["`x`", "[1, 2]", "[2, 1]"]);
    say(weights.vector("x", 2).unwrap_err(), &["`x`", "[1, 2]", "[2]"]);
    let weights = one(&folder, "F32", "[2]", &[0; 8]);
    say(weights.integers("x", 2).unwrap_err(), &["F32", "I64 or I32"]);
    say(weights.booleans("x", 2).unwrap_err(), &["F32", "BOOL"]);
    let weights = one(&folder, "I32", "[2]", &[0; 8]);
    say(weights.vector("x", 2).unwrap_err(), &["I32", "floating-point"]);
    let weights = one(&folder, "BOOL", "[2]", &[1, 2]);
    say(weights.booleans("x", 2).unwrap_err(), &["0 or 1"]);
}

#[test]
fn numbers_that_are_not_finite_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut data = vec![0; 4 * 300 * 700];
    let weights = |data: &[u8]| one(&folder, "F32", "[300, 700]", data);
    assert!(weights(&data).matrix("x", 300, 700).is_ok());
    data[4 * (123 * 700 + 45)..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    data[4 * (299 * 700 + 45)..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let error = weights(&data).matrix("x", 300, 700).unwrap_err().to_string();
    assert!(error.contains("`x` holds NaN at index [123, 45]"), "{error}");
    assert!(weights(&data).f32("x").unwrap_err().to_string().contains("[123, 45]"));
    // Finite in f32, but beyond bf16 after rounding.
    let weights = one(&folder, "F32", "[1, 1]", &f32::MAX.to_le_bytes());
    assert!(weights.f32("x").is_ok());
    assert!(weights.matrix("x", 1, 1).unwrap_err().to_string().contains("index [0, 0]"));
    let weights = one(&folder, "BF16", "[1, 2]", &[0, 0, 128, 255]);
    assert!(weights.matrix("x", 1, 2).unwrap_err().to_string().contains("-inf at index [0, 1]"));
}

#[test]
fn damaged_headers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |header: &str, data: &[u8]| {
        Weights::open_safetensors_file(&write(&folder, "x.safetensors", header, data))
    };
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"x": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#)
    };
    refused(open("{}", &[0]), "lists 0 bytes of tensors, but 1 follow");
    refused(open("[]", &[]), "header is not valid");
    refused(open("{", &[]), "header is not valid");
    refused(open(&entry("F32", "[2]", "[0, 8]"), &[0; 7]), "lists 8 bytes");
    refused(open(&entry("F32", "[2]", "[0, 4]"), &[0; 4]), "header is not valid");
    refused(open(&entry("F32", "[2]", "[4, 12]"), &[0; 12]), "header is not valid");
    refused(open(&entry("F32", "[-1]", "[0, 4]"), &[0; 4]), "header is not valid");
    refused(open(&entry("F99", "[1]", "[0, 4]"), &[0; 4]), "header is not valid");
    refused(open(&entry("F8_E4M3", "[4]", "[0, 4]"), &[0; 4]), "F8_E4M3");
    let huge = "[4294967296, 4294967296, 4294967296]";
    refused(open(&entry("F32", huge, "[0, 4]"), &[0; 4]), "header is not valid");
    // Nine tensors whose lengths add up to more than 2^64.
    let many: Vec<String> = (0..9_u64)
        .map(|i| {
            let (start, end) = (i * ((1 << 61) - 1), (i + 1).wrapping_mul((1 << 61) - 1));
            format!(
                r#""t{i}": {{"dtype": "U8", "shape": [{}], "data_offsets": [{start}, {end}]}}"#,
                (1_u64 << 61) - 1
            )
        })
        .collect();
    assert!(open(&format!("{{{}}}", many.join(",")), &[0; 4]).is_err());

    let path = folder.path().join("x.safetensors");
    let open_bytes = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Weights::open_safetensors_file(&path)
    };
    refused(open_bytes(&[]), "no header");
    refused(open_bytes(&[1, 2, 3]), "no header");
    refused(open_bytes(&u64::MAX.to_le_bytes()), "claims a header of 18446744073709551615 bytes");
    refused(open_bytes(&1000_u64.to_le_bytes()), "ends inside its header");
    refused(Weights::open_safetensors_file(&folder.path().join("none")), "cannot read");
}

#[test]
fn shards_are_one_checkpoint() {
    let sharded = Weights::open_safetensors(&golden("llama2")).unwrap();
    assert!(sharded.contains("model.embed_tokens.weight") && sharded.contains("model.norm.weight"));
    assert_eq!(
        sharded.names().len(),
        sharded.names().iter().filter(|n| sharded.contains(n)).count()
    );
}

#[test]
fn broken_indexes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Weights::open_safetensors(folder.path());
    let index = |text: &str| {
        std::fs::write(folder.path().join("model.safetensors.index.json"), text).unwrap();
    };
    refused(open(), "has no model.safetensors");
    std::fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    refused(open(), "convert pytorch_model.bin");
    index("{}");
    refused(open(), "not an index");
    index(r#"{"weight_map": {"x": "a.safetensors"}}"#);
    refused(open(), "has no a.safetensors");
    for bad in ["../a.safetensors", "/etc/passwd", "", "..", "b/a.safetensors"] {
        index(&format!(r#"{{"weight_map": {{"x": "{bad}"}}}}"#));
        refused(open(), "not a plain file name");
    }
    let header = r#"{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#;
    write(&folder, "a.safetensors", header, &[0; 4]);
    write(&folder, "b.safetensors", header, &[0; 4]);
    index(r#"{"weight_map": {"x": "a.safetensors"}}"#);
    assert!(open().is_ok());
    index(r#"{"weight_map": {"x": "a.safetensors", "y": "a.safetensors"}}"#);
    refused(open(), "no tensor `y`");
    index(r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#);
    refused(open(), "in another shard too");
}

#[test]
fn the_hash_is_the_files_and_not_the_places() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("renamed.safetensors");
    std::fs::copy(golden("qwen3/model.safetensors"), &copy).unwrap();
    let original = Weights::open_safetensors(&golden("qwen3")).unwrap().hash();
    assert_eq!(Weights::open_safetensors_file(&copy).unwrap().hash(), original);
    assert_eq!(original.len(), 64);
    assert_ne!(Weights::open_safetensors(&golden("llama3")).unwrap().hash(), original);

    // The last byte of the file is the last of a tensor, and so always in the sample.
    let mut bytes = std::fs::read(&copy).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    assert_ne!(Weights::open_safetensors_file(&copy).unwrap().hash(), original);
}
