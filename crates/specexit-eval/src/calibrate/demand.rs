//! What a promise has to hold, and the exact tests behind it.

use statrs::distribution::{Beta, Binomial, ContinuousCDF, DiscreteCDF, Hypergeometric};

use super::choice::TESTING;
use crate::error::{EvalError, Result};

/// What is to be promised.
///
/// Without a horizon it is about the probability of a loss: what is lost in the long run. With one it is
/// about what the next questions lose themselves, which scatters around that, and takes more care.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// At most this share of the answers that full thinking gets right is lost.
    pub risk: f64,
    /// Probability that the promise may be wrong.
    pub delta: f64,
    /// The promise is about so many further questions.
    pub horizon: Option<usize>,
}

/// A demand on questions of which a known share is answered right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Test {
    demand: Demand,
    /// Right answers among the questions of the horizon.
    ahead: Option<u64>,
}

impl Demand {
    /// Says what is wrong with the numbers, if anything is.
    ///
    /// # Errors
    /// Numbers outside 0 to 1, or a horizon of no question.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [("risk", self.risk), ("delta", self.delta)] {
            if !(value > 0.0 && value < 1.0) {
                return Err(EvalError::Nothing(format!(
                    "{name} is {value}; it must be above 0 and below 1"
                )));
            }
        }
        if self.horizon == Some(0) {
            let problem = "a promise about the next 0 questions says nothing; name at least 1";
            return Err(EvalError::Nothing(problem.to_owned()));
        }
        Ok(())
    }

    /// Questions to be asked for enough right answers in the part that tests, when a share `accuracy` of all
    /// is answered right: with fewer, not even a setting without a loss passes.
    #[must_use]
    pub fn questions_needed(&self, accuracy: f64) -> usize {
        let accuracy = accuracy.max(1e-3);
        (self.test(accuracy).right_needed() as f64 / TESTING / accuracy).ceil() as usize
    }

    /// Its test where a share `accuracy` of the questions is answered right.
    pub(super) fn test(self, accuracy: f64) -> Test {
        let right = |horizon: usize| ((horizon as f64 * accuracy) as u64).max(1);
        Test { demand: self, ahead: self.horizon.map(right) }
    }
}

impl Test {
    /// Whether a setting that loses `lost` of `of` right answers is shown to be safe.
    pub(super) fn passes(&self, lost: usize, of: usize) -> bool {
        self.p_value(lost, of) <= self.demand.delta
    }

    /// The most that at most so many losses among so many would happen by chance if the promise did not hold.
    ///
    /// In the long run: the binomial tail at the risk. For a horizon of `m` right answers: that losses in
    /// both together, just enough for more than a share `risk` of the `m`, fall so unevenly on the two, which
    /// is hypergeometric. For more losses it is less likely, and so it is for fewer, of which too many would
    /// have to fall on the horizon.
    fn p_value(&self, lost: usize, of: usize) -> f64 {
        let Demand { risk, .. } = self.demand;
        let (seen, of) = (lost as u64, of as u64);
        match self.ahead {
            None => Binomial::new(risk, of).map_or(1.0, |binomial| binomial.cdf(seen)),
            Some(ahead) => uneven(seen, of, ahead, (risk * ahead as f64) as u64),
        }
    }

    /// Where the risk, or the share lost of the horizon, ends with probability 1 − δ (in the long run: Clopper
    /// and Pearson 1934).
    pub(super) fn bound(&self, lost: usize, of: usize) -> f64 {
        if lost >= of {
            return 1.0;
        }
        let Demand { delta, .. } = self.demand;
        match self.ahead {
            None => {
                let beta = Beta::new(lost as f64 + 1.0, (of - lost) as f64);
                beta.map_or(1.0, |beta| beta.inverse_cdf(1.0 - delta))
            }
            Some(ahead) => {
                let holds = |&most: &u64| uneven(lost as u64, of as u64, ahead, most) <= delta;
                (0..ahead).find(holds).unwrap_or(ahead) as f64 / ahead as f64
            }
        }
    }

