//! Trained tensors as a draft head file.

use std::collections::BTreeMap;

use specexit_exit::TokenId;
use specexit_model::head_file::{HeadConfig, HeadFile, HeadTensor};
use specexit_model::probe::{PROBE_BIAS, PROBE_DOWN, PROBE_UP};

use crate::net::draft::DraftShape;
use crate::net::params::Param;
use crate::net::probe::{Basis, Probe, ProbeKind, SIGNALS};

/// Folds the training coordinates away and adds the probe: its rows below those of `fc`, or its layers
/// as tensors of their own.
///
/// Training reads states divided by their root mean square (`fc`) and in the coordinates of
/// [`Basis`] (probe); both are linear, so the head reads raw states like any EAGLE-3 head.
pub(crate) fn head_file(
    config: HeadConfig,
    shape: &DraftShape,
    params: &[Param],
    probe: &Probe,
    basis: &Basis,
    vocabulary: &[TokenId],
) -> HeadFile {
    let mut tensors = BTreeMap::new();
    for param in params {
        let mut tensor = HeadTensor { shape: param.shape.clone(), data: param.value.clone() };
        if param.name == "fc.weight" {
            for row in tensor.data.chunks_exact_mut(shape.taps) {
                row.iter_mut().zip(&basis.inverse_rms).for_each(|(w, scale)| *w *= scale);
            }
            if probe.kind() == ProbeKind::Fc {
                tensor.data.extend(basis.fold(&probe.params[0].value));
                tensor.shape[0] += SIGNALS;
            }
        }
        tensors.insert(param.name.clone().into_owned(), tensor);
    }
    if probe.kind() == ProbeKind::Mlp {
        tensors.extend(mlp_tensors(probe, basis));
    }
    let full = vocabulary.len() == config.vocab_size;
    HeadFile { config, tensors, d2t: (!full).then(|| vocabulary.to_vec()) }
}

/// The layers of an MLP probe that reads raw states.
fn mlp_tensors(probe: &Probe, basis: &Basis) -> [(String, HeadTensor); 3] {
    let (up, down) = (&probe.params[0], &probe.params[1]);
    let (hidden, width) = (up.shape[0], up.shape[1] - 1);
    let rows = down.value.chunks_exact(hidden + 1);
    let (weights, bias): (Vec<&[f32]>, Vec<f32>) =
        rows.map(|row| (&row[..hidden], row[hidden])).unzip();
    [
        (PROBE_UP, vec![hidden, width], basis.fold(&up.value)),
        (PROBE_DOWN, vec![SIGNALS, hidden], weights.concat()),
        (PROBE_BIAS, vec![SIGNALS], bias),
    ]
    .map(|(name, shape, data)| (name.to_owned(), HeadTensor { shape, data }))
}
