//! The medians, and what they say beside the floor.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Floor, Shape};
use crate::statistics::median;

/// One shape.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Milliseconds of a forward.
    pub forward_ms: f64,
    /// Tokens per second, of all rows and sequences.
    pub tok_s: f64,
    /// Billions of weight bytes per second, read once in a forward.
    pub weight_gb_s: f64,
    /// The floor's time over the measured: 1 is all that the machine has.
    pub floor_share: f64,
}

/// What was measured of a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Tokens per second of plain decoding, one sequence.
    pub decode_tok_s: f64,
    /// The floor's time over that of plain decoding: 1 is all that the machine has.
    pub floor_share: f64,
    /// Tokens per second of reading a prompt, by its length.
    pub prefill_tok_s: BTreeMap<usize, f64>,
    /// Cost of so many rows in units of one row's, logits of every row included, each repetition compared with
    /// itself.
    pub verify_cost: BTreeMap<usize, f64>,
    /// Every shape.
    pub shapes: BTreeMap<Shape, Rate>,
}

impl Speed {
    /// Medians of the seconds that forwards took in each repetition over `weight_bytes` of weights.
    pub(super) fn new(
        seconds: &BTreeMap<Shape, Vec<f64>>,
        weight_bytes: f64,
        floor: &Floor,
    ) -> Self {
        let rate = |(&shape, times): (&Shape, &Vec<f64>)| {
            let seconds = median(times);
            let rate = Rate {
                forward_ms: 1e3 * seconds,
                tok_s: shape.rows() as f64 / seconds,
                weight_gb_s: weight_bytes / seconds / 1e9,
                floor_share: floor.seconds(shape) / seconds,
            };
            (shape, rate)
        };
        let shapes: BTreeMap<Shape, Rate> = seconds.iter().map(rate).collect();
        let decode = shapes.get(&Shape::Decode);
        let prefill = |(shape, rate): (&Shape, &Rate)| match shape {
            Shape::Prefill(prompt) => Some((*prompt, rate.tok_s)),
            _ => None,
        };
        let one = seconds.get(&Shape::Verify(1)).map_or(&[][..], Vec::as_slice);
        let cost = |(shape, times): (&Shape, &Vec<f64>)| match shape {
            Shape::Verify(rows @ 2..) => Some((*rows, median(&paired(times, one)))),
            _ => None,
        };
        Self {
            decode_tok_s: decode.map_or(f64::NAN, |rate| rate.tok_s),
            floor_share: decode.map_or(f64::NAN, |rate| rate.floor_share),
            prefill_tok_s: shapes.iter().filter_map(prefill).collect(),
            verify_cost: seconds.iter().filter_map(cost).collect(),
            shapes,
        }
    }
}

/// Ratios of the numbers of the same repetition.
pub(crate) fn paired(above: &[f64], below: &[f64]) -> Vec<f64> {
    above.iter().zip(below).map(|(above, below)| above / below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_compared_with_themselves() {
        let seconds = BTreeMap::from([
            (Shape::Decode, vec![0.1, 0.2, 0.4]),
            // The middle repetition was three times as slow for both.
            (Shape::Verify(1), vec![0.1, 0.3, 0.1]),
            (Shape::Verify(8), vec![0.2, 0.6, 0.25]),
            (Shape::Prefill(100), vec![2.0, 2.0, 2.0]),
        ]);
        let speed = Speed::new(&seconds, 1e9, &Floor::for_tests(0.05));
        assert_eq!((speed.decode_tok_s, speed.floor_share), (5.0, 0.25));
        assert_eq!(speed.verify_cost, BTreeMap::from([(8, 2.0)]));
        assert_eq!(speed.prefill_tok_s, BTreeMap::from([(100, 50.0)]));
        let rate = Rate { forward_ms: 250.0, tok_s: 32.0, weight_gb_s: 4.0, floor_share: 0.2 };
        assert_eq!(speed.shapes[&Shape::Verify(8)], rate);
    }
}
