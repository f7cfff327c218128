//! Rotary frequencies and how long-context models change them.

use std::f64::consts::PI;

/// A change of the rotary frequencies for contexts longer than the model was first trained on.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as the base gives them.
    #[default]
    None,
    /// All frequencies divided by one factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, those between blended.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context the model was first trained on, in tokens.
        original_max_position_embeddings: usize,
    },
    /// One divisor per frequency, `[head_dim / 2]`: GGUF's `rope_freqs.weight`.
    Factors(Vec<f32>),
}

impl RopeScaling {
    /// The scaled frequencies, `[head_dim / 2]`.
    pub(super) fn inv_freq(&self, theta: f64, head_dim: usize) -> Vec<f32> {
        // In f64 and rounded once: at most one unit in the last place from f32 implementations,
        // which themselves differ from each other by that much.
        let base = |pair: usize| theta.powf(-2.0 * pair as f64 / head_dim as f64);
        let scaled = |pair: usize| match self {
            Self::None => base(pair),
            Self::Linear { factor } => base(pair) / factor,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let original = *original_max_position_embeddings as f64;
                let frequency = base(pair);
                let wavelength = 2.0 * PI / frequency;
                if wavelength < original / high_freq_factor {
                    frequency
                } else if wavelength > original / low_freq_factor {
                    frequency / factor
                } else {
                    let kept = (original / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - kept) * frequency / factor + kept * frequency
                }
            }
            Self::Factors(factors) => {
                base(pair) / f64::from(factors.get(pair).copied().unwrap_or(1.0))
            }
        };
        (0..head_dim / 2).map(|pair| scaled(pair) as f32).collect()
    }

    /// Whether the numbers can be used with heads of that width; the problem as a half-sentence.
    pub(super) fn check(&self, head_dim: usize) -> Result<(), String> {
        let positive = |name: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                Ok(())
            } else {
                Err(format!("has {name} {value}, but it must be a positive number"))
            }
        };
        match self {
            Self::None => Ok(()),
            Self::Linear { factor } => positive("factor", *factor),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                positive("factor", *factor)?;
                positive("low_freq_factor", *low_freq_factor)?;
                positive("high_freq_factor", *high_freq_factor)?;
                positive(
                    "original_max_position_embeddings",
                    *original_max_position_embeddings as f64,
                )?;
                if low_freq_factor < high_freq_factor {
                    Ok(())
                } else {
                    Err(format!(
                        "has low_freq_factor {low_freq_factor}, but it must be below \
                         high_freq_factor {high_freq_factor}"
                    ))
                }
            }
            Self::Factors(factors) if factors.len() != head_dim / 2 => Err(format!(
                "has {} frequency factors, but heads of width {head_dim} need {}",
                factors.len(),
                head_dim / 2
            )),
            Self::Factors(factors) => {
                factors.iter().try_for_each(|factor| positive("factor", f64::from(*factor)))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn plain_frequencies_are_powers_of_the_base() {
        let frequencies = RopeScaling::None.inv_freq(10_000.0, 8);
        assert_eq!(frequencies, [1.0, 0.1, 0.01, 0.001]);
    }

    #[test]
    fn linear_scaling_divides_all() {
        let frequencies = RopeScaling::Linear { factor: 4.0 }.inv_freq(10_000.0, 4);
        assert_eq!(frequencies, [0.25, 0.0025]);
    }

    #[test]
    fn llama3_keeps_high_and_divides_low_frequencies() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let plain = RopeScaling::None.inv_freq(500_000.0, 128);
        let scaled = scaling.inv_freq(500_000.0, 128);
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[63], plain[63] / 8.0);
        // Every blended frequency lies between the two.
        for (plain, scaled) in plain.iter().zip(&scaled) {
            assert!(*scaled <= *plain && *scaled >= plain / 8.0 * 0.999_999);
        }
    }

    #[test]
    fn bad_factors_are_named() {
        let problem = RopeScaling::Factors(vec![1.0; 3]).check(8).unwrap_err();
        assert!(problem.contains("3 frequency factors"), "{problem}");
        assert!(RopeScaling::Linear { factor: 0.0 }.check(8).is_err());
        assert!(RopeScaling::Factors(vec![f32::NAN; 4]).check(8).is_err());
    }
}
