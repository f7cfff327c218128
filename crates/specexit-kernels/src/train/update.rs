//! What happens to weights and gradients between two passes.

use crate::disjoint::Disjoint;
use crate::kernels::Kernels;

/// Values that one task takes: a fixed number, so that partial sums are the same with any number of
/// threads.
const TASK: usize = if cfg!(miri) { 16 } else { 1 << 15 };

/// One update of AdamW (Loshchilov & Hutter 2019) with its bias corrections worked out.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Learning rate over the correction of the first moment.
    pub rate: f32,
    /// Inverse of the correction of the second moment.
    pub correction: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// What weight decay leaves of a value.
    pub keep: f32,
}

impl Kernels {
    /// Moves `value` along `scale` times `grad`; `m` and `v` are the moments' running means.
    ///
    /// Every instruction set gives the same bits.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn adamw(
        &self,
        value: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        grad: &[f32],
        scale: f32,
        update: AdamW,
    ) {
        let count = value.len();
        let same = m.len() == count && v.len() == count && grad.len() == count;
        assert!(same, "value, moments and gradient differ in length");
        let (value, m, v) = (&Disjoint::new(value), &Disjoint::new(m), &Disjoint::new(v));
        self.pool().claim(count.div_ceil(TASK), |task| {
            let part = task * TASK..count.min((task + 1) * TASK);
            // SAFETY: each task has its own part of each.
            let (value, m, v) =
                unsafe { (value.part(part.clone()), m.part(part.clone()), v.part(part.clone())) };
            let grad = &grad[part];
            dispatch!(
                self.checked_isa(),
                adamw(
                    value: &mut [f32],
                    m: &mut [f32],
                    v: &mut [f32],
                    grad: &[f32],
                    scale: f32,
                    update: AdamW,
                )
            );
        });
    }

    /// The sum of squares in f64, in one order. Every instruction set gives the same bits.
    pub fn sum_of_squares(&self, x: &[f32]) -> f64 {
        let mut sums = vec![0.0; x.len().div_ceil(TASK)];
        let all = &Disjoint::new(&mut sums);
        self.pool().claim(x.len().div_ceil(TASK), |task| {
            let x = &x[task * TASK..x.len().min((task + 1) * TASK)];
            // SAFETY: each task has its own sum.
            let sum = unsafe { all.part(task..task + 1) };
            sum[0] = dispatch!(self.checked_isa(), squares(x: &[f32]) -> f64);
        });
        sums.iter().sum()
    }
}

/// Written lane by lane: the compiler makes vectors of it, and never fuses what would round
/// differently.
#[inline(always)]
fn adamw<S>(
    _: S,
    value: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    grad: &[f32],
    scale: f32,
    u: AdamW,
) {
    for (((value, m), v), g) in value.iter_mut().zip(m).zip(v).zip(grad) {
        let g = g * scale;
        *m = u.beta1 * *m + (1.0 - u.beta1) * g;
        *v = u.beta2 * *v + (1.0 - u.beta2) * g * g;
        *value = *value * u.keep - u.rate * *m / ((*v * u.correction).sqrt() + u.eps);
    }
}

#[inline(always)]
fn squares<S>(_: S, x: &[f32]) -> f64 {
    let (lanes, tail) = x.as_chunks::<16>();
    let mut sums = [0f64; 16];
    for chunk in lanes {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    let tail: f64 = tail.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    sums.iter().sum::<f64>() + tail
}
