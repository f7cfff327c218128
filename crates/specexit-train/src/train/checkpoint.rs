//! The state of a run on disk, from which it goes on to the last bit.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use specexit_model::head_file::write_atomically;

use crate::error::{Result, TrainError};
use crate::net::params::Param;
use crate::net::probe::SIGNALS;

/// Key of our metadata in the safetensors header.
const METADATA: &str = "specexit";

/// A number that JSON must not round: its bits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub(crate) struct Exact(pub(crate) f64);

impl From<u64> for Exact {
    fn from(bits: u64) -> Self {
        Self(f64::from_bits(bits))
    }
}

impl From<Exact> for u64 {
    fn from(number: Exact) -> Self {
        number.0.to_bits()
    }
}

/// The best held-out loss so far and the step after which it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    pub(crate) loss: Exact,
    pub(crate) step: u64,
}

/// Where a run stands, beside its tensors. The order of data follows from seed and step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunState {
    /// Identity of the run, see `run.json`.
    pub(crate) run: String,
    /// Place in the plan: steps done or left out.
    pub(crate) step: u64,
    /// Steps left out because patience ended.
    pub(crate) left_out: u64,
    /// Smoothed weights of the signal losses; absent before the first step.
    pub(crate) lambda: Option<[Exact; SIGNALS]>,
    /// Best draft layer so far.
    pub(crate) best_draft: Option<Best>,
    /// Best row of the probe so far, signal by signal.
    pub(crate) best_probe: [Option<Best>; SIGNALS],
}

/// Writes tensors and their metadata; the file appears whole or not at all.
fn save<M: Serialize>(
    path: &Path,
    tensors: &[(String, &[usize], &[f32])],
    metadata: &M,
) -> Result<()> {
    let unwritable = |e: &dyn std::fmt::Display| {
        TrainError::bad_file(path, format!("the checkpoint cannot be written: {e}"))
    };
    let metadata = serde_json::to_string(metadata).map_err(|e| unwritable(&e))?;
    let views: std::result::Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, shape, data)| {
            TensorView::new(Dtype::F32, shape.to_vec(), bytemuck::cast_slice(data))
                .map(|view| (name.as_str(), view))
        })
        .collect();
    let header = Some(HashMap::from([(METADATA.to_owned(), metadata)]));
    let bytes = views
        .and_then(|views| safetensors::serialize(views, header))
        .map_err(|e| unwritable(&e))?;
    write_atomically(path, &bytes).map_err(TrainError::io("write", path))
}

/// Tensors of a checkpoint by name.
type Tensors = HashMap<String, Vec<f32>>;

/// Reads a file of [`save`]; `None` when there is none.
fn load<M: DeserializeOwned>(path: &Path) -> Result<Option<(M, Tensors)>> {
    if !path.exists() {
        return Ok(None);
    }
    let broken = |e: &dyn std::fmt::Display| {
        TrainError::bad_file(
            path,
            format!("the checkpoint is broken ({e}); delete it to start over"),
        )
    };
    let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| broken(&e))?;
    let metadata = header.metadata().as_ref().and_then(|m| m.get(METADATA));
    let metadata = metadata.ok_or_else(|| broken(&"it has no metadata of ours"))?;
    let metadata = serde_json::from_str(metadata).map_err(|e| broken(&e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| broken(&e))?;
    let mut tensors = HashMap::new();
    for (name, view) in file.iter() {
        let words = view.data().as_chunks::<4>().0;
        let numbers = words.iter().map(|b| f32::from_le_bytes(*b)).collect();
        tensors.insert(name.to_owned(), numbers);
    }
    Ok(Some((metadata, tensors)))
}

/// Moves a tensor of the file into place.
fn restore(
    path: &Path,
    tensors: &mut HashMap<String, Vec<f32>>,
    name: &str,
    to: &mut Vec<f32>,
) -> Result<()> {
    match tensors.remove(name) {
        Some(found) if found.len() == to.len() => {
            *to = found;
            Ok(())
        }
        _ => Err(TrainError::bad_file(
            path,
            format!(
                "the checkpoint lacks tensor {name} in the right size; delete it to start over"
            ),
        )),
    }
}

