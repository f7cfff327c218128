//! Trained tensors as a draft head file.

use std::collections::BTreeMap;

use specexit_exit::TokenId;
use specexit_model::Probe as HeadProbe;
use specexit_model::head_file::{HeadConfig, HeadFile, HeadTensor};

use crate::net::params::Param;
use crate::net::probe::{Basis, Probe, ProbeKind, SIGNALS};

/// Folds the training coordinates away and adds the probe: its rows below those of `fc`, or its layers
/// as tensors of their own.
///
/// Training reads states divided by their root mean square (`fc`): the scale folds into the weights, and
/// the head reads raw states like any EAGLE-3 head.
pub(crate) fn head_file(
    config: HeadConfig,
    params: &[Param],
    probe: &HeadProbe,
    inverse_rms: &[f32],
    vocabulary: &[TokenId],
) -> HeadFile {
    let mut tensors = BTreeMap::new();
    for param in params {
        let mut tensor = HeadTensor { shape: param.shape.clone(), data: param.value.clone() };
        if param.name == "fc.weight" {
            for row in tensor.data.chunks_exact_mut(inverse_rms.len()) {
                row.iter_mut().zip(inverse_rms).for_each(|(w, scale)| *w *= scale);
            }
            if let HeadProbe::Rows(rows) = probe {
                tensor.data.extend(rows);
                tensor.shape[0] += SIGNALS;
            }
        }
        tensors.insert(param.name.clone().into_owned(), tensor);
    }
    for (name, shape, data) in probe.tensors() {
        tensors.insert(name.to_owned(), HeadTensor { shape, data: data.to_vec() });
    }
    let full = vocabulary.len() == config.vocab_size;
    HeadFile { config, tensors, d2t: (!full).then(|| vocabulary.to_vec()) }
}

/// The probe as it runs: on raw states or outputs, without the coordinates of training, in which these are
/// given.
pub(crate) fn folded(probe: &Probe, basis: &Basis) -> HeadProbe {
    match probe.kind() {
        ProbeKind::Fc => HeadProbe::Rows(basis.fold(&probe.params[0].value)),
        ProbeKind::Mlp => {
            let (up, layer) = (&probe.params[0], &probe.params[1]);
            let (down, bias) = without_bias(&layer.value);
            HeadProbe::Mlp { up: basis.fold(&up.value), down, bias }
        }
        ProbeKind::Draft => {
            let (weight, bias) = without_bias(&basis.fold(&probe.params[0].value));
            HeadProbe::Draft { weight, bias }
        }
    }
}

/// Rows `[3, width + 1]` as rows `[3, width]` and their last column.
fn without_bias(rows: &[f32]) -> (Vec<f32>, [f32; SIGNALS]) {
    let width = rows.len() / SIGNALS - 1;
    let (mut weights, mut bias) = (Vec::new(), [0f32; SIGNALS]);
    for (row, bias) in rows.chunks_exact(width + 1).zip(&mut bias) {
        weights.extend_from_slice(&row[..width]);
        *bias = row[width];
    }
    (weights, bias)
}
