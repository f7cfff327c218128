//! Trained tensors as a draft head file.

use std::collections::BTreeMap;

use specexit_exit::TokenId;
use specexit_model::head_file::{HeadConfig, HeadFile, HeadTensor};

use crate::net::draft::DraftShape;
use crate::net::params::Param;
use crate::net::probe::Basis;

/// Folds the training coordinates away and puts the probe's rows below those of `fc`.
///
/// Training reads states divided by their root mean square (`fc`) and in the coordinates of
/// [`Basis`] (probe); both are linear, so the head reads raw states like any EAGLE-3 head.
pub(crate) fn head_file(
    config: HeadConfig,
    shape: &DraftShape,
    params: &[Param],
    probe: &Param,
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
            tensor.data.extend(basis.fold(&probe.value));
            tensor.shape[0] = tensor.data.len() / shape.taps;
        }
        tensors.insert(param.name.clone().into_owned(), tensor);
    }
    let full = vocabulary.len() == config.vocab_size;
    HeadFile { config, tensors, d2t: (!full).then(|| vocabulary.to_vec()) }
}