    /// Right answers below which not even a single setting without a loss passes.
    pub(super) fn right_needed(&self) -> usize {
        let mut most = 1;
        while !self.passes(0, most) && most < 1 << 40 {
            most *= 2;
        }
        let (mut few, mut enough) = (most / 2, most);
        while enough - few > 1 {
            let middle = few + (enough - few) / 2;
            if self.passes(0, middle) { enough = middle } else { few = middle }
        }
        enough
    }
}

/// Probability that of `seen + most + 1` losses, spread by chance over `of` and `ahead` questions, only `seen`
/// fall on the first.
fn uneven(seen: u64, of: u64, ahead: u64, most: u64) -> f64 {
    if most >= ahead {
        return 0.0;
    }
    let spread = Hypergeometric::new(of + ahead, (seen + most + 1).min(of + ahead), of);
    spread.map_or(1.0, |spread| spread.cdf(seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(risk: f64, horizon: Option<usize>) -> Test {
        Demand { risk, delta: 0.05, horizon }.test(1.0)
    }

    #[test]
    fn in_the_long_run_by_hand() {
        assert!((test(0.01, None).p_value(0, 299) - 0.99f64.powi(299)).abs() < 1e-12);
        assert!((test(0.5, None).p_value(1, 2) - 0.75).abs() < 1e-12);
        assert_eq!(test(0.01, None).right_needed(), 299);
        // The rule of three, exactly: 1 − 0.05^(1/n).
        let bound = test(0.01, None).bound(0, 100);
        assert!((bound - (1.0 - 0.05f64.powf(0.01))).abs() < 1e-6);
        assert_eq!(test(0.01, None).bound(3, 3), 1.0);
    }

    #[test]
    fn for_a_horizon_by_hand() {
        // 10 ahead and a risk of 25 %: 3 losses would be too many. None of 3 among 10 of 20:
        // (10·9·8) / (20·19·18).
        let t = test(0.25, Some(10));
        assert!((t.p_value(0, 10) - 720.0 / 6840.0).abs() < 1e-12);
        // One of 4 on the first half: C(10,1)·C(10,3) + C(10,4) of C(20,4).
        assert!((t.p_value(1, 10) - (1200.0 + 210.0) / 4845.0).abs() < 1e-12);
        // None seen in 10: 4 of 10 ahead may still be lost (5 fall so with 252 / 15504), 3 are too likely.
        assert!((uneven(0, 10, 10, 3) - 210.0 / 4845.0).abs() < 1e-12);
        assert!((t.bound(0, 10) - 0.3).abs() < 1e-12);
        // Half of them are right.
        let half = Demand { risk: 0.25, delta: 0.05, horizon: Some(20) }.test(0.5);
        assert_eq!(half.p_value(1, 10), t.p_value(1, 10));
    }

    #[test]
    fn a_long_horizon_is_the_long_run() {
        let (near, far) = (test(0.02, None), test(0.02, Some(4_000_000)));
        for lost in [0, 3, 8] {
            let (a, b) = (near.p_value(lost, 700), far.p_value(lost, 700));
            assert!((a - b).abs() < 1e-3, "{lost}: {a} or {b}");
        }
        let short = test(0.02, Some(300));
        assert!(short.p_value(3, 700) > 2.0 * near.p_value(3, 700));
        assert!(short.right_needed() > near.right_needed());
        assert!(short.passes(0, short.right_needed()));
        assert!(!short.passes(0, short.right_needed() - 1));
    }

    #[test]
    fn numbers_that_mean_nothing() {
        let demand = Demand { risk: 0.01, delta: 0.05, horizon: None };
        assert!(demand.validate().is_ok());
        assert_eq!(demand.questions_needed(1.0), 399);
        for bad in [
            Demand { risk: 0.0, ..demand },
            Demand { delta: f64::NAN, ..demand },
            Demand { horizon: Some(0), ..demand },
        ] {
            assert!(bad.validate().is_err());
        }
    }
}