/// Saves everything a run needs to go on.
pub(crate) fn save_run<M: Serialize>(path: &Path, params: &[&Param], state: &M) -> Result<()> {
    let mut tensors = Vec::new();
    for p in params {
        tensors.push((p.name.clone().into_owned(), &p.shape[..], &p.value[..]));
        tensors.push((format!("{}.m", p.name), &p.shape[..], &p.m[..]));
        tensors.push((format!("{}.v", p.name), &p.shape[..], &p.v[..]));
    }
    save(path, &tensors, state)
}

/// Loads a run's state into `params`; `None` when there is no checkpoint.
pub(crate) fn load_run<M: DeserializeOwned>(
    path: &Path,
    params: &mut [&mut Param],
) -> Result<Option<M>> {
    let Some((state, mut tensors)) = load(path)? else { return Ok(None) };
    for p in params {
        restore(path, &mut tensors, &p.name, &mut p.value)?;
        restore(path, &mut tensors, &format!("{}.m", p.name), &mut p.m)?;
        restore(path, &mut tensors, &format!("{}.v", p.name), &mut p.v)?;
    }
    Ok(Some(state))
}

/// Refuses the checkpoint of another run than `expected`.
pub(crate) fn same_run(path: &Path, found: String, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(TrainError::Mismatch {
        path: path.to_owned(),
        field: "run".to_owned(),
        found,
        expected: expected.to_owned(),
        advice: "the checkpoint belongs to another run; choose another folder".to_owned(),
    })
}

/// Refuses a number of step `step` that is not finite, and says what the checkpoint `last` keeps.
pub(crate) fn finite(number: f64, what: &str, step: u64, last: &Path) -> Result<()> {
    if number.is_finite() {
        return Ok(());
    }
    let kept = if last.exists() {
        format!("the checkpoint {}", last.display())
    } else {
        "nothing (no checkpoint was due yet)".to_owned()
    };
    Err(TrainError::Diverged { step, what: what.to_owned(), kept })
}

/// Where a training run stands: what names a number that is not finite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    /// Steps done.
    pub(crate) step: u64,
    /// The last checkpoint, if there is one.
    pub(crate) last: &'a Path,
}

impl At<'_> {
    /// Refuses a number of the current step that is not finite.
    pub(crate) fn finite(&self, number: f64, what: &str) -> Result<()> {
        finite(number, what, self.step + 1, self.last)
    }
}

/// Saves values only: a best state.
pub(crate) fn save_values(path: &Path, params: &[&Param], step: u64) -> Result<()> {
    let tensors: Vec<_> =
        params.iter().map(|p| (p.name.clone().into_owned(), &p.shape[..], &p.value[..])).collect();
    save(path, &tensors, &step)
}

/// Loads values only; false when there is no such file.
pub(crate) fn load_values(path: &Path, params: &mut [&mut Param]) -> Result<bool> {
    let Some((_, mut tensors)) = load::<u64>(path)? else { return Ok(false) };
    for p in params {
        restore(path, &mut tensors, &p.name, &mut p.value)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_comes_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.safetensors");
        let mut p = Param::new("a", vec![1, 3], vec![0.1, -0.0, f32::MIN_POSITIVE / 2.0]);
        p.m = vec![1.0, 2.0, 3.0];
        p.v = vec![4.0, 5.0, 6.0];
        let state = RunState {
            run: "r".to_owned(),
            step: 7,
            left_out: 2,
            lambda: Some([Exact(0.1), Exact(f64::MIN_POSITIVE / 3.0), Exact(1e300)]),
            best_draft: Some(Best { loss: Exact(1.0 / 3.0), step: 5 }),
            best_probe: [None; SIGNALS],
        };
        save_run(&path, &[&p], &state).unwrap();
        let mut back = Param::new("a", vec![1, 3], vec![9.0; 3]);
        assert_eq!(load_run(&path, &mut [&mut back]).unwrap(), Some(state));
        assert_eq!(back, p);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = load_run::<RunState>(&path, &mut [&mut back]).unwrap_err().to_string();
        assert!(error.contains("the checkpoint is broken"), "{error}");
        assert_eq!(
            load_run::<RunState>(&folder.path().join("none"), &mut [&mut back]).unwrap(),
            None
        );
    }
}
