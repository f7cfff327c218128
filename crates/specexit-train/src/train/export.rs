//! Trained tensors as a draft head file.

use std::collections::BTreeMap;

use specexit_exit::TokenId;
use specexit_model::Probe as HeadProbe;
use specexit_model::head_file::{HeadConfig, HeadFile, HeadTensor};

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
    let runs = folded(probe, basis);
    let mut tensors = BTreeMap::new();
    for param in params {
        let mut tensor = HeadTensor { shape: param.shape.clone(), data: param.value.clone() };
        if param.name == "fc.weight" {
            for row in tensor.data.chunks_exact_mut(shape.taps) {
                row.iter_mut().zip(&basis.inverse_rms).for_each(|(w, scale)| *w *= scale);
            }
            if let HeadProbe::Rows(rows) = &runs {
                tensor.data.extend(rows);
                tensor.shape[0] += SIGNALS;
            }
        }
        tensors.insert(param.name.clone().into_owned(), tensor);
    }
    for (name, shape, data) in runs.tensors() {
        tensors.insert(name.to_owned(), HeadTensor { shape, data: data.to_vec() });
    }
    let full = vocabulary.len() == config.vocab_size;
    HeadFile { config, tensors, d2t: (!full).then(|| vocabulary.to_vec()) }
}

/// The probe as it runs: on raw states, without the coordinates of training.
pub(crate) fn folded(probe: &Probe, basis: &Basis) -> HeadProbe {
    match probe.kind() {
        ProbeKind::Fc => HeadProbe::Rows(basis.fold(&probe.params[0].value)),
        ProbeKind::Mlp => {
            let (up, layer) = (&probe.params[0], &probe.params[1]);
            let hidden = up.shape[0];
            let (mut down, mut bias) = (Vec::new(), [0f32; SIGNALS]);
            for (row, bias) in layer.value.chunks_exact(hidden + 1).zip(&mut bias) {
                down.extend_from_slice(&row[..hidden]);
                *bias = row[hidden];
            }
            HeadProbe::Mlp { up: basis.fold(&up.value), down, bias }
        }
    }
}
